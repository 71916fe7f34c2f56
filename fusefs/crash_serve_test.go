package fusefs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/translator"
)

func init() { programs["serve"] = serveProgram }

// serveProgram serves the brick args[0] at args[1] as georep mount does, until it
// is told to end, or killed. It obeys "roll" and "end", a line each, and answers
// with a line. More args: "cached" for a mount without passthrough.
func serveProgram(w *world) {
	unix.Umask(0)
	fail := func(err error) {
		if err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", "; "))
			os.Exit(1)
		}
	}
	b, err := brick.Create(w.args[0])
	fail(err)
	fail(b.Lock())
	srv, err := Mount(Options{
		Mountpoint: w.args[1], FSName: b.Path(), AllowOther: true, NoPassthrough: len(w.args) > 2 && w.args[2] == "cached",
	}, func(back translator.Backing, invalidate func(uint64)) (*translator.Translator, error) {
		return translator.Open(translator.Options{
			Brick: b, Changelog: &changelog.Options{RolloverTime: time.Hour}, Marker: true, Backing: back, Invalidate: invalidate,
		})
	})
	fail(err)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve() }()
	fail(srv.WaitMount())
	fmt.Println("mounted")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch in.Text() {
		case "roll":
			if err := srv.Translator().Log().Rollover(); err != nil {
				fmt.Println("failed:", strings.ReplaceAll(err.Error(), "\n", "; "))
				continue
			}
			fmt.Println("ok")
		case "end":
			fail(srv.Unmount())
			fail(<-ended)
			fail(b.Close())
			fmt.Println("ok")
			return
		}
	}
	unix.Unmount(w.args[1], unix.MNT_DETACH) // whoever told us what to do is gone
}

// server is a process that serves a mount and may be killed.
type server struct {
	t          *testing.T
	brick, dir string
	cmd        *exec.Cmd // nil when none runs
	in         io.WriteCloser
	out        *bufio.Reader
	args       []string
}

// newServer makes a brick in the directory at, and no process yet.
func newServer(t *testing.T, at string, args ...string) *server {
	s := &server{t: t, brick: filepath.Join(at, "brick"), dir: filepath.Join(t.TempDir(), "mnt"), args: args}
	for _, d := range []string{s.brick, s.dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(s.kill)
	return s
}

// start starts a process and returns once the mount can be used.
func (s *server) start() {
	s.t.Helper()
	if answer := s.tryStart(); answer != "mounted" {
		s.t.Fatalf("mount: %s", answer)
	}
}

// tryStart is start, and returns "mounted" or why it did not mount.
func (s *server) tryStart() string {
	s.t.Helper()
	s.cmd = child("/", "serve", append([]string{s.brick, s.dir}, s.args...)...)
	s.cmd.Stderr = os.Stderr
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return s.answer()
}

func (s *server) answer() string {
	line, err := s.out.ReadString('\n')
	if err != nil {
		return "died: " + err.Error()
	}
	return strings.TrimSpace(line)
}

// tell gives an order and returns the answer.
func (s *server) tell(order string) string {
	if _, err := fmt.Fprintln(s.in, order); err != nil {
		return err.Error()
	}
	return s.answer()
}

// roll seals the changelog.
func (s *server) roll() {
	s.t.Helper()
	if answer := s.tell("roll"); answer != "ok" {
		s.t.Fatalf("rollover: %s", answer)
	}
}

// end stops the process cleanly.
func (s *server) end() {
	s.t.Helper()
	if answer := s.tell("end"); answer != "ok" {
		s.t.Errorf("end: %s", answer)
	}
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("end: %v", err)
	}
	s.cmd = nil
}

// kill kills the process at once and takes its mount away.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGKILL)
	s.reap()
}

// reap waits for a process that was killed, and takes its mount away.
func (s *server) reap() {
	_ = s.cmd.Wait() // killed
	s.cmd = nil
	if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil && err != unix.EINVAL {
		s.t.Errorf("unmount %s: %v", s.dir, err)
	}
}
