package replicator

import (
	"time"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// maxBatch is how many records are taken together. It bounds memory, whatever
// the size of a changelog: a batch may end anywhere, for what it leads to
// depends on what the master has and not on which records it holds.
const maxBatch = 16384

// batch is what a stretch of records touched: names, GFIDs with data and GFIDs
// with metadata, each once. Records are hints; the master tells what is so.
type batch struct {
	touches []touch
	index   map[changelog.Name]int // into touches
	data    set
	meta    set
	// made are the GFIDs whose making was recorded: the slave most likely lacks
	// them, so their content is sent along with their names.
	made set
	// recorded are the GFIDs with D and M records, and when the slice of the last
	// of them began, at the latest. What is in data and meta and not here is to be
	// looked at once more.
	recorded map[gfid.GFID]time.Time
	records  int
}

type set map[gfid.GFID]struct{}

func (s set) add(g gfid.GFID) { s[g] = struct{}{} }

func (s set) has(g gfid.GFID) bool {
	_, ok := s[g]
	return ok
}

// touch is a name that was touched.
type touch struct {
	name changelog.Name
	// held is the GFID that last had the name, as far as is known: what is
	// expected to be there on the slave if the master has the name free.
	held gfid.GFID
	// old is the name that a rename to this one took away; zero if none did.
	old changelog.Name
	// file says that held is no directory.
	file bool
	// obj is what the master was just seen to have there; nil if it is to be asked.
	obj *object
	// tries counts the rounds in which the slave could not do it yet.
	tries int
}

func newBatch() *batch {
	return &batch{index: make(map[changelog.Name]int), data: make(set), meta: make(set), made: make(set),
		recorded: make(map[gfid.GFID]time.Time)}
}

// touch adds a name. held and old may be zero.
func (b *batch) touch(n changelog.Name, held gfid.GFID, old changelog.Name) {
	i, ok := b.index[n]
	if !ok {
		i = len(b.touches)
		b.index[n] = i
		b.touches = append(b.touches, touch{name: n})
	}
	t := &b.touches[i]
	if !held.IsZero() {
		t.held, t.file = held, false
	}
	t.old = old
}

// seen notes that the master was just seen to have o at the name touched last.
// That need not be so when the batch is done, as no lookup's answer need: who
// changes it records that.
func (b *batch) seen(o object) { b.touches[len(b.touches)-1].obj = &o }

// add takes over what a record tells. Its slice began at slice, or before.
func (b *batch) add(r *changelog.Record, slice time.Time) {
	b.records++
	switch r.Type {
	case changelog.Data:
		b.data.add(r.GFID)
		b.recorded[r.GFID] = slice
	case changelog.Meta:
		b.meta.add(r.GFID)
		b.recorded[r.GFID] = slice
	case changelog.Entry:
		b.touch(r.Entry, r.GFID, changelog.Name{})
		switch r.Fop {
		case changelog.FopUnlink:
			b.touches[b.index[r.Entry]].file = true
		case changelog.FopRename:
			b.touch(r.NewEntry, r.GFID, r.Entry)
		case changelog.FopCreate, changelog.FopMknod, changelog.FopMkdir, changelog.FopSymlink:
			b.made.add(r.GFID)
		}
	}
}

func (b *batch) empty() bool { return len(b.touches) == 0 && len(b.data) == 0 && len(b.meta) == 0 }

func (b *batch) full() bool { return b.records >= maxBatch }
