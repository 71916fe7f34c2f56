package replicator

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/georep/georep/brick"
)

// progress is how far a slave is in step, as kept in xattrs on the root of the
// master brick: with GlusterFS's keys, so that its tools read it, and one of
// ours for a crawl under way.
type progress struct {
	root       int // owned by the brick
	stimeKey   string
	entryKey   string
	crawlKey   string
	cursorKey  string
	openKey    string
	probedKey  string
	stime      brick.Stamp
	entryStime brick.Stamp
	// cursor is the stamp of the last changelog that is done, in seconds; 0 if
	// only stime is known. stime is a second behind it, as GlusterFS has it, so
	// that by stime alone that changelog would be read again.
	cursor int64
}

func openProgress(b *brick.Brick, slaveID uuid.UUID) (*progress, error) {
	p := &progress{
		root:      b.Root(),
		stimeKey:  brick.StimeKey(b.Volume(), slaveID),
		entryKey:  brick.EntryStimeKey(b.Volume(), slaveID),
		crawlKey:  "trusted.georep." + slaveID.String() + ".crawl",
		cursorKey: "trusted.georep." + slaveID.String() + ".cursor",
		openKey:   "trusted.georep." + slaveID.String() + ".open",
		probedKey: "trusted.georep." + slaveID.String() + ".probed",
	}
	var err error
	if p.stime, _, err = p.read(p.stimeKey); err != nil {
		return nil, err
	}
	if p.entryStime, _, err = p.read(p.entryKey); err != nil {
		return nil, err
	}
	cursor, _, err := p.read(p.cursorKey)
	if err != nil {
		return nil, err
	}
	if p.stime == stimeOf(int64(cursor.Sec)) { // else a crawl or GlusterFS moved stime since
		p.cursor = int64(cursor.Sec)
	}
	return p, nil
}

// stampSlack is how much later than its stamp a slice can end, in seconds:
// GlusterFS reads a clock that lags.
const stampSlack = 1

// stimeOf is the stime that says that all up to the changelog with the given
// stamp is done.
func stimeOf(stamp int64) brick.Stamp { return brick.Stamp{Sec: uint32(stamp - stampSlack)} }

// after is the stamp of the changelog after which reading goes on.
func (p *progress) after() int64 { return max(p.cursor, int64(p.stime.Sec)) }

// setCursor notes that the changelog with this stamp is done, if stime says so.
func (p *progress) setCursor(stamp int64) error {
	if stamp <= p.cursor || p.stime != stimeOf(stamp) {
		return nil
	}
	if err := p.write(p.cursorKey, brick.Stamp{Sec: uint32(stamp)}); err != nil {
		return err
	}
	p.cursor = stamp
	return nil
}

func (p *progress) read(key string) (brick.Stamp, bool, error) {
	var buf [8]byte
	n, errno := brick.Getxattr(p.root, "", key, buf[:])
	if errno == syscall.ENODATA {
		return brick.Stamp{}, false, nil
	}
	if errno != 0 {
		return brick.Stamp{}, false, fmt.Errorf("replicator: read %s on the master's root: %w", key, errno)
	}
	s, err := brick.ParseStamp(buf[:n])
	if err != nil {
		return s, false, fmt.Errorf("replicator: %s on the master's root: %w", key, err)
	}
	return s, true, nil
}

func (p *progress) write(key string, s brick.Stamp) error {
	if errno := brick.Setxattr(p.root, "", key, s.Bytes(), 0); errno != 0 {
		return fmt.Errorf("replicator: write %s on the master's root: %w", key, errno)
	}
	return nil
}

// advance raises stime to s. What it covers is durable on the slave. entry is the
// same for names alone, and never behind it.
func (p *progress) advance(s, entry brick.Stamp) error {
	if entry.Compare(s) < 0 {
		entry = s
	}
	if entry.Compare(p.entryStime) > 0 {
		if err := p.write(p.entryKey, entry); err != nil {
			return err
		}
		p.entryStime = entry
	}
	if s.Compare(p.stime) <= 0 {
		return nil
	}
	if err := p.write(p.stimeKey, s); err != nil {
		return err
	}
	p.stime = s
	return nil
}

// crawlBegan is when the crawl that is under way from the present stime began;
// false if none is.
func (p *progress) crawlBegan() (brick.Stamp, bool, error) { return p.read(p.crawlKey) }

func (p *progress) beginCrawl(at brick.Stamp) error { return p.write(p.crawlKey, at) }

func (p *progress) endCrawl() error { return p.remove(p.crawlKey) }

func (p *progress) remove(key string) error {
	errno := brick.Removexattr(p.root, "", key)
	if errno != 0 && !errors.Is(errno, syscall.ENODATA) {
		return fmt.Errorf("replicator: remove %s on the master's root: %w", key, errno)
	}
	return nil
}

// open notes that work on the slave begins. It reports whether earlier work ended
// in the middle: then objects may be left there that have no name.
func (p *progress) open() (torn bool, err error) {
	_, torn, err = p.read(p.openKey)
	if err != nil || torn {
		return torn, err
	}
	return false, p.write(p.openKey, p.stime)
}

// close notes that nothing is in the middle.
func (p *progress) close() error { return p.remove(p.openKey) }

// probed reports whether the slave was once found fit.
func (p *progress) probed() (bool, error) {
	_, ok, err := p.read(p.probedKey)
	return ok, err
}

func (p *progress) setProbed() error { return p.write(p.probedKey, brick.StampOf(time.Now())) }
