package fusefs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// records are what all sealed changelogs of a brick say, by what they are about.
type records struct {
	dir   string
	last  int64 // the newest stamp
	spans int   // HTIME files
	// The stamps of the changelogs that have a record, in order.
	data, meta map[gfid.GFID][]int64
	names      map[changelog.Name][]int64
}

func newRecords(brickPath string) *records {
	return &records{
		dir:  filepath.Join(brickPath, brick.Dir, "changelogs"),
		data: map[gfid.GFID][]int64{}, meta: map[gfid.GFID][]int64{}, names: map[changelog.Name][]int64{},
	}
}

// read adds what was sealed since it was last called.
func (r *records) read(t *testing.T) {
	t.Helper()
	h, err := changelog.OpenHistory(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	r.spans = len(h.Spans())
	from := r.last
	for i := range h.Spans() {
		seq, err := h.Slices(i)
		if err != nil {
			t.Fatal(err)
		}
		for s := range seq {
			if s.Stamp <= from || s.Empty {
				continue
			}
			r.last = max(r.last, s.Stamp)
			if err := changelog.ParseFile(s.Path, func(rec *changelog.Record) error { r.add(rec, s.Stamp); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		r.last = max(r.last, h.Spans()[i].End)
	}
}

func (r *records) add(rec *changelog.Record, stamp int64) {
	switch rec.Type {
	case changelog.Data:
		r.data[rec.GFID] = append(r.data[rec.GFID], stamp)
	case changelog.Meta:
		r.meta[rec.GFID] = append(r.meta[rec.GFID], stamp)
	case changelog.Entry:
		r.names[rec.Entry] = append(r.names[rec.Entry], stamp)
		if rec.Fop == changelog.FopRename {
			r.names[rec.NewEntry] = append(r.names[rec.NewEntry], stamp)
		}
	}
}

// after reports whether one of the stamps is later than since.
func after(stamps []int64, since int64) bool {
	return len(stamps) > 0 && slices.Max(stamps) > since
}

// object is what of an object of the brick users can change.
type object struct {
	g        gfid.GFID
	mode     uint32
	uid, gid uint32
	content  uint64 // of a regular file
	size     int64
	xattrs   string
	xtime    brick.Stamp
	path     string // one of its names, for messages
}

// tree is what a brick holds.
type tree struct {
	names   map[changelog.Name]gfid.GFID
	objects map[gfid.GFID]object
}

// readTree reads the whole brick, beside any mount.
func readTree(t *testing.T, path string) *tree {
	t.Helper()
	b, err := brick.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	tr := &tree{names: map[changelog.Name]gfid.GFID{}, objects: map[gfid.GFID]object{}}
	tr.dir(t, b, path, gfid.Root)
	return tr
}

func (tr *tree) dir(t *testing.T, b *brick.Brick, path string, g gfid.GFID) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if g == gfid.Root && e.Name() == brick.Dir {
			continue
		}
		p := filepath.Join(path, e.Name())
		o := readObject(t, b, p)
		tr.names[changelog.Name{Parent: g, Base: e.Name()}] = o.g
		tr.objects[o.g] = o
		if e.IsDir() {
			tr.dir(t, b, p, o.g)
		}
	}
}

func readObject(t *testing.T, b *brick.Brick, p string) object {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		t.Fatalf("lstat %s: %v", p, err)
	}
	g, errno := b.GFIDOf(unix.AT_FDCWD, p)
	if errno != 0 {
		t.Fatalf("GFID of %s: %v", p, errno)
	}
	o := object{g: g, mode: st.Mode, uid: st.Uid, gid: st.Gid, path: p}
	keys, errno := brick.ListAll(unix.AT_FDCWD, p)
	if errno != 0 {
		t.Fatalf("xattrs of %s: %v", p, errno)
	}
	slices.Sort(keys)
	var vals strings.Builder
	buf := make([]byte, 4096)
	for _, k := range keys {
		n, errno := brick.Getxattr(unix.AT_FDCWD, p, k, buf)
		if errno != 0 {
			t.Fatalf("xattr %s of %s: %v", k, p, errno)
		}
		if k == brick.XtimeKey(b.Volume()) {
			var err error
			if o.xtime, err = brick.ParseStamp(buf[:n]); err != nil {
				t.Fatal(err)
			}
		}
		if !brick.IsInternal(k) {
			fmt.Fprintf(&vals, "%s=%q;", k, buf[:n])
		}
	}
	o.xattrs = vals.String()
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h := xxhash.New()
		if o.size, err = io.Copy(h, f); err != nil {
			t.Fatalf("read %s: %v", p, err)
		}
		o.content = h.Sum64()
	}
	return o
}

// difference is what changed between two readings of a brick.
type difference struct {
	names      []changelog.Name // made, removed or given to another object
	data, meta []object
}

// diff compares the tree with one of before. A new object counts as changed in
// its contents if it has any; its attributes are in the record of its name.
func (tr *tree) diff(before *tree) (d difference) {
	for n, g := range tr.names {
		if before.names[n] != g {
			d.names = append(d.names, n)
		}
	}
	for n := range before.names {
		if _, there := tr.names[n]; !there {
			d.names = append(d.names, n)
		}
	}
	for g, o := range tr.objects {
		old, was := before.objects[g]
		if o.content != old.content && (was || o.size > 0) || o.size != old.size {
			d.data = append(d.data, o)
		}
		if was && (o.mode != old.mode || o.uid != old.uid || o.gid != old.gid || o.xattrs != old.xattrs) {
			d.meta = append(d.meta, o)
		}
	}
	return d
}

// check finds what changed since before, and the changelog with the stamp since
// was sealed, and is in no changelog sealed later.
func (r *records) check(t *testing.T, before, now *tree, since int64) {
	t.Helper()
	d := now.diff(before)
	for _, n := range d.names {
		if !after(r.names[n], since) {
			t.Errorf("name %v/%q: was %v, is %v: no record since %d, they are %v", n.Parent, n.Base, before.names[n], now.names[n], since, r.names[n])
		}
	}
	for _, o := range d.data {
		if !after(r.data[o.g], since) {
			t.Errorf("contents of %v, %s, changed to %d bytes: no record since %d, they are %v", o.g, o.path, o.size, since, r.data[o.g])
		}
	}
	for _, o := range d.meta {
		if !after(r.meta[o.g], since) {
			t.Errorf("attributes of %v, %s, changed: no record since %d, they are %v", o.g, o.path, since, r.meta[o.g])
		}
	}
}

// checkBrick looks for damage.
func checkBrick(t *testing.T, path string) {
	t.Helper()
	checkBrickBut(t, path, "")
}

// checkBrickBut looks for damage other than one.
func checkBrickBut(t *testing.T, path string, but brick.Problem) {
	t.Helper()
	b, err := brick.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Check(t.Context(), brick.CheckOptions{Found: func(f brick.Finding) {
		if f.Problem == but {
			return
		}
		t.Errorf("%s: %v %q: %s", f.Problem, f.GFID, f.Path, f.Detail)
	}}); err != nil {
		t.Error(err)
	}
}

// membersOf are the GFIDs in one of the mount's sets.
func membersOf(t *testing.T, brickPath, set string) (gs []gfid.GFID) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(brickPath, brick.Dir, "georep", set))
	if err != nil {
		t.Fatal(err)
	}
	for ; len(data) >= 16; data = data[16:] {
		if g := gfid.GFID(data[:16]); !g.IsZero() {
			gs = append(gs, g)
		}
	}
	return gs
}
