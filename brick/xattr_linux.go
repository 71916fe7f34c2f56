package brick

import (
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"
)

// xattrArgs is struct xattr_args of getxattrat(2) and setxattrat(2). The value
// is kept as a pointer so that the runtime can see it and move it with a stack.
type xattrArgs struct {
	value unsafe.Pointer
	size  uint32
	flags uint32
}

// The kernel's struct has a 64-bit address first.
var _ [16]byte = [unsafe.Sizeof(xattrArgs{})]byte{}

// noXattrat is set once the kernel has answered ENOSYS (Linux before 6.13);
// names are then reached through /proc/self/fd.
var noXattrat atomic.Bool

// Getxattr reads the xattr attr of name in dirfd, or of dirfd itself when name
// is empty, into buf and returns its size; an empty buf asks for the size only.
// ENODATA: there is none. ERANGE: buf is too small.
func Getxattr(dirfd int, name, attr string, buf []byte) (int, syscall.Errno) {
	n, errno := xattrat(unix.SYS_GETXATTRAT, dirfd, name, attr, buf, 0)
	if viaProc(name, errno) {
		p, follow := procPath(dirfd, name)
		if follow {
			n, err := unix.Getxattr(p, attr, buf)
			return n, errnoOf(err)
		}
		n, err := unix.Lgetxattr(p, attr, buf)
		return n, errnoOf(err)
	}
	return n, errno
}

// Setxattr sets the xattr attr of name in dirfd, or of dirfd itself when name is
// empty. flags are XATTR_CREATE, XATTR_REPLACE or 0.
func Setxattr(dirfd int, name, attr string, val []byte, flags int) syscall.Errno {
	_, errno := xattrat(unix.SYS_SETXATTRAT, dirfd, name, attr, val, flags)
	if viaProc(name, errno) {
		p, follow := procPath(dirfd, name)
		if follow {
			return errnoOf(unix.Setxattr(p, attr, val, flags))
		}
		return errnoOf(unix.Lsetxattr(p, attr, val, flags))
	}
	return errno
}

// Removexattr removes the xattr attr of name in dirfd, or of dirfd itself when
// name is empty.
func Removexattr(dirfd int, name, attr string) syscall.Errno {
	errno := removexattrat(dirfd, name, attr)
	if viaProc(name, errno) {
		p, follow := procPath(dirfd, name)
		if follow {
			return errnoOf(unix.Removexattr(p, attr))
		}
		return errnoOf(unix.Lremovexattr(p, attr))
	}
	return errno
}

// Listxattr reads the names of name's xattrs, each followed by a NUL, into buf
// and returns their size; an empty buf asks for the size only.
func Listxattr(dirfd int, name string, buf []byte) (int, syscall.Errno) {
	n, errno := listxattrat(dirfd, name, buf)
	if viaProc(name, errno) {
		p, follow := procPath(dirfd, name)
		if follow {
			n, err := unix.Listxattr(p, buf)
			return n, errnoOf(err)
		}
		n, err := unix.Llistxattr(p, buf)
		return n, errnoOf(err)
	}
	return n, errno
}

// viaProc reports whether a call that answered errno is to be made again through
// /proc/self/fd: the kernel lacks the calls, or the object is an O_PATH
// descriptor itself, which they refuse.
func viaProc(name string, errno syscall.Errno) bool {
	return errno == syscall.ENOSYS || errno == syscall.EBADF && name == ""
}

func removexattrat(dirfd int, name, attr string) syscall.Errno {
	if noXattrat.Load() {
		return syscall.ENOSYS
	}
	p, errno := cstring(name)
	if errno != 0 {
		return errno
	}
	a, errno := cstring(attr)
	if errno != 0 {
		return errno
	}
	_, _, errno = syscall.Syscall6(unix.SYS_REMOVEXATTRAT, uintptr(dirfd), uintptr(unsafe.Pointer(p)),
		unix.AT_EMPTY_PATH|atFlags, uintptr(unsafe.Pointer(a)), 0, 0)
	if errno == syscall.ENOSYS {
		noXattrat.Store(true)
	}
	return errno
}

func listxattrat(dirfd int, name string, buf []byte) (int, syscall.Errno) {
	if noXattrat.Load() {
		return 0, syscall.ENOSYS
	}
	p, errno := cstring(name)
	if errno != 0 {
		return 0, errno
	}
	var b unsafe.Pointer
	if len(buf) > 0 {
		b = unsafe.Pointer(&buf[0])
	}
	n, _, errno := syscall.Syscall6(unix.SYS_LISTXATTRAT, uintptr(dirfd), uintptr(unsafe.Pointer(p)),
		unix.AT_EMPTY_PATH|atFlags, uintptr(b), uintptr(len(buf)), 0)
	if errno == syscall.ENOSYS {
		noXattrat.Store(true)
	}
	return int(n), errno
}

func xattrat(trap uintptr, dirfd int, name, attr string, val []byte, flags int) (int, syscall.Errno) {
	if noXattrat.Load() {
		return 0, syscall.ENOSYS
	}
	p, errno := cstring(name)
	if errno != 0 {
		return 0, errno
	}
	a, errno := cstring(attr)
	if errno != 0 {
		return 0, errno
	}
	args := xattrArgs{size: uint32(len(val)), flags: uint32(flags)}
	if len(val) > 0 {
		args.value = unsafe.Pointer(&val[0])
	}
	n, _, errno := syscall.Syscall6(trap, uintptr(dirfd), uintptr(unsafe.Pointer(p)),
		unix.AT_EMPTY_PATH|atFlags, uintptr(unsafe.Pointer(a)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	if errno == syscall.ENOSYS {
		noXattrat.Store(true)
	}
	return int(n), errno
}

// procPath names an object relative to an open descriptor for calls that take
// only a path: two components at most, however deep the object lies. The link of
// a descriptor itself must be followed, which leads to the object opened and, if
// that is a symlink, not beyond it; a name below it must not be.
func procPath(dirfd int, name string) (path string, follow bool) {
	p := "/proc/self/fd/" + strconv.Itoa(dirfd)
	if name == "" {
		return p, true
	}
	return p + "/" + name, false
}

// ReadXattr reads the xattr attr of the object at path as a whole, not following
// a symlink: for tools and start-up, not for fops. The error is an *xattr.Error
// that wraps the errno.
func ReadXattr(path, attr string) ([]byte, error) { return xattr.LGet(path, attr) }
