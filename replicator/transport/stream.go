package transport

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Stream is a command that runs on the host, by its standard streams.
type Stream struct {
	session *ssh.Session
	in      io.WriteCloser
	out     io.Reader
	errs    tail
	waited  sync.Once
	ended   error // of the command; set by wait
	conn    *Conn
}

// Start runs command on the host, by its user's shell or forced command.
func (c *Conn) Start(command string) (*Stream, error) {
	fail := func(err error) (*Stream, error) {
		return nil, fmt.Errorf("transport: start %q: %w", command, c.why(err))
	}
	s := &Stream{conn: c}
	var err error
	if s.session, err = c.client.NewSession(); err != nil {
		return fail(err)
	}
	s.session.Stderr = &s.errs
	if s.in, err = s.session.StdinPipe(); err == nil {
		s.out, err = s.session.StdoutPipe()
	}
	if err == nil {
		err = s.session.Start(command)
	}
	if err != nil {
		s.session.Close()
		return fail(err)
	}
	return s, nil
}

// why is the reason the connection ended for, if it has, else err.
func (c *Conn) why(err error) error {
	if reason := c.Err(); reason != nil {
		return reason
	}
	return err
}

// Read reads what the command writes. At its end the error tells how the command
// ended, if not well, and what it said last.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.out.Read(p)
	if err == io.EOF {
		if ended := s.wait(); ended != nil {
			err = ended
		}
	}
	return n, err
}

func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.in.Write(p)
	if err != nil {
		err = s.conn.why(err)
	}
	return n, err
}

// Close ends the command.
func (s *Stream) Close() error {
	// Not the input first: that may not be closed while it is written.
	err := s.session.Close()
	if errors.Is(err, io.EOF) { // it has ended by itself
		err = nil
	}
	return err
}

// wait waits for the command's end and says what was wrong with it.
func (s *Stream) wait() error {
	s.waited.Do(func() {
		err := s.session.Wait()
		if err == nil {
			return
		}
		if said := s.errs.String(); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		s.ended = fmt.Errorf("transport: %w", s.conn.why(err))
	})
	return s.ended
}

// tailSize is how much of what a command says last is kept for an error.
const tailSize = 2048

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - tailSize; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}

// Quote makes s one word for a POSIX shell.
func Quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,:@%") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
