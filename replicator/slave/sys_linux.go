package slave

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// inode names an object for a system call: the name in the directory fd, or what
// fd is open on if name is empty. No call here follows a symlink.
type inode struct {
	fd   int
	name string
}

// handle is g's handle. A directory's is a symlink that is never followed.
func (t *tree) handle(g gfid.GFID) inode {
	return inode{t.brick.Handles(), brick.HandlePath(g)}
}

func (i inode) statx(st *unix.Statx_t) syscall.Errno { return brick.Statx(i.fd, i.name, st) }

func (i inode) getxattr(attr string, buf []byte) (int, syscall.Errno) {
	return brick.Getxattr(i.fd, i.name, attr, buf)
}

func (i inode) setxattr(attr string, val []byte) syscall.Errno {
	return brick.Setxattr(i.fd, i.name, attr, val, 0)
}

func (i inode) chown(uid, gid uint32) syscall.Errno {
	return errnoOf(unix.Fchownat(i.fd, i.name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH))
}

// chmod must not be called for a symlink, which has no permissions.
func (i inode) chmod(mode uint32) syscall.Errno {
	if i.name == "" {
		return errnoOf(unix.Fchmod(i.fd, mode&0o7777))
	}
	return errnoOf(unix.Fchmodat(i.fd, i.name, mode&0o7777, 0))
}

// utimes sets the times; a zero atime stays as it is.
func (i inode) utimes(atime, mtime Time) syscall.Errno {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: mtime.Sec, Nsec: int64(mtime.Nsec)}}
	if !atime.IsZero() {
		ts[0] = unix.Timespec{Sec: atime.Sec, Nsec: int64(atime.Nsec)}
	}
	var p *byte
	flags := 0
	if i.name != "" {
		var err error
		if p, err = syscall.BytePtrFromString(i.name); err != nil {
			return syscall.EINVAL
		}
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	_, _, errno := syscall.Syscall6(unix.SYS_UTIMENSAT, uintptr(i.fd), uintptr(unsafe.Pointer(p)),
		uintptr(unsafe.Pointer(&ts)), uintptr(flags), 0, 0)
	return errno
}

func (i inode) unlink() syscall.Errno { return errnoOf(unix.Unlinkat(i.fd, i.name, 0)) }

func (i inode) rmdir() syscall.Errno { return errnoOf(unix.Unlinkat(i.fd, i.name, unix.AT_REMOVEDIR)) }

// link gives i the further name to.
func (i inode) link(to inode) syscall.Errno {
	return errnoOf(unix.Linkat(i.fd, i.name, to.fd, to.name, 0))
}

func (i inode) rename(to inode, flags uint) syscall.Errno {
	return errnoOf(unix.Renameat2(i.fd, i.name, to.fd, to.name, flags))
}

func (i inode) readlink() (string, syscall.Errno) {
	for buf := make([]byte, 512); ; buf = make([]byte, 2*len(buf)) {
		n, err := unix.Readlinkat(i.fd, i.name, buf)
		if err != nil {
			return "", errnoOf(err)
		}
		if n < len(buf) {
			return string(buf[:n]), 0
		}
	}
}

// open opens i itself: ELOOP for a symlink.
func (i inode) open(flags int, mode uint32) (int, syscall.Errno) {
	return brick.Openat(i.fd, i.name, flags, mode)
}

// openDir opens the directory name in dirfd if it is one and lies on the same
// mount. The kernel refuses everything else.
func openDir(dirfd int, name string) (int, syscall.Errno) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(dirfd, name, &how)
		switch err {
		case nil:
			return fd, 0
		case unix.EINTR, unix.EAGAIN: // a rename elsewhere made the kernel unsure
		default:
			return -1, errnoOf(err)
		}
	}
}

// errnoOf is the errno in err; nil is 0.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	return syscall.EIO
}

func attrOfStat(st *unix.Statx_t) Attr {
	return Attr{
		Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Rdev: Rdev{st.Rdev_major, st.Rdev_minor},
		Nlink: st.Nlink, Size: int64(st.Size), Blocks: int64(st.Blocks),
		Mtime: Time{st.Mtime.Sec, st.Mtime.Nsec}, Ctime: Time{st.Ctime.Sec, st.Ctime.Nsec}, Atime: Time{st.Atime.Sec, st.Atime.Nsec},
	}
}

func isDir(st *unix.Statx_t) bool     { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
func isRegular(st *unix.Statx_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG }

func sameInode(a, b *unix.Statx_t) bool {
	return a.Ino == b.Ino && a.Dev_major == b.Dev_major && a.Dev_minor == b.Dev_minor
}
