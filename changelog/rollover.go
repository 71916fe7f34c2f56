package changelog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Run seals the changelog every rollover interval and syncs it every fsync
// interval, until ctx is done; it returns nil then. A rollover or sync that
// fails is logged and done again the next time. Call it once.
func (l *Log) Run(ctx context.Context) error {
	rollover, fsync := l.intervals()
	rollTimer, syncTimer := time.NewTimer(rollover), time.NewTimer(fsync)
	defer rollTimer.Stop()
	defer syncTimer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.rearm:
			rollover, fsync = l.intervals()
			rollTimer.Reset(rollover)
			syncTimer.Reset(fsync)
		case <-rollTimer.C:
			rollTimer.Reset(rollover)
			l.report("rollover", l.Rollover())
		case <-syncTimer.C:
			syncTimer.Reset(fsync)
			l.report("sync", l.Sync())
		}
	}
}

func (l *Log) report(what string, err error) {
	if err != nil && !errors.Is(err, ErrClosed) {
		l.log.Error("changelog "+what+" failed", "dir", l.opts.Dir, "err", err)
	}
}

// intervals are those of Run now. With O_SYNC there is nothing left to sync, but
// for a changelog opened before the option was set.
func (l *Log) intervals() (rollover, fsync time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rollover, fsync = l.want.rollover, l.want.fsync
	if fsync < 0 {
		fsync = rollover
	}
	return rollover, fsync
}

// Rollover ends the current slice: the changelog becomes
// YYYY/MM/DD/CHANGELOG.<stamp>, UTC, and is listed in HTIME, durably. The stamp is
// the time in seconds, or one more than the last when that is not later. A slice
// without records leaves no file, but a lower-case changelog.<stamp> in HTIME.
//
// Every record whose Append began before Rollover, and those that BeforeSeal
// appends, are in that changelog or an earlier one. After an error the slice may
// go on, or be sealed and not yet indexed; nothing is lost unless it wraps ErrGap.
// In a gap, Rollover tries to end it.
//
// Source: glusterfs changelog-helpers.c, changelog_rollover_changelog.
func (l *Log) Rollover() error {
	l.rollMu.Lock()
	defer l.rollMu.Unlock()
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return fmt.Errorf("changelog: rollover: %w", ErrClosed)
	}
	if l.opts.BeforeSeal != nil {
		l.opts.BeforeSeal(l.Slice())
	}
	if gap := l.enterHealing(); gap != nil {
		return l.heal(gap)
	}
	if err := l.roll(); err != nil {
		return fmt.Errorf("changelog: rollover: %w", err)
	}
	return nil
}

// nextStamp is the stamp for what is sealed now; the caller holds rollMu.
func (l *Log) nextStamp() int64 {
	l.setLast(max(l.opts.now().Unix(), l.last+1))
	return l.last
}

func (l *Log) setLast(stamp int64) {
	l.last = stamp
	l.stamp.Store(stamp)
}

// Stamp is the newest stamp given to a slice or to the start of an HTIME file,
// unix seconds. It may be ahead of the clock: stamps strictly increase, also when
// slices are shorter than a second or the clock is set back. It takes no lock.
//
// What is recorded from now on is later than that, whatever the clock says.
func (l *Log) Stamp() int64 { return l.stamp.Load() }

// successor is the file that becomes CHANGELOG at a rollover.
type successor struct {
	f    *os.File
	enc  Encoding
	sync bool
}

// prepare makes CHANGELOG.new with its header. It is done before the swap so
// that a full disk leaves the current slice going on.
func (l *Log) prepare() (*successor, error) {
	l.mu.Lock()
	want := l.want
	l.mu.Unlock()
	return l.newChangelog(want)
}

func (l *Log) newChangelog(want settings) (*successor, error) {
	if err := l.d.unlink(nextName); err != nil {
		return nil, err
	}
	n := &successor{enc: want.enc, sync: want.fsync < 0}
	flags := 0
	if n.sync {
		flags = unix.O_SYNC
	}
	var err error
	if n.f, err = l.d.create(nextName, flags); err != nil {
		return nil, err
	}
	if err := l.d.write(n.f, nextName, AppendHeader(nil, n.enc), 0); err != nil {
		l.drop(n)
		return nil, err
	}
	return n, nil
}

// drop removes a successor that is not needed. Open removes it when this fails.
func (l *Log) drop(n *successor) {
	_ = n.f.Close()
	_ = l.d.unlink(nextName)
}

// roll ends the slice; the caller holds rollMu.
func (l *Log) roll() error {
	// Before the slice ends: a record lost after that must not be older than the
	// stamp, or the index would vouch for it.
	stamp := l.nextStamp()
	if empty := l.endEmptySlice(); empty {
		return l.list(indexEntry{stamp: stamp, empty: true})
	}
	// Most of the changelog is made durable before the swap, so that its readers
	// wait less after it.
	if err := l.sync(); err != nil {
		return err
	}
	next, err := l.prepare()
	if err != nil {
		return err
	}
	old, e, err := l.swap(next, stamp, false)
	if err != nil {
		return err
	}
	return l.finishSeal(old, e)
}

// endEmptySlice begins the next slice in the same file when it has no record and
// need not change.
func (l *Log) endEmptySlice() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	same := l.enc == l.want.enc && l.osync == (l.want.fsync < 0)
	if l.off != int64(headerLen) || !same || l.gap != nil {
		return false
	}
	l.slice.Add(1)
	return true
}

// swap puts next in the place of CHANGELOG, which is given its sealed name, or
// removed when it has no record. endGap says that records may be appended again
// after it. The caller holds rollMu.
//
// Only the two renames are done under mu: no record may land in the old file
// after it is sealed, and none in the new one before it is CHANGELOG.
func (l *Log) swap(next *successor, stamp int64, endGap bool) (old *os.File, e indexEntry, err error) {
	e.stamp = stamp
	for {
		if err := l.d.mkdirs(dayDir(e.stamp)); err != nil {
			l.drop(next)
			return nil, e, err
		}
		l.mu.Lock()
		e.empty = l.off == int64(headerLen)
		if l.gap != nil && !endGap {
			// An Append failed meanwhile: only heal may seal now.
			err = l.gap.reason
		} else {
			err = l.renameLive(&e)
		}
		if err == nil {
			break
		}
		gap := errors.Is(err, ErrGap) && !endGap
		if gap {
			err = l.enterGapLocked(err)
		}
		l.mu.Unlock()
		if errors.Is(err, fs.ErrExist) {
			// Somebody else's changelog has that name: it is not overwritten.
			e.stamp = l.nextStamp()
			continue
		}
		l.drop(next)
		if gap {
			l.tellGap()
		}
		return nil, e, err
	}
	old = l.f
	l.use(next)
	l.slice.Add(1)
	if endGap {
		l.gap = nil
	}
	l.mu.Unlock()
	return old, e, nil
}

// use makes next the changelog being written; the caller holds mu, or is Open.
func (l *Log) use(next *successor) {
	l.f, l.fd, l.enc, l.osync = next.f, int(next.f.Fd()), next.enc, next.sync
	l.off, l.synced = int64(headerLen), int64(headerLen)
}

// renameLive carries out the renames of swap; the caller holds mu. The error
// wraps ErrGap when CHANGELOG is not there.
func (l *Log) renameLive(e *indexEntry) error {
	if e.empty {
		return l.d.rename(nextName, liveName)
	}
	sealed := sealedName(e.stamp)
	err := l.d.renameNew(liveName, sealed)
	if errors.Is(err, fs.ErrNotExist) {
		if l.gap != nil {
			// Removed by somebody: that is why there is a gap.
			e.empty = true
			return l.d.rename(nextName, liveName)
		}
		return fmt.Errorf("%w: %w", ErrGap, err)
	}
	if err != nil {
		return err
	}
	if err := l.d.renameNew(nextName, liveName); err != nil {
		if back := l.d.renameNew(sealed, liveName); back != nil {
			// The file is sealed and has no successor.
			return fmt.Errorf("%w: %w", ErrGap, errors.Join(err, back))
		}
		return err
	}
	return nil
}

// finishSeal makes a changelog that has its sealed name durable and lists it.
// What is listed is durable; what cannot be made so is a gap. When only the
// listing fails, the next rollover, or Open, does it.
func (l *Log) finishSeal(old *os.File, e indexEntry) error {
	var err error
	if !e.empty {
		if err = l.d.sync(old, sealedName(e.stamp)); err == nil {
			err = l.d.syncDir(dayDir(e.stamp))
		}
	}
	_ = old.Close() // nothing is unwritten after the sync
	if err == nil {
		err = l.d.syncDir(".")
	}
	if err != nil {
		return l.Lost(err)
	}
	return l.list(e)
}

// list adds a sealed slice to the index.
func (l *Log) list(e indexEntry) error { return l.index.add(e) }

// sealClosed seals the changelog of a Log that takes no more records, and puts
// nothing in its place.
func (l *Log) sealClosed() error {
	next, err := l.prepare()
	if err != nil {
		return err
	}
	old, e, err := l.swap(next, l.nextStamp(), false)
	if err != nil {
		return err
	}
	return l.finishSeal(old, e)
}
