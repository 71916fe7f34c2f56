package brick

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// bothWays runs test with the calls relative to a directory and with the way
// round them for kernels before 6.13. Not for parallel tests.
func bothWays(t *testing.T, test func(t *testing.T)) {
	for _, c := range []struct {
		name string
		old  bool
	}{{"xattrat", false}, {"proc", true}} {
		t.Run(c.name, func(t *testing.T) {
			before := noXattrat.Load()
			noXattrat.Store(before || c.old)
			defer noXattrat.Store(before)
			test(t)
		})
	}
}

// Each kind of object keeps its own xattrs, by name and by descriptor; of a
// symlink they are never those of what it leads to.
func TestXattrs(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		b := newBrick(t)
		write(t, b, "file", "")
		mkdir(t, b, "dir")
		check(t, os.Symlink("file", filepath.Join(b.Path(), "link")))
		check(t, os.Symlink("/nowhere", filepath.Join(b.Path(), "dangling")))
		check(t, unix.Mkfifo(filepath.Join(b.Path(), "fifo"), 0o600))
		for i, name := range []string{"file", "dir", "link", "dangling", "fifo"} {
			fd, errno := Openat(b.Root(), name, unix.O_PATH, 0)
			must(t, errno)
			testXattrsOf(t, b.Root(), name, byte(i))
			testXattrsOf(t, fd, "", byte(10+i))
			Close(fd)
		}
	})
}

func testXattrsOf(t *testing.T, dirfd int, name string, mark byte) {
	t.Helper()
	const attr = "trusted.georep.test"
	val := bytes.Repeat([]byte{mark}, 40)
	buf := make([]byte, 64)
	if _, errno := Getxattr(dirfd, name, attr, buf); errno != syscall.ENODATA {
		t.Errorf("%q before: %v, want ENODATA", name, errno)
	}
	if errno := Setxattr(dirfd, name, attr, val, unix.XATTR_REPLACE); errno != syscall.ENODATA {
		t.Errorf("%q: replacing nothing: %v, want ENODATA", name, errno)
	}
	must(t, Setxattr(dirfd, name, attr, val, unix.XATTR_CREATE))
	if errno := Setxattr(dirfd, name, attr, val, unix.XATTR_CREATE); errno != syscall.EEXIST {
		t.Errorf("%q: creating twice: %v, want EEXIST", name, errno)
	}
	if n, errno := Getxattr(dirfd, name, attr, nil); errno != 0 || n != len(val) {
		t.Errorf("%q: size %d, %v, want %d", name, n, errno, len(val))
	}
	if n, errno := Getxattr(dirfd, name, attr, buf); errno != 0 || !bytes.Equal(buf[:n], val) {
		t.Errorf("%q: read %x, %v, want %x", name, buf[:max(n, 0)], errno, val)
	}
	if _, errno := Getxattr(dirfd, name, attr, buf[:39]); errno != syscall.ERANGE {
		t.Errorf("%q: a short buffer: %v, want ERANGE", name, errno)
	}
	keys, errno := ListAll(dirfd, name)
	if errno != 0 || !slices.Contains(keys, attr) {
		t.Errorf("%q: list is %q, %v", name, keys, errno)
	}
	must(t, Removexattr(dirfd, name, attr))
	if errno := Removexattr(dirfd, name, attr); errno != syscall.ENODATA {
		t.Errorf("%q: removing twice: %v, want ENODATA", name, errno)
	}
	if keys, errno := ListAll(dirfd, name); errno != 0 || slices.Contains(keys, attr) {
		t.Errorf("%q: list is still %q, %v", name, keys, errno)
	}
}

func TestXattrErrors(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		b := newBrick(t)
		write(t, b, "f", "")
		const attr = "trusted.georep.test"
		if _, errno := Getxattr(b.Root(), "missing", attr, nil); errno != syscall.ENOENT {
			t.Errorf("missing name: %v, want ENOENT", errno)
		}
		if errno := Setxattr(b.Root(), "f", attr, make([]byte, 1<<17), 0); errno != syscall.E2BIG {
			t.Errorf("128 KiB: %v, want E2BIG", errno)
		}
		// The descriptor names a file here, and a file has no names in it.
		fd, errno := Openat(b.Root(), "f", unix.O_RDONLY, 0)
		must(t, errno)
		defer Close(fd)
		if _, errno := Getxattr(fd, "x", attr, nil); errno != syscall.ENOTDIR {
			t.Errorf("below a file: %v, want ENOTDIR", errno)
		}
		must(t, Setxattr(fd, "", attr, nil, 0))
		if n, errno := Getxattr(fd, "", attr, make([]byte, 8)); errno != 0 || n != 0 {
			t.Errorf("empty value: %d, %v", n, errno)
		}
		must(t, Removexattr(fd, "", attr))
	})
	for _, name := range []string{"a\x00b", "\x00"} {
		if _, errno := Getxattr(unix.AT_FDCWD, name, "user.x", nil); errno != syscall.EINVAL {
			t.Errorf("%q: %v, want EINVAL", name, errno)
		}
	}
}

// More keys than the first buffer holds are listed whole.
func TestListAllMany(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		b := newBrick(t)
		write(t, b, "f", "")
		var want []string
		for i := range 30 {
			key := "trusted." + strings.Repeat(string(rune('a'+i%26)), 60+i)
			must(t, Setxattr(b.Root(), "f", key, nil, 0))
			want = append(want, key)
		}
		got, errno := ListAll(b.Root(), "f")
		must(t, errno)
		got = slices.DeleteFunc(got, func(k string) bool { return !strings.HasPrefix(k, "trusted.") })
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("listed %d keys, want %d", len(got), len(want))
		}
	})
}

func TestReopen(t *testing.T) {
	b := newBrick(t)
	write(t, b, "f", "content")
	check(t, os.Symlink("f", filepath.Join(b.Path(), "l")))
	fd, errno := Openat(b.Root(), "f", unix.O_PATH, 0)
	must(t, errno)
	defer Close(fd)
	check(t, os.Remove(filepath.Join(b.Path(), "f")))
	r, errno := Reopen(fd, unix.O_RDWR)
	must(t, errno)
	defer Close(r)
	buf := make([]byte, 16)
	if n, err := unix.Pread(r, buf, 0); err != nil || string(buf[:n]) != "content" {
		t.Errorf("read %q, %v", buf[:max(n, 0)], err)
	}
	l, errno := Openat(b.Root(), "l", unix.O_PATH, 0)
	must(t, errno)
	defer Close(l)
	if n, errno := Reopen(l, unix.O_RDONLY); errno != syscall.ELOOP {
		t.Errorf("reopening a symlink: %d, %v, want ELOOP", n, errno)
	}
	if n, errno := Openat(b.Root(), "l", unix.O_RDONLY, 0); errno != syscall.ELOOP {
		t.Errorf("opening a symlink: %d, %v, want ELOOP", n, errno)
	}
}
