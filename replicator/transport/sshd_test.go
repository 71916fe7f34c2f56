package transport_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/georep/georep/replicator/transport"
)

// georep is the program, built once for all tests.
var georep string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "georep-transport-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		// sshd changes its root to this directory before a login.
		if err := os.Mkdir("/run/sshd", 0o755); err == nil {
			defer os.Remove("/run/sshd")
		} else if !errors.Is(err, fs.ErrExist) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		georep = filepath.Join(dir, "georep")
		if out, err := exec.Command("go", "build", "-o", georep, "../../cmd/georep").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build georep: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// sshHost is a host reached by SSH: Debian's sshd, one process for each
// connection that a listener of ours accepts, so that no port is guessed and a
// link can be cut.
type sshHost struct {
	t        testing.TB
	dir      string
	addr     transport.Address
	options  transport.Options
	hostKey  ssh.PublicKey
	stalled  atomic.Bool // nothing passes
	mu       sync.Mutex
	links    []net.Conn // guarded by mu
	accepted atomic.Int32
}

// newHost starts a host whose key for us has the options in front of it, such as
// restrict,command="…".
func newHost(t testing.TB, slaveDir, keyOptions string) *sshHost {
	t.Helper()
	h := &sshHost{t: t, dir: t.TempDir()}
	h.makeHostKey()
	user := writeKey(t, h.file("id"))
	authorized := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(user)))
	if keyOptions != "" {
		authorized = keyOptions + " " + authorized
	}
	h.write("authorized_keys", authorized+"\n")
	h.write("sshd_config", strings.Join([]string{
		"HostKey " + h.file("host"), "AuthorizedKeysFile " + h.file("authorized_keys"), "StrictModes no",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no", "PermitRootLogin yes", "PidFile none", "",
	}, "\n"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.accepted.Add(1)
			wg.Go(func() { h.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		h.cut()
		wg.Wait()
	})
	port := l.Addr().(*net.TCPAddr).Port
	h.addr = transport.Address{User: "root", Host: "127.0.0.1", Port: port, Dir: slaveDir}
	h.options = transport.Options{Identities: []string{h.file("id")}, KnownHosts: h.file("sub", "known_hosts"), AcceptHostKey: h.fingerprint()}
	return h
}

func (h *sshHost) file(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

func (h *sshHost) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(h.file(name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *sshHost) makeHostKey() { h.hostKey = writeKey(h.t, h.file("host")) }

func (h *sshHost) fingerprint() string { return ssh.FingerprintSHA256(h.hostKey) }

// writeKey makes a key pair, its private half in file.
func writeKey(t testing.TB, file string) ssh.PublicKey {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serve runs sshd on one end of a socket pair and passes bytes between the other
// and c.
func (h *sshHost) serve(c net.Conn) {
	defer c.Close()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		h.t.Error(err)
		return
	}
	theirs, ours := os.NewFile(uintptr(fds[0]), "sshd"), os.NewFile(uintptr(fds[1]), "proxy")
	link, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		h.t.Error(err)
		return
	}
	defer link.Close()
	h.mu.Lock()
	h.links = append(h.links, c)
	h.mu.Unlock()
	cmd := exec.Command("/usr/sbin/sshd", "-i", "-e", "-f", h.file("sshd_config"))
	cmd.Stdin, cmd.Stdout = theirs, theirs
	cmd.Stderr = h.t.Output()
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		h.t.Errorf("sshd (Debian's openssh-server): %v", err)
		return
	}
	var copying sync.WaitGroup
	copying.Go(func() { h.pass(link, c) })
	copying.Go(func() { h.pass(c, link) })
	copying.Wait()
	cmd.Wait() // it ends with the link; how does not matter
}

// pass copies until either side ends; while the host is stalled bytes vanish.
func (h *sshHost) pass(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !h.stalled.Load() {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cut breaks all connections.
func (h *sshHost) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.links {
		c.Close()
	}
	h.links = nil
}

func (h *sshHost) dial() (*transport.Conn, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	return transport.Dial(ctx, h.addr, h.options)
}

func (h *sshHost) mustDial() *transport.Conn {
	h.t.Helper()
	c, err := h.dial()
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}
