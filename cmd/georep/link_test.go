package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/georep/georep/replicator"
)

// overSSH makes s's slave one that is reached by SSH, with a key that may do no
// more than that.
func (s *station) overSSH() *sshHost {
	s.t.Helper()
	h := &sshHost{dir: filepath.Join(s.dir, "host")}
	if err := h.start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(h.stop)
	exe, err := exec.LookPath("georep")
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(h.dir, "id.pub"))
	if err != nil {
		s.t.Fatal(err)
	}
	line := fmt.Sprintf("restrict,command=\"%s agent --root %s\" %s", exe, s.slave, key)
	if err := os.WriteFile(filepath.Join(h.dir, "authorized_keys"), []byte(line), 0o600); err != nil {
		s.t.Fatal(err)
	}
	print, err := h.fingerprint()
	if err != nil {
		s.t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(h.listen.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.slave = "ssh://root@127.0.0.1:" + port + s.slave
	s.flags = []string{"--identity=" + filepath.Join(h.dir, "id"), "--known-hosts=" + filepath.Join(h.dir, "known_hosts"),
		"--accept-host-key=" + print, "--keepalive=1s"}
	return h
}

// write makes or replaces a file below the mount.
func (s *station) write(name string, content []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.mnt, name), content, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// The link is lost in the middle of what is sent, and comes back: the session says
// so, goes on by itself, and ends with an equal tree.
func TestLinkLost(t *testing.T) {
	for _, method := range []string{"rsync", "stream"} {
		for _, how := range []string{"cut", "stall"} {
			t.Run(method+"/"+how, func(t *testing.T) {
				t.Parallel()
				linkLost(t, method, how)
			})
		}
	}
}

func linkLost(t *testing.T, method, how string) {
	s := newStation(t)
	dir := s.slave
	h := s.overSSH()
	s.serve()
	noise := rand.NewChaCha8([32]byte{1})
	large := make([]byte, 5<<20)
	fill := func() []byte { noise.Read(large); return large } // never fails
	small := func(from, to int) {
		for i := from; i < to; i++ {
			s.write(fmt.Sprint("small", i), fmt.Append(nil, "content ", from, i))
		}
	}
	s.write("large", fill())
	small(0, 50)
	s.replicate("--sync-method=" + method)
	s.until("first copy", func() bool { return s.live.now().Current })
	s.inStep()

	h.lose(2<<20, how)
	s.write("large", fill())
	s.write("new", fill())
	small(20, 90)
	s.until("not active", func() bool { return s.live.now().State != replicator.Active })
	n := len(s.live.since(0)) - 1
	small(80, 120)
	if err := os.Rename(filepath.Join(s.mnt, "large"), filepath.Join(s.mnt, "moved")); err != nil {
		t.Fatal(err)
	}
	s.until("tried again", func() bool { return len(s.live.since(n)) > 2 })
	reasons := false
	for _, st := range s.live.since(n) {
		if st.State != replicator.Faulty && st.State != replicator.Initializing || st.Current {
			t.Errorf("without a link the state is %s, current %v", st.State, st.Current)
		}
		reasons = reasons || st.Reason != ""
	}
	if !reasons {
		t.Error("no status says why")
	}
	h.heal()
	s.inStep()
	if err := s.live.end(syscall.SIGTERM); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if h.mu.Lock(); h.taken < 2 {
		t.Errorf("%d connections, want more than one", h.taken)
	}
	h.mu.Unlock()
	if bytes.Contains(s.live.said.Bytes(), []byte("panic")) {
		t.Error("panic")
	}
	s.live = nil
	s.same(dir)
}
