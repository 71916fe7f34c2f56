package fusefs

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stopAt is where a process is killed: before or after the system call with that
// number among those that change something, counted from 1. Zero: nowhere.
type stopAt struct {
	step  int
	after bool
}

func (s stopAt) String() string {
	if s.after {
		return fmt.Sprintf("after step %d", s.step)
	}
	return fmt.Sprintf("before step %d", s.step)
}

// durable are the system calls that change what a crash leaves. Stores to shared
// memory lie between them.
var durable = map[uint64]bool{
	unix.SYS_WRITE: true, unix.SYS_PWRITE64: true, unix.SYS_PWRITEV: true, unix.SYS_COPY_FILE_RANGE: true,
	unix.SYS_MKDIRAT: true, unix.SYS_MKNODAT: true, unix.SYS_SYMLINKAT: true, unix.SYS_LINKAT: true, unix.SYS_UNLINKAT: true,
	unix.SYS_RENAMEAT: true, unix.SYS_RENAMEAT2: true, unix.SYS_OPENAT: true,
	unix.SYS_SETXATTR: true, unix.SYS_FSETXATTR: true, unix.SYS_LSETXATTR: true, unix.SYS_SETXATTRAT: true,
	unix.SYS_REMOVEXATTR: true, unix.SYS_FREMOVEXATTR: true, unix.SYS_LREMOVEXATTR: true, unix.SYS_REMOVEXATTRAT: true,
	unix.SYS_TRUNCATE: true, unix.SYS_FTRUNCATE: true, unix.SYS_FALLOCATE: true,
	unix.SYS_FCHMOD: true, unix.SYS_FCHMODAT: true, unix.SYS_FCHMODAT2: true, unix.SYS_FCHOWN: true, unix.SYS_FCHOWNAT: true,
	unix.SYS_UTIMENSAT: true, unix.SYS_MMAP: true,
	unix.SYS_FSYNC: true, unix.SYS_FDATASYNC: true, unix.SYS_SYNCFS: true, unix.SYS_SYNC_FILE_RANGE: true,
}

// isDurable looks closer at calls that come in both kinds.
func isDurable(nr uint64, args [6]uint64) bool {
	switch nr {
	case unix.SYS_OPENAT:
		return args[2]&(unix.O_CREAT|unix.O_TRUNC) != 0
	case unix.SYS_WRITE:
		return args[0] > 2
	case unix.SYS_MMAP:
		return args[3]&unix.MAP_SHARED != 0
	}
	return durable[nr]
}

// waitToBeTraced is the traced process's side: what follows on this thread, up to
// the call of the function returned, is counted.
func waitToBeTraced() (over func()) {
	runtime.LockOSThread()
	fmt.Println(unix.Gettid())
	var b [1]byte
	unix.Read(0, b[:]) // until it is closed, which says that we are traced
	return func() { unix.Write(1, []byte("done\n")) }
}

// killStep runs a program that calls waitToBeTraced, and kills it at that step.
// It returns how many steps there were, all of them if it was not killed.
func killStep(t *testing.T, at stopAt, name string, args ...string) (steps int, killed bool) {
	t.Helper()
	cmd := child("/", name, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	line, _ := lines.ReadString('\n')
	tid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		_ = cmd.Wait() // it died early, and said why
		t.Fatalf("program %s says %q, want its thread", name, line)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tr := tracer{t: t, tid: tid, pid: cmd.Process.Pid, at: at}
	tr.seize()
	in.Close()
	tr.run()
	line, _ = lines.ReadString('\n')
	err = cmd.Wait()
	if tr.killed != (err != nil) || !tr.killed && line != "done\n" {
		t.Fatalf("program %s: killed %v, ended with %v and %q", name, tr.killed, err, line)
	}
	return tr.steps, tr.killed
}

// tracer watches the system calls of one thread.
type tracer struct {
	t        *testing.T
	tid, pid int
	at       stopAt
	steps    int
	counted  bool // the call we are in counts
	killed   bool
	over     bool
}

func (tr *tracer) ptrace(what string, request, data uintptr) {
	if _, _, errno := syscall.RawSyscall6(unix.SYS_PTRACE, request, uintptr(tr.tid), 0, data, 0, 0); errno != 0 {
		tr.t.Fatalf("ptrace %s: %v", what, errno)
	}
}

// seize stops the thread, which is reading its standard input, and lets it go on
// to the next system call.
func (tr *tracer) seize() {
	tr.t.Helper()
	tr.ptrace("seize", unix.PTRACE_SEIZE, unix.PTRACE_O_EXITKILL|unix.PTRACE_O_TRACESYSGOOD)
	tr.ptrace("interrupt", unix.PTRACE_INTERRUPT, 0)
}

func (tr *tracer) run() {
	tr.t.Helper()
	for !tr.killed {
		var ws syscall.WaitStatus
		if _, err := syscall.Wait4(tr.tid, &ws, syscall.WALL, nil); err != nil {
			if err == syscall.EINTR {
				continue
			}
			tr.t.Fatalf("wait: %v", err)
		}
		if ws.Exited() || ws.Signaled() {
			return
		}
		sig := uintptr(0)
		switch s := ws.StopSignal(); {
		case s == syscall.SIGTRAP|0x80:
			tr.call()
		case ws>>16 == 0:
			sig = uintptr(s) // one of its own
		}
		switch {
		case tr.killed:
		case tr.over:
			tr.ptrace("detach", unix.PTRACE_DETACH, 0)
			return
		default:
			tr.ptrace("syscall", unix.PTRACE_SYSCALL, sig)
		}
	}
	for {
		var ws syscall.WaitStatus
		if _, err := syscall.Wait4(tr.tid, &ws, syscall.WALL, nil); err != syscall.EINTR && (err != nil || ws.Exited() || ws.Signaled()) {
			return
		}
	}
}

// call looks at a system call that begins or ends.
func (tr *tracer) call() {
	tr.t.Helper()
	var info struct {
		op   uint8
		_    [3]uint8
		_    uint32
		_, _ uint64
		nr   uint64 // with args: of a call that begins
		args [6]uint64
	}
	const getSyscallInfo = 0x420e
	if _, _, errno := syscall.RawSyscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tr.tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0); errno != 0 {
		tr.t.Fatalf("ptrace get syscall info: %v", errno)
	}
	const entry, exit = 1, 2
	switch info.op {
	case entry:
		if tr.over = info.nr == unix.SYS_WRITE && info.args[0] == 1; tr.over {
			return
		}
		if tr.counted = isDurable(info.nr, info.args); tr.counted {
			tr.steps++
			tr.killHere(false)
		}
	case exit:
		if tr.counted {
			tr.counted = false
			tr.killHere(true)
		}
	}
}

func (tr *tracer) killHere(after bool) {
	if tr.at != (stopAt{tr.steps, after}) {
		return
	}
	// A thread killed where a call begins does not carry it out any more.
	if err := syscall.Kill(tr.pid, syscall.SIGKILL); err != nil {
		tr.t.Fatal(err)
	}
	tr.killed = true
}
