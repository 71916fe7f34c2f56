package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

var _ = compared("rename", func(w *world) {
	fresh := 0
	// Each pair of kinds, with each set of flags, in one directory and across two.
	for _, flags := range []uint{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT, unix.RENAME_NOREPLACE | unix.RENAME_WHITEOUT,
		unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE, unix.RENAME_EXCHANGE | unix.RENAME_WHITEOUT, 8} {
		for _, from := range []string{"file", "dir", "full", "link", "fifo", "none", "two"} {
			for _, to := range []string{"none", "file", "dir", "full", "link", "fifo", "two", "same"} {
				for _, across := range []bool{false, true} {
					fresh++
					d := fmt.Sprintf("%d", fresh)
					w.must("mkdir", unix.Mkdir(d, 0o755))
					w.must("mkdir", unix.Mkdir(d+"/a", 0o755))
					w.must("mkdir", unix.Mkdir(d+"/b", 0o755))
					src, dst := d+"/a/old", d+"/a/new"
					if across {
						dst = d + "/b/new"
					}
					w.kind(from, src)
					if to == "same" {
						if from != "file" && from != "two" {
							continue
						}
						w.must("link", unix.Link(src, dst))
					} else {
						w.kind(to, dst)
					}
					w.try(fmt.Sprintf("rename %d %s to %s across %v", flags, from, to, across), unix.Renameat2(unix.AT_FDCWD, src, unix.AT_FDCWD, dst, flags))
					for _, p := range []string{src, dst, src + ".2", dst + ".2", src + "/in", dst + "/in", d + "/a", d + "/b"} {
						w.stat(p)
					}
				}
			}
		}
	}
	w.must("mkdir", os.MkdirAll("p/q/r", 0o755))
	w.try("into itself", unix.Rename("p", "p/q/x"))
	w.try("onto its parent", unix.Rename("p/q", "p"))
	w.try("exchange with a parent", unix.Renameat2(unix.AT_FDCWD, "p", unix.AT_FDCWD, "p/q", unix.RENAME_EXCHANGE))
	w.try("of .", unix.Rename("p/.", "z"))
	w.try("of ..", unix.Rename("p/q/..", "z"))
	w.try("to ..", unix.Rename("p/q", "p/.."))
	w.try("with a slash", unix.Rename("p/q/", "p/w/"))
	w.try("of a file with a slash", func() error { w.kind("file", "f"); return unix.Rename("f/", "g") }())
	w.try("onto itself", unix.Rename("f", "f"))
	w.stat("p/w")
	w.stat("f")
})

// kind makes an object.
func (w *world) kind(kind, path string) {
	switch kind {
	case "file", "two":
		w.file(path, 0, 0, 0o644, path)
		if kind == "two" {
			w.must("link", unix.Link(path, path+".2"))
		}
	case "dir", "full":
		w.must("mkdir", unix.Mkdir(path, 0o755))
		if kind == "full" {
			w.file(path+"/in", 0, 0, 0o600, "in")
		}
	case "link":
		w.must("symlink", unix.Symlink("target", path))
	case "fifo":
		w.must("mkfifo", unix.Mknod(path, unix.S_IFIFO|0o600, 0))
	}
}

var _ = compared("links", func(w *world) {
	w.file("f", 0, 0, 0o644, "data")
	for i := range 20 {
		w.try("link", unix.Link("f", fmt.Sprintf("l%d", i)))
	}
	w.stat("f")
	w.stat("l7")
	fd, err := unix.Open("f", unix.O_RDWR, 0)
	w.must("open", err)
	for i := range 20 {
		w.try("unlink", unix.Unlink(fmt.Sprintf("l%d", i)))
		w.fstat("open", fd)
	}
	w.try("unlink", unix.Unlink("f"))
	w.fstat("open, without a name", fd)
	w.try("write", write(fd, "more than there was"))
	w.try("fchmod", unix.Fchmod(fd, 0o600))
	w.try("fchown", unix.Fchown(fd, 1, 2))
	w.try("fsetxattr", unix.Fsetxattr(fd, "user.x", []byte("y"), 0))
	w.try("ftruncate", unix.Ftruncate(fd, 5))
	w.try("futimens", unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), []unix.Timespec{{Sec: 1}, {Sec: 2}}, 0))
	w.fstat("changed", fd)
	buf := make([]byte, 10)
	n, err := unix.Pread(fd, buf, 0)
	w.logf("read %q %s", buf[:max(n, 0)], errno(err))
	w.try("link without a name", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, "again", unix.AT_SYMLINK_FOLLOW))
	w.try("reopen without a name", with(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY, 0, func(again int) error { w.fstat("again", again); return nil }))
	unix.Close(fd)

	// What was replaced by a rename is without a name too.
	w.file("old", 0, 0, 0o644, "old")
	w.file("new", 0, 0, 0o644, "new")
	w.must("with", with("old", unix.O_RDONLY, 0, func(fd int) error {
		w.try("rename over", unix.Rename("new", "old"))
		w.fstat("replaced", fd)
		n, err := unix.Pread(fd, buf, 0)
		w.logf("read %q %s", buf[:max(n, 0)], errno(err))
		return nil
	}))
	// A directory that was removed while it is somebody's.
	w.must("mkdir", unix.Mkdir("d", 0o755))
	w.must("with", with("d", unix.O_RDONLY|unix.O_DIRECTORY, 0, func(fd int) error {
		w.try("rmdir", unix.Rmdir("d"))
		w.fstat("removed", fd)
		w.try("create in it", func() error { _, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY, 0o644); return err }())
		w.try("mkdir in it", unix.Mkdirat(fd, "d", 0o755))
		w.try("lookup in it", func() error { var st unix.Stat_t; return unix.Fstatat(fd, "x", &st, 0) }())
		_, err := unix.Getdents(fd, make([]byte, 4096))
		w.try("readdir of it", err)
		w.try("fchmod", unix.Fchmod(fd, 0o700))
		w.try("setxattr", unix.Fsetxattr(fd, "user.x", []byte("y"), 0))
		w.fstat("changed", fd)
		return nil
	}))
	for _, tmpflags := range []int{unix.O_RDWR, unix.O_WRONLY, unix.O_RDWR | unix.O_EXCL, unix.O_RDONLY} {
		w.try(fmt.Sprintf("tmpfile %x", tmpflags), with(".", unix.O_TMPFILE|tmpflags, 0o640, func(fd int) error {
			w.fstat("tmpfile", fd)
			w.try("write", write(fd, "content"))
			w.try("xattr", unix.Fsetxattr(fd, "user.x", []byte("y"), 0))
			w.try("link", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, fmt.Sprintf("tmp%x", tmpflags), unix.AT_SYMLINK_FOLLOW))
			w.fstat("named", fd)
			w.try("second link", unix.Linkat(fd, "", unix.AT_FDCWD, fmt.Sprintf("tmp%x.2", tmpflags), unix.AT_EMPTY_PATH))
			w.fstat("twice", fd)
			return nil
		}))
		w.stat(fmt.Sprintf("tmp%x", tmpflags))
		w.xattrs(fmt.Sprintf("tmp%x", tmpflags))
		data, err := os.ReadFile(fmt.Sprintf("tmp%x", tmpflags))
		w.logf("%q %s", data, errno(err))
	}
	w.try("link of a directory", unix.Link(".", "dirlink"))
	w.must("symlink", unix.Symlink("tmp2", "sym"))
	w.try("link of a symlink", unix.Link("sym", "sym2"))
	w.stat("sym2")
	w.try("link through a symlink", unix.Linkat(unix.AT_FDCWD, "sym", unix.AT_FDCWD, "through", unix.AT_SYMLINK_FOLLOW))
	w.stat("through")
	w.try("link to an existing name", unix.Link("sym", "tmp2"))
	w.try("unlink of a directory", unix.Unlink("."))
	w.try("rmdir of a file", unix.Rmdir("sym"))
	w.try("rmdir of .", unix.Rmdir("."))
	w.must("mkdir", os.MkdirAll("full/sub", 0o755))
	w.try("rmdir of a full one", unix.Rmdir("full"))
	w.try("rmdir of ..", unix.Rmdir("full/sub/.."))
	w.try("mkdir of what is there", unix.Mkdir("full", 0o755))
	w.try("symlink over what is there", unix.Symlink("x", "full"))
	w.try("mknod over what is there", unix.Mknod("full", unix.S_IFIFO|0o600, 0))
})

var _ = compared("names", func(w *world) {
	for c := 1; c < 256; c++ {
		if c == '/' {
			continue
		}
		name := string([]byte{'x', byte(c)})
		w.must("create", os.WriteFile(name, []byte(name), 0o644))
	}
	for _, name := range []string{strings.Repeat("\xff", 255), strings.Repeat("n", 255), strings.Repeat(" ", 255), "...", " ", "\n", "-rf", ".glusterfs", ".go", "%2F", "a\xcc\x88", "ä"} {
		w.try(fmt.Sprintf("create %.10q", name), os.WriteFile(name, []byte("x"), 0o644))
		w.try("link", unix.Link(name, name[:len(name)-1]+"\x01"))
		w.try("rename", unix.Rename(name, name[:len(name)-1]+"\x02"))
		w.try("mkdir", unix.Mkdir(name, 0o755))
		w.try("symlink", unix.Symlink(name, name+"/"+name))
		target := make([]byte, 5000)
		n, err := unix.Readlink(name+"/"+name, target)
		w.logf("target %q %s", target[:max(n, 0)], errno(err))
	}
	for _, n := range []int{255, 256, 257, 4095} {
		long := strings.Repeat("l", n)
		w.try(fmt.Sprintf("create of %d", n), with(long, unix.O_CREAT|unix.O_WRONLY, 0o644, func(int) error { return nil }))
		w.try("mkdir", unix.Mkdir("d"+long[1:], 0o755))
		w.try("rename", unix.Rename("missing", long))
		w.try("lookup", func() error { var st unix.Stat_t; return unix.Lstat(long, &st) }())
		w.try("symlink", unix.Symlink(long, fmt.Sprintf("s%d", n)))
		w.stat(fmt.Sprintf("s%d", n))
	}
	w.try("empty symlink", unix.Symlink("", "empty"))
	w.try("empty name", unix.Mkdir("", 0o755))
	w.try("create of .", with(".", unix.O_CREAT|unix.O_WRONLY, 0o644, func(int) error { return nil }))
	w.try("mkdir of .", unix.Mkdir(".", 0o755))
	w.try("mkdir of ..", unix.Mkdir("..", 0o755))
	w.try("mkdir with a slash", unix.Mkdir("slash/", 0o755))
	w.try("create with a slash", with("file/", unix.O_CREAT|unix.O_WRONLY, 0o644, func(int) error { return nil }))
	names, err := os.ReadDir(".")
	w.try("readdir", err)
	for _, n := range names {
		w.logf("  %q", n.Name())
	}
})

// A tree deeper than a path can be long.
var _ = compared("deep", func(w *world) {
	const depth = 60
	name := strings.Repeat("d", 200)
	fd, err := unix.Open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	w.must("open", err)
	fds := []int{fd}
	for range depth {
		w.must("mkdir", unix.Mkdirat(fd, name, 0o755))
		fd, err = unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		w.must("open", err)
		fds = append(fds, fd)
	}
	f, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_RDWR, 0o640)
	if w.try("create", err) {
		w.try("write", write(f, "deep"))
		w.fstat("f", f)
		w.try("xattr", unix.Fsetxattr(f, "user.x", []byte("y"), 0))
		unix.Close(f)
	}
	w.try("rename", unix.Renameat(fd, "f", fds[0], "up"))
	w.try("and back", unix.Renameat(fds[0], "up", fds[depth-1], "down"))
	w.try("chdir", unix.Fchdir(fd))
	w.stat(".")
	w.stat("../down")
	w.try("link", unix.Link("../down", "l"))
	w.try("symlink", unix.Symlink("../down", "s"))
	data, err := os.ReadFile("s")
	w.logf("%q %s", data, errno(err))
	_, err = unix.Getcwd(make([]byte, 16))
	w.logf("cwd %s", errno(err))
	w.try("move of the upper half", unix.Renameat(fds[depth/2-1], name, fds[0], "half"))
	w.stat("../down")
	w.try("create in what moved", os.WriteFile("after", []byte("x"), 0o600))
	for i := depth / 2; i < depth; i++ {
		unix.Close(fds[i])
	}
	w.try("up", unix.Fchdir(fds[0]))
	// Through the descriptors once more, from above.
	fd, err = unix.Openat(fds[0], "half", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for range depth/2 - 1 {
		w.must("open", err)
		fd, err = unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	w.must("open", err)
	w.try("found", unix.Fchdir(fd))
	w.stat("after")
	for path, n := "after", 0; n < 3; n++ {
		w.try("unlink", unix.Unlink(path))
	}
})

var _ = compared("xattrs", func(w *world) {
	w.kind("file", "f")
	w.kind("dir", "d")
	w.kind("link", "l")
	w.kind("fifo", "p")
	w.must("mknod", unix.Mknod("c", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	names := []string{"user.a", "user.", "user", "trusted.a", "trusted.", "security.a", "system.a", "system.posix_acl_access", "system.nfs4_acl", "foo.bar", "nodot", "user." + strings.Repeat("n", 250), "user." + strings.Repeat("n", 251), "user.\xff\x01", "trusted.overlay.opaque", "security.ima", "security.evm", "btrfs.x"}
	for _, path := range []string{"f", "d", "l", "p", "c"} {
		for _, name := range names {
			w.try(fmt.Sprintf("%s set %.20q", path, name), unix.Lsetxattr(path, name, []byte("value"), 0))
			buf := make([]byte, 3)
			n, err := unix.Lgetxattr(path, name, buf)
			w.logf("  short: %d %s", n, errno(err))
			n, err = unix.Lgetxattr(path, name, nil)
			w.logf("  size: %d %s", n, errno(err))
			w.try("  create", unix.Lsetxattr(path, name, []byte("v2"), unix.XATTR_CREATE))
			w.try("  replace", unix.Lsetxattr(path, name, []byte{}, unix.XATTR_REPLACE))
			w.try("  flags", unix.Lsetxattr(path, name, []byte{}, 7))
		}
		w.xattrs(path)
		n, err := unix.Llistxattr(path, make([]byte, 3))
		w.logf("short list: %d %s", min(n, 0), errno(err))
		for _, name := range names {
			w.try(fmt.Sprintf("%s remove %.20q", path, name), unix.Lremovexattr(path, name))
			w.try("  again", unix.Lremovexattr(path, name))
		}
		w.xattrs(path)
	}
	// Between, on ext4, what there is room for in one block depends on what else is
	// there, and gfid, gfid2path and xtime are.
	for _, size := range []int{0, 1, 1000, 65535, 65536, 65537, 100000} {
		w.try(fmt.Sprintf("value of %d", size), enospc(unix.Setxattr("f", "user.big", bytes.Repeat([]byte{'b'}, size), 0)))
	}
	w.must("symlink", unix.Symlink("f", "to"))
	w.try("through a symlink", unix.Setxattr("to", "user.s", []byte("v"), 0))
	w.try("create of what is missing", unix.Setxattr("f", "user.missing", []byte("v"), unix.XATTR_REPLACE))
	w.try("on a missing file", unix.Setxattr("missing", "user.s", []byte("v"), 0))
	for i := range 50 {
		if unix.Setxattr("d", fmt.Sprintf("user.%d", i), []byte{byte(i)}, 0) != nil {
			w.logf("full")
			break
		}
	}
	w.must("chown", unix.Chown("d", 1001, 1001))
	w.must("chmod", unix.Chmod("d", 0o1777))
	w.as(bob, func() { w.try("on another's sticky directory", unix.Setxattr("d", "user.0", []byte("v"), 0)) })
	w.as(alice, func() { w.try("on one's own", unix.Setxattr("d", "user.0", []byte("v"), 0)) })
	w.xattrs("d")
})

// enospc makes one of the errnos for a value that has no room: which depends on
// what else there is, ours included.
func enospc(err error) error {
	if err == unix.ENOSPC || err == unix.E2BIG || err == unix.ERANGE {
		return unix.ENOSPC
	}
	return err
}
