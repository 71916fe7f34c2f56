package slave

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// Every type comes with its GFID, owner, mode, times, xattrs and ACL, on every
// file system that a slave may be on.
func TestMakeEveryType(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) { testMakeEveryType(t, newPairAt(t, fileSystem(t, fs))) })
	}
}

func testMakeEveryType(t *testing.T, p *pairOf) {
	cap := []byte{0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name string
		op   Op
	}{
		{"directory", Op{Meta: &Meta{Mode: unix.S_IFDIR | 0o2640, Xattrs: []Xattr{
			{"system.posix_acl_access", acl(99)}, {"system.posix_acl_default", acl(98)}, {"user.a", []byte("1")}}}}},
		{"file", Op{Content: text("hello"), Meta: &Meta{Mode: unix.S_IFREG | 0o4755, UID: 1, GID: 2, Xattrs: []Xattr{
			{"security.capability", cap}, {"trusted.mine", nil}, {"user.\xff", []byte{0, 1}}}}}},
		{"acl", Op{Content: text(""), Meta: &Meta{Mode: unix.S_IFREG | 0o640, UID: 1, Xattrs: []Xattr{{"system.posix_acl_access", acl(99)}}}}},
		{"empty", Op{Meta: &Meta{Mode: unix.S_IFREG}}},
		{"symlink", Op{Target: "/etc/\xfe\n", Meta: &Meta{Mode: unix.S_IFLNK | 0o777, UID: 5, Xattrs: []Xattr{{"trusted.l", []byte("x")}}}}},
		{"fifo", Op{Meta: &Meta{Mode: unix.S_IFIFO | 0o622, GID: 4}}},
		{"socket", Op{Meta: &Meta{Mode: unix.S_IFSOCK | 0o700}}},
		{"char", Op{Rdev: Rdev{1, 3}, Meta: &Meta{Mode: unix.S_IFCHR | 0o666}}},
		{"block", Op{Rdev: Rdev{300, 70000}, Meta: &Meta{Mode: unix.S_IFBLK | 0o660}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.t = t
			op := c.op
			op.Kind, op.GFID, op.Name = Make, p.src.Next(), inRoot("a "+c.name+"\n\xff")
			op.Meta.Mtime = Time{-5, 999_999_999}
			op.Meta.Atime = Time{1 << 33, 1}
			p.do(op)
			got := p.stat(op.GFID)
			if got.Attr.Ctime.IsZero() {
				t.Error("no ctime")
			}
			want := Object{Target: op.Target, Xattrs: op.Meta.Xattrs, Names: []Name{op.Name}, Attr: Attr{
				Mode: op.Meta.Mode, UID: op.Meta.UID, GID: op.Meta.GID, Rdev: op.Rdev, Mtime: op.Meta.Mtime, Atime: op.Meta.Atime,
				Nlink: 1, Size: got.Attr.Size, Blocks: got.Attr.Blocks, Ctime: got.Attr.Ctime}}
			if got.Attr.IsDir() {
				want.Attr.Nlink = got.Attr.Nlink // file systems differ
			}
			if d := cmp.Diff(want, got, equateEmpty); d != "" {
				t.Errorf("stat, -want +got:\n%s", d)
			}
			e := p.lookup(gfid.Root, op.Name.Base)
			if e.GFID != op.GFID || e.Foreign || e.Attr.Mode != op.Meta.Mode {
				t.Errorf("lookup %+v, want gfid %v", e, op.GFID)
			}
			p.checkSame(op)
		})
	}
}

var equateEmpty = cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })

// fileSystem mounts a fresh file system of the type, and returns where.
func fileSystem(t *testing.T, fstype string) string {
	t.Helper()
	dir := t.TempDir()
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	err := os.WriteFile(image, nil, 0o600)
	if err == nil {
		err = os.Truncate(image, 512<<20) // sparse
	}
	if err == nil {
		err = os.Mkdir(point, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"mkfs." + fstype, "-q", image}, {"mount", "-t", fstype, "-o", "loop", image, point}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q (Debian packages e2fsprogs, xfsprogs, btrfs-progs): %v: %s", c, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Errorf("unmount %s: %v", point, err)
		}
	})
	return point
}

// A full disk is an errno of each item that needs room; what needs none goes on,
// and all is well once there is room again.
func TestDiskFull(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m,mode=755"); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("unmount %s: %v", root, err)
		}
	})
	p := newPairAt(t, root)
	old, big := p.src.Next(), p.src.Next()
	p.do(file(old, inRoot("old"), "old"))
	content := strings.Repeat("x", 600_000)
	p.do(file(big, inRoot("big"), content))
	var ops []Op
	for i := range 5 {
		ops = append(ops, file(p.src.Next(), inRoot(string(rune('a'+i))), content))
	}
	ops = append(ops, put(old, content), Op{Kind: Rename, GFID: old, Old: inRoot("old"), Name: inRoot("renamed")})
	res := p.try(ops...)
	for i, r := range res[:6] {
		wantErrno(t, ops[i].Name.Base, r, syscall.ENOSPC)
	}
	wantErrno(t, "what needs no room", res[6], 0)
	if b, _ := os.ReadFile(p.path("renamed")); string(b) != "old" {
		t.Errorf("the file is %q, want what it was", b)
	}
	p.do(Op{Kind: Unlink, GFID: big, Name: inRoot("big"), Gone: true}, ops[0])
	p.wantNameless()
	if b, _ := os.ReadFile(p.path("a")); string(b) != content {
		t.Errorf("the file has %d bytes", len(b))
	}
}

// A file's holes stay holes, wherever they are.
func TestMakeSparse(t *testing.T) {
	p := newPair(t)
	g := p.src.Next()
	block := bytes.Repeat([]byte("x"), 4096)
	p.do(Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: metaOfMode(unix.S_IFREG | 0o600), Content: &Content{
		Size: 100 << 30, Extents: []Extent{{1 << 20, block}, {50 << 30, block}}}})
	o := p.stat(g)
	if o.Attr.Size != 100<<30 || o.Attr.Blocks > 1024 {
		t.Errorf("size %d blocks %d, want 100 GiB in at most 1024", o.Attr.Size, o.Attr.Blocks)
	}
	f, err := os.Open(p.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, errno := ReadContent(int(f.Fd()), 1<<20)
	if errno != 0 || len(c.Extents) != 2 || c.Extents[1].Offset != 50<<30 || !bytes.Equal(c.Extents[1].Data, block) {
		t.Errorf("content %v with %d extents, want the 2 written", errno, len(c.Extents))
	}
}

// What a Make can't do is an errno, and leaves no trace.
func TestMakeRefused(t *testing.T) {
	p := newPair(t)
	dir, there := p.src.Next(), p.src.Next()
	p.do(mkdir(dir, inRoot("dir")), file(there, inRoot("there"), "x"))
	before := dump(t, p.root)
	g := p.src.Next()
	meta := metaOfMode(unix.S_IFREG | 0o600)
	big := make([]byte, MaxContent)
	for _, c := range []struct {
		what string
		op   Op
		want syscall.Errno
	}{
		{"no gfid", Op{Kind: Make, Name: inRoot("f"), Meta: meta}, syscall.EINVAL},
		{"no meta", Op{Kind: Make, GFID: g, Name: inRoot("f")}, syscall.EINVAL},
		{"no type", Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: metaOfMode(0o644)}, syscall.EINVAL},
		{"no parent", Op{Kind: Make, GFID: g, Name: Name{p.src.Next(), "f"}, Meta: meta}, syscall.ESTALE},
		{"parent is a file", Op{Kind: Make, GFID: g, Name: Name{there, "f"}, Meta: meta}, syscall.ESTALE},
		{"slash", Op{Kind: Make, GFID: g, Name: inRoot("dir/f"), Meta: meta}, syscall.EINVAL},
		{"dot dot", Op{Kind: Make, GFID: g, Name: Name{dir, ".."}, Meta: meta}, syscall.EINVAL},
		{"dot", Op{Kind: Make, GFID: g, Name: Name{dir, "."}, Meta: meta}, syscall.EINVAL},
		{"nul", Op{Kind: Make, GFID: g, Name: inRoot("a\x00b"), Meta: meta}, syscall.EINVAL},
		{"empty name", Op{Kind: Make, GFID: g, Name: inRoot(""), Meta: meta}, syscall.EINVAL},
		{"long name", Op{Kind: Make, GFID: g, Name: inRoot(string(make256())), Meta: meta}, syscall.EINVAL},
		{".glusterfs", Op{Kind: Make, GFID: g, Name: inRoot(".glusterfs"), Meta: meta}, syscall.EINVAL},
		{"our xattr", Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: &Meta{Mode: unix.S_IFREG, Xattrs: []Xattr{{"trusted.gfid", make([]byte, 16)}}}}, syscall.EPERM},
		{"system xattr", Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: &Meta{Mode: unix.S_IFREG, Xattrs: []Xattr{{"system.nfs4_acl", nil}}}}, syscall.EPERM},
		{"times", Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: &Meta{Mode: unix.S_IFREG, Mtime: Time{0, 1e9}}}, syscall.EINVAL},
		{"other type", Op{Kind: Make, GFID: there, Name: inRoot("f"), Meta: metaOfMode(unix.S_IFDIR)}, syscall.EEXIST},
		{"extent beyond", Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: meta, Content: &Content{Size: 1, Extents: []Extent{{0, []byte("ab")}}}}, syscall.EINVAL},
		{"extent before", Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: meta, Content: &Content{Size: 1, Extents: []Extent{{-1, []byte("a")}}}}, syscall.EINVAL},
		{"negative size", Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: meta, Content: &Content{Size: -1}}, syscall.EINVAL},
		{"too much", Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: meta, Content: &Content{Size: 3 << 20, Extents: []Extent{{0, big}, {1 << 20, []byte("x")}}}}, syscall.EMSGSIZE},
		{"no target", Op{Kind: Make, GFID: g, Name: inRoot("f"), Meta: metaOfMode(unix.S_IFLNK)}, syscall.EINVAL},
		{"unknown kind", Op{Kind: 99, GFID: g}, syscall.ENOSYS},
	} {
		t.Run(c.what, func(t *testing.T) {
			p.t = t
			wantErrno(t, c.what, p.try(c.op)[0], c.want)
			if got := dump(t, p.root); got != before {
				t.Errorf("it left a trace, -was +is:\n%s", diffLines(before, got))
			}
		})
	}
}

func make256() []byte { return bytes.Repeat([]byte("n"), 256) }

// A parent that comes later is made among the orphans, filled, and named then.
func TestMakeBelowOrphan(t *testing.T) {
	p := newPair(t)
	d, sub, f := p.src.Next(), p.src.Next(), p.src.Next()
	ops := []Op{
		mkdir(d, Name{}), mkdir(sub, Name{d, "sub"}), file(f, Name{sub, "f"}, "data"),
		{Kind: Rename, GFID: d, Name: inRoot("d")},
	}
	p.do(ops[:3]...)
	if o := p.stat(d); !o.Orphan || o.Names != nil {
		t.Errorf("made without a name: %+v, want an orphan", o)
	}
	p.do(ops[3])
	if o := p.stat(d); o.Orphan {
		t.Error("orphan still")
	}
	if b, err := os.ReadFile(p.path("d", "sub", "f")); string(b) != "data" {
		t.Errorf("content %q, %v", b, err)
	}
	p.checkSame(ops...)
}

// A new file lives by its handle until it is linked: nobody sees it half.
func TestMakeNamelessThenLink(t *testing.T) {
	p := newPair(t)
	g := p.src.Next()
	ops := []Op{
		{Kind: Make, GFID: g, Meta: metaOfMode(unix.S_IFREG | 0o600)},
		{Kind: Begin, GFID: g},
		{Kind: Write, GFID: g, Content: &Content{Size: -1, Extents: []Extent{{0, []byte("one ")}}}},
		{Kind: Write, GFID: g, Content: &Content{Size: 7, Extents: []Extent{{4, []byte("two")}}}},
		{Kind: Setattr, GFID: g, Meta: metaOfMode(unix.S_IFREG | 0o600), End: true},
		{Kind: Link, GFID: g, Name: inRoot("f")},
	}
	p.do(ops[:4]...)
	if o := p.stat(g); !o.Busy || o.Changed || o.Attr.Nlink != 0 {
		t.Errorf("while data comes: %+v, want busy and nameless", o)
	}
	var nameless []gfid.GFID
	if err := p.Nameless(t.Context(), func(g []gfid.GFID) error { nameless = append(nameless, g...); return nil }); err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(nameless, []gfid.GFID{g}) {
		t.Errorf("nameless %v, want %v", nameless, g)
	}
	r := p.do(ops[4:]...)
	if r[0].Size != 7 {
		t.Errorf("size %d, want 7", r[0].Size)
	}
	if o := p.stat(g); o.Busy || o.Changed || o.Attr.Nlink != 1 {
		t.Errorf("at the end: %+v, want idle with one name", o)
	}
	if b, _ := os.ReadFile(p.path("f")); string(b) != "one two" {
		t.Errorf("content %q", b)
	}
	p.checkSame(ops...)
}
