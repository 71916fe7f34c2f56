package fusefs

import (
	"encoding/binary"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// elsewhere runs f in a thread that shares no descriptors with this process, so
// that POSIX locks take it for another one. Its copies of those given are closed:
// the thread ends some time after f.
func (w *world) elsewhere(f func(), copies ...int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		w.must("unshare", unix.Unshare(unix.CLONE_FILES))
		for _, fd := range copies {
			unix.Close(fd)
		}
		f()
	}()
	<-done
}

// Locks are kept by the kernel alone, between all who use the mount.
var _ = compared("locks", func(w *world) {
	w.kind("file", "f")
	open := func() int {
		fd, err := unix.Open("f", unix.O_RDWR, 0)
		w.must("open", err)
		return fd
	}
	a, b := open(), open()
	for _, how := range [][2]int{{unix.LOCK_EX, unix.LOCK_EX}, {unix.LOCK_EX, unix.LOCK_SH}, {unix.LOCK_SH, unix.LOCK_EX}, {unix.LOCK_SH, unix.LOCK_SH}} {
		w.try("flock", unix.Flock(a, how[0]|unix.LOCK_NB))
		w.try("flock of another", unix.Flock(b, how[1]|unix.LOCK_NB))
		w.try("upgrade", unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
		w.try("unlock", unix.Flock(a, unix.LOCK_UN))
		w.try("flock of another", unix.Flock(b, how[1]|unix.LOCK_NB))
		w.try("unlock", unix.Flock(b, unix.LOCK_UN))
	}
	lock := func(fd, cmd int, typ int16, start, length int64) {
		l := unix.Flock_t{Type: typ, Start: start, Len: length}
		err := unix.FcntlFlock(uintptr(fd), cmd, &l)
		w.logf("fcntl %d %d [%d +%d): %s, type %d [%d +%d) by another %v", cmd, typ, start, length, errno(err), l.Type, l.Start, l.Len, l.Pid > 0)
	}
	for _, cmds := range [][2]int{{unix.F_SETLK, unix.F_GETLK}, {unix.F_OFD_SETLK, unix.F_OFD_GETLK}} {
		set, get := cmds[0], cmds[1]
		lock(a, set, unix.F_WRLCK, 10, 10)
		lock(a, set, unix.F_RDLCK, 15, 10)
		lock(b, set, unix.F_WRLCK, 12, 1) // one process, so POSIX locks let it
		lock(b, get, unix.F_WRLCK, 0, 0)
		w.elsewhere(func() {
			other := open()
			lock(other, get, unix.F_WRLCK, 0, 0)
			lock(other, get, unix.F_RDLCK, 17, 3)
			lock(other, get, unix.F_WRLCK, 17, 3)
			lock(other, set, unix.F_WRLCK, 0, 10)
			lock(other, set, unix.F_WRLCK, 5, 10)
			lock(other, set, unix.F_RDLCK, 20, 100)
			unix.Close(other)
		}, a, b)
		lock(a, set, unix.F_UNLCK, 0, 0)
		lock(b, set, unix.F_UNLCK, 0, 0)
		w.elsewhere(func() {
			other := open()
			lock(other, set, unix.F_WRLCK, 0, 0)
			unix.Close(other)
		}, a, b)
	}
	// A lock waited for comes when the other lets go.
	w.must("flock", unix.Flock(a, unix.LOCK_EX))
	got := make(chan error)
	go func() { got <- unix.Flock(b, unix.LOCK_EX) }()
	w.must("unlock", unix.Flock(a, unix.LOCK_UN))
	w.try("waited", <-got)
	unix.Close(b)
	w.try("flock after the other's close", unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
	// POSIX locks go with any close of the file by the process.
	lock(a, unix.F_SETLK, unix.F_WRLCK, 0, 10)
	unix.Close(open())
	w.elsewhere(func() {
		other := open()
		lock(other, unix.F_SETLK, unix.F_WRLCK, 0, 10)
		unix.Close(other)
	}, a)
	unix.Close(a)
	// On what else there is.
	w.try("flock of a directory", with(".", unix.O_RDONLY, 0, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX) }))
	w.try("write lock of a reader", with("f", unix.O_RDONLY, 0, func(fd int) error {
		return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	}))
	w.try("flock of a reader", with("f", unix.O_RDONLY, 0, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX) }))
})

var _ = compared("directories", func(w *world) {
	w.must("mkdir", unix.Mkdir("d", 0o755))
	for i := range 500 {
		w.kind([]string{"file", "dir", "link", "fifo"}[i%4], fmt.Sprintf("d/%03d", i))
	}
	w.must("with", with("d", unix.O_RDONLY|unix.O_DIRECTORY, 0, func(fd int) error {
		types := map[string]byte{}
		offsets := map[string]int64{}
		var at int64
		list := func() (names []string) {
			w.dirents(fd, 4096, func(name string, typ byte, ino uint64, next int64) {
				names = append(names, name)
				types[name] = typ
				offsets[name] = at
				at = next
				var st unix.Stat_t
				if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Ino != ino && name != ".." {
					w.logf("%s: inode %d in the directory, %d by stat", name, ino, st.Ino)
				}
			})
			sortStrings(names)
			return names
		}
		names := list()
		w.logf("%q", names)
		for _, name := range names {
			w.logf("%s type %d", name, types[name])
		}
		again := list()
		w.logf("at the end: %d", len(again))
		_, err := unix.Seek(fd, 0, unix.SEEK_SET)
		w.try("rewind", err)
		at = 0
		w.logf("after it: %d", len(list()))
		// telldir and seekdir: from the offset of an entry on, that entry is next.
		wrong := 0
		for name, off := range offsets {
			if _, err := unix.Seek(fd, off, unix.SEEK_SET); err != nil {
				w.logf("seek: %s", errno(err))
				break
			}
			first := ""
			buf := make([]byte, 512)
			if n, err := unix.Getdents(fd, buf); err == nil && n > 0 {
				first = direntName(buf[:n])
			}
			if first != name {
				wrong++
			}
		}
		w.logf("%d of %d offsets lead elsewhere", wrong, len(offsets))
		return nil
	}))
	// While it is read, half is removed and others come: what stays is read once.
	w.must("with", with("d", unix.O_RDONLY|unix.O_DIRECTORY, 0, func(fd int) error {
		seen := map[string]int{}
		step := 0
		w.dirents(fd, 1024, func(name string, _ byte, _ uint64, _ int64) {
			seen[name]++
			if step++; step%2 == 0 {
				i := step % 500
				unix.Unlink(fmt.Sprintf("d/%03d", i))
				unix.Rmdir(fmt.Sprintf("d/%03d", i))
				w.file(fmt.Sprintf("d/new%d", step), 0, 0, 0o644, "")
			}
		})
		for i := 1; i < 500; i += 2 {
			if n := seen[fmt.Sprintf("%03d", i)]; n != 1 {
				w.logf("%03d was read %d times", i, n)
			}
		}
		return nil
	}))
})

// dirents reads a directory with getdents64(2).
func (w *world) dirents(fd, size int, each func(name string, typ byte, ino uint64, next int64)) {
	buf := make([]byte, size)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			w.logf("getdents: %s", errno(err))
			return
		}
		if n == 0 {
			return
		}
		for rest := buf[:n]; len(rest) > 0; {
			ino, next := binary.NativeEndian.Uint64(rest), binary.NativeEndian.Uint64(rest[8:])
			each(direntName(rest), rest[18], ino, int64(next))
			rest = rest[binary.NativeEndian.Uint16(rest[16:]):]
		}
	}
}

func direntName(b []byte) string {
	name := b[19:binary.NativeEndian.Uint16(b[16:])] // struct linux_dirent64
	for i, c := range name {
		if c == 0 {
			return string(name[:i])
		}
	}
	return string(name)
}

var _ = compared("file-flags", func(w *world) {
	const immutable, appendOnly, noDump = 0x10, 0x20, 0x40
	for _, kind := range []string{"file", "dir"} {
		w.kind(kind, kind)
		for _, flags := range []int{noDump, appendOnly, immutable, immutable | appendOnly, 0, 1 << 30} {
			w.try(fmt.Sprintf("%s set flags %x", kind, flags), with(kind, unix.O_RDONLY, 0, func(fd int) error {
				return setFlags(fd, flags)
			}))
			w.try("get", with(kind, unix.O_RDONLY, 0, func(fd int) error {
				got, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
				w.logf("  flags %x", got&0x7f)
				return err
			}))
			var st unix.Statx_t
			w.try("statx", unix.Statx(unix.AT_FDCWD, kind, 0, unix.STATX_BASIC_STATS, &st))
			w.try("write", with(kind, unix.O_WRONLY, 0, func(fd int) error { return write(fd, "x") }))
			w.try("append", with(kind, unix.O_WRONLY|unix.O_APPEND, 0, func(fd int) error { return write(fd, "x") }))
			w.try("truncate", unix.Truncate(kind, 1))
			w.try("chmod", unix.Chmod(kind, 0o700))
			w.try("xattr", unix.Setxattr(kind, "user.x", []byte("y"), 0))
			w.try("rename", unix.Rename(kind, kind+"2"))
			w.try("and back", unix.Rename(kind+"2", kind))
			w.try("link", unix.Link(kind, kind+"3"))
			w.try("create in it", with(kind+"/in", unix.O_CREAT|unix.O_WRONLY, 0o644, func(int) error { return nil }))
			w.try("unlink in it", unix.Unlink(kind+"/in"))
			w.try("unlink", unix.Unlink(kind+"3"))
		}
		w.must("clear", with(kind, unix.O_RDONLY, 0, func(fd int) error { return setFlags(fd, 0) }))
		unix.Unlink(kind + "/in")
		unix.Unlink(kind + "3")
	}
	w.as(alice, func() {
		w.try("flags of another's", with("file", unix.O_RDONLY, 0, func(fd int) error {
			return setFlags(fd, noDump)
		}))
	})
	w.must("chown", unix.Chown("file", 1001, 1001))
	w.must("chmod", unix.Chmod("file", 0o600))
	w.as(alice, func() {
		w.try("of one's own", with("file", unix.O_RDONLY, 0, func(fd int) error {
			return setFlags(fd, noDump)
		}))
		w.try("immutable without privileges", with("file", unix.O_RDONLY, 0, func(fd int) error {
			return setFlags(fd, immutable)
		}))
	})
	w.tool("lsattr", "-d", "dir")
	w.tool("chattr", "+A", "file")
	w.try("a terminal's ioctl", with("file", unix.O_RDONLY, 0, func(fd int) error { _, err := unix.IoctlGetTermios(fd, unix.TCGETS); return err }))
	w.try("an ioctl of nobody", with("file", unix.O_RDONLY, 0, func(fd int) error { return unix.IoctlSetInt(fd, 0x1234, 0) }))
	w.try("project", with("file", unix.O_RDONLY, 0, func(fd int) error {
		var x [28]byte
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), 0x801c581f, uintptr(ptr(&x)))
		w.logf("  %x", x[4:12])
		if e == 0 {
			return nil
		}
		return e
	}))
})

// setFlags changes those flags of a file that the test knows, as chattr(1) does.
func setFlags(fd, flags int) error {
	const known = 0x70
	have, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, have&^known|flags)
}

// File handles, as NFS servers keep them, lead back to the file.
var _ = compared("handles", func(w *world) {
	w.kind("file", "f")
	w.must("mkdir", unix.Mkdir("d", 0o755))
	w.kind("link", "d/l")
	root, err := unix.Open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	w.must("open", err)
	for _, path := range []string{"f", "d", "d/l", "."} {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
		if !w.try("handle of "+path, err) {
			continue
		}
		fd, err := unix.OpenByHandleAt(root, h, unix.O_PATH)
		if w.try("open by it", err) {
			w.fstat(path, fd)
			unix.Close(fd)
		}
		if path == "f" {
			fd, err := unix.OpenByHandleAt(root, h, unix.O_RDWR)
			if w.try("open to write", err) {
				w.try("write", write(fd, "by handle"))
				unix.Close(fd)
			}
			w.must("rename", unix.Rename("f", "d/g"))
			fd, err = unix.OpenByHandleAt(root, h, unix.O_RDONLY)
			w.try("after a rename", err)
			unix.Close(fd)
			w.content("d/g")
			w.must("unlink", unix.Unlink("d/g"))
		}
	}
})
