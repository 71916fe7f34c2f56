package translator

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/changelog"
)

// The ioctls that are passed on: file flags and project ids. Their numbers hold
// the size of the argument, which bounds what the kernel copies.
const (
	ioctlFSGetXattr = 0x801c581f // struct fsxattr, 28 bytes
	ioctlFSSetXattr = 0x401c5820
)

// Ioctl carries out an ioctl on the descriptor fd of in: those of chattr(1),
// lsattr(1) and project quotas. Others are ENOTTY.
func (t *Translator) Ioctl(in *Inode, fd int, cmd uint32, arg, out []byte) syscall.Errno {
	switch cmd {
	case unix.FS_IOC_GETFLAGS, ioctlFSGetXattr:
		return ioctl(fd, cmd, out)
	case unix.FS_IOC_SETFLAGS, ioctlFSSetXattr:
		in.mu.Lock()
		defer in.mu.Unlock()
		r := &changelog.Record{Type: changelog.Meta, GFID: in.gfid, Fop: changelog.FopSetattr}
		return t.actOnce(in, classAttr, r, func() syscall.Errno { return ioctl(fd, cmd, arg) })
	}
	return syscall.ENOTTY
}

// ioctl lends the kernel 32 bytes, more than any of the arguments above.
func ioctl(fd int, cmd uint32, arg []byte) syscall.Errno {
	var buf [32]byte
	copy(buf[:], arg)
	_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&buf)))
	if errno == 0 {
		copy(arg, buf[:])
	}
	return errno
}
