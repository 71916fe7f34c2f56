package changelog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// followPoll is how often a Follower looks for more.
const followPoll = 100 * time.Millisecond

// EventKind says what a Follower found.
type EventKind uint8

// The kinds of events.
const (
	// Recorded is one more record. It may still be lost to power loss.
	Recorded EventKind = iota + 1
	// SliceSealed is the end of a slice, durable and in the index: the records
	// since the last such event are all it has, and there are none for an empty one.
	SliceSealed
	// GapFound says that changes went unrecorded since the last SliceSealed: the
	// brick must be compared as a whole.
	GapFound
)

// Event is what a Follower found.
type Event struct {
	Kind EventKind
	// Record is that of Recorded, valid until the next call; a copy of it stays good.
	Record *Record
	// Stamp is that of the slice of SliceSealed, unix seconds; of GapFound, where
	// recording began again.
	Stamp int64
	// Damage, of SliceSealed, says that the changelog holds more that could not be
	// read: a *ParseError. If it wraps ErrTorn nothing acknowledged is missing.
	Damage error
}

// Follower reads the changes of a brick as they are written, from the growing
// CHANGELOG, across rollovers, and tells when each slice is sealed. It is for one
// goroutine. It works on the brick of a GlusterFS as well.
type Follower struct {
	dir   string
	index indexCursor
	ended []Sealed // read from the index and not told yet, in order
	file  *followed
	// tell is what comes before anything more is read.
	tell []Event
	rec  Record
}

// followed is the changelog being read.
type followed struct {
	f     *os.File // owned
	stamp int64    // of its sealed name; 0 while it is CHANGELOG
	done  bool     // the index lists it
	ver   Version
	enc   Encoding
	off   int64 // of the next record; 0 before the header is read
	// buf[start:] is read and not decoded, and begins at off.
	buf    []byte
	start  int
	damage error // why the rest cannot be read
}

// NewFollower follows the changelogs directory dir from the first slice that is
// sealed later than after, or not sealed yet. 0 is the first there is in the index.
func NewFollower(dir string, after int64) (*Follower, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("changelog: follow: %w", err)
	}
	f := &Follower{dir: dir, index: indexCursor{dir: dir, stamp: after}}
	if after > 0 {
		var err error
		if f.index.span, err = spanOf(dir, after); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Close gives up the file being read.
func (f *Follower) Close() error {
	f.leave()
	return nil
}

func (f *Follower) leave() {
	if f.file != nil {
		_ = f.file.f.Close() // only read
		f.file = nil
	}
}

// Next returns the next event, and waits for it until ctx is done. A record is
// there about 100 ms after it was written, a sealed slice when it is indexed.
func (f *Follower) Next(ctx context.Context) (Event, error) {
	for {
		ev, ok, err := f.Poll()
		if ok || err != nil {
			return ev, err
		}
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-time.After(followPoll):
		}
	}
}

// Poll returns the next event if there is one now.
func (f *Follower) Poll() (ev Event, ok bool, err error) {
	for {
		if len(f.tell) > 0 {
			ev, f.tell = f.tell[0], f.tell[1:]
			return ev, true, nil
		}
		if f.file == nil {
			if ok, err := f.openNext(); !ok {
				return Event{}, false, err
			}
			continue
		}
		switch ok, err := f.file.next(&f.rec); {
		case err != nil:
			return Event{}, false, fmt.Errorf("changelog: follow: %w", err)
		case ok:
			return Event{Kind: Recorded, Record: &f.rec}, true, nil
		}
		if more, err := f.atEnd(); !more || err != nil {
			return Event{}, false, err
		}
	}
}

// openNext opens what comes next: a slice that the index lists, one that is
// sealed and not listed yet, or CHANGELOG. It reports whether there is something
// to tell or to read.
func (f *Follower) openNext() (ok bool, err error) {
	// Before looking for sealed ones: whatever is sealed after that was live then.
	live, err := os.Open(filepath.Join(f.dir, liveName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("changelog: follow: %w", err)
	}
	ok, err = f.openEnded()
	if err == nil && !ok && live != nil {
		f.file = &followed{f: live}
		return true, nil
	}
	if live != nil {
		_ = live.Close() // only opened
	}
	return ok, err
}

// openEnded opens the next slice that has ended.
func (f *Follower) openEnded() (ok bool, err error) {
	if err := f.readIndex(); err != nil {
		return false, err
	}
	if len(f.tell) > 0 {
		return true, nil
	}
	if len(f.ended) > 0 {
		s := f.ended[0]
		f.ended = f.ended[1:]
		if s.Empty {
			f.tell = append(f.tell, Event{Kind: SliceSealed, Stamp: s.Stamp})
			return true, nil
		}
		file, err := os.Open(s.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f.tell = append(f.tell, Event{Kind: GapFound, Stamp: s.Stamp})
		case err != nil:
			return false, fmt.Errorf("changelog: follow: %w", err)
		default:
			f.file = &followed{f: file, stamp: s.Stamp, done: true}
		}
		return true, nil
	}
	// Older ones are part of a gap, or of what was asked to be passed over.
	stamps, err := sealedSince(f.dir, max(f.index.stamp, f.index.span))
	if err != nil || len(stamps) == 0 {
		return false, err
	}
	file, err := os.Open(filepath.Join(f.dir, sealedName(stamps[0])))
	if err != nil {
		return false, fmt.Errorf("changelog: follow: %w", err)
	}
	f.file = &followed{f: file, stamp: stamps[0]}
	return true, nil
}

// readIndex reads on in the index when all it told before is dealt with.
func (f *Follower) readIndex() error {
	if len(f.ended) > 0 {
		return nil
	}
	ended, gap, err := f.index.more()
	if err != nil {
		return err
	}
	f.ended = ended
	if gap != nil {
		f.tell = append(f.tell, Event{Kind: GapFound, Stamp: gap.To})
	}
	return nil
}

// atEnd is called when the open changelog holds no more for now. It reports
// whether there is something to tell or to read at once.
func (f *Follower) atEnd() (more bool, err error) {
	switch {
	case f.file.done:
		f.tell = append(f.tell, Event{Kind: SliceSealed, Stamp: f.file.stamp, Damage: f.file.atSealedEnd()})
		f.leave()
		return true, nil
	case f.file.stamp != 0:
		return f.waitForIndex()
	}
	now, err := os.Stat(filepath.Join(f.dir, liveName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("changelog: follow: %w", err)
	}
	mine, statErr := f.file.f.Stat()
	if statErr != nil {
		return false, fmt.Errorf("changelog: follow: %w", statErr)
	}
	if err == nil && os.SameFile(now, mine) {
		return f.emptySlice()
	}
	// No record was added after the rename; those added before it are read now,
	// under the sealed name. It has none when it was removed: it was empty.
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.file.f.Fd()))
	if err != nil {
		return false, fmt.Errorf("changelog: follow: %w", err)
	}
	stamp, empty, ok := parseSealedBase(filepath.Base(strings.TrimSuffix(path, " (deleted)")))
	if !ok || empty {
		f.leave()
		return true, nil
	}
	f.file.stamp = stamp
	return true, nil
}

// waitForIndex sees how a changelog that is sealed stands in the index.
func (f *Follower) waitForIndex() (more bool, err error) {
	if err := f.readIndex(); err != nil {
		return false, err
	}
	switch {
	case len(f.tell) > 0:
		if f.file.stamp < f.index.span {
			f.leave() // its span ended without it
		}
	case len(f.ended) == 0:
		return false, nil // not listed yet
	case f.ended[0].Stamp == f.file.stamp:
		f.ended = f.ended[1:]
		f.file.done = true
	case f.ended[0].Empty && f.ended[0].Stamp < f.file.stamp:
		f.tell = append(f.tell, Event{Kind: SliceSealed, Stamp: f.ended[0].Stamp})
		f.ended = f.ended[1:]
	default:
		// Another one comes first; this one again in its turn.
		f.leave()
	}
	return true, nil
}

// emptySlice tells of slices that ended without a record: CHANGELOG goes on.
func (f *Follower) emptySlice() (more bool, err error) {
	if f.file.off > int64(headerLen) {
		return false, nil
	}
	if err := f.readIndex(); err != nil {
		return false, err
	}
	for len(f.ended) > 0 && f.ended[0].Empty {
		f.tell = append(f.tell, Event{Kind: SliceSealed, Stamp: f.ended[0].Stamp})
		f.ended = f.ended[1:]
	}
	if len(f.ended) > 0 {
		f.leave() // it was sealed meanwhile
	}
	return len(f.tell) > 0 || len(f.ended) > 0, nil
}

// next decodes the next record into r; false when there is no whole one now.
// What was read of a record that is not whole is read again: it may be cut off
// and another one written in its place.
func (t *followed) next(r *Record) (ok bool, err error) {
	for t.damage == nil {
		n, err := t.decode(r)
		if err == nil {
			t.start += n
			t.off += int64(n)
			if r.Type != 0 {
				return true, nil
			}
			continue // that was the header
		}
		more, readErr := t.read(!errors.Is(err, errShort))
		if readErr != nil {
			return false, readErr
		}
		if !more {
			t.damage = t.parseError(err)
			break
		}
	}
	// A live file is tried again from here the next time.
	if t.stamp == 0 {
		t.damage = nil
		t.buf, t.start = t.buf[:0], 0
	}
	return false, nil
}

// decode decodes the header, leaving r without a type, or a record.
func (t *followed) decode(r *Record) (n int, err error) {
	*r = Record{}
	if t.off == 0 {
		t.ver, t.enc, err = parseHeader(t.buf[t.start:])
		return headerLen, err
	}
	if t.start == len(t.buf) {
		return 0, errShort
	}
	return decodeRecord(t.buf[t.start:], r, t.ver, t.enc)
}

// read reads on behind buf; false at the end of the file, or when what is there
// is bad or too long to be a record.
func (t *followed) read(bad bool) (bool, error) {
	if bad || len(t.buf)-t.start > maxRecord {
		return false, nil
	}
	t.buf = append(t.buf[:0], t.buf[t.start:]...)
	t.start = 0
	have := len(t.buf)
	t.buf = slices.Grow(t.buf, readAhead)
	n, err := t.f.ReadAt(t.buf[have:have+readAhead], t.off+int64(have))
	t.buf = t.buf[:have+n]
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return n > 0, nil
}

// parseError is what a Reader would say of the same bytes.
func (t *followed) parseError(cause error) error {
	e := &ParseError{File: t.f.Name(), Offset: t.off, Reason: cause.Error(), Err: ErrCorrupt}
	if errors.Is(cause, errShort) {
		e.Reason, e.Err = fmt.Sprintf("%v after %d bytes of it", ErrTorn, len(t.buf)-t.start), ErrTorn
	}
	return e
}

// atSealedEnd is nil when a sealed file was read to its end.
func (t *followed) atSealedEnd() error {
	if len(t.buf) == t.start && errors.Is(t.damage, ErrTorn) && t.off > 0 {
		return nil
	}
	return t.damage
}
