package transport

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	sshknownhosts "golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"
)

// UnknownHostError says that nothing is known of a host yet. Whoever can tell
// that Fingerprint is the host's dials again with it in Options.AcceptHostKey.
type UnknownHostError struct {
	Host        string // with its port, if that is not 22
	KeyType     string // "ssh-ed25519" and so on
	Fingerprint string // "SHA256:…"
	Accepted    string // the fingerprint that was to be accepted, if it is another one
}

func (e *UnknownHostError) Error() string {
	s := fmt.Sprintf("transport: host %s is unknown; its %s key is %s", e.Host, e.KeyType, e.Fingerprint)
	if e.Accepted != "" {
		s += ", not " + e.Accepted
	}
	return s
}

// ChangedHostError says that a host shows another key than the one pinned. It is
// somebody else, or was set up anew: then the line must be removed by hand.
type ChangedHostError struct {
	Host        string
	Fingerprint string // of the key it shows
	File        string // the known_hosts file
	Line        int    // where the pinned key is
}

func (e *ChangedHostError) Error() string {
	return fmt.Sprintf("transport: host %s shows another key than before, %s: somebody may be in between; the pinned key is in %s line %d",
		e.Host, e.Fingerprint, e.File, e.Line)
}

// hostKeys checks the keys of hosts against a file.
type hostKeys struct {
	file   string
	accept string
}

// unknownAlgorithms are asked of a host nothing is known of: first those whose
// fingerprint ssh-keyscan and administrators show first.
var unknownAlgorithms = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// configure makes c check the key of the host at addr.
func (h hostKeys) configure(c *ssh.ClientConfig, addr string) error {
	db, err := h.open()
	if err != nil {
		return err
	}
	check := db.HostKeyCallback()
	c.HostKeyAlgorithms = db.HostKeyAlgorithms(addr)
	if len(c.HostKeyAlgorithms) == 0 {
		c.HostKeyAlgorithms = unknownAlgorithms
	}
	c.HostKeyCallback = func(host string, remote net.Addr, key ssh.PublicKey) error {
		err := check(host, remote, key)
		var ke *sshknownhosts.KeyError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &ke) && len(ke.Want) > 0:
			return &ChangedHostError{
				Host: knownhosts.Normalize(host), Fingerprint: ssh.FingerprintSHA256(key),
				File: ke.Want[0].Filename, Line: ke.Want[0].Line,
			}
		case knownhosts.IsHostUnknown(err):
			return h.unknown(host, key)
		}
		return err
	}
	return nil
}

// open reads the file, and makes it if it is not there.
func (h hostKeys) open() (*knownhosts.HostKeyDB, error) {
	db, err := knownhosts.NewDB(h.file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(h.file), 0o700); err != nil {
			return nil, fmt.Errorf("transport: known hosts: %w", err)
		}
		f, err := os.OpenFile(h.file, os.O_CREATE|os.O_RDONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("transport: known hosts: %w", err)
		}
		f.Close()
		db, err = knownhosts.NewDB(h.file)
		if err != nil {
			return nil, fmt.Errorf("transport: known hosts: %w", err)
		}
		return db, nil
	}
	if err != nil {
		return nil, fmt.Errorf("transport: known hosts %q: %w", h.file, err)
	}
	return db, nil
}

// unknown pins the key of a new host if it is the one to accept.
func (h hostKeys) unknown(host string, key ssh.PublicKey) error {
	e := &UnknownHostError{Host: knownhosts.Normalize(host), KeyType: key.Type(), Fingerprint: ssh.FingerprintSHA256(key)}
	if h.accept != e.Fingerprint {
		e.Accepted = h.accept
		return e
	}
	f, err := os.OpenFile(h.file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("transport: pin the key of %s: %w", e.Host, err)
	}
	defer f.Close()
	// Two workers may learn of one host at once: whole lines, each once more is harmless.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("transport: lock %q: %w", h.file, err)
	}
	if _, err = fmt.Fprintln(f, knownhosts.Line([]string{host}, key)); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("transport: pin the key of %s: %w", e.Host, err)
	}
	return nil
}
