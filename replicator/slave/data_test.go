package slave

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// A reader of a file with one name sees the old content or the new, whole.
func TestPutIsAtomic(t *testing.T) {
	p := newPair(t)
	g := p.src.Next()
	p.do(file(g, inRoot("f"), strings.Repeat("0", 100_000)))
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			b, err := os.ReadFile(p.path("f"))
			if err != nil || len(b) != 100_000 || bytes.Count(b, b[:1]) != len(b) {
				t.Errorf("a reader sees %d bytes, %v, not all the same", len(b), err)
				return
			}
		}
	})
	for i := range 50 {
		p.do(put(g, strings.Repeat(string(rune('1'+i)), 100_000)))
	}
	close(done)
	wg.Wait()
	o := p.stat(g)
	if o.Attr.Nlink != 1 || o.Names[0] != inRoot("f") || o.Busy || o.Changed {
		t.Errorf("afterwards %+v", o)
	}
	if got, _ := p.m.GFIDOf(unix.AT_FDCWD, p.path("f")); got != g {
		t.Errorf("gfid %v, want %v", got, g)
	}
	p.do(put(g, "same"))
	p.checkSame(put(g, "same"))
}

// Hard links stay links of one inode.
func TestPutWithLinks(t *testing.T) {
	p := newPair(t)
	g, d := p.src.Next(), p.src.Next()
	p.do(mkdir(d, inRoot("d")), file(g, inRoot("a"), "old and long"), Op{Kind: Link, GFID: g, Name: Name{d, "b"}})
	r := p.do(put(g, "new"))
	if r[0].Size != 3 {
		t.Errorf("size %d, want 3", r[0].Size)
	}
	for _, path := range []string{p.path("a"), p.path("d", "b")} {
		if b, _ := os.ReadFile(path); string(b) != "new" {
			t.Errorf("%s: %q", path, b)
		}
	}
	if o := p.stat(g); o.Attr.Nlink != 2 || o.Changed || o.Busy || o.Attr.Mode&0o777 != 0o600 {
		t.Errorf("afterwards %+v", o)
	}
	p.checkSame(put(g, "new"))
}

// What others wrote into our file is kept aside and reported, by each way of
// writing over it; where nothing would be written over the answer is EUCLEAN.
func TestForeignWrite(t *testing.T) {
	setup := func(t *testing.T, links int) (*pairOf, gfid.GFID) {
		p := newPair(t)
		g := p.src.Next()
		p.do(file(g, inRoot("f"), "ours"))
		for i := range links {
			p.do(Op{Kind: Link, GFID: g, Name: inRoot("f" + string(rune('0'+i)))})
		}
		mustWrite(t, p.path("f"), "theirs")
		if o := p.stat(g); !o.Changed {
			t.Errorf("stat %+v, want it changed", o)
		}
		return p, g
	}
	meta := metaOfMode(unix.S_IFREG | 0o644)
	for _, c := range []struct {
		what  string
		links int
		ops   func(g gfid.GFID) []Op
		want  string // content of f afterwards
	}{
		{"put", 0, func(g gfid.GFID) []Op { return []Op{put(g, "new")} }, "new"},
		{"put with links", 3, func(g gfid.GFID) []Op { return []Op{put(g, "new")} }, "new"},
		{"begin", 1, func(g gfid.GFID) []Op {
			return []Op{{Kind: Begin, GFID: g}, {Kind: Write, GFID: g, Content: text("new")}, {Kind: Setattr, GFID: g, Meta: meta, End: true}}
		}, "new"},
		{"make again", 0, func(g gfid.GFID) []Op { return []Op{file(g, inRoot("f"), "new")} }, "new"},
		{"gone", 0, func(g gfid.GFID) []Op { return []Op{{Kind: Unlink, GFID: g, Name: inRoot("f"), Gone: true}} }, ""},
		{"destroyed", 0, func(g gfid.GFID) []Op {
			return []Op{{Kind: Unlink, GFID: g, Name: inRoot("f")}, {Kind: Destroy, GFID: g}}
		}, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			p, g := setup(t, c.links)
			ops := c.ops(g)
			var conflict string
			for _, r := range p.do(ops...) {
				conflict += r.Conflict
			}
			kept := p.path(".glusterfs", conflictsDir, conflict)
			if b, err := os.ReadFile(kept); string(b) != "theirs" {
				t.Errorf("kept aside as %q: %q, %v", conflict, b, err)
			}
			if _, errno := p.m.GFIDOf(unix.AT_FDCWD, kept); errno != syscall.ENODATA {
				t.Errorf("what is kept has a gfid still: %v", errno)
			}
			b, _ := os.ReadFile(p.path("f"))
			if string(b) != c.want {
				t.Errorf("content %q, want %q", b, c.want)
			}
			if c.want != "" {
				if o := p.stat(g); int(o.Attr.Nlink) != 1+c.links || len(o.Names) != 1+c.links || o.Changed || o.Busy {
					t.Errorf("afterwards %+v, want %d names", o, 1+c.links)
				}
			}
			p.checkSame(ops...)
			if n := len(p.conflicts()); n != 1 {
				t.Errorf("%d conflicts after replays, want 1", n)
			}
		})
	}
	t.Run("setattr and write", func(t *testing.T) {
		p, g := setup(t, 0)
		before := dump(t, p.root)
		wantErrno(t, "setattr", p.try(Op{Kind: Setattr, GFID: g, Meta: meta})[0], syscall.EUCLEAN)
		wantErrno(t, "write", p.try(Op{Kind: Write, GFID: g, Content: text("x")})[0], syscall.EUCLEAN)
		if got := dump(t, p.root); got != before {
			t.Errorf("something changed, -was +is:\n%s", diffLines(before, got))
		}
	})
}

// Metadata that comes while data is under way does not end that.
func TestSetattrWhileBusy(t *testing.T) {
	p := newPair(t)
	g := p.src.Next()
	setattr := Op{Kind: Setattr, GFID: g, Meta: metaOfMode(unix.S_IFREG | 0o600)}
	p.do(file(g, inRoot("f"), "x"), Op{Kind: Begin, GFID: g}, setattr)
	mustWrite(t, p.path("f"), "rsync writes") // beside us, as rsync does
	if o := p.stat(g); !o.Busy || o.Changed {
		t.Errorf("while data comes %+v, want it busy", o)
	}
	setattr.End = true
	p.do(setattr)
	if o := p.stat(g); o.Busy || o.Changed {
		t.Errorf("at the end %+v", o)
	}
	if n := len(p.conflicts()); n != 0 {
		t.Errorf("%d conflicts", n)
	}
}

// Setattr makes xattrs and ACLs be what they should be, no more and no less.
func TestSetattrXattrs(t *testing.T) {
	p := newPair(t)
	f, d, l := p.src.Next(), p.src.Next(), p.src.Next()
	p.do(file(f, inRoot("f"), "x"), mkdir(d, inRoot("d")),
		Op{Kind: Make, GFID: l, Name: inRoot("l"), Target: "t", Meta: metaOfMode(unix.S_IFLNK | 0o777)})
	mode := map[gfid.GFID]uint32{f: unix.S_IFREG | 0o640, d: unix.S_IFDIR | 0o640, l: unix.S_IFLNK | 0o777}
	for _, g := range []gfid.GFID{f, d, l} {
		for _, xattrs := range [][]Xattr{
			{{"system.posix_acl_access", acl(5)}, {"trusted.a", []byte("1")}, {"user.b", bytes.Repeat([]byte("v"), 3000)}},
			{{"trusted.a", []byte("2")}, {"user.c", nil}},
			nil,
		} {
			if g == l { // a symlink has trusted ones alone
				xattrs = slices.DeleteFunc(slices.Clone(xattrs), func(x Xattr) bool { return !strings.HasPrefix(x.Name, "trusted.") })
			}
			op := Op{Kind: Setattr, GFID: g, Meta: &Meta{Mode: mode[g], UID: 9, GID: 10, Mtime: Time{77, 88}, Xattrs: xattrs}}
			p.do(op)
			o := p.stat(g)
			if !slices.EqualFunc(o.Xattrs, xattrs, func(a, b Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) }) {
				t.Errorf("xattrs %q, want %q", o.Xattrs, xattrs)
			}
			if o.Attr.Mode != mode[g] || o.Attr.UID != 9 || o.Attr.GID != 10 || o.Attr.Mtime != (Time{77, 88}) {
				t.Errorf("attributes %+v", o.Attr)
			}
			ctime := o.Attr.Ctime
			p.do(op)
			if o := p.stat(g); o.Attr.Ctime != ctime {
				t.Error("what was right was touched")
			}
		}
	}
	// Without word of xattrs they stay.
	p.do(Op{Kind: Setattr, GFID: f, Meta: &Meta{Mode: mode[f], Xattrs: []Xattr{{"user.stays", nil}}}},
		Op{Kind: Put, GFID: f, Content: text("y"), Meta: &Meta{Mode: mode[f], KeepXattrs: true}},
		Op{Kind: Setattr, GFID: f, Meta: &Meta{Mode: mode[f], KeepXattrs: true}})
	if o := p.stat(f); len(o.Xattrs) != 1 || o.Xattrs[0].Name != "user.stays" {
		t.Errorf("xattrs %q, want user.stays", o.Xattrs)
	}
	wantErrno(t, "no such gfid", p.try(Op{Kind: Setattr, GFID: p.src.Next(), Meta: metaOfMode(0)})[0], syscall.ENOENT)
}

// Files are hashed by content; holes count as the zeros they read as, and cost
// nothing.
func TestHash(t *testing.T) {
	p := newPair(t)
	hole, zero, one, huge, dir := p.src.Next(), p.src.Next(), p.src.Next(), p.src.Next(), p.src.Next()
	const size = 3*hashBlock + 100
	written := make([]byte, size)
	p.do(Op{Kind: Make, GFID: hole, Name: inRoot("hole"), Meta: metaOfMode(unix.S_IFREG), Content: &Content{Size: size}},
		file(zero, inRoot("zero"), string(written)),
		Op{Kind: Make, GFID: huge, Name: inRoot("huge"), Meta: metaOfMode(unix.S_IFREG), Content: &Content{Size: 100 << 30, Extents: []Extent{{99 << 30, []byte("x")}}}},
		mkdir(dir, inRoot("dir")))
	written[size-1] = 1
	p.do(file(one, inRoot("one"), string(written)))
	asked := []gfid.GFID{hole, zero, one, huge, dir, p.src.Next()}
	got := make([]Hash, len(asked))
	if err := p.Hash(t.Context(), asked, func(i int, h Hash) error { got[i] = h; return nil }); err != nil {
		t.Fatal(err)
	}
	for i, want := range []syscall.Errno{0, 0, 0, 0, syscall.EINVAL, syscall.ENOENT} {
		if got[i].Errno != want {
			t.Errorf("hash %d: %v, want %v", i, got[i].Errno, want)
		}
	}
	if got[0].Sum != got[1].Sum {
		t.Error("a hole and written zeros differ")
	}
	if got[1].Sum == got[2].Sum || got[2].Sum == got[3].Sum {
		t.Error("different contents have one hash")
	}
	if got[0].Size != size || got[0].Mtime != metaOfMode(0).Mtime {
		t.Errorf("told with it: %+v", got[0])
	}
}

// What a brick reads for the other end is what the other end then has.
func TestReadContentRoundTrip(t *testing.T) {
	p := newPair(t)
	path := t.TempDir() + "/f"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, 1 << 20, 1<<30 + 123} {
		if _, err := f.WriteAt([]byte("some data"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(1<<31 + 7); err != nil {
		t.Fatal(err)
	}
	c, errno := ReadContent(int(f.Fd()), 1<<20)
	if errno != 0 {
		t.Fatal(errno)
	}
	g := p.src.Next()
	p.do(Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: metaOfMode(unix.S_IFREG), Content: c})
	if a, b := hashPath(t, path), hashPath(t, p.path("f")); a.Sum != b.Sum || a.Size != b.Size {
		t.Errorf("%d bytes became %d others", a.Size, b.Size)
	}
	if o := p.stat(g); o.Attr.Blocks > 100 {
		t.Errorf("%d blocks, want the holes kept", o.Attr.Blocks)
	}
	if _, errno := ReadContent(int(f.Fd()), 1000); errno != syscall.EFBIG {
		t.Errorf("with a small limit: %v, want EFBIG", errno)
	}
}
