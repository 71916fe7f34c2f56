package replicator

import (
	"context"
	"errors"
	"time"

	"github.com/georep/georep/changelog"
)

const (
	// pollInterval is how often the growing changelog is looked at; idleInterval,
	// when nothing was recorded for idleAfter.
	pollInterval = 200 * time.Millisecond
	idleInterval = 500 * time.Millisecond
	idleAfter    = 5 * time.Second
	// syncShare bounds how much of the time goes into making the slave durable:
	// after a sync the next waits this many times as long as that took.
	syncShare = 4
)

// follower reads changelogs in order, then the growing one.
type follower struct {
	w *Worker
	f *changelog.Follower
	b *batch
	// sealed is the stamp of the last slice whose records are all in b, or in a
	// batch before it; 0 if none is.
	sealed int64
	// slice is when the one being read began, at the latest.
	slice time.Time
	live  *live
	// syncing has the outcome of a sync of the slave that is under way; nil if
	// none is.
	syncing chan error
	synced  struct {
		at   time.Time // begun
		took time.Duration
	}
	dirty bool // something was sent since the last sync
	// recorded is when a record was last read; ended, when there was none left.
	recorded, ended time.Time
}

// follow brings the slave into step by changelogs, from what is done on: sealed
// ones, and the growing one as it grows. It returns errGap if records were lost.
func (w *Worker) follow(ctx context.Context) error {
	f, err := changelog.NewFollower(w.changelogs(), max(w.prog.after(), int64(w.done.Sec)))
	if err != nil {
		return err
	}
	defer f.Close()
	// Whoever starts a goroutine waits for it.
	ctx, cancel := context.WithCancel(ctx)
	fl := &follower{w: w, f: f, b: newBatch(), live: newLive(w.pass.sent), ended: w.done.Time()}
	if !w.opt.Once {
		w.pass.hot = fl.live.hot
	}
	defer func() {
		cancel()
		if fl.syncing != nil {
			<-fl.syncing
		}
		w.pass.hot = nil
	}()
	return fl.run(ctx)
}

func (fl *follower) run(ctx context.Context) error {
	w := fl.w
	// The slice that grows now will be sealed later than that. Stamps can be
	// ahead of the clock.
	_, end, err := changelog.ActiveSpan(w.changelogs())
	if err != nil {
		return err
	}
	end = max(end, time.Now().Unix()+stampSlack)
	history := true
	w.setCrawl(HistoryCrawl, "changelogs since "+w.done.String())
	for {
		if fl.b.full() {
			if err := fl.flush(ctx); err != nil {
				return err
			}
		}
		polled := time.Now()
		e, ok, err := fl.f.Poll()
		if err != nil {
			return err
		}
		if ok {
			switch e.Kind {
			case changelog.Recorded:
				fl.record(e.Record)
			case changelog.SliceSealed:
				if e.Damage != nil && !errors.Is(e.Damage, changelog.ErrTorn) {
					w.log.Error("changelog is damaged, the brick is compared as a whole", "err", e.Damage)
					return errors.Join(fl.flush(ctx), errGap)
				}
				fl.seal(e.Stamp)
				if w.opt.Once && e.Stamp > end {
					return fl.finish(ctx)
				}
			case changelog.GapFound:
				return errors.Join(fl.flush(ctx), errGap)
			}
			continue
		}
		// Nothing more is recorded just now.
		fl.ended = polled
		if err := fl.flush(ctx); err != nil {
			return err
		}
		if w.opt.Once {
			return fl.finish(ctx)
		}
		if history {
			history = false
			w.setCrawl(ChangelogCrawl, "all changelogs so far are done")
		}
		if err := fl.tick(ctx, polled); err != nil {
			return err
		}
	}
}

// record takes a record in.
func (fl *follower) record(r *changelog.Record) {
	fl.recorded = time.Now()
	if fl.b.empty() {
		at := fl.ended
		if fl.slice.After(at) {
			at = fl.slice
		}
		fl.w.setOldest(at, fl.w.items.len() == 0)
	}
	fl.b.add(r, fl.slice)
	fl.live.record(r, fl.recorded)
}

// seal takes the end of a slice in. Contents and attributes that were sent while
// it grew are looked at once more: a change is recorded once in a slice, and
// they may have changed after that.
func (fl *follower) seal(stamp int64) {
	fl.sealed, fl.slice = stamp, time.Unix(stamp+stampSlack, 0)
	fl.live.seal(fl.b)
}

// flush sends the batch, and raises stime to the last sealed slice in it.
func (fl *follower) flush(ctx context.Context) error {
	w := fl.w
	if !fl.b.empty() {
		b := fl.b
		fl.b = newBatch()
		if err := w.do(ctx, b); err != nil {
			return err
		}
		fl.dirty = true
	}
	if fl.sealed == 0 {
		return nil
	}
	stamp := fl.sealed
	fl.sealed = 0
	fl.live.sealed()
	if err := w.advance(ctx, stimeOf(stamp)); err != nil {
		return err
	}
	return w.prog.setCursor(stamp)
}

// tick is what is done while nothing new is recorded: files that are being
// written are looked at, failed items tried again, the slave synced. polled is
// when it was seen that there is nothing new.
func (fl *follower) tick(ctx context.Context, polled time.Time) error {
	w := fl.w
	if err := w.sweep(ctx); err != nil {
		return err
	}
	now := time.Now()
	if fl.live.due(now, w.m, fl.b) {
		if err := fl.flush(ctx); err != nil {
			return err
		}
	}
	if err := w.retryItems(ctx, false); err != nil {
		return err
	}
	if err := fl.sync(ctx); err != nil {
		return err
	}
	if err := w.advance(ctx, w.done); err != nil {
		return err
	}
	w.setCurrent(!fl.dirty && fl.syncing == nil && w.items.len() == 0 && !fl.live.waiting(), polled)
	if polled.Sub(fl.recorded) > idleAfter {
		return w.idle(ctx, idleInterval)
	}
	return w.idle(ctx, pollInterval)
}

// sync makes the slave durable now and then, beside the work: a slow disk must
// not hold up what is recorded meanwhile.
func (fl *follower) sync(ctx context.Context) error {
	if fl.syncing != nil {
		select {
		case err := <-fl.syncing:
			fl.syncing = nil
			fl.synced.took = time.Since(fl.synced.at)
			return err
		default:
			return nil
		}
	}
	if !fl.dirty || time.Since(fl.synced.at) < max(time.Second/2, (1+syncShare)*fl.synced.took) {
		return nil
	}
	fl.dirty, fl.synced.at = false, time.Now()
	ch := make(chan error, 1)
	fl.syncing = ch
	go func() { ch <- fl.w.c.Sync(ctx) }()
	return nil
}

// finish ends a run with Once.
func (fl *follower) finish(ctx context.Context) error {
	if err := fl.flush(ctx); err != nil {
		return err
	}
	return fl.w.drain(ctx)
}
