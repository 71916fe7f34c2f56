package translator

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// Inode is a GFID that the kernel knows, or that something here still needs.
// There is one Inode per GFID.
type Inode struct {
	gfid gfid.GFID
	id   uint64
	ino  uint64 // the brick's inode number
	typ  uint32 // S_IFMT bits of the mode

	// recorded holds the slice of the last record per class of de-duplication.
	recorded [classes]atomic.Uint32

	// linked says that a non-directory has more than one name.
	linked atomic.Bool

	// acl caches whether a directory has a default ACL.
	acl atomic.Uint32

	stuck   atomic.Bool // see lockSoon
	xtiming atomic.Bool // an xtime is being written by setXtimeAside

	// Guarded by table.mu.
	nlookup uint64 // references of the kernel
	pins    int32  // children in the table, open handles, watchers
	parent  *Inode // where it was last seen; nil without a name; pinned
	name    string

	// Guarded by dirCache.mu; directories only.
	dir *dirFD

	mu sync.Mutex // taken before any other lock here; guards what follows
	// nameless is set once the last name is gone: 1 + the slot in the set of
	// nameless GFIDs.
	nameless int
	open     *openState // nil when no handle is open and nobody watches
	// hiddenCtime is the ctime, in ns, that an xattr of our own caused, and
	// shownCtime the one to report instead; both 0 when there is none.
	hiddenCtime, shownCtime int64
}

// The classes within which records of an inode are de-duplicated per slice.
//
// Source: glusterfs changelog-helpers.h, CHANGELOG_TYPE_DATA, _METADATA and
// _METADATA_XATTR.
const (
	classData = iota
	classAttr
	classXattr
	classes
)

// GFID is the inode's identity.
func (in *Inode) GFID() gfid.GFID { return in.gfid }

// ID is the inode's number towards the kernel: from a counter, never used twice.
func (in *Inode) ID() uint64 { return in.id }

// IsDir reports whether the inode is a directory.
func (in *Inode) IsDir() bool { return in.typ == unix.S_IFDIR }

func (in *Inode) isRegular() bool { return in.typ == unix.S_IFREG }

// isRecorded reports whether the slice s has a record of the class already.
func (in *Inode) isRecorded(class int, s changelog.Slice) bool {
	return in.recorded[class].Load() == uint32(s)
}

// table finds inodes by GFID and by number.
type table struct {
	mu     sync.RWMutex
	byID   map[uint64]*Inode
	byGFID map[gfid.GFID]*Inode
	next   uint64
	root   *Inode
}

// rootID is the number the kernel has for the root.
const rootID = 1

func newTable(rootIno uint64) *table {
	root := &Inode{gfid: gfid.Root, id: rootID, ino: rootIno, typ: unix.S_IFDIR, nlookup: 1, pins: 1}
	return &table{
		byID:   map[uint64]*Inode{rootID: root},
		byGFID: map[gfid.GFID]*Inode{gfid.Root: root},
		next:   rootID + 1,
		root:   root,
	}
}

// find returns the inode with that number, nil if there is none.
func (t *table) find(id uint64) *Inode {
	t.mu.RLock()
	in := t.byID[id]
	t.mu.RUnlock()
	return in
}

// findGFID returns the inode with that GFID, nil if there is none.
func (t *table) findGFID(g gfid.GFID) *Inode {
	t.mu.RLock()
	in := t.byGFID[g]
	t.mu.RUnlock()
	return in
}

// pinGFID returns the inode with that GFID, pinned, nil if there is none.
func (t *table) pinGFID(g gfid.GFID) *Inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	in := t.byGFID[g]
	if in != nil {
		in.pins++
	}
	return in
}

// seen is what a lookup or a creation learnt of an object.
type seen struct {
	gfid gfid.GFID
	ino  uint64
	mode uint32 // with type bits
}

// enter returns the inode of what was seen as name in parent, making it if it is
// new, with one more reference of the kernel if known, or else one more pin.
func (t *table) enter(s seen, parent *Inode, name string, known bool) *Inode {
	t.mu.Lock()
	in := t.byGFID[s.gfid]
	if in == nil {
		in = &Inode{gfid: s.gfid, id: t.next, ino: s.ino, typ: s.mode & unix.S_IFMT}
		t.next++
		t.byGFID[s.gfid] = in
		t.byID[in.id] = in
	}
	if known {
		in.nlookup++
	} else {
		in.pins++
	}
	if parent != nil {
		t.place(in, parent, name)
	}
	t.mu.Unlock()
	return in
}

// place sets where in was last seen. The caller holds mu.
func (t *table) place(in, parent *Inode, name string) {
	old := in.parent
	if old == parent && in.name == name {
		return
	}
	if parent != nil {
		parent.pins++
	}
	in.parent, in.name = parent, name
	if old != nil {
		old.pins--
		t.drop(old)
	}
}

// move sets where in is now.
func (t *table) move(in, parent *Inode, name string) {
	t.mu.Lock()
	t.place(in, parent, name)
	t.mu.Unlock()
}

// displace forgets that in is name in parent, if that is where it was last seen.
func (t *table) displace(in, parent *Inode, name string) {
	t.mu.Lock()
	if in.parent == parent && in.name == name {
		t.place(in, nil, "")
	}
	t.mu.Unlock()
}

// where returns in's parent and name; nil when in is the root or has no name.
func (t *table) where(in *Inode) (*Inode, string) {
	t.mu.RLock()
	p, n := in.parent, in.name
	t.mu.RUnlock()
	return p, n
}

// forget takes n references of the kernel away and reports whether the inode
// left the table.
func (t *table) forget(in *Inode, n uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	in.nlookup -= min(n, in.nlookup)
	return t.drop(in)
}

func (t *table) pin(in *Inode) {
	t.mu.Lock()
	in.pins++
	t.mu.Unlock()
}

// unpin undoes pin and reports whether the inode left the table.
func (t *table) unpin(in *Inode) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	in.pins--
	return t.drop(in)
}

// drop takes in out of the table if nothing refers to it any more, and then its
// parents likewise. The caller holds mu.
func (t *table) drop(in *Inode) bool {
	if in.nlookup > 0 || in.pins > 0 || t.byID[in.id] != in {
		return false
	}
	delete(t.byID, in.id)
	delete(t.byGFID, in.gfid)
	if p := in.parent; p != nil {
		in.parent = nil
		p.pins--
		t.drop(p)
	}
	return true
}

// path returns the names from below the root to in, and false if in or one above
// it has no name.
func (t *table) path(in *Inode) ([]string, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var names []string
	for in != t.root {
		if in.parent == nil {
			return nil, false
		}
		names = append(names, in.name)
		in = in.parent
	}
	for i, j := 0, len(names)-1; i < j; i, j = i+1, j-1 {
		names[i], names[j] = names[j], names[i]
	}
	return names, true
}
