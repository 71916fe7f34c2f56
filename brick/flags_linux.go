package brick

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// lifting calls do, and if that is refused because name in dirfd is immutable or
// append-only, once more with these flags off: chattr(1) protects a file from its
// users, not from what we keep on it. The flags are back when it returns; a crash
// in between leaves the file without.
func lifting(dirfd int, name string, do func() syscall.Errno) syscall.Errno {
	errno := do()
	if errno != syscall.EPERM {
		return errno
	}
	const protects = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND
	var st unix.Statx_t
	if Statx(dirfd, name, &st) != 0 || st.Attributes&protects == 0 {
		return errno
	}
	if name == "" {
		name = "."
	}
	fd, e := Openat(dirfd, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if e != 0 {
		return errno
	}
	defer Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return errno
	}
	const immutable, appendOnly = 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^(immutable|appendOnly)); err != nil {
		return errno
	}
	errno = do()
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags); err != nil && errno == 0 {
		return errnoOf(err)
	}
	return errno
}

// SetOwnXattr is Setxattr for an xattr that we keep, on protected files too.
func SetOwnXattr(dirfd int, name, attr string, val []byte, flags int) syscall.Errno {
	return lifting(dirfd, name, func() syscall.Errno { return Setxattr(dirfd, name, attr, val, flags) })
}
