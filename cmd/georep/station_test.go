package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/replicator"
)

// station is a brick that is mounted and replicated by processes of their own.
type station struct {
	t     *testing.T
	dir   string
	brick string
	mnt   string
	slave string // address
	flags []string

	mount *exec.Cmd // nil: not mounted
	live  *liveRun  // nil: not replicated
}

// newStation makes an empty brick and an empty directory for its slave.
func newStation(t *testing.T) *station {
	t.Helper()
	dir := t.TempDir()
	s := &station{t: t, dir: dir, brick: filepath.Join(dir, "brick"), mnt: filepath.Join(dir, "mnt"), slave: filepath.Join(dir, "slave")}
	for _, d := range []string{s.brick, s.mnt, s.slave} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.seal(true) // whoever writes there while there is no mount is refused
	t.Cleanup(func() {
		defer s.seal(false)
		if s.live != nil {
			s.live.end(syscall.SIGKILL)
		}
		s.unmount(syscall.SIGKILL)
	})
	return s
}

// seal sets or clears the flag on the mountpoint that makes each change of it
// EPERM, for root too.
func (s *station) seal(on bool) {
	s.t.Helper()
	fd, err := unix.Open(s.mnt, unix.O_RDONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer unix.Close(fd)
	const immutable = 0x10 // FS_IMMUTABLE_FL
	flags := 0
	if on {
		flags = immutable
	}
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags); err != nil {
		s.t.Fatal(err)
	}
}

// serve mounts the brick and returns when the mount can be used.
func (s *station) serve() {
	s.t.Helper()
	var before unix.Stat_t
	if err := unix.Stat(s.mnt, &before); err != nil {
		s.t.Fatal(err)
	}
	c := exec.Command("georep", "mount", "--foreground", "--rollover-time=1s", s.brick, s.mnt)
	c.Stdout, c.Stderr = s.t.Output(), s.t.Output()
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mount = c
	s.until("mounted", func() bool {
		var now unix.Stat_t
		return unix.Stat(s.mnt, &now) == nil && now.Dev != before.Dev
	})
}

// unmount ends the mount by a signal. What is left of one that was killed is
// taken away.
func (s *station) unmount(sig syscall.Signal) {
	s.t.Helper()
	if s.mount == nil {
		return
	}
	_ = s.mount.Process.Signal(sig) // it may be dead already
	_ = s.mount.Wait()              // of the signal
	s.mount = nil
	for unix.Unmount(s.mnt, unix.MNT_DETACH) == nil {
	}
}

// command is a georep that speaks with the slave.
func (s *station) command(verb string, args ...string) *exec.Cmd {
	all := append([]string{verb}, s.flags...)
	all = append(append(all, args...), s.brick, s.slave)
	return exec.Command("georep", all...)
}

// replicate starts a session.
func (s *station) replicate(args ...string) *liveRun {
	s.t.Helper()
	r := &liveRun{cmd: s.command("replicate", append([]string{"--json"}, args...)...)}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	r.cmd.Stderr = io.MultiWriter(s.t.Output(), &r.said)
	if err := r.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	r.read.Go(func() {
		for d := json.NewDecoder(out); ; {
			var st replicator.Status
			if d.Decode(&st) != nil {
				return // it has ended
			}
			r.mu.Lock()
			r.status = st
			r.seen = append(r.seen, st)
			r.mu.Unlock()
		}
	})
	s.live = r
	return r
}

// once drains, and fails the test if that does.
func (s *station) once() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	c := s.command("replicate", "--once")
	out, err := runUntil(ctx, c)
	if err != nil {
		s.t.Fatalf("replicate --once: %v\n%s", err, out)
	}
}

// runUntil runs c, and ends it when ctx does.
func runUntil(ctx context.Context, c *exec.Cmd) ([]byte, error) {
	cc := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cc.Cancel = func() error { return cc.Process.Signal(syscall.SIGQUIT) } // shows where it hangs
	return cc.CombinedOutput()
}

// same fails the test unless brick and slave are equal, by a comparison of our
// own and by verify. dir is the slave's directory.
func (s *station) same(dir string) {
	s.t.Helper()
	wantSameTrees(s.t, s.brick, dir)
	if out, err := s.command("verify", "--settle=0s").CombinedOutput(); err != nil {
		s.t.Errorf("verify: %v\n%s", err, out)
	}
}

func (s *station) until(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("still not: %s", what)
		}
	}
}

// inStep waits until all that was changed before the call is on the slave.
func (s *station) inStep() {
	s.t.Helper()
	now := time.Now()
	s.until("in step", func() bool { st := s.live.now(); return st.Current && st.Checked.After(now) })
}

// liveRun is a georep replicate that runs.
type liveRun struct {
	cmd  *exec.Cmd
	said bytes.Buffer // on standard error; read once it has ended
	read sync.WaitGroup

	mu     sync.Mutex
	status replicator.Status   // the last one; guarded by mu
	seen   []replicator.Status // all; guarded by mu
}

func (r *liveRun) now() replicator.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// since is what the session said of itself from the n-th status on.
func (r *liveRun) since(n int) []replicator.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]replicator.Status(nil), r.seen[n:]...)
}

// end ends the session by a signal.
func (r *liveRun) end(sig syscall.Signal) error {
	_ = r.cmd.Process.Signal(sig) // it may be dead already
	r.read.Wait()
	return r.cmd.Wait()
}
