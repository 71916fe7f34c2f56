package slave

import (
	"fmt"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights of Landlock that change something, by the version of it they came with.
// REFER is a rename or link from one directory to another: without it none is
// allowed at all.
const (
	landlockWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER
	landlockTruncate = unix.LANDLOCK_ACCESS_FS_TRUNCATE // since version 3
)

// Confine makes the kernel refuse the calling thread every change of what lies
// outside the directory root, for ever and in whatever it executes: the caller
// has locked its goroutine to the thread, and executes something next. Reading
// is not restricted. It reports false where the kernel can't (before Linux 5.19,
// or Landlock is off), and then has done nothing.
func Confine(root string) (bool, error) {
	version, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || version < 2 {
		return false, nil
	}
	handled := uint64(landlockWrite)
	if version >= 3 {
		handled |= landlockTruncate
	}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return false, fmt.Errorf("slave: confine: %w", err)
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handled}
	ruleset, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if errno != 0 {
		return false, fmt.Errorf("slave: confine: rule set: %w", errno)
	}
	defer syscall.Close(int(ruleset))
	for _, r := range []struct {
		path   string
		access uint64
	}{{root, handled}, {"/dev/null", handled & (unix.LANDLOCK_ACCESS_FS_WRITE_FILE | landlockTruncate)}} {
		if err := allow(int(ruleset), r.path, r.access); err != nil {
			return false, fmt.Errorf("slave: confine to %q: %w", r.path, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("slave: confine: %w", err)
	}
	if _, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0); errno != 0 {
		return false, fmt.Errorf("slave: confine: %w", errno)
	}
	return true, nil
}

// allow adds the rule that access is allowed at path and below.
func allow(ruleset int, path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	attr := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	_, _, errno := syscall.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	return errnoOrNil(errno)
}

func errnoOrNil(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
