package slave

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// Environment of the process that is killed.
const (
	crashRoot   = "GEOREP_TEST_CRASH_ROOT"
	crashMaster = "GEOREP_TEST_CRASH_MASTER"
)

// crashGFID is the n-th GFID of the crash test: both processes know them.
func crashGFID(n int) gfid.GFID { return gfid.GFID{0xab, byte(n), 6: 0x40, 8: 0x80, 15: byte(n)} }

const (
	cFile = iota + 1
	cLink
	cDirA
	cDirAIn
	cDirB
	cDirBIn
	cDirC
	cOrphan
	cPut
	cPutForeign
	cPutLinks
	cGone
	cGoneDir
	cOrphaned
	cOrphanedIn
	cRenamed
	cOver
	cNewFile
	cNewDir
	cNewSymlink
	cInPlace
	cBelow
)

// crashBase is what is there before.
func crashBase() []Op {
	g := crashGFID
	return []Op{
		file(g(cFile), inRoot("file"), "file"), file(g(cLink), inRoot("link"), "link"),
		mkdir(g(cDirA), inRoot("dir a")), file(g(cDirAIn), Name{g(cDirA), "in a"}, "in a"),
		mkdir(g(cDirB), inRoot("dir b")), file(g(cDirBIn), Name{g(cDirB), "in b"}, "in b"),
		mkdir(g(cDirC), inRoot("dir c")), mkdir(g(cBelow), inRoot("below")),
		mkdir(g(cOrphan), Name{}),
		file(g(cPut), inRoot("put"), "old"), file(g(cPutForeign), inRoot("put foreign"), "old"),
		file(g(cPutLinks), inRoot("put links"), "old"), {Kind: Link, GFID: g(cPutLinks), Name: inRoot("put links 2")},
		file(g(cInPlace), inRoot("in place"), "old"), {Kind: Link, GFID: g(cInPlace), Name: inRoot("in place 2")},
		file(g(cGone), inRoot("gone"), "x"), mkdir(g(cGoneDir), inRoot("gone dir")),
		mkdir(g(cOrphaned), inRoot("orphaned")), file(g(cOrphanedIn), Name{g(cOrphaned), "in"}, "x"),
		file(g(cRenamed), inRoot("renamed"), "renamed"), file(g(cOver), inRoot("over"), "over"),
	}
}

// crashOps are what is cut short: every kind of operation, over every kind of
// thing.
func crashOps() []Op {
	g := crashGFID
	return []Op{
		{Kind: Rename, GFID: g(cDirA), Name: inRoot("dir b")},                           // a directory over a full one
		{Kind: Rename, GFID: g(cOrphan), Name: inRoot("dir c")},                         // an orphan over a full one
		{Kind: Rename, GFID: g(cBelow), Name: inRoot("foreign dir")},                    // a directory over a foreign one
		{Kind: Rename, GFID: g(cFile), Old: inRoot("file"), Name: inRoot("foreign")},    // a file over a foreign one
		{Kind: Rename, GFID: g(cRenamed), Old: inRoot("renamed"), Name: inRoot("over")}, // a file over ours
		{Kind: Link, GFID: g(cLink), Name: inRoot("foreign dir 2")},                     // a link over a foreign directory
		put(g(cPut), "new"), put(g(cPutForeign), "new"), put(g(cInPlace), "new"),
		{Kind: Begin, GFID: g(cPutLinks)}, {Kind: Write, GFID: g(cPutLinks), Content: text("new")},
		{Kind: Setattr, GFID: g(cPutLinks), End: true, Meta: &Meta{Mode: 0o600, UID: 3, Mtime: Time{9, 9}, Xattrs: []Xattr{{"user.x", []byte("y")}}}},
		{Kind: Unlink, GFID: g(cGone), Name: inRoot("gone"), Gone: true},
		{Kind: Unlink, GFID: g(cGoneDir), Name: inRoot("gone dir"), Gone: true},
		{Kind: Unlink, GFID: g(cOrphaned), Name: inRoot("orphaned"), Gone: true}, {Kind: Destroy, GFID: g(cOrphaned)},
		file(g(cNewFile), inRoot("new file"), "new"), mkdir(g(cNewDir), inRoot("new dir")),
		{Kind: Make, GFID: g(cNewSymlink), Name: Name{g(cNewDir), "l"}, Target: "t", Meta: metaOfMode(unix.S_IFLNK | 0o777)},
	}
}

// crashStays are names that a reader must find at any time: they have something
// before and after.
var crashStays = []string{"dir b", "dir c", "foreign dir", "foreign", "over", "foreign dir 2", "put", "put foreign", "put links",
	"put links 2", "in place", "in place 2", "link"}

// crashChild is the process that is killed: it says by getppid(2) that it begins.
func crashChild(root, master string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	m, err := brick.Open(master)
	if err != nil {
		fail(err)
	}
	c, err := Local(context.Background(), root, m, Options{})
	if err != nil {
		fail(err)
	}
	unix.Getppid()
	if _, err := c.Apply(context.Background(), crashOps()); err != nil {
		fail(err)
	}
	os.Exit(0)
}

// changes are the system calls that a slave changes its tree with.
var changes = map[uint64]bool{
	unix.SYS_MKDIRAT: true, unix.SYS_SYMLINKAT: true, unix.SYS_LINKAT: true, unix.SYS_UNLINKAT: true, unix.SYS_MKNODAT: true,
	unix.SYS_RENAMEAT2: true, unix.SYS_SETXATTRAT: true, unix.SYS_REMOVEXATTRAT: true, unix.SYS_FCHMOD: true,
	unix.SYS_FCHMODAT: true, unix.SYS_FCHOWNAT: true, unix.SYS_UTIMENSAT: true, unix.SYS_PWRITE64: true, unix.SYS_FTRUNCATE: true,
}

// crashAt runs the child and kills it before its n-th change. done: it came to
// its end first.
func crashAt(t *testing.T, root string, n int) (done bool) {
	t.Helper()
	runtime.LockOSThread() // ptrace is of a thread
	defer runtime.UnlockOSThread()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashRoot+"="+root, crashMaster+"="+oneMaster.Path())
	cmd.Stderr = os.Stderr // a file: no goroutine has to be waited for
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer cmd.Process.Release()
	started, count := false, 0
	in := map[int]bool{} // threads that are inside a system call
	for {
		var status unix.WaitStatus
		// Only children and tracees of this thread: other tests have theirs.
		tid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatalf("wait: %v", err)
		}
		switch {
		case status.Exited() || status.Signaled():
			if tid != pid {
				continue
			}
			if status.Exited() && status.ExitStatus() != 0 {
				t.Fatalf("the child ended with %d", status.ExitStatus())
			}
			return status.Exited()
		case !status.Stopped():
			continue
		}
		deliver := 0
		switch sig := status.StopSignal(); {
		case sig == unix.SIGTRAP|0x80:
			if in[tid] = !in[tid]; !in[tid] {
				break
			}
			var regs unix.PtraceRegs
			if err := unix.PtraceGetRegs(tid, &regs); err != nil {
				break // it was killed meanwhile
			}
			started = started || regs.Orig_rax == unix.SYS_GETPPID
			if !started || !changes[regs.Orig_rax] {
				break
			}
			if count++; count == n {
				unix.Kill(pid, unix.SIGKILL)
			}
		case sig == unix.SIGTRAP && tid == pid && len(in) == 0: // after exec
			const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
			if err := unix.PtraceSetOptions(pid, options); err != nil {
				t.Fatalf("ptrace: %v", err)
			}
		case sig != unix.SIGTRAP && sig != unix.SIGSTOP:
			deliver = int(sig)
		}
		unix.PtraceSyscall(tid, deliver) // fails only for a thread that is dead
	}
}

// Killed at any point, started again and asked again, the slave is what it would
// have been; on the way no name is ever free that is not to be, and nothing is
// lost that was not to be destroyed.
func TestCrash(t *testing.T) {
	prepare := func(p *pairOf) {
		p.do(crashBase()...)
		for i, path := range []string{"foreign", "foreign dir/in", "foreign dir 2/in", "put foreign", "put links"} {
			mustWrite(t, p.path(path), "foreign")
			if err := os.Chtimes(p.path(path), time.Time{}, time.Unix(int64(i), 0)); err != nil {
				t.Fatal(err)
			}
		}
		p.Client.Close()
	}
	whole := newPair(t)
	prepare(whole)
	whole.open()
	whole.do(crashOps()...)
	want := comparable(dump(t, whole.root))

	p := newPair(t)
	n := 1
	for done := false; !done; n++ {
		prepare(p)
		done = crashAt(t, p.root, n)
		for _, name := range crashStays {
			if _, err := os.Lstat(p.path(name)); err != nil {
				t.Errorf("killed at %d: a reader finds nothing: %v", n, err)
			}
		}
		p.open()
		checkFound(t, p, n)
		p.do(crashOps()...)
		p.free("dir a", "below", "file", "renamed")
		if got := comparable(dump(t, p.root)); got != want {
			t.Fatalf("killed at %d, -want +got:\n%s", n, diffLines(want, got))
		}
		p.wantNameless(crashGFID(cDirB), crashGFID(cDirC), crashGFID(cOver), crashGFID(cOrphanedIn))
		p.reset()
	}
	if n < 100 {
		t.Errorf("only %d changes were seen", n)
	}
}

// checkFound checks that what was not to be destroyed is there after a restart.
func checkFound(t *testing.T, p *pairOf, n int) {
	t.Helper()
	for i := cFile; i <= cBelow; i++ {
		switch i {
		case cGone, cGoneDir, cOrphaned, cNewFile, cNewDir, cNewSymlink:
			continue
		}
		if o := p.stat(crashGFID(i)); o.Errno != 0 {
			t.Errorf("killed at %d: gfid %d is lost: %v", n, i, o.Errno)
		}
	}
	names, err := os.ReadDir(p.path(brick.Dir, tmpDir))
	if err != nil || len(names) != 0 {
		t.Errorf("killed at %d: tmp holds %q after a restart, %v", n, names, err)
	}
}

// free sees to names that are to be free, as a planner does with all a record
// names: what was displaced can be where its successor was.
func (p *pairOf) free(names ...string) {
	p.t.Helper()
	for _, base := range names {
		if e := p.lookup(gfid.Root, base); !e.Free() {
			p.do(Op{Kind: Unlink, GFID: e.GFID, Name: inRoot(base)})
		}
	}
}

// comparable takes from a dump what differs between two slaves of one content.
func comparable(d string) string {
	var lines []string
	for line := range strings.Lines(d) {
		if strings.HasPrefix(line, `"." `) || strings.Contains(line, pairingFile) {
			continue
		}
		lines = append(lines, conflictNames.ReplaceAllString(line, "conflicts/X"))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

var conflictNames = regexp.MustCompile(`conflicts/[^/"]+`)

// reset empties the slave.
func (p *pairOf) reset() {
	p.t.Helper()
	names, err := os.ReadDir(p.root)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, n := range names {
		if n.Name() == brick.Dir {
			continue
		}
		if err := os.RemoveAll(p.path(n.Name())); err != nil {
			p.t.Fatal(err)
		}
	}
	for _, dir := range []string{orphansDir, conflictsDir, "ab"} {
		if err := os.RemoveAll(p.path(brick.Dir, dir)); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := os.Mkdir(p.path(brick.Dir, "ab"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	p.reopen()
}
