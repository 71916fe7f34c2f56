package slave

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// Whatever holds a name gives way to whatever is to have it: a reader sees one
// or the other, and what gave way lives on.
func TestReplaceEverything(t *testing.T) {
	for _, wanted := range []string{"file", "linked file", "symlink", "directory", "orphan", "new file", "new directory"} {
		t.Run(wanted, func(t *testing.T) {
			p := newPair(t)
			for _, holder := range []string{"nothing", "file", "directory", "full directory", "foreign file", "foreign directory", "copy of a file", "copy of a directory"} {
				t.Run(holder, func(t *testing.T) { testReplace(t, p, wanted, holder) })
			}
		})
	}
}

func testReplace(t *testing.T, p *pairOf, wanted, holder string) {
	p.t = t
	kept := len(p.conflicts())
	a, b := p.src.Next(), p.src.Next() // two directories: names differ in both parts
	g, x, child := p.src.Next(), p.src.Next(), p.src.Next()
	p.do(mkdir(a, inRoot(holder+" a")), mkdir(b, inRoot(holder+" b")))
	original := holder + " original"
	from, to := Name{a, "from"}, Name{b, "to"}
	op := Op{Kind: Rename, GFID: g, Old: from, Name: to}
	switch wanted {
	case "file":
		p.do(file(g, from, "wanted"))
	case "linked file":
		p.do(file(g, from, "wanted"))
		op.Kind = Link
	case "symlink":
		p.do(Op{Kind: Make, GFID: g, Name: from, Target: "wanted", Meta: metaOfMode(unix.S_IFLNK | 0o777)})
	case "directory":
		p.do(mkdir(g, from), file(child, Name{g, "child"}, "wanted"))
	case "orphan":
		p.do(mkdir(g, Name{}), file(child, Name{g, "child"}, "wanted"))
	case "new file":
		op = file(g, to, "wanted")
	case "new directory":
		op = mkdir(g, to)
	}
	held := p.path(holder+" b", "to")
	var displaced gfid.GFID
	foreign := strings.HasPrefix(holder, "foreign") || strings.HasPrefix(holder, "copy")
	switch holder {
	case "file":
		p.do(file(x, to, "holder"))
		displaced = x
	case "directory":
		p.do(mkdir(x, to))
		displaced = x
	case "full directory":
		p.do(mkdir(x, to), file(p.src.Next(), Name{x, "in"}, "holder"))
		displaced = x
	case "foreign file":
		mustWrite(t, held, "foreign")
	case "foreign directory":
		mustWrite(t, filepath.Join(held, "in"), "foreign")
	case "copy of a file":
		p.do(file(x, inRoot(original), "holder"))
		copyAs(t, p.path(original), held)
	case "copy of a directory":
		p.do(mkdir(x, inRoot(original)), file(p.src.Next(), Name{x, "in"}, "holder"))
		copyAs(t, p.path(original), held)
	}
	stop := func() {}
	if holder != "nothing" {
		stop = watch(t, held)
	}
	r := p.do(op)[0]
	stop()

	if e := p.lookup(b, "to"); e.GFID != g {
		t.Errorf("the name is %+v, want %v", e, g)
	}
	if got, errno := p.m.GFIDOf(unix.AT_FDCWD, held); errno != 0 || got != g {
		t.Errorf("on disk the name is %v %v, want %v", got, errno, g)
	}
	wantNames := []Name{to}
	if wanted == "linked file" {
		wantNames = []Name{from, to}
	}
	o := p.stat(g)
	if len(o.Names) != len(wantNames) || !cmp.Equal(o.Names[len(o.Names)-1], to) && !cmp.Equal(o.Names[0], to) {
		t.Errorf("names %v, want %v", o.Names, wantNames)
	}
	if e := p.lookup(a, "from"); wanted != "linked file" && !e.Free() {
		t.Errorf("the old name is %+v, want it free", e)
	}
	if r.Displaced != displaced {
		t.Errorf("displaced %v, want %v", r.Displaced, displaced)
	}
	if displaced != (gfid.GFID{}) {
		if o := p.stat(displaced); o.Errno != 0 || len(o.Names) != 0 || o.Attr.IsDir() != o.Orphan {
			t.Errorf("displaced is %+v, want it nameless", o)
		}
	}
	if got := len(p.conflicts()) - kept; (r.Conflict != "") != foreign || got != btoi(foreign) {
		t.Errorf("conflict %q, %d kept, want one: %v", r.Conflict, got, foreign)
	}
	if strings.HasPrefix(holder, "copy") {
		if e := p.lookup(gfid.Root, original); e.GFID != x {
			t.Errorf("the original is %+v, want %v", e, x)
		}
	}
	op.Gone = false
	p.checkSame(op)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// watch looks at path all the time until stop, and complains if it is not there.
func watch(t *testing.T, path string) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				t.Errorf("a reader sees nothing at the name: %v", err)
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

func mustWrite(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// copyAs copies as root does, our xattrs included.
func copyAs(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
}

// Two directories that change names, and one that goes below what was below it.
func TestRenameCycles(t *testing.T) {
	p := newPair(t)
	a, b, f := p.src.Next(), p.src.Next(), p.src.Next()
	p.do(mkdir(a, inRoot("a")), mkdir(b, Name{a, "b"}), file(f, Name{b, "f"}, "x"))
	r := p.try(Op{Kind: Rename, GFID: a, Name: Name{b, "a"}})
	wantErrno(t, "below itself", r[0], syscall.EINVAL)
	ops := []Op{
		{Kind: Unlink, GFID: b, Name: Name{a, "b"}},
		{Kind: Rename, GFID: b, Name: inRoot("b")},
		{Kind: Rename, GFID: a, Name: Name{b, "a"}},
	}
	p.do(ops...)
	mustExist(t, p.path("b", "a"), p.path("b", "f"))
	if e := p.lookup(gfid.Root, "a"); !e.Free() {
		t.Errorf("a is %+v, want it free", e)
	}
	// Swap b and b/a/c through the replacing of names.
	c := p.src.Next()
	p.do(mkdir(c, inRoot("c")))
	r = p.do(Op{Kind: Rename, GFID: c, Name: inRoot("b")}, Op{Kind: Rename, GFID: b, Name: inRoot("c")})
	if r[0].Displaced != b {
		t.Errorf("displaced %v, want %v", r[0].Displaced, b)
	}
	mustExist(t, p.path("b"), p.path("c", "a"), p.path("c", "f"))
}

func mustExist(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}

// A tree deeper than any path names, and than the kernel follows symlinks.
func TestDeepTree(t *testing.T) {
	p := newPair(t)
	parent := gfid.Root
	base := strings.Repeat("d", 200)
	var ops []Op
	var dirs []gfid.GFID
	for range 600 {
		g := p.src.Next()
		ops = append(ops, mkdir(g, Name{parent, base}))
		dirs = append(dirs, g)
		parent = g
	}
	g := p.src.Next()
	ops = append(ops, file(g, Name{parent, "f"}, "deep"))
	p.do(ops...)
	p.reopen() // with nothing in the cache
	p.try(ops...)
	if o := p.stat(g); len(o.Names) != 1 || o.Names[0].Parent != parent {
		t.Errorf("the file is %+v, want it in %v", o, parent)
	}
	// It all hangs on one name: move it.
	p.do(Op{Kind: Rename, GFID: dirs[0], Name: inRoot("short")})
	p.reopen()
	if e := p.lookup(parent, "f"); e.GFID != g {
		t.Errorf("after a rename the file is %+v, want %v", e, g)
	}
	var got int
	if err := p.List(t.Context(), dirs[598], true, func(e []Entry) error { got += len(e); return nil }); err != nil || got != 1 {
		t.Errorf("%d entries, %v, want 1", got, err)
	}
}

// What others do to our directories is put right when it is seen.
func TestForeignRename(t *testing.T) {
	p := newPair(t)
	d, f := p.src.Next(), p.src.Next()
	p.do(mkdir(d, inRoot("d")), file(f, Name{d, "f"}, "x"))
	if err := os.Rename(p.path("d"), p.path("elsewhere")); err != nil {
		t.Fatal(err)
	}
	p.reopen()
	if o := p.stat(d); o.Errno != syscall.ENOENT {
		t.Errorf("moved away: %v, want ENOENT", o.Errno)
	}
	if e := p.lookup(gfid.Root, "elsewhere"); e.GFID != d || e.Foreign {
		t.Errorf("found again: %+v, want %v", e, d)
	}
	if o := p.stat(d); o.Errno != 0 || o.Names[0] != inRoot("elsewhere") {
		t.Errorf("after that %+v, want it at its place", o)
	}
	// A file whose handle is gone gets it back.
	if err := os.Remove(p.path(brick.Dir, brick.HandlePath(f))); err != nil {
		t.Fatal(err)
	}
	if e := p.lookup(d, "f"); e.GFID != f {
		t.Errorf("without handle: %+v, want %v", e, f)
	}
	if o := p.stat(f); o.Errno != 0 || o.Attr.Nlink != 1 {
		t.Errorf("healed: %+v, want one name", o)
	}
	// A directory that others removed is made again.
	if err := os.RemoveAll(p.path("elsewhere")); err != nil {
		t.Fatal(err)
	}
	p.do(mkdir(d, inRoot("d")), Op{Kind: Link, GFID: f, Name: Name{d, "f"}})
	mustExist(t, p.path("d", "f"))
}

// Symlinks that others plant lead nowhere.
func TestPlantedSymlinks(t *testing.T) {
	p := newPair(t)
	outside := t.TempDir()
	mustWrite(t, filepath.Join(outside, "f"), "outside")
	d, f := p.src.Next(), p.src.Next()
	p.do(mkdir(d, inRoot("d")), file(f, Name{d, "f"}, "x"))
	before := dump(t, outside)
	p.reopen()
	if err := os.Rename(p.path("d"), p.path("kept")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, p.path("d")); err != nil {
		t.Fatal(err)
	}
	g := p.src.Next()
	for _, op := range []Op{
		file(g, Name{d, "g"}, "x"), {Kind: Unlink, GFID: f, Name: Name{d, "f"}}, {Kind: Unlink, Name: Name{d, "f"}},
		{Kind: Link, GFID: f, Name: Name{d, "new"}}, {Kind: Rename, GFID: f, Old: Name{d, "f"}, Name: Name{d, "new"}},
		mkdir(p.src.Next(), Name{d, "dir"}),
	} {
		if r := p.try(op)[0]; r.Errno != syscall.ESTALE && op.Kind != Unlink {
			t.Errorf("kind %d below a symlink: %v, want ESTALE", op.Kind, r.Errno)
		}
	}
	if e := p.lookup(gfid.Root, "d"); !e.Foreign {
		t.Errorf("the symlink is %+v, want it foreign", e)
	}
	// A file replaced by a symlink: its content is not what that leads to.
	if err := os.Remove(p.path("kept", "f")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "f"), p.path("kept", "f")); err != nil {
		t.Fatal(err)
	}
	p.lookup(gfid.Root, "kept")
	p.do(put(f, "changed"), Op{Kind: Link, GFID: f, Name: Name{d, "f"}})
	if got := dump(t, outside); got != before {
		t.Errorf("outside changed, -was +is:\n%s", diffLines(before, got))
	}
	if n := len(p.conflicts()); n != 1 {
		t.Errorf("%d conflicts, want the symlink", n)
	}
}

// A mount below the root is not the slave's.
func TestMountBelow(t *testing.T) {
	p := newPair(t)
	d := p.src.Next()
	p.do(mkdir(d, inRoot("d")))
	p.reopen()
	if err := unix.Mount("tmpfs", p.path("d"), "tmpfs", 0, ""); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	defer unix.Unmount(p.path("d"), 0)
	wantErrno(t, "below a mount", p.try(file(p.src.Next(), Name{d, "f"}, "x"))[0], syscall.ESTALE)
	if names, _ := os.ReadDir(p.path("d")); len(names) != 0 {
		t.Errorf("the mount has %v", names)
	}
}
