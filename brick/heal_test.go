package brick

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// identify gives the object name in the directory parent, at the path dir, what
// it lacks and wants that to be healed.
func identify(t testing.TB, b *Brick, dir, name string, parent gfid.GFID, want Healed) gfid.GFID {
	t.Helper()
	fd, errno := Openat(b.Root(), dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, errno)
	defer Close(fd)
	var src gfid.Source
	g, healed, errno := b.Identify(fd, name, parent, stat(t, fd, name), &src)
	must(t, errno)
	if healed != want {
		t.Errorf("identifying %s/%s healed %d, want %d", dir, name, healed, want)
	}
	if has, errno := b.GFIDOf(fd, name); errno != 0 || has != g {
		t.Errorf("%s/%s has the GFID %v, %v, want %v", dir, name, has, errno, g)
	}
	return g
}

// wantNames fails unless the gfid2path xattrs of the object at path name just
// these, each "<parent gfid>/<base>".
func wantNames(t testing.TB, b *Brick, path string, want ...string) {
	t.Helper()
	keys, errno := GFID2Paths(b.Root(), path)
	must(t, errno)
	var got []string
	for _, key := range keys {
		buf := make([]byte, 512)
		n, errno := Getxattr(b.Root(), path, key, buf)
		must(t, errno)
		got = append(got, string(buf[:n]))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("gfid2path of %s is %q, want %q", path, got, want)
	}
}

func rootName(base string) string { return gfid.Root.String() + "/" + base }

func TestIdentifyFile(t *testing.T) {
	for _, c := range []struct {
		kind string
		make func(path string) error
	}{
		{"file", func(p string) error { return os.WriteFile(p, nil, 0o000) }},
		{"symlink", func(p string) error { return os.Symlink("/nowhere", p) }},
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o600) }},
		{"device", func(p string) error { return unix.Mknod(p, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))) }},
		{"socket", func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) }},
	} {
		t.Run(c.kind, func(t *testing.T) {
			b := newBrick(t)
			check(t, c.make(filepath.Join(b.Path(), "x")))
			g := identify(t, b, ".", "x", gfid.Root, HealedGFID)
			if again := identify(t, b, ".", "x", gfid.Root, HealedNothing); again != g {
				t.Errorf("second lookup finds %v, want %v", again, g)
			}
			var h unix.Statx_t
			must(t, b.StatHandle(g, &h))
			if st := stat(t, b.Root(), "x"); h.Ino != st.Ino || st.Nlink != 2 {
				t.Errorf("handle is inode %d, the name %d with %d links, want 2", h.Ino, st.Ino, st.Nlink)
			}
			wantNames(t, b, "x", rootName("x"))

			must(t, b.UnlinkHandle(g))
			if again := identify(t, b, ".", "x", gfid.Root, HealedHandle); again != g {
				t.Errorf("without its handle it becomes %v, want %v", again, g)
			}
			must(t, b.StatHandle(g, &h))
		})
	}
}

func TestIdentifyHardLinks(t *testing.T) {
	b := newBrick(t)
	mkdir(t, b, "d")
	write(t, b, "a", "")
	check(t, os.Link(filepath.Join(b.Path(), "a"), filepath.Join(b.Path(), "d/b")))
	d := identify(t, b, ".", "d", gfid.Root, HealedGFID)
	g := identify(t, b, ".", "a", gfid.Root, HealedGFID)
	if other := identify(t, b, "d", "b", d, HealedNothing); other != g {
		t.Errorf("two names of one file have the GFIDs %v and %v", g, other)
	}
	wantNames(t, b, "a", rootName("a"), d.String()+"/b")
}

// cp -a --preserve=xattr as root copies trusted.gfid along: the original keeps it.
func TestIdentifyCopy(t *testing.T) {
	b := newBrick(t)
	write(t, b, "f", "content")
	mkdir(t, b, "d")
	f := identify(t, b, ".", "f", gfid.Root, HealedGFID)
	d := identify(t, b, ".", "d", gfid.Root, HealedGFID)
	run(t, "cp", "-a", "--preserve=all", filepath.Join(b.Path(), "f"), filepath.Join(b.Path(), "f2"))
	run(t, "cp", "-a", "--preserve=all", filepath.Join(b.Path(), "d"), filepath.Join(b.Path(), "d2"))
	if g, errno := b.GFIDOf(b.Root(), "f2"); errno != 0 || g != f {
		t.Fatalf("cp did not copy the GFID: %v, %v", g, errno)
	}
	if g := identify(t, b, ".", "f2", gfid.Root, HealedCopy); g == f {
		t.Error("a file and its copy share a GFID")
	}
	if g := identify(t, b, ".", "d2", gfid.Root, HealedCopy); g == d {
		t.Error("a directory and its copy share a GFID")
	}
	wantNames(t, b, "f2", rootName("f2"))
	identify(t, b, ".", "f", gfid.Root, HealedNothing)
	identify(t, b, ".", "d", gfid.Root, HealedNothing)
	identify(t, b, ".", "f2", gfid.Root, HealedNothing)
	identify(t, b, ".", "d2", gfid.Root, HealedNothing)

	// So does a copy of a whole brick's root.
	mkdir(t, b, "root")
	must(t, Setxattr(b.Root(), "root", XattrGFID, gfid.Root[:], 0))
	if g := identify(t, b, ".", "root", gfid.Root, HealedCopy); g == gfid.Root {
		t.Error("a directory has the root's GFID")
	}
}

// A directory that bears a file's GFID must not take the file's handle away: it
// may be all that is left of the file.
func TestIdentifyDirWithGFIDOfFile(t *testing.T) {
	for _, kind := range []string{"file", "symlink"} {
		b := newBrick(t)
		f := filepath.Join(b.Path(), "f")
		if kind == "file" {
			write(t, b, "f", "precious")
		} else {
			check(t, os.Symlink(DirHandleTarget(gfid.Root, "gone"), f))
		}
		g := identify(t, b, ".", "f", gfid.Root, HealedGFID)
		check(t, os.Remove(f))
		mkdir(t, b, "d")
		must(t, Setxattr(b.Root(), "d", XattrGFID, g[:], 0))
		if d := identify(t, b, ".", "d", gfid.Root, HealedCopy); d == g {
			t.Errorf("a directory and a %s share a GFID", kind)
		}
		if has, errno := b.GFIDOf(b.Handles(), HandlePath(g)); errno != 0 || has != g {
			t.Errorf("the %s's handle holds %v, %v", kind, has, errno)
		}
	}
}

// A directory moved behind the mount's back keeps its GFID.
func TestIdentifyMovedDir(t *testing.T) {
	b := newBrick(t)
	mkdir(t, b, "a/b")
	a := identify(t, b, ".", "a", gfid.Root, HealedGFID)
	g := identify(t, b, "a", "b", a, HealedGFID)
	check(t, os.Rename(filepath.Join(b.Path(), "a/b"), filepath.Join(b.Path(), "c")))
	if moved := identify(t, b, ".", "c", gfid.Root, HealedHandle); moved != g {
		t.Errorf("the moved directory is %v, want %v", moved, g)
	}
	if path, errno := b.DirPath(g); errno != 0 || path != "c" {
		t.Errorf("its path is %q, %v, want c", path, errno)
	}
}

// A damaged GFID is neither trusted nor overwritten.
func TestIdentifyDamagedGFID(t *testing.T) {
	b := newBrick(t)
	write(t, b, "f", "")
	must(t, Setxattr(b.Root(), "f", XattrGFID, []byte("short"), 0))
	var src gfid.Source
	if g, _, errno := b.Identify(b.Root(), "f", gfid.Root, stat(t, b.Root(), "f"), &src); errno != syscall.EIO {
		t.Errorf("identified as %v, %v, want EIO", g, errno)
	}
}

// Lookups of one object at once, and of names of one object, agree.
func TestIdentifyAtOnce(t *testing.T) {
	b := newBrick(t)
	var src gfid.Source
	for _, kind := range []string{"file", "dir"} {
		for range 20 {
			name := src.Next().String()
			if kind == "dir" {
				mkdir(t, b, name)
			} else {
				write(t, b, name, "")
			}
			st := stat(t, b.Root(), name)
			got := make([]gfid.GFID, 8)
			var wg sync.WaitGroup
			for i := range got {
				wg.Go(func() {
					g, _, errno := b.Identify(b.Root(), name, gfid.Root, st, &src)
					if errno != 0 {
						t.Errorf("%s %s: %v", kind, name, errno)
					}
					got[i] = g
				})
			}
			wg.Wait()
			if len(slices.Compact(slices.Clone(got))) != 1 {
				t.Errorf("%s %s: identified as %v", kind, name, got)
			}
			identify(t, b, ".", name, gfid.Root, HealedNothing)
		}
	}
}

// A directory is reached by its GFID however long its path is.
func TestOpenDirDeep(t *testing.T) {
	b := newBrick(t)
	var src gfid.Source
	base := strings.Repeat("d", 200)
	parent, fd := gfid.Root, -1
	at, errno := Openat(b.Root(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, errno)
	var inode uint64
	for range 40 { // 8,000 bytes
		check(t, unix.Mkdirat(at, base, 0o755))
		st := stat(t, at, base)
		g, _, errno := b.Identify(at, base, parent, st, &src)
		must(t, errno)
		fd, errno = Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, errno)
		Close(at)
		at, parent, inode = fd, g, st.Ino
	}
	Close(at)
	fd, errno = b.OpenDir(parent)
	must(t, errno)
	defer Close(fd)
	if st := stat(t, fd, ""); st.Ino != inode {
		t.Errorf("opened inode %d, want %d", st.Ino, inode)
	}
	if path, errno := b.DirPath(parent); errno != 0 || len(path) != 40*201-1 {
		t.Errorf("path of %d bytes, %v, want %d", len(path), errno, 40*201-1)
	}
}

func TestOpenDirStale(t *testing.T) {
	b := newBrick(t)
	mkdir(t, b, "d")
	g := identify(t, b, ".", "d", gfid.Root, HealedGFID)
	check(t, os.Rename(filepath.Join(b.Path(), "d"), filepath.Join(b.Path(), "moved")))
	if fd, errno := b.OpenDir(g); errno != syscall.ENOENT {
		t.Errorf("nothing there: %d, %v, want ENOENT", fd, errno)
	}
	mkdir(t, b, "d")
	if fd, errno := b.OpenDir(g); errno != syscall.ESTALE {
		t.Errorf("another directory there: %d, %v, want ESTALE", fd, errno)
	}
	check(t, os.Remove(filepath.Join(b.Path(), "d")))
	check(t, os.Symlink("moved", filepath.Join(b.Path(), "d")))
	if fd, errno := b.OpenDir(g); errno != syscall.ENOTDIR && errno != syscall.ELOOP {
		t.Errorf("a symlink there: %d, %v, want ENOTDIR", fd, errno)
	}
}
