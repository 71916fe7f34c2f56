package replicator

import (
	"slices"
	"sync"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

const (
	// retryFirst and retryLast bound how long an item waits for its next try;
	// the wait doubles with each.
	retryFirst = 2 * time.Second
	retryLast  = 5 * time.Minute
	// maxItems is how many items may be in quarantine; beyond that the slave is
	// taken to be at fault and not the items, and no new work begins.
	maxItems = 10000
)

// Item is something that could not be brought to the slave. The rest goes on;
// stime stays before it.
type Item struct {
	Failure
	Path     string      // where it is on the master, as far as is known
	Attempts int         // tries so far
	Since    time.Time   // of the first try
	Next     time.Time   // of the next try
	bound    brick.Stamp // what stime may not pass
}

type itemKey struct {
	g    gfid.GFID
	name changelog.Name
}

// quarantine holds the items that failed. It is safe for concurrent use.
type quarantine struct {
	mu    sync.Mutex
	items map[itemKey]*Item
}

func newQuarantine() *quarantine { return &quarantine{items: make(map[itemKey]*Item)} }

// add puts failures in quarantine. bound is the stamp up to which all before
// their batch is done.
func (q *quarantine) add(failures []Failure, bound brick.Stamp, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range failures {
		k := itemKey{f.GFID, f.Name}
		it := q.items[k]
		if it == nil {
			it = &Item{Since: now, bound: bound}
			q.items[k] = it
		}
		it.Failure = f
		it.Attempts++
		it.Next = now.Add(min(retryFirst<<min(it.Attempts-1, 10), retryLast))
	}
}

// due takes the items whose time has come, or all, as a batch that tries them
// again. They stay in quarantine until settle.
func (q *quarantine) due(now time.Time, all bool, m *master) (*batch, []itemKey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := newBatch()
	var keys []itemKey
	for k, it := range q.items {
		if !all && it.Next.After(now) {
			continue
		}
		keys = append(keys, k)
		if k.name != (changelog.Name{}) {
			b.touch(k.name, k.g, changelog.Name{})
		}
		if k.g.IsZero() {
			continue
		}
		// Whatever the slave has of it may be half of it, so it is not only named.
		b.made.add(k.g)
		names, _ := m.names(k.g) // none if it is gone
		for _, n := range names {
			b.touch(n, k.g, changelog.Name{})
		}
		b.data.add(k.g)
		b.meta.add(k.g)
	}
	b.records = len(keys)
	return b, keys
}

// settle takes the items with keys out, but for those that failed again.
func (q *quarantine) settle(keys []itemKey, failures []Failure) {
	again := make(map[itemKey]bool, len(failures))
	for _, f := range failures {
		again[itemKey{f.GFID, f.Name}] = true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, k := range keys {
		if !again[k] {
			delete(q.items, k)
		}
	}
}

// bound is what stime may not pass: the least of all items'. False: none.
func (q *quarantine) bound() (least brick.Stamp, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		if !ok || it.bound.Compare(least) < 0 {
			least, ok = it.bound, true
		}
	}
	return least, ok
}

func (q *quarantine) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// list is the items, those that wait longest first, at most limit of them.
func (q *quarantine) list(limit int) []Item {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]Item, 0, min(limit, len(q.items)))
	for _, it := range q.items {
		out = append(out, *it)
	}
	slices.SortFunc(out, func(a, b Item) int { return a.Since.Compare(b.Since) })
	return out[:min(limit, len(out))]
}
