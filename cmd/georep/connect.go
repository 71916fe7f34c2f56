package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/replicator/slave"
	"github.com/georep/georep/replicator/transport"
)

// connectOptions say how a slave is reached.
type connectOptions struct {
	create   bool // make an empty directory a slave
	make     bool // make that directory too, if it is missing
	readOnly bool // only look
	logger   *slog.Logger

	identities []string
	knownHosts string
	accept     string
	remote     string // georep on the slave's host
	keepalive  time.Duration
}

func (o *connectOptions) addFlags(f *pflag.FlagSet) {
	f.StringArrayVar(&o.identities, "identity", nil, "file of a private key (default ~/.ssh/id_ed25519, and those of a running ssh-agent)")
	f.StringVar(&o.knownHosts, "known-hosts", "", "file of pinned host keys (default ~/.config/georep/known_hosts)")
	f.StringVar(&o.accept, "accept-host-key", "", "fingerprint SHA256:… of an unknown host's key that is right")
	f.DurationVar(&o.keepalive, "keepalive", 15*time.Second, "how often the slave's host is asked for a sign of life, and how long that may take")
	f.StringVar(&o.remote, "remote-georep", "georep", "georep on the slave's host, where the key has no forced command")
}

// connectSlave connects with the slave at address for the master brick. If the
// host is unknown and there is a terminal, it asks whether the key is right.
func connectSlave(ctx context.Context, master *brick.Brick, address string, o connectOptions) (*slave.Client, error) {
	so := slave.Options{Create: o.create, ReadOnly: o.readOnly, Version: buildVersion(), Logger: o.logger}
	if !strings.Contains(address, ":") {
		dir, err := filepath.Abs(address)
		if err != nil {
			return nil, err
		}
		address = dir
	}
	a, err := transport.ParseAddress(address)
	if err != nil {
		return nil, usagef("%w", err)
	}
	if a.IsLocal() {
		return slave.Local(ctx, a.Dir, master, so)
	}
	to, err := o.transport()
	if err != nil {
		return nil, err
	}
	conn, err := transport.Dial(ctx, a, to)
	var unknown *transport.UnknownHostError
	if errors.As(err, &unknown) && to.AcceptHostKey == "" {
		if !askHostKey(unknown) {
			return nil, &exitError{code: exitPrecondition, err: err,
				hint: "if that is its key: --accept-host-key " + unknown.Fingerprint}
		}
		to.AcceptHostKey = unknown.Fingerprint
		conn, err = transport.Dial(ctx, a, to)
	}
	var changed *transport.ChangedHostError
	if errors.As(err, &changed) {
		return nil, &exitError{code: exitPrecondition, err: err,
			hint: fmt.Sprintf("if the host was set up anew, remove line %d of %s", changed.Line, changed.File)}
	}
	if err != nil {
		return nil, err
	}
	c, err := o.overConn(ctx, master, a, conn, so)
	if err != nil {
		conn.Close()
	}
	return c, err
}

// overConn starts the agent over conn and connects with it. The client closes
// conn.
func (o *connectOptions) overConn(ctx context.Context, master *brick.Brick, a transport.Address, conn *transport.Conn, so slave.Options) (*slave.Client, error) {
	agent := transport.Quote(o.remote) + " agent --root " + transport.Quote(a.Dir)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	shell, err := conn.Shell()
	if err != nil {
		return nil, err
	}
	so.Shell = &slave.Shell{Command: shell.Command(self), Agent: agent}
	if o.make {
		agent += " --make"
	}
	stream, err := conn.Start(agent)
	if err == nil {
		var c *slave.Client
		if c, err = slave.Connect(ctx, &remoteStream{Stream: stream, shell: shell, conn: conn}, master, so); err == nil {
			return c, nil
		}
	}
	return nil, errors.Join(err, shell.Close())
}

// remoteStream is the agent's stream; its end is that of the connection.
type remoteStream struct {
	*transport.Stream
	shell  *transport.Shell
	conn   *transport.Conn
	closed sync.Once
}

func (s *remoteStream) Close() (err error) {
	s.closed.Do(func() {
		err = s.Stream.Close()
		// The connection first: it ends what the shell waits for.
		err = errors.Join(err, s.conn.Close(), s.shell.Close())
	})
	return err
}

func (o *connectOptions) transport() (transport.Options, error) {
	to := transport.Options{
		Identities: o.identities, KnownHosts: o.knownHosts, AcceptHostKey: o.accept,
		AgentSocket: os.Getenv("SSH_AUTH_SOCK"), Keepalive: o.keepalive, Logger: o.logger,
	}
	if len(to.Identities) == 0 {
		home, err := os.UserHomeDir()
		if err != nil {
			return to, fmt.Errorf("identity: %w", err)
		}
		file := filepath.Join(home, ".ssh", "id_ed25519")
		if _, err := os.Stat(file); err == nil {
			to.Identities = []string{file}
		}
	} else {
		to.AgentSocket = "" // the one key that was named, and no other
	}
	if to.KnownHosts == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return to, fmt.Errorf("known hosts: %w", err)
		}
		to.KnownHosts = filepath.Join(dir, "georep", "known_hosts")
	}
	return to, nil
}

// askHostKey shows the key of an unknown host to whoever sits at the terminal.
func askHostKey(e *transport.UnknownHostError) bool {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return false
	}
	fmt.Fprintf(os.Stderr, "The host %s is unknown. Its %s key is\n    %s\nIs that right (yes/no)? ", e.Host, e.KeyType, e.Fingerprint)
	var answer string
	fmt.Scanln(&answer) // no answer is a no
	return answer == "yes"
}
