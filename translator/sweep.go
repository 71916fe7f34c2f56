package translator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// sweepMargin is how far before the last moment that is known to be recorded a
// sweep begins: that is in seconds, and the clock of the file system may lag.
const sweepMargin = 10 * time.Second

// lostWindow is for how long a file system may keep a change to itself: the
// kernel writes what is dirty after half a minute, and a busy disk takes longer.
const lostWindow = 10 * time.Minute

// findLosses decides since when changes may be neither recorded nor touched, and
// notes it durably before the brick is changed so that it no longer shows.
func (t *Translator) findLosses(last *life, owing int64) error {
	was := last.Pending
	if last.lostPower() {
		at, err := t.recordedUntil()
		if err != nil {
			return err
		}
		last.pendSince(max(at, last.Began))
		if last.Turned != 0 {
			last.pendSince(last.Turned)
		}
	}
	if last.Boot != "" && !last.Clean {
		if owing != 0 {
			last.pendSince(owing)
		}
		if last.Unrecorded {
			last.pendSince(last.Began) // the marks of its last second died with it
		}
	}
	if last.Pending == was {
		return nil
	}
	return writeLife(t.b, *last)
}

// sweep touches everything that changed since last.Pending: after a loss of power
// the file system may have kept changes whose records it lost, and a full disk
// may have taken neither record nor xtime. Readers of the changelog see the new
// HTIME file, and crawl by xtime, which then leads them to all of it.
//
// What the changelogs of the last minutes name is touched too: of that the file
// system may have lost the change, and not the record. On a full disk xtimes may
// have to wait: then it is not flushed, and the brick can be served all the same.
func (t *Translator) sweep(last life) (flushed bool, err error) {
	since := time.Unix(last.Pending, 0).Add(-sweepMargin)
	t.opts.Logger.Warn("changes may be unrecorded since the brick was not stopped cleanly, looking for them by ctime", "since", since.UTC())
	if err := t.touchRecorded(since.Add(-lostWindow).Unix()); err != nil {
		return false, err
	}
	s := sweeper{t: t, since: since.UnixNano()}
	if errno := s.dir(t.b.Root(), gfid.Root); errno != 0 {
		return false, fmt.Errorf("translator: sweep %q: %w", t.b.Path(), errno)
	}
	t.opts.Logger.Info("sweep done", "seen", s.seen, "touched", s.touched)
	if t.marker.Flush() != nil {
		return false, nil // it was logged, and is tried again each second
	}
	// Or the next loss of power undoes it, and the next sweep begins later.
	if err := unix.Syncfs(t.b.Root()); err != nil {
		return false, fmt.Errorf("translator: syncfs %q: %w", t.b.Path(), err)
	}
	return true, nil
}

// recordedUntil is a moment up to which all changes are in changelogs that a loss
// of power did not harm, 0 if none is known. A slice is synced before it is in the
// index, and has all that was seen to change before it began to be sealed, which
// is after the end of the one before it: the last record in that is the moment.
//
// It is by the clock of the file system, as the times it is compared with: stamps
// may be ahead of any clock. It is read before the log is opened, which seals what
// the last process left.
func (t *Translator) recordedUntil() (at int64, err error) {
	h, err := changelog.OpenHistory(t.logDir())
	if err != nil || len(h.Spans()) == 0 {
		return 0, err
	}
	sealed, err := h.Slices(len(h.Spans()) - 1)
	if err != nil {
		return 0, err
	}
	var older, newest changelog.Sealed
	for s := range sealed {
		if s.Indexed && !s.Empty {
			older, newest = newest, s
		}
	}
	if older.Path == "" {
		return 0, nil
	}
	st, err := os.Stat(older.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // removed to make room
	}
	if err != nil {
		return 0, fmt.Errorf("translator: %w", err)
	}
	return st.ModTime().Unix(), nil
}

// touchRecorded touches what the changelogs sealed since a moment name.
func (t *Translator) touchRecorded(since int64) error {
	h, err := changelog.OpenHistory(t.logDir())
	if err != nil {
		return err
	}
	for i := range h.Spans() {
		sealed, err := h.Slices(i)
		if err != nil {
			return err
		}
		for s := range sealed {
			if s.Stamp >= since && !s.Empty {
				if err := t.touchSlice(s); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// touchSlice touches what one changelog names. One that is damaged, or was
// removed to make room, tells what it can.
func (t *Translator) touchSlice(s changelog.Sealed) error {
	err := changelog.ParseFile(s.Path, func(r *changelog.Record) error { t.touchRecord(r); return nil })
	var bad *changelog.ParseError
	if errors.As(err, &bad) || errors.Is(err, fs.ErrNotExist) {
		t.opts.Logger.Warn("changelog not read to its end", "err", err)
		return nil
	}
	return err
}

// retouch touches what the last sealed changelog of a dead process names: its
// last records came after the flush of xtimes that went before the seal.
func (t *Translator) retouch(last life) error {
	if t.marker == nil || last.Boot == "" || last.Clean {
		return nil
	}
	h, err := changelog.OpenHistory(t.logDir())
	if err != nil || len(h.Spans()) == 0 {
		return err
	}
	sealed, err := h.Slices(len(h.Spans()) - 1)
	if err != nil {
		return err
	}
	var newest changelog.Sealed
	for s := range sealed {
		if !s.Empty {
			newest = s
		}
	}
	if newest.Path == "" {
		return nil
	}
	return t.touchSlice(newest)
}

// sweeper walks the whole brick.
type sweeper struct {
	t             *Translator
	since         int64 // ns
	seen, touched int
}

// dir visits what is in the directory g behind fd, and then g itself.
func (s *sweeper) dir(fd int, g gfid.GFID) syscall.Errno {
	own, errno := brick.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		return errno
	}
	defer brick.Close(own)
	buf := make([]byte, direntBuffer)
	for {
		n, err := unix.Getdents(own, buf)
		if err != nil {
			return errnoOf(err)
		}
		if n == 0 {
			break
		}
		for rest := buf[:n]; len(rest) > 0; {
			var e Dirent
			rest = rest[e.parse(rest):]
			name := string(e.Name)
			if name == "." || name == ".." || g == gfid.Root && name == brick.Dir {
				continue
			}
			if errno := s.entry(own, g, name); errno != 0 && errno != syscall.ENOENT {
				return errno
			}
		}
	}
	var st Attr
	if errno := brick.Fstatx(own, &st); errno != 0 {
		return errno
	}
	s.visit(g, &st)
	return 0
}

func (s *sweeper) entry(dirfd int, parent gfid.GFID, name string) syscall.Errno {
	var st Attr
	if errno := brick.Statx(dirfd, name, &st); errno != 0 {
		return errno
	}
	g, _, errno := s.t.b.Identify(dirfd, name, parent, &st, &s.t.gfids)
	if errno != 0 {
		return errno
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if s.visit(g, &st) {
			s.t.healPaths(dirfd, changelog.Name{Parent: parent, Base: name}, g)
		}
		return 0
	}
	fd, errno := brick.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		return errno
	}
	defer brick.Close(fd)
	return s.dir(fd, g)
}

// visit touches g if it changed, and says so.
func (s *sweeper) visit(g gfid.GFID, st *Attr) bool {
	s.seen++
	if nanos(st.Ctime) < s.since && nanos(st.Mtime) < s.since {
		return false
	}
	s.touched++
	s.t.touch(g)
	return true
}

// healPaths makes the gfid2paths of the non-directory g true, of which one is
// that of the name n in the directory behind dirfd: what a rename or an unlink
// changes in two steps may have lost one of them.
func (t *Translator) healPaths(dirfd int, n changelog.Name, g gfid.GFID) {
	if errno := t.addPath(dirfd, n); errno != 0 {
		t.opts.Logger.Warn("gfid2path not added; georep brick check finds it", "gfid", g, "name", n.Base, "err", errno)
	}
	t.names(g, func(parent gfid.GFID, base string) bool {
		at := changelog.Name{Parent: parent, Base: base}
		if o, _, errno := t.isNamed(at, g); errno == 0 && o == undone {
			t.dropName(g, at)
		}
		return true
	})
}
