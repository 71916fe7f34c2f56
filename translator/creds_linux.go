package translator

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// noSetuidFixup (capabilities(7)) keeps the capabilities of a thread when its
// file system user changes: whether the caller may do what it asks for was
// decided by the kernel before it asked us.
const noSetuidFixup = 1 << 2

// as runs f with the caller's file system user and group, so that what it makes
// is theirs and inherits as if they had made it on the brick.
func (c Caller) as(f func() syscall.Errno) syscall.Errno {
	if c.UID == 0 && c.GID == 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noSetuidFixup, 0, 0, 0); err != nil {
		return errnoOf(err)
	}
	setfsid(unix.SYS_SETFSGID, c.GID)
	setfsid(unix.SYS_SETFSUID, c.UID)
	// Given back even if f panics: the thread goes back to the pool.
	defer setfsid(unix.SYS_SETFSGID, 0)
	defer setfsid(unix.SYS_SETFSUID, 0)
	return f()
}

// setfsid changes an id of this thread alone; the calls can't fail for root and
// report the id from before.
func setfsid(trap uintptr, id uint32) { syscall.RawSyscall(trap, uintptr(id), 0, 0) }
