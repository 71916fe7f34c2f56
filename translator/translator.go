package translator

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/marker"
)

// Recorder is the changelog as fops need it.
type Recorder interface {
	// Append adds a record and returns the slice it landed in.
	Append(*changelog.Record) (changelog.Slice, error)
	// Slice is the slice current now.
	Slice() changelog.Slice
}

// Backing registers files with the kernel for passthrough.
type Backing interface {
	// Register makes the file behind fd, which may be closed afterwards, known
	// and returns its id.
	Register(fd int) (int32, syscall.Errno)
	Unregister(id int32)
}

// Options of a Translator.
type Options struct {
	Brick *brick.Brick
	// Changelog says how changes are recorded; its Dir, OnTail and BeforeSeal are
	// set here. nil: none are, and a changelog that there is ends.
	Changelog *changelog.Options
	// Marker raises xtimes when true.
	Marker bool
	// MarkerInterval is the longest time to a flush of xtimes. Default 1 s.
	MarkerInterval time.Duration
	// Backing is used for passthrough; nil: reads and writes come to us.
	Backing Backing
	// Invalidate tells the kernel that the attributes of the inode with that
	// number changed without it. nil: nobody is told.
	Invalidate func(id uint64)
	// NoAtime leaves access times on the brick alone.
	NoAtime bool
	// CaptureDelPath adds the path to records of UNLINK and RMDIR.
	CaptureDelPath bool
	// MaxDirs is how many directories are kept open. Default 1,024.
	MaxDirs int
	// Logger; nil discards.
	Logger *slog.Logger

	recorder Recorder // tests: instead of a changelog
}

// Attr is what a fop tells of an inode, as users of the mount see it.
type Attr = unix.Statx_t

// Translator carries out fops on one brick. All methods are safe for concurrent
// use.
type Translator struct {
	opts   Options
	b      *brick.Brick
	log    Recorder       // never nil
	full   *changelog.Log // log, when it is one of ours; owned
	marker *marker.Marker // nil when off
	table  *table
	dirs   *dirCache
	gfids  gfid.Source
	clock  fileClock

	intents  *intents
	writers  *gfidSet // GFIDs open for writing
	orphaned *gfidSet // GFIDs without a name, kept for those who have them open
	xtimeKey string

	lingerers chan *Inode // bounded; what finds no room waits for the next scan
	writing   writingSet
	cold      atomic.Bool // the kernel refused passthrough
	delPaths  atomic.Bool // Options.CaptureDelPath as it is now
	debt      debt
	noRoom    atomic.Bool   // there was an inode without room for an xtime
	aside     chan struct{} // one for each goroutine of setXtimeAside
	reapLost  bool          // Run is to remove handles that a loss of power left
	life      life          // as on the brick; after start, for the goroutine that scans
}

// noLog records nothing. No inode is ever marked as recorded in its slice 0,
// which is the mark of a new one, so it reports every record as made already.
type noLog struct{}

func (noLog) Append(*changelog.Record) (changelog.Slice, error) { return 0, nil }
func (noLog) Slice() changelog.Slice                            { return 0 }

// stateDir is where the mount keeps what must outlive it, below .glusterfs.
const stateDir = "georep"

// Open returns a Translator for the brick, which must be locked, after recording
// what a process before it could not: see recover, and sweep after power loss.
func Open(opts Options) (*Translator, error) {
	if opts.MaxDirs == 0 {
		opts.MaxDirs = 1024
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Invalidate == nil {
		opts.Invalidate = func(uint64) {}
	}
	b := opts.Brick
	if opts.NoAtime {
		if err := b.WithoutAtime(); err != nil {
			return nil, fmt.Errorf("translator: %w", err)
		}
	}
	var st unix.Statx_t
	if errno := brick.Fstatx(b.Root(), &st); errno != 0 {
		return nil, fmt.Errorf("translator: stat of the root: %w", errno)
	}
	t := &Translator{opts: opts, b: b, log: opts.recorder, table: newTable(st.Ino), xtimeKey: brick.XtimeKey(b.Volume())}
	t.dirs = &dirCache{b: b, t: t.table, max: opts.MaxDirs}
	t.writing.open = map[*Inode]struct{}{}
	t.lingerers = make(chan *Inode, maxLingerer)
	t.aside = make(chan struct{}, maxAside)
	t.delPaths.Store(opts.CaptureDelPath)
	if err := t.start(); err != nil {
		return nil, errors.Join(err, t.closeParts())
	}
	return t, nil
}

// start opens the parts of a new Translator and brings the brick up to date.
func (t *Translator) start() error {
	if err := t.clock.probe(t.b); err != nil {
		return fmt.Errorf("translator: %w", err)
	}
	if t.clock.blind && t.opts.Backing != nil {
		t.opts.Logger.Warn("this file system does not show stores to mapped files, so none is passed through to the kernel", "brick", t.b.Path())
		t.cold.Store(true)
	}
	last, err := readLife(t.b)
	if err != nil {
		return err
	}
	left, err := t.openShared(last.lostPower())
	if err != nil {
		return err
	}
	if err := t.findLosses(&last, left.owing); err != nil {
		return err
	}
	if err := t.openMarker(); err != nil {
		return err
	}
	if err := t.retouch(last); err != nil {
		return err
	}
	if err := t.openLog(last); err != nil {
		return err
	}
	// Before anything else is recorded: until this succeeds the brick goes on
	// being one that was not stopped cleanly.
	if err := t.recover(left); err != nil {
		return err
	}
	if last.Pending != 0 && t.full != nil && t.marker != nil {
		flushed, err := t.sweep(last)
		if err != nil {
			return err
		}
		if flushed {
			last.Pending = 0
		}
	}
	t.reapLost = last.lostPower()
	if err := t.beginLife(last); err != nil {
		return err
	}
	t.clearOwing()
	return nil
}

func (t *Translator) openMarker() error {
	if !t.opts.Marker {
		return nil
	}
	floor, err := t.rootXtime()
	if err != nil {
		return err
	}
	// What the unsealed changelog names comes after the last sealed one.
	_, end, err := changelog.ActiveSpan(t.logDir())
	if err != nil {
		return err
	}
	if end := time.Unix(end, 0); end.After(floor) {
		floor = end
	}
	if err := t.b.InitVolumeMark(); err != nil {
		return err
	}
	t.marker = marker.New(t, marker.Options{Interval: t.opts.MarkerInterval, Floor: floor, Now: t.now, Logger: t.opts.Logger})
	return nil
}

// openLog opens the changelog, and touches again what the unsealed one of a dead
// process names: the marks of its last second died with it.
func (t *Translator) openLog(last life) error {
	if t.log != nil {
		return nil
	}
	var o changelog.Options
	if t.opts.Changelog != nil {
		o = *t.opts.Changelog
	}
	o.Dir = t.logDir()
	o.Logger = t.opts.Logger
	o.NewHistory = o.NewHistory || last.Pending != 0
	o.OnTail = func(r *changelog.Record) { t.touchRecord(r) }
	o.BeforeSeal = t.BeforeSeal
	told := o.OnGap
	o.OnGap = func(err error) {
		t.owe()
		if told != nil {
			told(err)
		}
	}
	if t.opts.Changelog == nil {
		t.log = noLog{}
		return changelog.TurnOff(o)
	}
	l, err := changelog.Open(o)
	if err != nil {
		return err
	}
	t.log, t.full = l, l
	return nil
}

// now is the time of a change: not before the slice it is recorded in.
func (t *Translator) now() time.Time {
	now := time.Now()
	if t.full != nil {
		if s := time.Unix(t.full.Stamp(), 0); s.After(now) {
			return s
		}
	}
	return now
}

func (t *Translator) logDir() string { return filepath.Join(t.b.Path(), brick.Dir, "changelogs") }

// touchRecord touches what r is about.
func (t *Translator) touchRecord(r *changelog.Record) {
	t.touch(r.GFID)
	if r.Type == changelog.Entry {
		t.touch(r.Entry.Parent)
		if r.Fop == changelog.FopRename {
			t.touch(r.NewEntry.Parent)
		}
	}
}

// openShared opens the shared memory and returns what was left in it.
func (t *Translator) openShared(lostPower bool) (left leftovers, err error) {
	dir := filepath.Join(t.b.Path(), brick.Dir, stateDir)
	var bad int
	if t.intents, left.intents, bad, err = openIntents(filepath.Join(dir, "intents"), lostPower); err != nil {
		return left, err
	}
	left.owing = t.intents.owing()
	if bad > 0 {
		t.opts.Logger.Warn("a loss of power left intents that can't be read; what they were about is found by ctime", "count", bad)
	}
	if t.writers, left.writers, err = openGFIDSet(filepath.Join(dir, "writers")); err != nil {
		return left, err
	}
	t.orphaned, left.orphans, err = openGFIDSet(filepath.Join(dir, "nameless"))
	return left, err
}

// closeParts closes what start opened.
func (t *Translator) closeParts() error {
	var errs []error
	if t.full != nil {
		errs = append(errs, t.full.Close())
	}
	if t.marker != nil {
		errs = append(errs, t.marker.Flush())
	}
	t.forgetAll()
	t.dirs.closeAll()
	if t.intents != nil {
		errs = append(errs, t.intents.close())
	}
	if t.writers != nil {
		errs = append(errs, t.writers.close())
	}
	if t.orphaned != nil {
		errs = append(errs, t.orphaned.close())
	}
	return errors.Join(errs...)
}

// Ending tells who waits for the brick that Close is about to be called.
func (t *Translator) Ending() error { return t.b.Ending() }

// Close seals the changelog, flushes xtimes and gives up all state; no fop may be
// running. Who still writes past us stays in the set of writers for the next
// Open; files without names are removed.
func (t *Translator) Close() error {
	// Those who were let go since are no writers for the next Open.
	t.scan()
	gap := t.full != nil && t.full.Gap() != nil
	if err := t.closeParts(); err != nil || gap || t.debt.owed.Load() {
		return err // the next Open looks closely
	}
	return endLife(t.b)
}

// Log is the changelog, nil when none is kept.
func (t *Translator) Log() *changelog.Log { return t.full }

// Root is the inode of the brick's root.
func (t *Translator) Root() *Inode { return t.table.root }

// Find returns the inode with the number id, nil when the kernel was never told
// of it or has forgotten it.
func (t *Translator) Find(id uint64) *Inode {
	if id == rootID {
		return t.table.root
	}
	return t.table.find(id)
}

// Marker is the xtime marker, nil when it is off.
func (t *Translator) Marker() *marker.Marker { return t.marker }

// SetCaptureDelPath changes Options.CaptureDelPath while serving.
func (t *Translator) SetCaptureDelPath(on bool) {
	t.delPaths.Store(on)
}

// act carries out one change: intent, act, record, touch. r is what to record;
// act does it and returns its errno; then runs after the record is written and
// before the intent ends. touched are the GFIDs whose xtime moves.
//
// A fop whose record can't be written succeeds all the same: the log tells of
// the gap itself, and once.
func (t *Translator) act(r *changelog.Record, act func() syscall.Errno, touched ...gfid.GFID) syscall.Errno {
	slot, errno := t.intents.begin(r)
	if errno != 0 {
		return errno
	}
	if errno = act(); errno == 0 {
		t.record(r)
		t.touch(touched...)
	}
	t.intents.end(slot)
	return errno
}

// actTwice is act for a change with more than one record, or with one that is
// only for the intent: the first n of rs are recorded.
func (t *Translator) actTwice(rs []*changelog.Record, n int, act func() syscall.Errno, touched ...gfid.GFID) syscall.Errno {
	slot, errno := t.intents.begin(rs...)
	if errno != 0 {
		return errno
	}
	if errno = act(); errno == 0 {
		for _, r := range rs[:n] {
			t.record(r)
		}
		t.touch(touched...)
	}
	t.intents.end(slot)
	return errno
}

func (t *Translator) record(r *changelog.Record) changelog.Slice {
	s, err := t.log.Append(r)
	if err != nil {
		return 0 // the log is in a gap and has said so; 0 is no slice, so no mark is set
	}
	return s
}

// recordOnce records D or M for in unless the slice has one of that class.
func (t *Translator) recordOnce(in *Inode, class int, r *changelog.Record) {
	// After the act: a check made before it could miss a rollover in between.
	if in.isRecorded(class, t.log.Slice()) {
		return
	}
	if s := t.record(r); s != 0 {
		in.recorded[class].Store(uint32(s))
	}
}

// recordData records that in's contents changed, and touches it.
func (t *Translator) recordData(in *Inode) {
	t.recordOnce(in, classData, &changelog.Record{Type: changelog.Data, GFID: in.gfid})
	t.touch(in.gfid)
}

// actOnce is act for records that are de-duplicated.
func (t *Translator) actOnce(in *Inode, class int, r *changelog.Record, act func() syscall.Errno) syscall.Errno {
	slot, errno := t.intents.begin(r)
	if errno != 0 {
		return errno
	}
	if errno = act(); errno == 0 {
		t.recordOnce(in, class, r)
		t.touch(in.gfid)
	}
	t.intents.end(slot)
	return errno
}

func (t *Translator) touch(gs ...gfid.GFID) {
	if t.marker != nil {
		t.marker.Touch(gs...)
	}
}

// delPath is the path of name in parent for the record of its removal, "" when
// it is not captured or not known.
func (t *Translator) delPath(parent *Inode, name string) string {
	if !t.delPaths.Load() {
		return ""
	}
	names, ok := t.table.path(parent)
	if !ok {
		return ""
	}
	return strings.Join(append(names, name), "/")
}
