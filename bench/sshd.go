package bench

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// sshHost is this machine as reached by SSH: a process of the system's sshd for each
// connection that a listener of ours accepts. So no port is guessed, what goes over
// the wire is counted, and the link can be made slow.
type sshHost struct {
	dir   string // keys and configuration
	port  int
	sshd  string
	group *cgroup // its processes run there
	// rate is bytes a second, 0 without limit; delay is that of one way.
	rate  int64
	delay time.Duration

	wire     atomic.Int64 // bytes passed, both ways
	listener net.Listener
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]struct{} // guarded by mu
	closed   bool                  // guarded by mu
}

// newSSHHost makes keys in dir and begins to listen.
func newSSHHost(dir string, g *cgroup, rate int64, delay time.Duration) (*sshHost, error) {
	h := &sshHost{dir: dir, group: g, rate: rate, delay: delay, conns: map[net.Conn]struct{}{}}
	var err error
	if h.sshd, err = lookPath("sshd"); err != nil {
		return nil, fmt.Errorf("bench: a slave over SSH needs sshd (openssh-server): %w", err)
	}
	// sshd changes its root to this directory before a login.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return nil, fmt.Errorf("bench: sshd: %w", err)
	}
	for _, key := range []string{"host", "id"} {
		if err := command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", h.file(key)); err != nil {
			return nil, err
		}
	}
	if h.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("bench: sshd: %w", err)
	}
	h.port = h.listener.Addr().(*net.TCPAddr).Port
	if err := h.configure(); err != nil {
		h.listener.Close()
		return nil, err
	}
	h.wg.Go(h.accept)
	return h, nil
}

func (h *sshHost) file(name string) string { return filepath.Join(h.dir, name) }

func (h *sshHost) configure() error {
	id, err := os.ReadFile(h.file("id.pub"))
	if err != nil {
		return fmt.Errorf("bench: sshd: %w", err)
	}
	host, err := os.ReadFile(h.file("host.pub"))
	if err != nil {
		return fmt.Errorf("bench: sshd: %w", err)
	}
	config := strings.Join([]string{
		"HostKey " + h.file("host"), "AuthorizedKeysFile " + h.file("authorized_keys"), "StrictModes no",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no", "PermitRootLogin yes", "PidFile none", "",
	}, "\n")
	for name, text := range map[string]string{
		"authorized_keys": string(id),
		"known_hosts":     fmt.Sprintf("[127.0.0.1]:%d %s", h.port, host),
		"sshd_config":     config,
	} {
		if err := os.WriteFile(h.file(name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("bench: sshd: %w", err)
		}
	}
	return nil
}

// shell is the remote shell that rsync is told to use.
func (h *sshHost) shell() string {
	return fmt.Sprintf("ssh -F none -p %d -i %s -o UserKnownHostsFile=%s -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -o BatchMode=yes",
		h.port, h.file("id"), h.file("known_hosts"))
}

func (h *sshHost) accept() {
	for {
		c, err := h.listener.Accept()
		if err != nil {
			return // closed
		}
		h.mu.Lock()
		closed := h.closed
		if !closed {
			h.conns[c] = struct{}{}
		}
		h.mu.Unlock()
		if closed {
			c.Close()
			return
		}
		h.wg.Go(func() {
			h.serve(c)
			h.mu.Lock()
			delete(h.conns, c)
			h.mu.Unlock()
		})
	}
}

// serve runs sshd on one end of a socket pair and passes bytes between the other
// and c. What goes wrong shows at the client.
func (h *sshHost) serve(c net.Conn) {
	defer c.Close()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	theirs, ours := os.NewFile(uintptr(fds[0]), "sshd"), os.NewFile(uintptr(fds[1]), "proxy")
	link, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return
	}
	defer link.Close()
	cmd := exec.Command(h.sshd, "-i", "-e", "-f", h.file("sshd_config"))
	cmd.Stdin, cmd.Stdout = theirs, theirs
	h.group.put(cmd)
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return
	}
	var passing sync.WaitGroup
	passing.Go(func() { h.pass(link, c) })
	passing.Go(func() { h.pass(c, link) })
	passing.Wait()
	_ = cmd.Wait() // it ends with the link; how does not matter
}

// chunk is what was read from one side, and when it is due at the other.
type chunk struct {
	b   []byte
	due time.Time
}

// inFlight is how many chunks a link holds while they travel.
const inFlight = 512

// pass copies until either side ends, no faster than the link is.
func (h *sshHost) pass(to io.WriteCloser, from io.ReadCloser) {
	defer to.Close()
	defer from.Close()
	chunks := make(chan chunk, inFlight)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c := range chunks {
			time.Sleep(time.Until(c.due))
			if _, err := to.Write(c.b); err != nil {
				from.Close()
				break
			}
		}
		for range chunks { // its sender must not wait for ever
		}
	}()
	free := time.Now() // when the wire has sent all before
	for {
		b := make([]byte, 32<<10)
		n, err := from.Read(b)
		if n > 0 {
			h.wire.Add(int64(n))
			if now := time.Now(); free.Before(now) {
				free = now
			}
			if h.rate > 0 {
				free = free.Add(time.Duration(float64(n) / float64(h.rate) * float64(time.Second)))
			}
			chunks <- chunk{b[:n], free.Add(h.delay)}
		}
		if err != nil {
			break
		}
	}
	close(chunks)
	<-done
}

// close cuts all links and waits for their sshd.
func (h *sshHost) close() {
	h.mu.Lock()
	h.closed = true
	for c := range h.conns {
		c.Close()
	}
	h.mu.Unlock()
	h.listener.Close()
	h.wg.Wait()
}
