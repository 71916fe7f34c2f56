package fusefs

import (
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// tool runs a program of the system and logs what it says.
func (w *world) tool(name string, args ...string) {
	out, err := exec.Command(name, args...).CombinedOutput()
	w.logf("%s %v: %s %v", name, args, out, err)
}

// times are an object's.
func (w *world) times(path string) (st unix.Statx_t) {
	w.must("statx "+path, unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st))
	return st
}

// moved logs which times of path moved since before, after the clock of the file
// system was sure to have ticked.
func (w *world) moved(what string, before unix.Statx_t, path string) {
	now := w.times(path)
	s := ""
	for name, at := range []struct{ was, is unix.StatxTimestamp }{{before.Atime, now.Atime}, {before.Mtime, now.Mtime}, {before.Ctime, now.Ctime}, {before.Btime, now.Btime}} {
		name := []string{"atime", "mtime", "ctime", "btime"}[name]
		switch d := time.Unix(at.is.Sec, int64(at.is.Nsec)).Compare(time.Unix(at.was.Sec, int64(at.was.Nsec))); d {
		case 1:
			s += " " + name
		case -1:
			s += " " + name + " back"
		}
	}
	w.logf("%s: of %s moved%s", what, path, s)
}

// tick waits until the clock of files has moved on, where it is coarse.
func tick() { time.Sleep(12 * time.Millisecond) }

var _ = compared("times", func(w *world) {
	for path, kind := range map[string]string{"f": "file", "d": "dir", "e": "dir"} {
		w.kind(kind, path)
	}
	tick()
	w.kind("link", "l")
	do := func(what string, f func() error, paths ...string) {
		var before []unix.Statx_t
		for _, p := range paths {
			before = append(before, w.times(p))
		}
		tick()
		err := f()
		w.try(what, err)
		for i, p := range paths {
			w.moved(what, before[i], p)
		}
	}
	open := func(path string, flags int, f func(int) error) func() error {
		return func() error { return with(path, flags, 0o644, f) }
	}
	do("write", open("f", unix.O_WRONLY, func(fd int) error { return write(fd, "new") }), "f", ".")
	do("write of nothing", open("f", unix.O_WRONLY, func(fd int) error { return write(fd, "") }), "f")
	do("open and close", open("f", unix.O_RDWR, func(int) error { return nil }), "f")
	do("read", open("f", unix.O_RDONLY, func(fd int) error { _, err := unix.Read(fd, make([]byte, 3)); return err }), "f")
	do("read without atime", open("f", unix.O_RDONLY|unix.O_NOATIME, func(fd int) error { _, err := unix.Read(fd, make([]byte, 3)); return err }), "f")
	do("truncate to the same", func() error { var st unix.Stat_t; unix.Stat("f", &st); return unix.Truncate("f", st.Size) }, "f")
	do("ftruncate to the same", open("f", unix.O_WRONLY, func(fd int) error { var st unix.Stat_t; unix.Fstat(fd, &st); return unix.Ftruncate(fd, st.Size) }), "f")
	do("truncate", func() error { return unix.Truncate("f", 1) }, "f")
	do("ftruncate", open("f", unix.O_WRONLY, func(fd int) error { return unix.Ftruncate(fd, 5) }), "f")
	do("open truncating", open("f", unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil }), "f")
	do("open truncating an empty one", open("f", unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil }), "f")
	do("fallocate", open("f", unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 100) }), "f")
	do("punch", open("f", unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 3, 0, 10) }), "f")
	do("chmod", func() error { return unix.Chmod("f", 0o600) }, "f", ".")
	do("chmod to the same", func() error { return unix.Chmod("f", 0o600) }, "f")
	do("chown", func() error { return unix.Chown("f", 1, 1) }, "f")
	do("chown to none", func() error { return unix.Chown("f", -1, -1) }, "f", ".")
	do("chown of a directory to none", func() error { return unix.Chown("d", -1, -1) }, "d")
	do("lchown to none", func() error { return unix.Lchown("l", -1, -1) }, "l")
	do("xattr", func() error { return unix.Setxattr("f", "user.x", []byte("y"), 0) }, "f")
	do("xattr to the same", func() error { return unix.Setxattr("f", "user.x", []byte("y"), 0) }, "f")
	do("no xattr", func() error { return unix.Removexattr("f", "user.x") }, "f")
	do("ACL", func() error { return unix.Setxattr("f", accessACL, wideACL, 0) }, "f")
	do("no ACL", func() error { return unix.Removexattr("f", accessACL) }, "f")
	do("link", func() error { return unix.Link("f", "d/g") }, "f", "d", ".")
	do("rename", func() error { return unix.Rename("d/g", "e/h") }, "f", "d", "e", ".")
	do("rename in place", func() error { return unix.Rename("e/h", "e/i") }, "f", "e")
	do("unlink", func() error { return unix.Unlink("e/i") }, "f", "e")
	do("mkdir", func() error { return unix.Mkdir("d/sub", 0o755) }, "d", ".")
	do("rename of a directory", func() error { return unix.Rename("d/sub", "e/sub") }, "d", "e")
	do("rmdir", func() error { return unix.Rmdir("e/sub") }, "e")
	do("create", open("d/new", unix.O_CREAT|unix.O_WRONLY, func(int) error { return nil }), "d")
	do("create of what is there", open("d/new", unix.O_CREAT|unix.O_WRONLY, func(int) error { return nil }), "d", "d/new")
	do("rename over", func() error { return unix.Rename("f", "d/new") }, "d", ".")
	do("exchange", func() error { return unix.Renameat2(unix.AT_FDCWD, "d/new", unix.AT_FDCWD, "l", unix.RENAME_EXCHANGE) }, "d", ".")
	do("readdir", func() error { _, err := os.ReadDir("d"); return err }, "d")
	do("readlink", func() error { _, err := unix.Readlink("d/new", make([]byte, 10)); return err }, "d/new")
	do("lookup", func() error { var st unix.Stat_t; return unix.Stat("e/none", &st) }, "e")
	do("failing mkdir", func() error { return unix.Mkdir("d", 0o755) }, "d", ".")
	do("failing rename", func() error { return unix.Rename("none", "d") }, "d", ".")
	do("chmod while open", open("l", unix.O_RDWR, func(fd int) error { return unix.Fchmod(fd, 0o755) }), "l")

	omit, now := int64(unix.UTIME_OMIT), int64(unix.UTIME_NOW)
	for _, path := range []string{"l", "d", "d/new"} {
		for _, ts := range [][2]unix.Timespec{
			{{Sec: 1, Nsec: 999999999}, {Sec: 2, Nsec: 1}}, {{Nsec: omit}, {Sec: 3}}, {{Sec: 4}, {Nsec: omit}}, {{Nsec: now}, {Nsec: omit}},
			{{Nsec: omit}, {Nsec: omit}}, {{Nsec: now}, {Nsec: now}}, {{Sec: -1, Nsec: 5}, {Sec: -1 << 31}}, {{Sec: 1 << 32}, {Sec: 1<<33 + 7, Nsec: 7}}, {{Sec: 1 << 40}, {Sec: -1 << 40}}, {{Nsec: 1_000_000_000}, {}}, {{Nsec: -1}, {}},
		} {
			before := w.times(path)
			tick()
			w.try(fmt.Sprintf("%s utimens %v", path, ts), unix.UtimesNanoAt(unix.AT_FDCWD, path, ts[:], unix.AT_SYMLINK_NOFOLLOW))
			w.moved("utimens", before, path)
			st := w.times(path)
			for i, at := range []unix.StatxTimestamp{st.Atime, st.Mtime} {
				if ts[i].Nsec != now && at.Sec < 1e9 || at.Sec > 1<<31 {
					w.logf("  %d.%09d", at.Sec, at.Nsec)
				}
			}
		}
	}
})

var _ = compared("statx", func(w *world) {
	w.kind("file", "f")
	w.kind("dir", "d")
	w.kind("link", "l")
	for _, path := range []string{"f", "d", "l"} {
		var st unix.Statx_t
		w.try("statx "+path, unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st))
		w.logf("mask %x blksize %d nlink %d mode %o", st.Mask&(unix.STATX_BASIC_STATS|unix.STATX_BTIME), st.Blksize, st.Nlink, st.Mode)
		age := time.Since(time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)))
		w.logf("born just now: %v", age >= 0 && age < time.Minute)
		before := st
		tick()
		w.must("change", unix.Lchown(path, 1, 1))
		w.moved("after a change", before, path)
		for _, flag := range []int{unix.AT_STATX_FORCE_SYNC, unix.AT_STATX_DONT_SYNC} {
			w.try("statx", unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|flag, unix.STATX_ALL, &st))
			w.logf("uid %d size %d", st.Uid, st.Size*uint64(min(1, len(path)))*uint64(b2i(path != "d")))
		}
	}
	var fs unix.Statfs_t
	w.try("statfs", unix.Statfs("f", &fs))
	w.logf("bsize %d frsize %d namelen %d blocks %d files %d", fs.Bsize, fs.Frsize, fs.Namelen, fs.Blocks, fs.Files)
	free := int64(fs.Bfree) - int64(fs.Bavail)
	w.logf("free sensible: %v, reserved %d", fs.Bfree > 0 && fs.Bfree <= fs.Blocks && fs.Ffree <= fs.Files, free)
})

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
