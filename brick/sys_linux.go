package brick

import (
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Errors of this file are bare errnos: they go to callers of fops as they are.

// atFlags of every call here: the last component is never followed.
const atFlags = unix.AT_SYMLINK_NOFOLLOW

// Statx fills st for the object name in the directory dirfd, or for dirfd itself
// when name is empty. It never follows a symlink and never asks a network.
func Statx(dirfd int, name string, st *unix.Statx_t) syscall.Errno {
	p, errno := cstring(name)
	if errno != 0 {
		return errno
	}
	return statx(dirfd, p, st)
}

func statx(dirfd int, p *byte, st *unix.Statx_t) syscall.Errno {
	const mask = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	_, _, errno := syscall.Syscall6(unix.SYS_STATX, uintptr(dirfd), uintptr(unsafe.Pointer(p)),
		unix.AT_EMPTY_PATH|atFlags|unix.AT_STATX_SYNC_AS_STAT, mask, uintptr(unsafe.Pointer(st)), 0)
	return errno
}

var emptyName = [1]byte{}

// Fstatx is Statx of an open descriptor, O_PATH ones included.
func Fstatx(fd int, st *unix.Statx_t) syscall.Errno { return statx(fd, &emptyName[0], st) }

// cstring copies s behind a NUL. A name with a NUL inside is EINVAL.
func cstring(s string) (*byte, syscall.Errno) {
	if s == "" {
		return &emptyName[0], 0
	}
	p, err := syscall.BytePtrFromString(s)
	if err != nil {
		return nil, syscall.EINVAL
	}
	return p, 0
}

// Openat opens name in dirfd with O_CLOEXEC and O_NOFOLLOW added.
func Openat(dirfd int, name string, flags int, mode uint32) (int, syscall.Errno) {
	p, errno := cstring(name)
	if errno != 0 {
		return -1, errno
	}
	return openat(dirfd, p, flags, mode)
}

func openat(dirfd int, p *byte, flags int, mode uint32) (int, syscall.Errno) {
	for {
		fd, _, errno := syscall.Syscall6(syscall.SYS_OPENAT, uintptr(dirfd), uintptr(unsafe.Pointer(p)),
			uintptr(flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_LARGEFILE), uintptr(mode), 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return -1, errno
		}
		return int(fd), 0
	}
}

// Reopen opens the object behind fd, which may be O_PATH, once more. A symlink
// answers ELOOP.
func Reopen(fd, flags int) (int, syscall.Errno) {
	for {
		n, err := syscall.Open("/proc/self/fd/"+strconv.Itoa(fd), flags|unix.O_CLOEXEC|unix.O_LARGEFILE, 0)
		if err == syscall.EINTR {
			continue
		}
		return n, errnoOf(err)
	}
}

// Close closes fd. An error of close(2) has no remedy and is not reported: data
// that must be durable is synced before.
func Close(fd int) { syscall.Close(fd) }

func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	return syscall.EIO
}
