package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// Shell answers `georep rsh`: it runs what that is asked to run in channels of
// one connection.
type Shell struct {
	conn   *Conn
	dir    string // private; owned
	listen *net.UnixListener
	wait   sync.WaitGroup
}

const (
	socketName = "rsh"
	maxCommand = 64 << 10 // bytes of a command line
	// lost is the exit status of ssh when the connection is to blame.
	lost = 255
)

// Shell begins to answer at a socket in a fresh directory that only this user can
// enter.
func (c *Conn) Shell() (*Shell, error) {
	dir, err := os.MkdirTemp("", "georep-")
	if err != nil {
		return nil, fmt.Errorf("transport: shell: %w", err)
	}
	path := filepath.Join(dir, socketName)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("transport: shell: %w", err)
	}
	s := &Shell{conn: c, dir: dir, listen: l}
	s.wait.Go(s.serve)
	return s, nil
}

// Command is what rsync is to run as its remote shell, georep being the program's
// path: quoted as rsync wants it.
func (s *Shell) Command(georep string) string {
	return rsyncQuote(georep) + " rsh " + rsyncQuote(filepath.Join(s.dir, socketName))
}

// rsyncQuote makes s one word of rsync's -e, which knows quotes but no escapes;
// a quote inside is doubled.
func rsyncQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Close stops answering. What runs is not ended by it, but by the end of the
// connection.
func (s *Shell) Close() error {
	err := s.listen.Close()
	s.wait.Wait()
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *Shell) serve() {
	for {
		c, err := s.listen.AcceptUnix()
		if err != nil {
			return
		}
		s.wait.Go(func() {
			defer c.Close()
			status, err := s.run(c)
			if err != nil {
				s.conn.log.Warn("remote shell", "err", err)
			}
			c.Write([]byte{status}) // nobody may be there to read it
		})
	}
}

// run takes one command and its standard streams from c and joins them to a
// channel until the command ends.
func (s *Shell) run(c *net.UnixConn) (status byte, err error) {
	command, files, err := receiveCommand(c)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		return lost, fmt.Errorf("transport: shell: %w", err)
	}
	session, err := s.conn.client.NewSession()
	if err != nil {
		return lost, fmt.Errorf("transport: shell: %w", s.conn.why(err))
	}
	defer session.Close()
	in, err := session.StdinPipe()
	if err != nil {
		return lost, fmt.Errorf("transport: shell: %w", err)
	}
	session.Stdout, session.Stderr = files[1], files[2]
	if err := session.Start(command); err != nil {
		return lost, fmt.Errorf("transport: shell: start %q: %w", command, s.conn.why(err))
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		io.Copy(in, files[0]) // an error is one of the channel, which Wait tells, or the end of rsync
		in.Close()
	})
	copying.Go(func() {
		// The helper says nothing more: if it goes, rsync is dead.
		c.Read(make([]byte, 1))
		session.Close()
	})
	err = session.Wait()
	files[0].Close()
	c.CloseRead()
	copying.Wait()
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.Signal() == "":
		return byte(exit.ExitStatus()), nil
	}
	return lost, fmt.Errorf("transport: shell: %q: %w", command, s.conn.why(err))
}

// receiveCommand reads what RunShell sends: the length of the command line in 32
// bits, the line, and beside them three descriptors.
func receiveCommand(c *net.UnixConn) (command string, files []*os.File, err error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := c.ReadMsgUnix(head[:], oob)
	if err != nil {
		return "", nil, err
	}
	fds, err := descriptors(oob[:oobn])
	for i, fd := range fds {
		// Only a descriptor that does not block can be closed while it is read.
		// The third one may be a terminal that others use: it stays as it is.
		if i < 2 {
			unix.SetNonblock(fd, true)
		}
		files = append(files, os.NewFile(uintptr(fd), "standard stream"))
	}
	if err != nil {
		return "", files, err
	}
	if len(files) != 3 {
		return "", files, fmt.Errorf("%d descriptors, want 3", len(files))
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return "", files, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxCommand {
		return "", files, fmt.Errorf("command of %d bytes, at most %d", size, maxCommand)
	}
	line := make([]byte, size)
	_, err = io.ReadFull(c, line)
	return string(line), files, err
}

// descriptors are those that came with a message, close-on-exec.
func descriptors(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, err
		}
		for _, fd := range got {
			unix.CloseOnExec(fd)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// RunShell is `georep rsh`: it asks the Shell at socket to run the command line
// in args with our standard streams, and returns the command's exit status. As
// rsync calls it args begins with a host name, which says nothing here.
func RunShell(socket string, args []string, in, out, errs *os.File) (status int, err error) {
	if len(args) < 2 {
		return lost, errors.New("transport: shell: no command")
	}
	line := strings.Join(args[1:], " ") // as ssh does
	if len(line) > maxCommand {
		return lost, fmt.Errorf("transport: shell: command of %d bytes, at most %d", len(line), maxCommand)
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return lost, fmt.Errorf("transport: shell: %w", err)
	}
	defer c.Close()
	size := binary.BigEndian.AppendUint32(nil, uint32(len(line)))
	rights := unix.UnixRights(int(in.Fd()), int(out.Fd()), int(errs.Fd()))
	if _, _, err = c.WriteMsgUnix(size, rights, nil); err == nil {
		_, err = io.WriteString(c, line)
	}
	if err != nil {
		return lost, fmt.Errorf("transport: shell: %w", err)
	}
	// Whoever reads what the command writes must see its end: we hold no copy.
	in.Close()
	out.Close()
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return lost, fmt.Errorf("transport: shell: connection to the worker: %w", err)
	}
	return int(answer[0]), nil
}
