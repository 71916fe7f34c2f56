package marker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/georep/georep/brick/gfid"
)

// Tree is the brick as the marker needs it. Its methods are called by one
// goroutine at a time.
type Tree interface {
	// Parent is the directory that holds g, the one it was last reached through
	// if it has several names. ok is false for the root and for what has no
	// name any more.
	Parent(g gfid.GFID) (parent gfid.GFID, ok bool)
	// OtherParents are the directories that hold g by other names.
	OtherParents(g gfid.GFID) []gfid.GFID
	// SetXtime writes t, in microseconds, as g's xtime. An error that wraps
	// fs.ErrNotExist says that g is gone, one that wraps ErrBusy that it can't be
	// written just now.
	SetXtime(g gfid.GFID, t time.Time) error
}

// ErrBusy is of an object that has to wait, perhaps for long: others need not.
var ErrBusy = errors.New("busy")

// Options of a Marker.
type Options struct {
	// Interval is the longest time between a touch and its flush. Default 1 s.
	Interval time.Duration
	// Floor is the xtime of the root when the brick was opened: no time handed
	// out is before it, so that none lowers a value, whatever the clock does.
	Floor time.Time
	// Now is the clock; default time.Now. One that no stamp of a changelog is
	// ahead of keeps a change from looking older than the slices before it.
	Now func() time.Time
	// Logger; nil discards.
	Logger *slog.Logger
}

// Marker collects touched GFIDs and writes their xtimes.
type Marker struct {
	tree Tree
	opts Options

	mu    sync.Mutex
	dirty map[gfid.GFID]time.Time // guarded by mu
	last  time.Time               // newest time handed out; guarded by mu

	flushing sync.Mutex // held over a flush, taken before mu
	failing  bool       // the last flush failed, and said so; guarded by flushing
}

// New returns a Marker for the tree.
func New(tree Tree, opts Options) *Marker {
	if opts.Interval == 0 {
		opts.Interval = time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Marker{tree: tree, opts: opts, last: opts.Floor, dirty: map[gfid.GFID]time.Time{}}
}

// Touch notes that each of gs changed now. It is safe for concurrent use and
// does no I/O.
//
// After the record: a record that landed in a later slice then has an xtime
// after the stamp of the slice before it.
func (m *Marker) Touch(gs ...gfid.GFID) {
	now := m.opts.Now()
	m.mu.Lock()
	if now.After(m.last) {
		m.last = now
	}
	for _, g := range gs {
		m.dirty[g] = m.last
	}
	m.mu.Unlock()
}

// Drop takes g out of the set: it is gone, and has no xtime to write.
func (m *Marker) Drop(g gfid.GFID) {
	m.mu.Lock()
	delete(m.dirty, g)
	m.mu.Unlock()
}

// Run flushes every Options.Interval until ctx is done, and once more then.
func (m *Marker) Run(ctx context.Context) error {
	tick := time.NewTicker(m.opts.Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			// An error was logged for the GFID it is about; the rest goes on.
			m.Flush()
		case <-ctx.Done():
			return m.Flush()
		}
	}
}

// Flush writes the xtime of every touched GFID and of its ancestors, root first,
// so that a flush cut short leaves parents that are too new and never children
// that no crawl would find. The error is that of the first GFID that could not be
// written; all such stay in the set and are tried again, and so do those that are
// busy, which is no error.
func (m *Marker) Flush() error {
	m.flushing.Lock()
	defer m.flushing.Unlock()
	m.mu.Lock()
	set := m.dirty
	if len(set) == 0 {
		m.mu.Unlock()
		return nil
	}
	m.dirty = make(map[gfid.GFID]time.Time, len(set))
	m.mu.Unlock()

	var first error
	failed := 0
	for _, g := range m.climb(set) {
		err := m.tree.SetXtime(g, set[g])
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !errors.Is(err, ErrBusy) {
			if failed++; first == nil {
				first = fmt.Errorf("marker: xtime of %v: %w", g, err)
			}
		}
		m.mu.Lock()
		if set[g].After(m.dirty[g]) {
			m.dirty[g] = set[g]
		}
		m.mu.Unlock()
	}
	if first != nil && !m.failing {
		m.opts.Logger.Error("xtimes not written, tried again at each flush", "count", failed, "err", first)
	}
	m.failing = first != nil
	return first
}

// climb adds the ancestors of the set's members to it, each with the newest time
// below it, and returns all of them, parents before children.
func (m *Marker) climb(set map[gfid.GFID]time.Time) []gfid.GFID {
	type up struct {
		parent gfid.GFID
		ok     bool
	}
	ups := make(map[gfid.GFID]up, len(set))
	rise := func(g gfid.GFID, t time.Time) {
		for at := g; ; {
			u, known := ups[at]
			if !known {
				u.parent, u.ok = m.tree.Parent(at)
				ups[at] = u
			}
			if !u.ok {
				break
			}
			at = u.parent
			// With that time or a newer one, at has climbed on from here or, as a
			// seed, will. This also ends a circle, which a damaged brick may have.
			if old, in := set[at]; in && !old.Before(t) {
				break
			}
			set[at] = t
		}
	}
	for _, g := range slices.Collect(maps.Keys(set)) {
		t := set[g]
		rise(g, t)
		for _, p := range m.tree.OtherParents(g) {
			if old, in := set[p]; !in || old.Before(t) {
				set[p] = t
				rise(p, t)
			}
		}
	}
	return topDown(set, func(g gfid.GFID) (gfid.GFID, bool) { u := ups[g]; return u.parent, u.ok })
}

// topDown orders the members of set so that each comes after its parent.
func topDown(set map[gfid.GFID]time.Time, parent func(gfid.GFID) (gfid.GFID, bool)) []gfid.GFID {
	order := make([]gfid.GFID, 0, len(set))
	done := make(map[gfid.GFID]bool, len(set))
	var chain []gfid.GFID
	for g := range set {
		chain = chain[:0]
		for at, ok := g, true; ok && !done[at]; at, ok = parent(at) {
			done[at] = true
			chain = append(chain, at)
		}
		for i := len(chain) - 1; i >= 0; i-- {
			order = append(order, chain[i])
		}
	}
	return order
}
