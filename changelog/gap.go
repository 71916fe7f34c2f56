package changelog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// gapName is the file that says whether records are being lost. It is made at
// Open and overwritten in place, because that needs no space on a full disk.
const (
	gapName = "gap"
	gapLen  = 512
	noGap   = "none"
)

// retryGap is how long a log in a gap waits before it tries to record again.
const retryGap = time.Second

// gap is a time in which records are lost.
type gap struct {
	reason error // wraps ErrGap
	told   bool  // OnGap was called, the mark was written; guarded by Log.mu
	// tried is when recording was last tried; guarded by Log.mu.
	tried time.Time
	// healing is not nil while a holder of rollMu tries to end the gap, and closed
	// when it is done: no record may be lost between the stamp of the new HTIME
	// and the end of the gap, so Appends wait. Guarded by Log.mu.
	healing chan struct{}
}

// Gap is nil, or says why records are being lost. Then it wraps ErrGap, and the
// file gap in the changelogs directory says the same. It is nil again when the
// gap is over, which readers see by a new HTIME file.
func (l *Log) Gap() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gap == nil {
		return nil
	}
	return l.gap.reason
}

// Lost declares that changes went unrecorded, and returns the gap's error. The
// log records again when Rollover or an Append has begun a new HTIME file.
func (l *Log) Lost(reason error) error {
	l.mu.Lock()
	err := l.enterGapLocked(reason)
	l.mu.Unlock()
	l.tellGap()
	return err
}

// Break declares that changes went unrecorded until now, and begins a new HTIME
// file at once. When that fails the log is in a gap, and the error wraps ErrGap.
func (l *Log) Break(reason error) error {
	l.rollMu.Lock()
	defer l.rollMu.Unlock()
	_ = l.Lost(reason) // the gap's error, which the next lines end
	if g := l.enterHealing(); g != nil {
		return l.heal(g)
	}
	return nil
}

// enterGapLocked begins a gap, unless there is one, and returns its error.
func (l *Log) enterGapLocked(reason error) error {
	if l.gap == nil {
		if !errors.Is(reason, ErrGap) {
			reason = fmt.Errorf("changelog: %w: %w", ErrGap, reason)
		}
		l.gap = &gap{reason: reason, tried: l.opts.now()}
	}
	return l.gap.reason
}

// tellGap writes the mark and calls OnGap, once in each gap.
func (l *Log) tellGap() {
	l.mu.Lock()
	g := l.gap
	if g == nil || g.told {
		l.mu.Unlock()
		return
	}
	g.told = true
	l.mu.Unlock()
	if err := l.writeMark(); err != nil {
		l.log.Error("gap mark not written", "dir", l.opts.Dir, "err", err)
	}
	l.log.Error("records are being lost", "dir", l.opts.Dir, "err", g.reason)
	if l.opts.OnGap != nil {
		l.opts.OnGap(g.reason)
	}
}

// writeMark brings the mark in line with the Log. A gap may begin while the last
// one is being ended: whoever writes last sees what is so.
func (l *Log) writeMark() error {
	l.markMu.Lock()
	defer l.markMu.Unlock()
	l.mu.Lock()
	g := l.gap
	l.mu.Unlock()
	if g == nil {
		return l.mark.clear()
	}
	return l.mark.set(l.opts.now(), g.reason)
}

// leaveGapLocked is the way of an Append that finds the log in a gap or closed:
// nil when it may record after all. It gives up mu meanwhile and takes it again.
//
// It never waits for rollMu: who holds that may be in BeforeSeal, and wait for us.
func (l *Log) leaveGapLocked() error {
	for l.gap != nil && !l.closed {
		g := l.gap
		if ch := g.healing; ch != nil {
			l.mu.Unlock()
			<-ch
			l.mu.Lock()
			if l.gap == g && g.healing == nil {
				return g.reason
			}
			continue
		}
		if l.opts.now().Sub(g.tried) < retryGap {
			return g.reason
		}
		l.mu.Unlock()
		if !l.rollMu.TryLock() {
			l.mu.Lock()
			if l.gap == g && g.healing == nil {
				return g.reason
			}
			continue
		}
		var err error
		if g := l.enterHealing(); g != nil {
			err = l.heal(g)
		}
		l.rollMu.Unlock()
		l.mu.Lock()
		if l.gap != nil && l.gap == g {
			return errors.Join(g.reason, err)
		}
	}
	if l.closed {
		return fmt.Errorf("changelog: append: %w: %w", ErrGap, ErrClosed)
	}
	return nil
}

// enterHealing makes Appends wait for heal when there is a gap, and returns it.
// The caller holds rollMu.
func (l *Log) enterHealing() *gap {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gap == nil || l.closed {
		return nil
	}
	l.gap.healing = make(chan struct{})
	return l.gap
}

// heal ends a gap: it begins a new HTIME file, later than anything lost, and
// seals the changelog into that, so that no reader of the old HTIME file takes
// it for complete. When it fails the gap goes on. The caller holds rollMu and
// called enterHealing.
func (l *Log) heal(g *gap) error {
	err := l.beginHistory()
	l.mu.Lock()
	g.tried = l.opts.now()
	ch := g.healing
	g.healing = nil
	close(ch)
	healed := l.gap != g
	l.mu.Unlock()
	if healed {
		l.log.Info("recording again", "dir", l.opts.Dir, "htime", l.index.name)
	}
	if err != nil && !healed {
		return fmt.Errorf("%w; still: %w", g.reason, err)
	}
	return err
}

// beginHistory carries out heal.
func (l *Log) beginHistory() error {
	// Slices sealed before the gap belong to the old index.
	if err := l.index.flush(); err != nil {
		return err
	}
	l.mu.Lock()
	f, off := l.f, l.off
	l.mu.Unlock()
	if err := l.d.truncate(f, liveName, off); err != nil {
		return err
	}
	next, err := l.prepare()
	if err != nil {
		return err
	}
	old := l.index
	if l.index, err = newIndex(l.d, l.historyStart()); err != nil {
		l.index = old
		l.drop(next)
		return err
	}
	l.setLast(max(l.last, l.index.start))
	oldFile, e, err := l.swap(next, l.nextStamp(), true)
	if err != nil {
		err = errors.Join(err, old.makeCurrent())
		l.index.discard()
		l.index = old
		return err
	}
	_ = old.close() // all of it was synced
	err = l.finishSeal(oldFile, e)
	return errors.Join(err, l.writeMark())
}

// historyStart is the stamp of a new HTIME file after changes went unrecorded: a
// second later than any of them, so that a reader who looked at the brick in the
// same second does not take itself for covered.
func (l *Log) historyStart() int64 {
	return max(l.opts.now().Unix()+1, l.last+1)
}

// gapMark is the file gap.
type gapMark struct {
	d *disk
	f *os.File // owned
}

// open reads the mark, or makes it when missing. It returns why the last process
// was in a gap, or "".
func (m *gapMark) open() (reason string, err error) {
	m.f, err = m.d.open(gapName, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if m.f, err = m.d.create(gapName, 0); err != nil {
			return "", err
		}
		return "", m.write(noGap)
	}
	if err != nil {
		return "", err
	}
	buf := make([]byte, gapLen)
	n, err := m.f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	reason = strings.TrimSpace(string(buf[:n]))
	if reason == noGap {
		return "", nil
	}
	return reason, nil // "" after a crash between create and write: no gap yet
}

func (m *gapMark) set(now time.Time, reason error) error {
	return m.write(fmt.Sprintf("%d %s", now.Unix(), strings.ReplaceAll(reason.Error(), "\n", "; ")))
}

func (m *gapMark) clear() error { return m.write(noGap) }

// write replaces the text, durably and without needing space.
func (m *gapMark) write(text string) error {
	line := fmt.Appendf(nil, "%-*s\n", gapLen-1, text[:min(len(text), gapLen-1)])
	if err := m.d.write(m.f, gapName, line, 0); err != nil {
		return err
	}
	return m.d.sync(m.f, gapName)
}

func (m *gapMark) close() {
	if m.f != nil {
		_ = m.f.Close() // synced when it was written
	}
}
