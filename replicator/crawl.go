package replicator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// errGap ends a crawl by changelogs: records were lost, the brick must be walked.
var errGap = errors.New("replicator: gap in the changelogs")

// crawl brings the slave into step and keeps it so, until ctx is done or, with
// Once, it is in step.
func (w *Worker) crawl(ctx context.Context) error {
	gap := false
	for {
		how, why, err := w.choose()
		if err != nil {
			return err
		}
		// One inside the span that reaches back to stime: changelogs were removed.
		if gap && how == HistoryCrawl {
			how, why = HybridCrawl, fmt.Sprintf("changelogs since stime %v are missing", w.prog.stime)
		}
		if how == HybridCrawl {
			w.setCrawl(how, why)
			covered, err := w.hybrid(ctx)
			if err != nil {
				return err
			}
			if !covered {
				// Nothing is recorded on this brick, so nothing can be followed.
				if w.opt.Once {
					return w.drain(ctx)
				}
				if err := w.idle(ctx, time.Minute); err != nil {
					return err
				}
				continue
			}
		}
		if err := w.follow(ctx); !errors.Is(err, errGap) {
			return err
		}
		gap = true
	}
}

// choose says how the next stretch of work is found, and why.
func (w *Worker) choose() (Crawl, string, error) {
	if w.prog.stime == (brick.Stamp{}) {
		return HybridCrawl, "the slave was never in step", nil
	}
	h, err := changelog.OpenHistory(w.changelogs())
	if err != nil {
		return "", "", err
	}
	spans := h.Spans()
	if len(spans) == 0 {
		return HybridCrawl, "nothing is recorded on this brick", nil
	}
	last := spans[len(spans)-1]
	if int64(w.prog.stime.Sec) < last.Start {
		return HybridCrawl, fmt.Sprintf("records from %d on do not reach back to stime %v", last.Start, w.prog.stime), nil
	}
	return HistoryCrawl, fmt.Sprintf("records from %d on reach back to stime %v", last.Start, w.prog.stime), nil
}

// hybrid walks the brick for what changed since stime. covered reports whether
// what changes meanwhile and later is in changelogs.
func (w *Worker) hybrid(ctx context.Context) (covered bool, err error) {
	began, resumed, err := w.prog.crawlBegan()
	if err != nil {
		return false, err
	}
	start, err := w.recordedSince(ctx)
	if err != nil {
		return false, err
	}
	covered = start > 0
	// A crawl that was cut short goes on from its own beginning: what changed
	// after that is in the changelogs that are read after this crawl.
	resumed = resumed && covered && int64(began.Sec) >= start
	if !resumed {
		began = brick.StampOf(time.Now())
		if err := w.prog.beginCrawl(began); err != nil {
			return covered, err
		}
	}
	oldest := w.prog.stime
	if oldest == (brick.Stamp{}) {
		oldest = began // or any time before it
	}
	w.setOldest(oldest.Time(), true)
	h := &hybrid{
		m: w.m, c: w.c, since: w.prog.stime, resumed: resumed, linked: make(set), found: w.found,
		blank: w.c.Info().Created && !resumed,
	}
	err = pipe(ctx, func(ctx context.Context, emit func(*batch) error) error {
		return h.run(ctx, rootQueue, emit)
	}, w.do)
	if err != nil {
		return covered, err
	}
	if err := w.advance(ctx, stimeOf(int64(began.Sec))); err != nil {
		return covered, err
	}
	return covered, w.prog.endCrawl()
}

// recordedSince is when the present unbroken recording began, unix seconds; 0 if
// nothing is recorded. If that is a moment ahead, as after a gap, it waits.
func (w *Worker) recordedSince(ctx context.Context) (int64, error) {
	for {
		h, err := changelog.OpenHistory(w.changelogs())
		if err != nil {
			return 0, err
		}
		spans := h.Spans()
		if len(spans) == 0 {
			return 0, nil
		}
		start := spans[len(spans)-1].Start
		ahead := time.Until(time.Unix(start+stampSlack, 0))
		if ahead <= 0 {
			return start, nil
		}
		if ahead > time.Minute {
			return 0, fmt.Errorf("replicator: crawl: recording began at %d, %v ahead of this clock", start, ahead.Round(time.Second))
		}
		if err := w.idle(ctx, ahead); err != nil {
			return 0, err
		}
	}
}

// sweep cleans up after work that was cut short or late: what has no name on the
// slave and is gone on the master is destroyed.
func (w *Worker) sweep(ctx context.Context) error {
	if !w.torn {
		return nil
	}
	b := newBatch()
	p := newPass(w.m, w.c, b, &w.pass, w.bound())
	err := w.c.Nameless(ctx, func(gfids []gfid.GFID) error {
		p.displaced = append(p.displaced, gfids...)
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.settleDisplaced(ctx); err != nil {
		return err
	}
	// What lives may go before it is named. Until none is found, look again.
	w.torn = len(p.next) > 0
	if !w.torn {
		return nil
	}
	// What the master still has gets its names. Content is sent only to what was
	// cut short: to send it to what is complete, and be cut short in that, would
	// leave half a file that no record tells of.
	again := newBatch()
	gfids := make([]gfid.GFID, len(p.next))
	for i, t := range p.next {
		again.touch(t.name, t.held, t.old)
		gfids[i] = t.held
	}
	objs, err := w.c.Stat(ctx, gfids, 0)
	for i, o := range objs {
		if o.Errno == 0 && o.Busy {
			again.made.add(gfids[i])
		}
	}
	if err == nil {
		err = w.do(ctx, again)
	}
	return err
}

// idle waits.
func (w *Worker) idle(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.c.Done():
		return errors.New("replicator: connection to the slave ended")
	case <-t.C:
		return nil
	case <-w.retry:
		return w.retryItems(ctx, true)
	}
}

// drain tries what is in quarantine a few times more, for Once.
func (w *Worker) drain(ctx context.Context) error {
	for wait := 200 * time.Millisecond; w.items.len() > 0 && wait < 3*time.Second; wait *= 2 {
		if err := w.idle(ctx, wait); err != nil {
			return err
		}
		if err := w.retryItems(ctx, true); err != nil {
			return err
		}
	}
	for range 3 {
		if err := w.sweep(ctx); err != nil {
			return err
		}
	}
	if err := w.c.Sync(ctx); err != nil {
		return err
	}
	if n := w.items.len(); n > 0 {
		first := w.items.list(1)[0]
		return fmt.Errorf("replicator: %w: %d items, such as %s", ErrIncomplete, n, first.Error())
	}
	w.setCurrent(true, time.Now())
	return nil
}
