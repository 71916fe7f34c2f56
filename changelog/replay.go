package changelog

import (
	"fmt"
	"path/filepath"
)

// Replay is a part of the past, published below .history of the working
// directory of a Consumer. It is for one goroutine, and ends when its Consumer
// begins another one.
//
// Source: glusterfs gf-history-changelog.c.
type Replay struct {
	// End is up to where it tells all, unix seconds; it may be later than asked for.
	End int64
	// Partial says that recording ended more than 20 s before the end asked for.
	Partial bool

	work *workdir
	due  []Sealed
}

// History publishes the changelogs that tell what happened from start to end,
// unix seconds, chosen as by History.Select. The error wraps ErrNotCovered or
// ErrRange, GlusterFS's -2 and -1; a Replay that is Partial is its 1.
//
// What a Replay publishes is not acknowledged to the Consumer, nor remembered: ask
// again from where you were after a restart.
func (c *Consumer) History(start, end int64) (*Replay, error) {
	h, err := OpenHistory(c.dir)
	if err != nil {
		return nil, err
	}
	s, err := h.Select(start, end)
	if err != nil {
		return nil, err
	}
	r := &Replay{End: s.End, Partial: s.Partial, due: s.Slices}
	if r.work, err = openWorkdir(filepath.Join(c.work.path, historyDir)); err != nil {
		return nil, fmt.Errorf("changelog: history: %w", err)
	}
	return r, nil
}

// Scan publishes more and lists all that wait for Done, as Consumer.Scan does.
// It returns 0 when everything is done.
func (r *Replay) Scan() (int, error) {
	for len(r.due) > 0 && !r.work.full() {
		if err := r.work.publish(r.due[0]); err != nil {
			return 0, fmt.Errorf("changelog: history: %w", err)
		}
		r.due = r.due[1:]
	}
	n, err := r.work.list()
	if err != nil {
		return 0, fmt.Errorf("changelog: history: %w", err)
	}
	return n, nil
}

// Next returns the next of what the last Scan listed; false after the last.
func (r *Replay) Next() (Published, bool) { return r.work.take() }

// Done says that changelogs are dealt with; their files move to .history/.processed.
func (r *Replay) Done(done ...Published) error {
	if err := r.work.finish(done); err != nil {
		return fmt.Errorf("changelog: history: %w", err)
	}
	return nil
}
