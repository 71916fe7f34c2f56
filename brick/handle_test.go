package brick

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// golden reads a file of two words a line, made by GlusterFS.
func golden(t *testing.T, name string) [][2]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	check(t, err)
	var pairs [][2]string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		w := strings.Fields(line)
		if len(w) != 2 {
			t.Fatalf("%s: %q: %d words, want 2", name, line, len(w))
		}
		pairs = append(pairs, [2]string{w[0], w[1]})
	}
	if len(pairs) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return pairs
}

func TestDirHandleGolden(t *testing.T) {
	for _, p := range golden(t, "dirhandles.txt") {
		target, err := url.PathUnescape(p[1])
		check(t, err)
		g, err := gfid.Parse(filepath.Base(p[0]))
		check(t, err)
		if got := HandlePath(g); got != p[0] {
			t.Errorf("HandlePath(%v) = %s, want %s", g, got, p[0])
		}
		if g == gfid.Root {
			continue // leads out of .glusterfs, not to a parent's handle
		}
		parent, base, errno := ParseDirHandleTarget(target)
		if errno != 0 || DirHandleTarget(parent, base) != target {
			t.Errorf("%q reads as %v/%q, %v, which is written %q", target, parent, base, errno, DirHandleTarget(parent, base))
		}
	}
}

func TestParseDirHandleTargetRefuses(t *testing.T) {
	const p = "../../aa/bb/aabb0000-0000-4000-8000-000000000000"
	if _, base, errno := ParseDirHandleTarget(p + "/x"); errno != 0 || base != "x" {
		t.Fatalf("%q, %v", base, errno)
	}
	for _, target := range []string{
		"", "../../..", p, p + "/", p + "/x/y", p[3:] + "/x", "/" + p + "/x",
		p + "/.", p + "/..",
		"../../aa/bc/aabb0000-0000-4000-8000-000000000000/x", // a GFID that lives elsewhere
		"../../AA/BB/AABB0000-0000-4000-8000-000000000000/x",
	} {
		if parent, base, errno := ParseDirHandleTarget(target); errno != syscall.EINVAL {
			t.Errorf("%q reads as %v/%q, %v, want EINVAL", target, parent, base, errno)
		}
	}
}

func TestFileHandle(t *testing.T) {
	b := newBrick(t)
	var src gfid.Source
	p := filepath.Join(b.Path(), "f")
	for _, c := range []struct {
		kind string
		make func() error
	}{
		{"file", func() error { return os.WriteFile(p, []byte("x"), 0o600) }},
		{"symlink", func() error { return os.Symlink("/nowhere", p) }},
		{"fifo", func() error { return unix.Mkfifo(p, 0o600) }},
		{"device", func() error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) }},
		{"socket", func() error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) }},
	} {
		check(t, c.make())
		g := src.Next()
		must(t, b.LinkHandle(b.Root(), "f", g))
		if errno := b.LinkHandle(b.Root(), "f", g); errno != syscall.EEXIST {
			t.Errorf("%s: a second handle: %v, want EEXIST", c.kind, errno)
		}
		var h unix.Statx_t
		must(t, b.StatHandle(g, &h))
		if st := stat(t, b.Root(), "f"); h.Ino != st.Ino || h.Mode != st.Mode || h.Nlink != 2 {
			t.Errorf("%s: handle is inode %d, mode %o, %d links; the name %d, %o", c.kind, h.Ino, h.Mode, h.Nlink, st.Ino, st.Mode)
		}
		fd, errno := b.OpenHandle(g, unix.O_PATH)
		must(t, errno)
		Close(fd)
		must(t, b.UnlinkHandle(g))
		if errno := b.StatHandle(g, &h); errno != syscall.ENOENT {
			t.Errorf("%s: after unlink: %v, want ENOENT", c.kind, errno)
		}
		check(t, os.Remove(p))
	}
}

// A file without a name, as O_TMPFILE makes it, gets its handle by descriptor.
func TestHandleOfDescriptor(t *testing.T) {
	b := newBrick(t)
	var src gfid.Source
	fd, err := unix.Openat(b.Root(), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	check(t, err)
	defer Close(fd)
	g := src.Next()
	must(t, b.LinkHandle(fd, "", g))
	h, errno := b.OpenHandle(g, unix.O_RDWR)
	must(t, errno)
	defer Close(h)
	if a, b := stat(t, fd, ""), stat(t, h, ""); a.Ino != b.Ino {
		t.Errorf("handle is inode %d, want %d", b.Ino, a.Ino)
	}
}

func TestDirHandle(t *testing.T) {
	b := newBrick(t)
	var src gfid.Source
	mkdir(t, b, "d/e")
	d, e := src.Next(), src.Next()
	must(t, b.SymlinkHandle(d, gfid.Root, "d"))
	must(t, b.SymlinkHandle(e, d, "e"))
	if path, errno := b.DirPath(e); errno != 0 || path != "d/e" {
		t.Errorf("DirPath = %q, %v, want d/e", path, errno)
	}
	if fd, errno := b.OpenHandle(e, unix.O_RDONLY); errno != syscall.ELOOP {
		t.Errorf("OpenHandle of a directory: %d, %v, want ELOOP", fd, errno)
	}
	// The kernel, following the symlinks, comes to the same place.
	if st := stat(t, b.Handles(), HandlePath(e)+"/."); st.Ino != stat(t, b.Root(), "d/e").Ino {
		t.Errorf("the handle leads to inode %d, want %d", st.Ino, stat(t, b.Root(), "d/e").Ino)
	}

	check(t, os.Rename(filepath.Join(b.Path(), "d/e"), filepath.Join(b.Path(), "f")))
	must(t, b.SymlinkHandle(e, gfid.Root, "f"))
	must(t, b.SymlinkHandle(e, gfid.Root, "f"))
	if parent, base, errno := b.ReadDirHandle(e); errno != 0 || parent != gfid.Root || base != "f" {
		t.Errorf("after the rename the handle says %v/%s, %v", parent, base, errno)
	}
	if path, errno := b.DirPath(gfid.Root); errno != 0 || path != "" {
		t.Errorf("DirPath of the root = %q, %v", path, errno)
	}
	if path, errno := b.DirPath(src.Next()); errno != syscall.ENOENT {
		t.Errorf("DirPath of nothing = %q, %v, want ENOENT", path, errno)
	}
	a := src.Next()
	must(t, b.SymlinkHandle(a, a, "circle"))
	if path, errno := b.DirPath(a); errno != syscall.ELOOP {
		t.Errorf("DirPath of a circle = %.20q…, %v, want ELOOP", path, errno)
	}
	if fd, errno := b.OpenDir(a); errno != syscall.ELOOP {
		t.Errorf("OpenDir of a circle = %d, %v, want ELOOP", fd, errno)
	}
}

// A crash may leave the temporary symlink of a change behind.
func TestSymlinkHandleAfterCrash(t *testing.T) {
	b := newBrick(t)
	var src gfid.Source
	g := src.Next()
	must(t, b.SymlinkHandle(g, gfid.Root, "old"))
	check(t, os.Symlink("half made", filepath.Join(b.Path(), Dir, "georep", tmpPrefix+g.String())))
	must(t, b.SymlinkHandle(g, gfid.Root, "new"))
	if _, base, errno := b.ReadDirHandle(g); errno != 0 || base != "new" {
		t.Errorf("the handle says %q, %v, want new", base, errno)
	}
}

// A name of 255 bytes makes the longest handle there is.
func TestDirHandleLongName(t *testing.T) {
	b := newBrick(t)
	var src gfid.Source
	name := strings.Repeat("\xff\n %", 64)[:255]
	mkdir(t, b, name)
	g := src.Next()
	must(t, Setxattr(b.Root(), name, XattrGFID, g[:], 0))
	must(t, b.SymlinkHandle(g, gfid.Root, name))
	if parent, base, errno := b.ReadDirHandle(g); errno != 0 || parent != gfid.Root || base != name {
		t.Errorf("the handle says %v/%q, %v", parent, base, errno)
	}
	fd, errno := b.OpenDir(g)
	must(t, errno)
	Close(fd)
}
