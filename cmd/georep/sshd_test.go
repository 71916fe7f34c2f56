package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// sshdKey is where a script's hosts are among its values.
type sshdKey struct{}

// sshHost is a host reached by SSH: Debian's sshd, a process for each connection
// that a listener of ours accepts, so that no port is guessed and the link can be
// cut.
type sshHost struct {
	dir    string
	listen net.Listener
	wait   sync.WaitGroup

	mu    sync.Mutex
	down  bool       // the link is cut; guarded by mu
	links []net.Conn // guarded by mu
	loses linkLoss   // guarded by mu
	taken int        // connections that reached sshd; guarded by mu
}

// linkLoss is what happens to the link in the middle of what passes.
type linkLoss struct {
	after int64  // so many bytes
	how   string // "cut", "stall", or "" for nothing
}

// scriptCommands are commands for scripts, besides webhook and fetch:
//
//	sshd NAME       starts a host; its files are in $WORK/NAME, a key that logs in
//	                is NAME/id; sets $NAME_port and $NAME_fingerprint
//	sshd-key NAME   gives the host another key
//	link NAME cut   breaks all connections and takes no new ones
//	link NAME heal  takes connections again
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"webhook": webhookCommand,
	"fetch":   fetchCommand,
	"sshd": func(ts *testscript.TestScript, neg bool, args []string) {
		h := &sshHost{dir: ts.MkAbs(args[0])}
		ts.Check(h.start())
		ts.Value(sshdKey{}).(map[string]*sshHost)[args[0]] = h
		ts.Defer(h.stop)
		_, port, err := net.SplitHostPort(h.listen.Addr().String())
		ts.Check(err)
		ts.Setenv(args[0]+"_port", port)
		print, err := h.fingerprint()
		ts.Check(err)
		ts.Setenv(args[0]+"_fingerprint", print)
	},
	"sshd-key": func(ts *testscript.TestScript, neg bool, args []string) {
		h := ts.Value(sshdKey{}).(map[string]*sshHost)[args[0]]
		ts.Check(os.Remove(filepath.Join(h.dir, "host")))
		ts.Check(h.makeKey("host"))
		print, err := h.fingerprint()
		ts.Check(err)
		ts.Setenv(args[0]+"_fingerprint", print)
	},
	"link": func(ts *testscript.TestScript, neg bool, args []string) {
		h := ts.Value(sshdKey{}).(map[string]*sshHost)[args[0]]
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.down = args[1] == "cut"; h.down {
			h.breakAll()
		}
	},
}

func (h *sshHost) start() error {
	// sshd changes its root to this directory before a login.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"host", "id"} {
		if err := h.makeKey(name); err != nil {
			return err
		}
	}
	public, err := os.ReadFile(filepath.Join(h.dir, "id.pub"))
	if err != nil {
		return err
	}
	authorized := filepath.Join(h.dir, "authorized_keys")
	if err := os.WriteFile(authorized, public, 0o600); err != nil {
		return err
	}
	config := strings.Join([]string{
		"HostKey " + filepath.Join(h.dir, "host"), "AuthorizedKeysFile " + authorized, "StrictModes no", "PasswordAuthentication no",
		"KbdInteractiveAuthentication no", "UsePAM no", "PermitRootLogin yes", "PidFile none", "",
	}, "\n")
	if err := os.WriteFile(filepath.Join(h.dir, "sshd_config"), []byte(config), 0o600); err != nil {
		return err
	}
	if h.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	h.wait.Go(func() {
		for {
			c, err := h.listen.Accept()
			if err != nil {
				return
			}
			h.wait.Go(func() {
				if err := h.serve(c); err != nil {
					fmt.Fprintln(os.Stderr, "sshd (Debian's openssh-server):", err)
				}
			})
		}
	})
	return nil
}

func (h *sshHost) makeKey(name string) error {
	c := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", filepath.Join(h.dir, name))
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("ssh-keygen (Debian's openssh-client): %w: %s", err, out)
	}
	return nil
}

func (h *sshHost) fingerprint() (string, error) {
	out, err := exec.Command("ssh-keygen", "-l", "-f", filepath.Join(h.dir, "host.pub")).Output()
	if err != nil {
		return "", err
	}
	return strings.Fields(string(out))[1], nil
}

// serve runs sshd on one end of a socket pair and passes bytes between the other
// and c.
func (h *sshHost) serve(c net.Conn) error {
	defer c.Close()
	h.mu.Lock()
	down := h.down
	h.links = append(h.links, c)
	h.mu.Unlock()
	if down {
		return nil
	}
	h.mu.Lock()
	h.taken++
	h.mu.Unlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	theirs, ours := os.NewFile(uintptr(fds[0]), "sshd"), os.NewFile(uintptr(fds[1]), "proxy")
	link, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return err
	}
	defer link.Close()
	log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		theirs.Close()
		return err
	}
	defer log.Close()
	cmd := exec.Command("/usr/sbin/sshd", "-i", "-e", "-f", filepath.Join(h.dir, "sshd_config"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, log
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return err
	}
	var copying sync.WaitGroup
	pass := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 && h.passes(n) {
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	copying.Go(func() { pass(link, c) })
	copying.Go(func() { pass(c, link) })
	copying.Wait()
	_ = cmd.Wait() // it ends with the link; how does not matter
	return nil
}

// lose makes the link fail when so many bytes more have passed: "cut" breaks all
// connections, with "stall" they stay and bytes vanish. Either way none is taken
// until heal.
func (h *sshHost) lose(after int64, how string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loses = linkLoss{after: after, how: how}
}

func (h *sshHost) heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down, h.loses = false, linkLoss{}
}

// passes reports whether n bytes pass.
func (h *sshHost) passes(n int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.loses.how == "" {
		return true
	}
	if h.loses.after -= int64(n); h.loses.after > 0 {
		return true
	}
	if !h.down {
		h.down = true
		if h.loses.how == "cut" {
			h.breakAll()
		}
	}
	return false
}

// breakAll breaks all connections; h.mu is held.
func (h *sshHost) breakAll() {
	for _, c := range h.links {
		c.Close()
	}
	h.links = nil
}

func (h *sshHost) stop() {
	h.listen.Close()
	h.mu.Lock()
	h.down = true
	h.breakAll()
	h.mu.Unlock()
	h.wait.Wait()
}
