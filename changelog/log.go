package changelog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Slice is the time span that one changelog covers, counted from 1 at Open and
// raised by one at every rollover, empty or not.
type Slice uint32

// Sentinels of Log's errors.
var (
	// ErrGap is a record that was lost: the changelogs since the last sealed
	// one do not tell all. See [Log.Gap].
	ErrGap = errors.New("records were lost")
	// ErrClosed is the use of a Log after Close or TurnOff.
	ErrClosed = errors.New("log is closed")
	// ErrBusy is a second Log on a directory.
	ErrBusy = errors.New("another process records here")
)

// Defaults of Options, GlusterFS's own.
const (
	DefaultRolloverTime  = 15 * time.Second
	DefaultFsyncInterval = 5 * time.Second
)

// Options say where and how a Log records. A zero field means its default.
type Options struct {
	// Dir is the changelogs directory, absolute: BRICK/.glusterfs/changelogs.
	// It is made when missing. Records of the index hold it as it is given.
	Dir string
	// Encoding of new changelogs; default ASCII.
	Encoding Encoding
	// RolloverTime is the length of a slice in Run, at least a second; default 15 s.
	RolloverTime time.Duration
	// FsyncInterval is how often Run syncs the changelog; default 5 s. Negative
	// means that every record is synced as it is written (O_SYNC).
	FsyncInterval time.Duration
	// NewHistory makes Open begin a new HTIME file: changes may have been made
	// that no changelog tells, as after power loss.
	NewHistory bool
	// OnTail is called by Open with each record of the changelog that the last
	// process left unsealed. The Record is valid until it returns.
	OnTail func(*Record)
	// BeforeSeal is called at a rollover before the slice is sealed. Records it
	// appends land in that slice. It may not call Rollover, Break or Close.
	BeforeSeal func(Slice)
	// OnGap is called once when the log enters a gap, by the goroutine whose call
	// failed. It may not call Rollover, Break, Sync or Close.
	OnGap func(error)
	// Logger; nil discards.
	Logger *slog.Logger

	now  func() time.Time            // tests; default time.Now
	step func(op, name string) error // tests: see disk.step
}

func (o *Options) check() error {
	switch {
	case !filepath.IsAbs(o.Dir):
		return fmt.Errorf("directory %q is not absolute", o.Dir)
	case o.Encoding > ASCII:
		return fmt.Errorf("no such encoding: %d", o.Encoding)
	case o.RolloverTime != 0 && o.RolloverTime < time.Second:
		return fmt.Errorf("rollover time %v, want at least 1s", o.RolloverTime)
	}
	o.Dir = filepath.Clean(o.Dir)
	if o.Encoding == 0 {
		o.Encoding = ASCII
	}
	if o.RolloverTime == 0 {
		o.RolloverTime = DefaultRolloverTime
	}
	if o.FsyncInterval == 0 {
		o.FsyncInterval = DefaultFsyncInterval
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.now == nil {
		o.now = time.Now
	}
	return nil
}

// Log appends records to the changelog of a brick and seals it at rollovers. All
// methods may be called at once.
//
// Lock order: rollMu, markMu, mu.
type Log struct {
	opts Options // not changed after Open, but for what mu guards below
	d    *disk   // owned
	log  *slog.Logger

	// rollMu is held by who seals: a rollover, the end of a gap, a sync.
	rollMu sync.Mutex
	index  *index // guarded by rollMu
	last   int64  // the last stamp given out, unix seconds; guarded by rollMu; see setLast

	// markMu keeps writes of the mark apart; mark's file is not replaced.
	markMu sync.Mutex
	mark   gapMark
	// rearm tells Run that SetOptions changed the intervals. Capacity 1.
	rearm chan struct{}

	slice atomic.Uint32 // written under mu
	stamp atomic.Int64  // last, for who does not hold rollMu

	mu  sync.Mutex
	f   *os.File // CHANGELOG; owned; guarded by mu, replaced under rollMu and mu
	fd  int      // of f
	off int64    // where the next record goes; guarded by mu
	// synced is the part of f that is durable; guarded by mu.
	synced int64
	enc    Encoding // of f; guarded by mu
	osync  bool     // f is open with O_SYNC; guarded by mu
	buf    []byte   // the record being written; guarded by mu
	closed bool     // guarded by mu
	gap    *gap     // not nil while records are being lost; guarded by mu
	want   settings // guarded by mu
}

// settings are what SetOptions changes.
type settings struct {
	enc             Encoding
	rollover, fsync time.Duration
}

// Open begins to record. What a process before left is mended first: its
// unsealed changelog is cut behind the last whole record, sealed, and indexed in
// the same HTIME file as before, and so is a sealed changelog that the index
// lacks. A new HTIME file begins when Options.NewHistory asks for it, when the
// last process was in a gap, when recording was turned off (there is no
// CHANGELOG), when the unsealed changelog is damaged before its end, and when
// the directory was moved so that its paths have another length.
//
// The error wraps ErrBusy when another Log has the directory open.
//
// Source: glusterfs changelog-helpers.c, changelog_rollover_changelog and
// htime_open; it differs in indexing what a crash left.
func Open(o Options) (*Log, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("changelog: open: %w", err)
	}
	d, err := openDisk(o.Dir, o.step)
	if err != nil {
		return nil, fmt.Errorf("changelog: open: %w", err)
	}
	l := &Log{
		opts: o, d: d, log: o.Logger,
		rearm: make(chan struct{}, 1),
		buf:   make([]byte, 0, 4<<10),
		want:  settings{enc: o.Encoding, rollover: o.RolloverTime, fsync: o.FsyncInterval},
	}
	l.mark.d = d
	if err := l.recover(); err != nil {
		l.release()
		return nil, fmt.Errorf("changelog: open: %w", err)
	}
	l.slice.Store(1)
	return l, nil
}

// release closes what the Log owns.
func (l *Log) release() {
	if l.f != nil {
		_ = l.f.Close() // synced before, where that matters
	}
	if l.index != nil {
		_ = l.index.close()
	}
	l.mark.close()
	l.d.close()
}

// Append encodes r and adds it to the current changelog with a single write.
// It returns the slice the record landed in, which may be later than the one
// current when Append was called.
//
// Base names of r are at most 255 bytes and are stored as given, without escaping.
// No time is stored: a record's time is that of its sealed changelog, in seconds.
//
// The error wraps ErrGap if the record was lost. The log is then in a gap: Append
// tries again about once a second, and when that works a new HTIME file begins
// and records are kept again. Append is safe for concurrent use; records of calls
// that do not overlap are stored in call order. It does not allocate.
//
// Source: glusterfs changelog-helpers.c, changelog_handle_change.
func (l *Log) Append(r *Record) (Slice, error) {
	l.mu.Lock()
	if l.gap != nil || l.closed {
		if err := l.leaveGapLocked(); err != nil {
			s := l.Slice()
			l.mu.Unlock()
			return s, err
		}
	}
	s := l.Slice()
	l.buf = AppendRecord(l.buf[:0], r, l.enc)
	if err := l.write(l.buf); err != nil {
		err = l.enterGapLocked(err)
		l.mu.Unlock()
		l.tellGap()
		return s, err
	}
	l.mu.Unlock()
	return s, nil
}

// write adds b to the live changelog; the caller holds mu. After an error the
// file ends where it did before, or at worst in a torn record.
func (l *Log) write(b []byte) error {
	var err error
	if l.d.step != nil {
		err = l.d.write(l.f, liveName, b, l.off)
	} else {
		err = pwriteAll(l.fd, b, l.off)
	}
	if err != nil {
		// What was written of the record must not stand before a later one. If
		// this fails too, it is done again before the changelog is sealed.
		_ = unix.Ftruncate(l.fd, l.off)
		return err
	}
	l.off += int64(len(b))
	return nil
}

// Slice is the current slice. It takes no lock.
func (l *Log) Slice() Slice { return Slice(l.slice.Load()) }

// Sync makes all records appended so far durable.
func (l *Log) Sync() error {
	l.rollMu.Lock()
	defer l.rollMu.Unlock()
	return l.sync()
}

// sync is Sync for the holder of rollMu.
func (l *Log) sync() error {
	l.mu.Lock()
	f, off, dirty := l.f, l.off, l.off != l.synced && !l.closed
	l.mu.Unlock()
	if !dirty {
		return nil
	}
	// f stays open: only holders of rollMu close it.
	if err := l.d.sync(f, liveName); err != nil {
		// The kernel may have dropped what it could not write.
		return l.Lost(err)
	}
	l.mu.Lock()
	l.synced = max(l.synced, off)
	l.mu.Unlock()
	return nil
}

// SetOptions changes what Options set at Open; a zero value keeps what is. The
// intervals count from now; the encoding, and O_SYNC, from the next rollover.
func (l *Log) SetOptions(e Encoding, rollover, fsync time.Duration) error {
	o := Options{Dir: l.opts.Dir, Encoding: e, RolloverTime: rollover, FsyncInterval: fsync}
	if err := o.check(); err != nil {
		return fmt.Errorf("changelog: set options: %w", err)
	}
	l.mu.Lock()
	if e != 0 {
		l.want.enc = e
	}
	if rollover != 0 {
		l.want.rollover = rollover
	}
	if fsync != 0 {
		l.want.fsync = fsync
	}
	l.mu.Unlock()
	select {
	case l.rearm <- struct{}{}:
	default: // Run has not looked since the last change: it will see this one
	}
	return nil
}

// Close seals the current changelog, so that its readers need not wait for the
// next Open, and leaves an empty CHANGELOG: recording stays on, and the next Open
// goes on with the same HTIME file. What could not be sealed now is sealed then.
func (l *Log) Close() error {
	err := l.Rollover()
	l.rollMu.Lock()
	defer l.rollMu.Unlock()
	if !l.shut() {
		return fmt.Errorf("changelog: close: %w", ErrClosed)
	}
	defer l.release()
	if l.off == l.synced {
		return err
	}
	return errors.Join(err, l.d.sync(l.f, liveName))
}

// shut makes the Log refuse records; false when it does so already.
func (l *Log) shut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.closed = true
	return true
}

// TurnOff seals the current changelog and leaves no CHANGELOG: recording is off,
// and the next Open begins a new HTIME file. The Log is closed.
func (l *Log) TurnOff() error {
	if err := l.Rollover(); err != nil {
		return err
	}
	l.rollMu.Lock()
	defer l.rollMu.Unlock()
	if !l.shut() {
		return fmt.Errorf("changelog: turn off: %w", ErrClosed)
	}
	defer l.release()
	// Records that slipped in since the rollover are sealed as well.
	if l.off > int64(headerLen) {
		if err := l.sealClosed(); err != nil {
			return fmt.Errorf("changelog: turn off: %w", err)
		}
	}
	err := l.d.unlink(liveName)
	if err == nil {
		err = l.d.syncDir(".")
	}
	if err != nil {
		return fmt.Errorf("changelog: turn off: %w", err)
	}
	return nil
}

// TurnOff ends recording in a directory that no Log has open: what the last
// process left is mended and sealed, and no CHANGELOG is left. It does nothing
// when recording is off already.
func TurnOff(o Options) error {
	if err := o.check(); err != nil {
		return fmt.Errorf("changelog: turn off: %w", err)
	}
	for _, name := range []string{liveName, nextName} {
		_, err := os.Lstat(filepath.Join(o.Dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("changelog: turn off: %w", err)
		}
		l, err := Open(o)
		if err != nil {
			return err
		}
		return l.TurnOff()
	}
	return nil
}
