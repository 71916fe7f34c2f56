package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// programEnv names the program that this binary is to run instead of its tests.
const programEnv = "GEOREP_FUSEFS_PROGRAM"

// program is what a user does in a directory, which is its working directory. It
// runs in a process of its own: one that serves a mount must not fault pages in
// from it, and may not change whose files it makes. What it prints is compared
// between directories.
type program func(*world)

// programs are all of them by name.
var programs = map[string]program{}

func TestMain(m *testing.M) {
	if name := os.Getenv(programEnv); name != "" {
		os.Exit(runProgram(name))
	}
	// As georep mount does: a brick's file system applies the users' umasks.
	unix.Umask(0)
	os.Exit(m.Run())
}

func runProgram(name string) int {
	p, ok := programs[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "no program %q\n", name)
		return 2
	}
	unix.Umask(0o022)
	w := &world{args: strings.Fields(os.Getenv(programEnv + "_ARGS"))}
	p(w)
	os.Stdout.Write(w.out.Bytes())
	return 0
}

// child is a command that runs the program in dir.
func child(dir, name string, args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Dir = dir
	c.Env = append(os.Environ(), programEnv+"="+name, programEnv+"_ARGS="+strings.Join(args, " "))
	return c
}

// output runs a program in dir and returns what it printed.
func output(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	c := child(dir, name, args...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("program %s in %s: %v\n%s%s", name, dir, err, &stdout, &stderr)
	}
	return stdout.String()
}

// world is where a program runs: its directory, and what it has seen so far.
type world struct {
	out  bytes.Buffer
	args []string
}

// user is on whose behalf a program does something.
type user struct {
	uid, gid int
	groups   []int
	umask    int
	// noCaps takes all capabilities away from a user 0.
	noCaps bool
}

var (
	root  = user{umask: 0o022}
	alice = user{uid: 1001, gid: 1001, groups: []int{1001, 2001}, umask: 0o022}
	bob   = user{uid: 1002, gid: 1002, groups: []int{1002, 2002}, umask: 0o022}
)

// as does what f does as another user. The thread is thrown away with it.
func (w *world) as(u user, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			panic(err)
		}
		unix.Umask(u.umask)
		become(u)
		f()
	}()
	<-done
}

// become changes the ids of this thread alone.
func become(u user) {
	groups := make([]uint32, len(u.groups)+1)
	for i, g := range u.groups {
		groups[i] = uint32(g)
	}
	must := func(what string, errno syscall.Errno) {
		if errno != 0 {
			panic(what + ": " + errno.Error())
		}
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(u.groups)), uintptr(ptr(&groups[0])), 0)
	must("setgroups", errno)
	// A parent that serves a mount has told this thread's ancestor to keep its
	// capabilities when its ids change.
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, 0, 0, 0, 0); err != nil {
		panic(err)
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid))
	must("setresgid", errno)
	_, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid))
	must("setresuid", errno)
	if u.noCaps {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			panic(err)
		}
	}
}

// logf adds a line to what is compared.
func (w *world) logf(format string, args ...any) {
	fmt.Fprintf(&w.out, format+"\n", args...)
}

// errno is the name of err: "ok", or such as "EPERM".
func errno(err error) string {
	if err == nil {
		return "ok"
	}
	var e syscall.Errno
	for u := err; u != nil; {
		if n, ok := u.(syscall.Errno); ok {
			e = n
			break
		}
		x, ok := u.(interface{ Unwrap() error })
		if !ok {
			return err.Error()
		}
		u = x.Unwrap()
	}
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return err.Error()
}

// try logs how what went.
func (w *world) try(what string, err error) bool {
	w.logf("%s: %s", what, errno(err))
	return err == nil
}

// must is for what can only fail if the test itself is wrong.
func (w *world) must(what string, err error) {
	if err != nil {
		panic(fmt.Sprintf("%s: %v", what, err))
	}
}

// stat logs what does not depend on when and where of a name.
func (w *world) stat(path string) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		w.logf("  %s: %s", path, errno(err))
		return
	}
	w.logStat(path, &st)
}

func (w *world) fstat(what string, fd int) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		w.logf("  %s: %s", what, errno(err))
		return
	}
	w.logStat(what, &st)
}

func (w *world) logStat(what string, st *unix.Stat_t) {
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0 // the file system's business
	}
	w.logf("  %s: %06o nlink %d %d:%d size %d rdev %x", what, st.Mode, st.Nlink, st.Uid, st.Gid, size, st.Rdev)
}

// xattrs logs names and values of all xattrs but the labels of security modules.
func (w *world) xattrs(path string) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		w.logf("  %s xattrs: %s", path, errno(err))
		return
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	if n == 0 {
		names = nil
	}
	sortStrings(names)
	for _, name := range names {
		if internal(name) {
			continue // a bare directory lists what a mount hides
		}
		val := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, val)
		if err != nil {
			n = 0
		}
		w.logf("  %s %s = %q %s", path, name, val[:n], errno(err))
	}
}
