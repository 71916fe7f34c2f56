package marker

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/georep/georep/brick/gfid"
)

// fakeTree is a tree in memory that notes the order of writes.
type fakeTree struct {
	parent map[gfid.GFID]gfid.GFID
	others map[gfid.GFID][]gfid.GFID
	xtime  map[gfid.GFID]time.Time
	order  []gfid.GFID
	fail   map[gfid.GFID]error
}

func (f *fakeTree) Parent(g gfid.GFID) (gfid.GFID, bool) { p, ok := f.parent[g]; return p, ok }

func (f *fakeTree) OtherParents(g gfid.GFID) []gfid.GFID { return f.others[g] }

func (f *fakeTree) SetXtime(g gfid.GFID, t time.Time) error {
	if err := f.fail[g]; err != nil {
		return err
	}
	f.xtime[g] = t
	f.order = append(f.order, g)
	return nil
}

func id(n byte) gfid.GFID { return gfid.GFID{0: 0xee, 15: n} }

// newTree is root / 1 / 2 / 3 and root / 4.
func newTree() *fakeTree {
	return &fakeTree{
		parent: map[gfid.GFID]gfid.GFID{id(1): gfid.Root, id(2): id(1), id(3): id(2), id(4): gfid.Root},
		xtime:  map[gfid.GFID]time.Time{},
		fail:   map[gfid.GFID]error{},
	}
}

// clock is a time that the test sets.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestFlushRaisesAncestorsToNewestBelow(t *testing.T) {
	tree, c := newTree(), &clock{time.Unix(100, 0)}
	m := New(tree, Options{Now: c.now})
	m.Touch(id(3))
	c.t = time.Unix(200, 0)
	m.Touch(id(4))
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	want := map[gfid.GFID]int64{id(3): 100, id(2): 100, id(1): 100, id(4): 200, gfid.Root: 200}
	for g, sec := range want {
		if got := tree.xtime[g].Unix(); got != sec {
			t.Errorf("xtime of %v = %d, want %d", g, got, sec)
		}
	}
	if len(tree.order) != len(want) {
		t.Errorf("%d writes, want %d: each GFID once", len(tree.order), len(want))
	}
}

// A parent is written before its children at every point of a flush.
func TestFlushWritesParentsFirst(t *testing.T) {
	tree := newTree()
	m := New(tree, Options{})
	m.Touch(id(3), id(4), id(2))
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	seen := map[gfid.GFID]bool{}
	for _, g := range tree.order {
		if p, ok := tree.parent[g]; ok && !seen[p] {
			t.Errorf("%v written before its parent %v", g, p)
		}
		seen[g] = true
	}
}

func TestClockSetBackLowersNothing(t *testing.T) {
	tree, c := newTree(), &clock{time.Unix(50, 0)}
	m := New(tree, Options{Now: c.now, Floor: time.Unix(500, 0)})
	m.Touch(id(1))
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := tree.xtime[gfid.Root]; !got.Equal(time.Unix(500, 0)) {
		t.Errorf("root %v, want the floor", got)
	}
}

func TestFailedWriteIsTriedAgain(t *testing.T) {
	tree, c := newTree(), &clock{time.Unix(7, 0)}
	m := New(tree, Options{Now: c.now})
	tree.fail[id(2)] = errors.New("no space")
	m.Touch(id(3))
	if err := m.Flush(); err == nil {
		t.Fatal("no error")
	}
	delete(tree.fail, id(2))
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := tree.xtime[id(2)].Unix(); got != 7 {
		t.Errorf("xtime %d after the second flush, want 7", got)
	}
}

func TestGoneIsNoError(t *testing.T) {
	tree := newTree()
	m := New(tree, Options{})
	tree.fail[id(3)] = fs.ErrNotExist
	m.Touch(id(3))
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
}

// A damaged brick may hold a directory that is its own ancestor.
func TestCircleEnds(t *testing.T) {
	tree := newTree()
	tree.parent[id(1)] = id(3)
	m := New(tree, Options{})
	m.Touch(id(3))
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
}

// After any run of touches and flushes no parent is older than its child.
func TestNoParentOlderThanChild(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, seed))
	tree, c := newTree(), &clock{time.Unix(0, 0)}
	for i := byte(5); i < 60; i++ {
		tree.parent[id(i)] = id(1 + byte(r.IntN(int(i-1))))
	}
	m := New(tree, Options{Now: c.now})
	for range 300 {
		for range r.IntN(5) {
			c.t = c.t.Add(time.Duration(r.IntN(3)-1) * time.Second)
			m.Touch(id(1 + byte(r.IntN(59))))
		}
		if err := m.Flush(); err != nil {
			t.Fatal(err)
		}
		for g, p := range tree.parent {
			if tree.xtime[p].Before(tree.xtime[g]) {
				t.Fatalf("seed %d: parent %v %v older than child %v %v", seed, p, tree.xtime[p], g, tree.xtime[g])
			}
		}
	}
}

// A file with several names leaves none of their directories older than it is.
func TestFlushRaisesParentsOfAllNames(t *testing.T) {
	tree, c := newTree(), &clock{time.Unix(100, 0)}
	tree.parent[id(5)] = id(4)
	tree.others = map[gfid.GFID][]gfid.GFID{id(5): {id(2), id(4)}}
	m := New(tree, Options{Now: c.now})
	m.Touch(id(1))
	c.t = time.Unix(200, 0)
	m.Touch(id(5))
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, g := range []gfid.GFID{id(5), id(4), id(2), id(1), gfid.Root} {
		if got := tree.xtime[g].Unix(); got != 200 {
			t.Errorf("xtime of %v = %d, want 200", g, got)
		}
	}
}
