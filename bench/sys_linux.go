package bench

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cpath is a path as the kernel takes it, ending in a zero byte. It is made before
// the clock runs: on a bare directory converting a string costs a tenth of a stat.
type cpath []byte

func newCPath(s string) cpath { return append([]byte(s), 0) }

// String is the path without its zero byte.
func (p cpath) String() string { return string(p[:len(p)-1]) }

func (p cpath) at() unsafe.Pointer { return unsafe.Pointer(&p[0]) }

// The calls below do not tell Go's scheduler that they are about to sleep: it would
// take the thread's P away and give it back, which costs more than a stat does.
// [runThreads] sees to it that there are enough Ps.

func errnoErr(e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// cwd is AT_FDCWD as a system call's argument.
const cwd = ^uintptr(0) - 99

func sysOpen(p cpath, flags int, mode uint32) (int, error) {
	fd, _, e := unix.RawSyscall6(unix.SYS_OPENAT, cwd, uintptr(p.at()), uintptr(flags|unix.O_CLOEXEC), uintptr(mode), 0, 0)
	return int(fd), errnoErr(e)
}

func sysClose(fd int) error {
	_, _, e := unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	return errnoErr(e)
}

// sysWrite writes all of b or fails: a short write to a file is a full disk.
func sysWrite(fd int, b []byte) error {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if e == 0 && int(n) < len(b) {
		return unix.ENOSPC
	}
	return errnoErr(e)
}

func sysPwrite(fd int, b []byte, off int64) error {
	n, _, e := unix.RawSyscall6(unix.SYS_PWRITE64, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(off), 0, 0)
	if e == 0 && int(n) < len(b) {
		return unix.ENOSPC
	}
	return errnoErr(e)
}

func sysRead(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errnoErr(e)
}

func sysPread(fd int, b []byte, off int64) (int, error) {
	n, _, e := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(off), 0, 0)
	return int(n), errnoErr(e)
}

func sysStat(p cpath, st *unix.Stat_t) error {
	_, _, e := unix.RawSyscall6(unix.SYS_NEWFSTATAT, cwd, uintptr(p.at()), uintptr(unsafe.Pointer(st)), unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	return errnoErr(e)
}

func sysRename(from, to cpath) error {
	_, _, e := unix.RawSyscall6(unix.SYS_RENAMEAT2, cwd, uintptr(from.at()), cwd, uintptr(to.at()), 0, 0)
	return errnoErr(e)
}

func sysUnlink(p cpath, flags int) error {
	_, _, e := unix.RawSyscall(unix.SYS_UNLINKAT, cwd, uintptr(p.at()), uintptr(flags))
	return errnoErr(e)
}

func sysMkdir(p cpath, mode uint32) error {
	_, _, e := unix.RawSyscall(unix.SYS_MKDIRAT, cwd, uintptr(p.at()), uintptr(mode))
	return errnoErr(e)
}

func sysChmod(p cpath, mode uint32) error {
	_, _, e := unix.RawSyscall(unix.SYS_FCHMODAT, cwd, uintptr(p.at()), uintptr(mode))
	return errnoErr(e)
}

func sysSetxattr(p, name cpath, value []byte) error {
	_, _, e := unix.RawSyscall6(unix.SYS_SETXATTR, uintptr(p.at()), uintptr(name.at()), uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), 0, 0)
	return errnoErr(e)
}

func sysFsync(fd int) error {
	_, _, e := unix.RawSyscall(unix.SYS_FSYNC, uintptr(fd), 0, 0)
	return errnoErr(e)
}

// processCPU is the CPU time, user and system, that all threads of pid have used.
// It has the scheduler's resolution, where /proc/PID/stat has ticks of 10 ms.
func processCPU(pid int) (time.Duration, error) {
	// The clock of a process is ~pid with CPUCLOCK_SCHED below: linux/posix-timers.h.
	const cpuclockSched = 2
	return clock(int32(^pid<<3 | cpuclockSched))
}

// threadCPU is the CPU time of this thread. That of getrusage(2) misses what was
// used since the last tick.
func threadCPU() time.Duration {
	d, err := clock(unix.CLOCK_THREAD_CPUTIME_ID)
	if err != nil {
		panic(err) // every thread has it
	}
	return d
}

func clock(id int32) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

// ownCPU is the CPU time of this process and of the children it has waited for.
func ownCPU() time.Duration { return usedCPU(unix.RUSAGE_SELF) + usedCPU(unix.RUSAGE_CHILDREN) }

// usedCPU is the CPU time, user and system, of RUSAGE_SELF or RUSAGE_CHILDREN.
func usedCPU(who int) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		panic(err) // it takes no argument that could be wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sysFutimes sets the atime and mtime of an open file, as futimens(3) does.
func sysFutimes(fd int, ts []unix.Timespec) error {
	_, _, e := unix.RawSyscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0)
	return errnoErr(e)
}
