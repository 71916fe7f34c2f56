package transport

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
)

// NewIdentity makes an ed25519 key pair: the private key in a new file that only
// its owner can read, the public one beside it as file.pub. It returns the public
// key as a line of authorized_keys without its end.
func NewIdentity(file, comment string) (public string, err error) {
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("transport: identity: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return "", fmt.Errorf("transport: identity: %w", err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("transport: identity: %w", err)
	}
	public = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("transport: identity: %w", err)
	}
	_, err = f.Write(pem.EncodeToMemory(block))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.WriteFile(file+".pub", []byte(public+"\n"), 0o644)
	}
	if err != nil {
		os.Remove(file)
		return "", fmt.Errorf("transport: identity: %w", err)
	}
	return public, nil
}

// Run runs command on the host with in as its standard input, and returns what it
// writes to its standard output. An error tells what it said besides.
func (c *Conn) Run(command string, in io.Reader) (out []byte, err error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("transport: run: %w", c.why(err))
	}
	s, err := c.client.NewSession()
	if err != nil {
		return fail(err)
	}
	defer s.Close()
	var said tail
	s.Stdin, s.Stderr = in, &said
	if out, err = s.Output(command); err != nil {
		if text := said.String(); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return fail(err)
	}
	return out, nil
}
