package transport_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/replicator/slave"
	"github.com/georep/georep/replicator/transport"
)

// An unknown host's key is told and not taken; told back it is pinned; then any
// other key is refused, told or not.
func TestHostKey(t *testing.T) {
	h := newHost(t, "/", "")
	h.options.AcceptHostKey = ""
	_, err := h.dial()
	var unknown *transport.UnknownHostError
	if !errors.As(err, &unknown) || unknown.Fingerprint != h.fingerprint() || unknown.KeyType != ssh.KeyAlgoED25519 {
		t.Fatalf("first dial: %v, want the host unknown with %s", err, h.fingerprint())
	}
	h.options.AcceptHostKey = "SHA256:somethingelse"
	if _, err = h.dial(); !errors.As(err, &unknown) || unknown.Accepted != "SHA256:somethingelse" {
		t.Fatalf("dial with a wrong fingerprint: %v, want the host unknown still", err)
	}
	h.options.AcceptHostKey = h.fingerprint()
	h.mustDial()
	h.options.AcceptHostKey = ""
	h.mustDial()
	lines, err := os.ReadFile(h.options.KnownHosts)
	if err != nil || bytes.Count(lines, []byte("\n")) != 1 {
		t.Errorf("known hosts %q, %v, want one line", lines, err)
	}

	h.makeHostKey()
	for _, accept := range []string{"", h.fingerprint()} {
		h.options.AcceptHostKey = accept
		var changed *transport.ChangedHostError
		if _, err = h.dial(); !errors.As(err, &changed) || changed.Fingerprint != h.fingerprint() || changed.Line != 1 {
			t.Errorf("dial of a changed host, accepting %q: %v, want it refused", accept, err)
		}
	}
	if now, _ := os.ReadFile(h.options.KnownHosts); !bytes.Equal(now, lines) {
		t.Errorf("known hosts is now %q", now)
	}
}

func TestIdentity(t *testing.T) {
	h := newHost(t, "/", "")
	good := h.options.Identities
	h.options.Identities = nil
	if _, err := h.dial(); err == nil || !strings.Contains(err.Error(), "no identity") {
		t.Errorf("without identity: %v", err)
	}
	other := filepath.Join(t.TempDir(), "other")
	writeKey(t, other)
	h.options.Identities = []string{other}
	if _, err := h.dial(); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
		t.Errorf("with another key: %v", err)
	}
	// The right one may come second.
	h.options.Identities = []string{other, good[0]}
	h.mustDial()

	socket := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatalf("ssh-agent (Debian's openssh-client): %v", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	poll(t, "ssh-agent's socket", func() bool { _, err := os.Stat(socket); return err == nil })
	add := exec.Command("ssh-add", "-q", good[0])
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
	h.options.Identities, h.options.AgentSocket = nil, socket
	h.mustDial()
}

func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// A command's streams, and what is said of its end.
func TestStream(t *testing.T) {
	c := newHost(t, "/", "").mustDial()
	s, err := c.Start("cat; echo oh dear >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := io.WriteString(s, "hello"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(s, b); err != nil || string(b) != "hello" {
		t.Errorf("read %q, %v", b, err)
	}
	s.Close()
	_, err = io.ReadAll(s)
	if err == nil {
		t.Error("no error at the end of a command that failed")
	}

	s, err = c.Start("echo oh dear >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = io.ReadAll(s)
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 3 || !strings.Contains(err.Error(), "oh dear") {
		t.Errorf("end of the command: %v, want status 3 and what it said", err)
	}
}

// A silent host and a cut link end the connection, and say why.
func TestConnectionEnds(t *testing.T) {
	h := newHost(t, "/", "")
	c := h.mustDial()
	s, err := c.Start("cat")
	if err != nil {
		t.Fatal(err)
	}
	h.cut()
	<-c.Done()
	if _, err := io.ReadAll(s); err == nil {
		t.Error("no error from a stream whose link was cut")
	}
	if _, err := c.Start("true"); err == nil {
		t.Error("a command was started over a cut link")
	}

	h.options.Keepalive = 100 * time.Millisecond
	c = h.mustDial()
	h.stalled.Store(true)
	select {
	case <-c.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("a silent host was not given up within 20 s")
	}
	if !errors.Is(c.Err(), transport.ErrSilent) {
		t.Errorf("the reason is %v, want ErrSilent", c.Err())
	}
	h.options.Timeout = 200 * time.Millisecond
	if _, err := h.dial(); err == nil {
		t.Error("a silent host was connected to")
	}
}

// session is a client of an agent behind a real sshd, as georep makes it.
func session(t testing.TB, h *sshHost, m *brick.Brick, agent string) (*slave.Client, error) {
	t.Helper()
	conn := h.mustDial()
	shell, err := conn.Shell()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); shell.Close() })
	stream, err := conn.Start(agent)
	if err != nil {
		return nil, err
	}
	c, err := slave.Connect(t.Context(), stream, m, slave.Options{
		Create: true, Version: "test", Shell: &slave.Shell{Command: shell.Command(georep), Agent: agent},
	})
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func newBrick(t testing.TB) *brick.Brick {
	t.Helper()
	m, err := brick.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// The whole way, behind a key that may do no more, and behind one that may do
// all: operations through the agent, content through rsync.
func TestAgentAndRsync(t *testing.T) {
	for _, forced := range []bool{true, false} {
		t.Run(map[bool]string{true: "forced", false: "free"}[forced], func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "it's a slave; really")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			agent := transport.Quote(georep) + " agent --root " + transport.Quote(root)
			options := ""
			if forced {
				options = `restrict,command="` + agent + `"`
				agent = "georep agent --root " + transport.Quote(root) // which is not in the path
			}
			h := newHost(t, root, options)
			m := newBrick(t)
			c, err := session(t, h, m, agent)
			if err != nil {
				t.Fatal(err)
			}
			if i := c.Info(); i.Rsync == "" || !i.Created || !i.Confined || len(i.Namespaces) != 4 {
				t.Errorf("slave says %+v", i)
			}
			if forced {
				if _, err := h.mustDial().Start("touch " + filepath.Join(root, "pwned")); err != nil {
					t.Fatal(err)
				}
			}
			checkRsync(t, c, m, root)
			if n := h.accepted.Load(); n != 1 && !forced {
				t.Errorf("%d connections, want 1", n)
			}
			if _, err := os.Stat(filepath.Join(root, "pwned")); err == nil {
				t.Error("the forced command let another through")
			}
		})
	}
}

// checkRsync sends a file to c's slave, new and then changed, with hard links.
func checkRsync(t *testing.T, c *slave.Client, m *brick.Brick, root string) {
	t.Helper()
	var src gfid.Source
	g := src.Next()
	meta := &slave.Meta{Mode: 0o100640, UID: 3, Mtime: slave.Time{Sec: 1_600_000_000}}
	path := filepath.Join(m.Path(), brick.Dir, brick.HandlePath(g))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("0123456789abcde\n"), 20_000)
	apply := func(ops ...slave.Op) []slave.Result {
		t.Helper()
		res, err := c.Apply(t.Context(), ops)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range res {
			if r.Errno != 0 {
				t.Fatalf("%v: %s", r.Errno, r.Detail)
			}
		}
		return res
	}
	apply(slave.Op{Kind: slave.Make, GFID: g, Meta: meta},
		slave.Op{Kind: slave.Link, GFID: g, Name: slave.Name{Parent: gfid.Root, Base: "a"}},
		slave.Op{Kind: slave.Link, GFID: g, Name: slave.Name{Parent: gfid.Root, Base: "b"}})
	for round := range 2 {
		content[round*1000] ^= 1
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		apply(slave.Op{Kind: slave.Begin, GFID: g})
		cmd := exec.Command("rsync", c.RsyncArgs(slave.RsyncOptions{BWLimit: 100_000, Timeout: time.Minute})...)
		cmd.Dir = filepath.Join(m.Path(), brick.Dir)
		cmd.Stdin = strings.NewReader(brick.HandlePath(g) + "\x00")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("rsync: %v\n%s", err, out)
		} else if round == 1 && !strings.Contains(string(out), "Literal data: 70") {
			t.Errorf("rsync sent more than what changed:\n%s", out)
		}
		if r := apply(slave.Op{Kind: slave.Setattr, GFID: g, Meta: meta, End: true}); r[0].Size != int64(len(content)) {
			t.Errorf("size %d, want %d", r[0].Size, len(content))
		}
		for _, name := range []string{"a", "b"} {
			if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(got, content) {
				t.Errorf("round %d: %s has %d bytes, %v, want the content", round, name, len(got), err)
			}
		}
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Error(err)
	}
}

// Whatever a key with a forced command asks for that is not ours is refused.
func TestForcedCommandRefuses(t *testing.T) {
	root := t.TempDir()
	h := newHost(t, root, `restrict,command="`+georep+` agent --root `+root+`"`)
	m := newBrick(t)
	ours := "georep agent --root " + root
	c, err := session(t, h, m, ours)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	conn := h.mustDial()
	rsync := ours + " rsync --server -IRSe.LsfxCIvu --stats --existing --inplace --no-implied-dirs . "
	for _, command := range []string{
		"sh -c id", "rsync --server . /", ours + "/..", ours + " --rsync /bin/sh", ours + "; id", "georep agent --root / ",
		"georep mount / /mnt", rsync + "/etc", rsync + "handles/..",
		strings.Replace(rsync, "--stats", "--sender", 1) + "handles",
		strings.Replace(rsync, "--stats", "--remove-source-files", 1) + "handles",
		strings.Replace(rsync, "--existing ", "", 1) + "handles",
		strings.Replace(rsync, "-IRSe", "-sIRSe", 1) + "handles",
	} {
		s, err := conn.Start(command)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(s)
		s.Close()
		var exit *ssh.ExitError
		if !errors.As(err, &exit) || exit.ExitStatus() != 4 {
			t.Errorf("%q: %v, want it refused", command, err)
		}
	}
}

// A host without georep says so.
func TestNoAgent(t *testing.T) {
	h := newHost(t, "/", "")
	_, err := session(t, h, newBrick(t), "/no/such/georep agent --root /")
	if !errors.Is(err, slave.ErrDisconnected) || !strings.Contains(err.Error(), "/no/such/georep") {
		t.Errorf("error %v, want one that names what is missing", err)
	}
}

// When the link is cut the client knows, and the slave is free again.
func TestAgentEndsWithLink(t *testing.T) {
	root := t.TempDir()
	h := newHost(t, root, "")
	m := newBrick(t)
	agent := georep + " agent --root " + root
	c, err := session(t, h, m, agent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session(t, h, m, agent); !errors.Is(err, slave.ErrBusy) {
		t.Errorf("a second agent: %v, want ErrBusy", err)
	}
	h.cut()
	<-c.Done()
	if err := c.Sync(t.Context()); !errors.Is(err, slave.ErrDisconnected) {
		t.Errorf("a call after that: %v, want ErrDisconnected", err)
	}
	poll(t, "the slave to be free", func() bool {
		c, err := session(t, h, m, agent)
		if err != nil && !errors.Is(err, slave.ErrBusy) {
			t.Fatal(err)
		}
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// The program itself, as one runs it: an unknown host is refused with what to do
// about it, then small and large files reach the slave.
func TestReplicateOverSSH(t *testing.T) {
	root := t.TempDir()
	h := newHost(t, root, `restrict,command="`+georep+` agent --root `+root+`"`)
	m := newBrick(t)
	large := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18)
	for name, content := range map[string][]byte{"small": []byte("small"), "large": large} {
		if err := os.WriteFile(filepath.Join(m.Path(), name), content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		args = append([]string{"replicate", "--once", "--identity", h.file("id"), "--known-hosts", h.file("sub", "known")}, args...)
		cmd := exec.CommandContext(t.Context(), georep, append(args, m.Path(), h.addr.String())...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := exec.Command(georep, "brick", "adopt", m.Path()).CombinedOutput(); err != nil {
		t.Fatalf("adopt: %v\n%s", err, out)
	}
	out, err := run()
	if err == nil || !strings.Contains(out, "--accept-host-key "+h.fingerprint()) {
		t.Errorf("unknown host: %v\n%s", err, out)
	}
	for range 2 {
		if out, err := run("--accept-host-key", h.fingerprint()); err != nil {
			t.Fatalf("replicate: %v\n%s", err, out)
		}
	}
	if got, err := os.ReadFile(filepath.Join(root, "large")); err != nil || !bytes.Equal(got, large) {
		t.Errorf("the large file has %d bytes, %v, want %d", len(got), err, len(large))
	}
	if got, err := os.ReadFile(filepath.Join(root, "small")); string(got) != "small" {
		t.Errorf("the small file is %q, %v", got, err)
	}
	h.makeHostKey()
	if out, err := run("--accept-host-key", h.fingerprint()); err == nil || !strings.Contains(out, "another key than before") {
		t.Errorf("changed host: %v\n%s", err, out)
	}
}
