package bench

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// recordTimeout is how long a record may take from the fop's reply to the file, a
// busy machine included. The mount promises 100 ms.
const recordTimeout = 15 * time.Second

// markPrefix begins the names of the directories that cut the stream of records:
// between the MKDIR of one and that of the next are the records of one step.
const markPrefix = ".bench-mark-"

// tally counts the records of one step.
type tally struct {
	// entries counts entry records by fop.
	entries map[changelog.Fop]int
	// data and meta are the files that have a record, each counted once: a file
	// that is open across the end of a slice has one in both.
	data, meta map[gfid.GFID]struct{}
	// bytes is what the records take in a changelog; count is how many they are.
	bytes int64
	count int
}

func newTally() *tally {
	return &tally{entries: map[changelog.Fop]int{}, data: map[gfid.GFID]struct{}{}, meta: map[gfid.GFID]struct{}{}}
}

func (t *tally) add(r *changelog.Record, size int) {
	t.count++
	t.bytes += int64(size)
	switch r.Type {
	case changelog.Entry:
		t.entries[r.Fop]++
	case changelog.Data:
		t.data[r.GFID] = struct{}{}
	case changelog.Meta:
		t.meta[r.GFID] = struct{}{}
	}
}

// records says which records a step must leave.
type records struct {
	// entries are how many entry records there are of each fop, and none of others.
	entries map[changelog.Fop]int
	// data and meta are how many files have a data and a metadata record.
	data, meta int
	// atLeast says that there may be more, in a step of other people's programs.
	atLeast bool
}

// check tells how t differs from what it must be; nil if it does not.
func (want records) check(t *tally) error {
	var wrong []string
	compare := func(what string, got, want int, atLeast bool) {
		if got < want || got > want && !atLeast {
			wrong = append(wrong, fmt.Sprintf("%d %s, want %d", got, what, want))
		}
	}
	fops := slices.Collect(maps.Keys(want.entries))
	for f := range t.entries {
		if !slices.Contains(fops, f) {
			fops = append(fops, f)
		}
	}
	slices.Sort(fops)
	for _, f := range fops {
		compare("E "+f.String()+" records", t.entries[f], want.entries[f], want.atLeast)
	}
	compare("files with a D record", len(t.data), want.data, want.atLeast)
	compare("files with an M record", len(t.meta), want.meta, want.atLeast)
	if wrong == nil {
		return nil
	}
	return fmt.Errorf("records: %s", strings.Join(wrong, "; "))
}

// recordLog reads the records of a brick while it is mounted.
type recordLog struct {
	f   *changelog.Follower
	buf []byte
}

func openRecordLog(dir string) (*recordLog, error) {
	f, err := changelog.NewFollower(dir, 0)
	if err != nil {
		return nil, err
	}
	return &recordLog{f: f}, nil
}

func (l *recordLog) close() {
	_ = l.f.Close() // it was only read
}

// next waits for one event. A gap is an error: what it lost may be what we look for.
func (l *recordLog) next(ctx context.Context) (changelog.Event, error) {
	for {
		ev, ok, err := l.f.Poll()
		switch {
		case err != nil:
			return ev, err
		case ok && ev.Kind == changelog.GapFound:
			return ev, fmt.Errorf("records: %w", changelog.ErrGap)
		case ok && ev.Damage != nil:
			return ev, fmt.Errorf("records: %w", ev.Damage)
		case ok:
			return ev, nil
		}
		select {
		case <-ctx.Done():
			return ev, context.Cause(ctx)
		case <-time.After(pollEvery):
		}
	}
}

// from skips the records up to the MKDIR of the mark begin.
func (l *recordLog) from(ctx context.Context, begin string) error {
	ctx, cancel := l.patience(ctx, begin)
	defer cancel()
	for {
		ev, err := l.next(ctx)
		if err != nil {
			return err
		}
		if name, ok := markOf(ev); ok && name == begin {
			return nil
		}
	}
}

// upTo counts the records up to the end of the slice that has the MKDIR of the mark
// end, those of marks left out, with their size in e. What a file's writer did is
// recorded when it closes the file, which the kernel tells the mount late, or at
// the end of the slice: that is what the mount promises.
func (l *recordLog) upTo(ctx context.Context, end string, e changelog.Encoding) (*tally, error) {
	ctx, cancel := l.patience(ctx, end)
	defer cancel()
	t, ended := newTally(), false
	for {
		ev, err := l.next(ctx)
		if err != nil {
			return nil, err
		}
		switch name, isMark := markOf(ev); {
		case isMark:
			ended = ended || name == end
		case ev.Kind == changelog.Recorded:
			l.buf = changelog.AppendRecord(l.buf[:0], ev.Record, e)
			t.add(ev.Record, len(l.buf))
		case ev.Kind == changelog.SliceSealed && ended:
			return t, nil
		}
	}
}

// markOf is the name of the mark that ev is a record of.
func markOf(ev changelog.Event) (name string, ok bool) {
	if ev.Kind != changelog.Recorded || ev.Record.Type != changelog.Entry {
		return "", false
	}
	name = ev.Record.Entry.Base
	return name, strings.HasPrefix(name, markPrefix)
}

// patience bounds the wait for a mark.
func (l *recordLog) patience(ctx context.Context, mark string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, recordTimeout, fmt.Errorf("records: no MKDIR of %q in a sealed changelog after %v", mark, recordTimeout))
}

// untilSealed reads up to the end of a slice.
func (l *recordLog) untilSealed(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, recordTimeout, fmt.Errorf("records: the changelog was not sealed within %v", recordTimeout))
	defer cancel()
	for {
		if ev, err := l.next(ctx); err != nil || ev.Kind == changelog.SliceSealed {
			return err
		}
	}
}
