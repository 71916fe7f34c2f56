package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Options are what Dial needs to know besides the address.
type Options struct {
	// Identities are files of private keys, without a passphrase.
	Identities []string
	// AgentSocket is that of an ssh-agent; "" is none. Its keys come after
	// those of Identities.
	AgentSocket string
	// Password is asked for a password if no key is accepted; nil is none.
	Password func() (string, error)
	// KnownHosts is the file of pinned host keys; it is made if it is not there.
	KnownHosts string
	// AcceptHostKey is the fingerprint, "SHA256:…", of a key to pin if the host
	// is unknown.
	AcceptHostKey string
	// Timeout bounds the connecting as a whole. Default 30 s.
	Timeout time.Duration
	// Keepalive is how often the host is asked for a sign of life, and how long
	// it may take to give one. Default 15 s.
	Keepalive time.Duration
	Logger    *slog.Logger // nil discards
}

// ErrSilent is wrapped when a connection was given up because the host gave no
// sign of life.
var ErrSilent = errors.New("host is silent")

// IdentityError says that there is no key to log in with, or that one can't be
// used: nothing that trying again mends.
type IdentityError struct{ Err error }

func (e *IdentityError) Error() string { return e.Err.Error() }

// Unwrap is the cause.
func (e *IdentityError) Unwrap() error { return e.Err }

// Conn is an SSH connection. Its methods may be called by many at once.
type Conn struct {
	client *ssh.Client
	log    *slog.Logger
	done   chan struct{} // closed when the connection has ended
	wait   sync.WaitGroup
	stop   context.CancelFunc

	mu  sync.Mutex
	err error // why it ended; guarded by mu
}

// Dial connects to the host of a and logs in. The error is, or wraps, an
// *UnknownHostError or a *ChangedHostError if the host's key is the reason.
func Dial(ctx context.Context, a Address, o Options) (*Conn, error) {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Keepalive == 0 {
		o.Keepalive = 15 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	fail := func(err error) (*Conn, error) {
		return nil, fmt.Errorf("transport: connect to %s: %w", a.hostPort(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	auth, err := o.auth(ctx)
	if err != nil {
		return fail(err)
	}
	defer auth.close()
	config := &ssh.ClientConfig{User: a.user(), Auth: auth.methods}
	// AES-GCM with the processor's help is several times faster than the rest.
	config.Ciphers = []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES128CTR, ssh.CipherAES256CTR}
	if err := (hostKeys{o.KnownHosts, o.AcceptHostKey}).configure(config, a.hostPort()); err != nil {
		return fail(err)
	}
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", a.hostPort())
	if err != nil {
		return fail(err)
	}
	end := context.AfterFunc(ctx, func() { tcp.Close() })
	sc, chans, reqs, err := ssh.NewClientConn(tcp, a.hostPort(), config)
	if !end() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		tcp.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return fail(err)
	}
	return newConn(ssh.NewClient(sc, chans, reqs), o), nil
}

func newConn(client *ssh.Client, o Options) *Conn {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Conn{client: client, log: o.Logger, done: make(chan struct{}), stop: cancel}
	c.wait.Go(func() { c.keepalive(ctx, o.Keepalive) })
	c.wait.Go(func() {
		err := client.Wait()
		if err != nil && !errors.Is(err, io.EOF) {
			c.end(err)
		}
		cancel()
		close(c.done)
	})
	return c
}

// end notes why the connection ended; the first reason counts.
func (c *Conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// keepalive closes the connection when the host is silent for too long.
func (c *Conn) keepalive(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		silent := time.AfterFunc(every, func() {
			c.end(fmt.Errorf("transport: %w for %v", ErrSilent, every))
			c.client.Close()
		})
		// Any answer will do, a refusal too.
		_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
		silent.Stop()
		if err != nil {
			return
		}
	}
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection ended by itself; nil if it has not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and all that runs over it.
func (c *Conn) Close() error {
	c.stop()
	err := c.client.Close()
	c.wait.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// passwordTries is how often a password is asked for.
const passwordTries = 3

// auth are the ways to log in, and what to close when that is over.
type auth struct {
	methods []ssh.AuthMethod
	agent   net.Conn
}

func (a *auth) close() {
	if a.agent != nil {
		a.agent.Close()
	}
}

func (o *Options) auth(ctx context.Context) (*auth, error) {
	var signers []ssh.Signer
	for _, file := range o.Identities {
		s, err := readIdentity(file)
		if err != nil {
			return nil, &IdentityError{err}
		}
		signers = append(signers, s)
	}
	a := &auth{}
	if o.AgentSocket != "" {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", o.AgentSocket)
		if err != nil {
			return nil, fmt.Errorf("ssh-agent: %w", err)
		}
		keys, err := agent.NewClient(conn).Signers()
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("ssh-agent: %w", err)
		}
		a.agent = conn
		signers = append(signers, keys...)
	}
	if o.Password != nil {
		a.methods = append(a.methods, ssh.RetryableAuthMethod(ssh.PasswordCallback(o.Password), passwordTries))
	}
	if len(signers) == 0 && o.Password == nil {
		a.close()
		return nil, &IdentityError{errors.New("no identity: name a file of a private key, or run an ssh-agent that has one")}
	}
	if len(signers) > 0 {
		a.methods = append([]ssh.AuthMethod{ssh.PublicKeys(signers...)}, a.methods...)
	}
	return a, nil
}

func readIdentity(file string) (ssh.Signer, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	s, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		var locked *ssh.PassphraseMissingError
		if errors.As(err, &locked) {
			return nil, fmt.Errorf("identity %q has a passphrase: give the key to an ssh-agent", file)
		}
		return nil, fmt.Errorf("identity %q: %w", file, err)
	}
	return s, nil
}
