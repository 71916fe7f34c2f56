package brick

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// newBrick makes a brick in a directory of its own.
func newBrick(t testing.TB) *Brick {
	t.Helper()
	return createBrick(t, t.TempDir())
}

func createBrick(t testing.TB, path string) *Brick {
	t.Helper()
	b, err := Create(path)
	if err != nil {
		t.Fatalf("%v (these tests need root and a file system with trusted xattrs)", err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// fileSystem makes a file system of the kind fstype, with these options of its
// mkfs, in a file and mounts it.
func fileSystem(t testing.TB, fstype string, mkfs ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 512<<20); err != nil {
		t.Fatal(err)
	}
	point := t.TempDir()
	run(t, "mkfs."+fstype, append(mkfs, "-q", image)...)
	run(t, "mount", "-t", fstype, "-o", "loop", image, point)
	t.Cleanup(func() { run(t, "umount", point) })
	return point
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func must(t testing.TB, errno syscall.Errno) {
	t.Helper()
	if errno != 0 {
		t.Fatal(errno)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func stat(t testing.TB, dirfd int, name string) *unix.Statx_t {
	t.Helper()
	var st unix.Statx_t
	if errno := Statx(dirfd, name, &st); errno != 0 {
		t.Fatalf("statx %q: %v", name, errno)
	}
	return &st
}

func write(t testing.TB, b *Brick, name, content string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(b.Path(), name), []byte(content), 0o644))
}

func mkdir(t testing.TB, b *Brick, name string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Join(b.Path(), name), 0o755))
}

func TestCreate(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			path := fileSystem(t, fstype)
			b := createBrick(t, path)
			if b.Volume() == [16]byte{} {
				t.Error("no volume id")
			}
			if g, errno := b.GFIDOf(b.Root(), ""); errno != 0 || g != gfid.Root {
				t.Errorf("the root has the GFID %v, %v, want %v", g, errno, gfid.Root)
			}
			target, err := os.Readlink(filepath.Join(path, Dir, HandlePath(gfid.Root)))
			if err != nil || target != "../../.." {
				t.Errorf("the root's handle is %q, %v, want ../../..", target, err)
			}
			if st := stat(t, b.Root(), Dir); st.Mode != unix.S_IFDIR|0o600 {
				t.Errorf("%s has mode %o, want 600", Dir, st.Mode)
			}
			for _, d := range []string{"00", "9f", "ff"} {
				if st := stat(t, b.Handles(), d); st.Mode != unix.S_IFDIR|0o700 {
					t.Errorf("%s/%s has mode %o, want 700", Dir, d, st.Mode)
				}
			}
		})
	}
}

// Each step of Create is harmless when done twice: a crash in between is mended
// by the next start, and a brick keeps its identity.
func TestCreateAgain(t *testing.T) {
	first := newBrick(t)
	second := createBrick(t, first.Path())
	if first.Volume() != second.Volume() {
		t.Errorf("volume id was %v, is %v", first.Volume(), second.Volume())
	}
	opened, err := Open(first.Path())
	check(t, err)
	defer opened.Close()
	if opened.Volume() != first.Volume() || opened.Path() != first.Path() {
		t.Errorf("opened %v at %s, want %v at %s", opened.Volume(), opened.Path(), first.Volume(), first.Path())
	}

	check(t, os.Remove(filepath.Join(first.Path(), Dir, HandlePath(gfid.Root))))
	check(t, os.RemoveAll(filepath.Join(first.Path(), Dir, "7a")))
	createBrick(t, first.Path())
	stat(t, first.Handles(), "7a")
	stat(t, first.Handles(), HandlePath(gfid.Root))
}

func TestOpenNotBrick(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); !errors.Is(err, ErrNotBrick) {
		t.Errorf("opening a directory that is no brick: %v, want ErrNotBrick", err)
	}
	check(t, os.Mkdir(filepath.Join(dir, Dir), 0o700))
	if _, err := Open(dir); !errors.Is(err, ErrNotBrick) {
		t.Errorf("opening a directory without volume id: %v, want ErrNotBrick", err)
	}
	if _, err := Open(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("opening what is missing: %v, want ErrNotExist", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	b := newBrick(t)
	mkdir(t, b, "sub")
	write(t, b, "file", "")
	other := gfid.GFID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	must(t, Setxattr(b.Root(), "sub", XattrGFID, other[:], 0))

	inside := filepath.Join(b.Path(), Dir, "georep")
	alias := filepath.Join(t.TempDir(), "alias")
	check(t, os.Symlink(inside, alias))
	for _, c := range []struct{ path, want string }{
		{inside, "lies inside a .glusterfs directory"},
		{filepath.Join(b.Path(), Dir), "lies inside a .glusterfs directory"},
		{alias, "lies inside a .glusterfs directory"},
		{filepath.Join(b.Path(), "file"), "is not a directory"},
		{filepath.Join(b.Path(), "sub"), "is this directory a part of another brick?"},
		{"/proc/self/", "can't hold xattrs of the trusted namespace"},
	} {
		if _, err := Create(c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Create(%q): %v, want %q", c.path, err, c.want)
		}
	}
	if st := stat(t, b.Root(), Dir); st.Mode != unix.S_IFDIR|0o600 {
		t.Errorf("%s has mode %o, want 600", Dir, st.Mode)
	}
}

func TestLock(t *testing.T) {
	b := newBrick(t)
	check(t, b.Lock())
	other, err := Open(b.Path())
	check(t, err)
	defer other.Close()
	err = other.Lock()
	if !errors.Is(err, ErrMounted) {
		t.Fatalf("a second lock: %v, want ErrMounted", err)
	}
	if !strings.Contains(err.Error(), "by process ") {
		t.Errorf("%v, want it to name the process", err)
	}
	check(t, b.Close())
	check(t, other.Lock())
}

// A process killed while it changed a directory's handle leaves a temporary one.
func TestLockRemovesTemporary(t *testing.T) {
	b := newBrick(t)
	left := filepath.Join(b.Path(), Dir, "georep", tmpPrefix+"x")
	check(t, os.Symlink("nowhere", left))
	check(t, b.Lock())
	if _, err := os.Lstat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
}

func TestGFIDOf(t *testing.T) {
	b := newBrick(t)
	write(t, b, "f", "")
	if _, errno := b.GFIDOf(b.Root(), "f"); errno != syscall.ENODATA {
		t.Errorf("without a GFID: %v, want ENODATA", errno)
	}
	if _, errno := b.GFIDOf(b.Root(), "g"); errno != syscall.ENOENT {
		t.Errorf("without a file: %v, want ENOENT", errno)
	}
	for _, size := range []int{1, 15, 17, 64} {
		must(t, Setxattr(b.Root(), "f", XattrGFID, bytes.Repeat([]byte{7}, size), 0))
		if g, errno := b.GFIDOf(b.Root(), "f"); errno != syscall.EIO {
			t.Errorf("a GFID of %d bytes: %v, %v, want EIO", size, g, errno)
		}
	}
}
