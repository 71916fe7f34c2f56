package slave

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/georep/georep/brick"
)

const (
	defaultKeepalive = 20 * time.Second
	// maxMessage bounds a message either way: one Op at its bounds, and room
	// for the batch it is in.
	maxMessage = 5 << 20
	// window is how much may be under way on the stream: enough to keep a
	// 1 Gbit/s line of 60 ms busy.
	window = 8 << 20
)

// Connect speaks with an agent at the other end of stream for the master brick.
// It owns stream from now on. The error wraps one of the Err variables of this
// package, brick.ErrMounted, or is about the connection.
func Connect(ctx context.Context, stream io.ReadWriteCloser, master *brick.Brick, o Options) (*Client, error) {
	sc := newStreamConn(stream)
	c, err := connect(ctx, sc, master, o)
	if err != nil {
		sc.Close()
		return nil, err
	}
	return c, nil
}

func connect(ctx context.Context, sc *streamConn, master *brick.Brick, o Options) (*Client, error) {
	c, err := newClient(sc, master, o)
	if err != nil {
		return nil, err
	}
	if err := c.hello(ctx, o); err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

// newClient is a client that has not said hello.
func newClient(sc *streamConn, master *brick.Brick, o Options) (*Client, error) {
	alive := o.Keepalive
	if alive == 0 {
		alive = defaultKeepalive
	}
	var once sync.Once
	dial := func(context.Context, string) (conn net.Conn, err error) {
		err = ErrDisconnected
		once.Do(func() { conn, err = sc, nil })
		return conn, err
	}
	conn, err := grpc.NewClient("passthrough:///slave",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the stream is ssh's, or a socket pair
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: max(alive, 10*time.Second), Timeout: alive, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(0),
	)
	if err != nil {
		return nil, fmt.Errorf("slave: connect: %w", err)
	}
	return &Client{shell: o.Shell, master: master, conn: conn, stream: sc, wire: NewWireClient(conn)}, nil
}

// fail makes an error of gRPC one of ours; nil stays nil.
func (c *Client) fail(what string, err error) error {
	if err == nil {
		return nil
	}
	switch s, ok := status.FromError(err); {
	case !ok:
	case s.Code() == codes.Canceled && c.alive():
		err = context.Canceled
	case s.Code() == codes.DeadlineExceeded:
		err = context.DeadlineExceeded
	case s.Code() == codes.Unavailable, s.Code() == codes.Canceled:
		err = fmt.Errorf("%w: %s", ErrDisconnected, s.Message())
		if cause := c.stream.cause(); cause != nil {
			err = fmt.Errorf("%w: %w", ErrDisconnected, cause)
		}
	default:
		err = errors.New(s.Message())
	}
	return fmt.Errorf("slave: %s: %w", what, err)
}

func (c *Client) alive() bool {
	select {
	case <-c.stream.done:
		return false
	default:
		return true
	}
}

// streamConn makes a stream of bytes a net.Conn, and remembers why it ended.
// Deadlines do nothing: gRPC's keepalive closes a silent connection.
type streamConn struct {
	io.ReadWriteCloser
	done chan struct{}
	once sync.Once
	err  error // why it ended; set before done is closed
}

func newStreamConn(rw io.ReadWriteCloser) *streamConn {
	return &streamConn{ReadWriteCloser: rw, done: make(chan struct{})}
}

func (s *streamConn) Read(p []byte) (int, error) {
	n, err := s.ReadWriteCloser.Read(p)
	if err != nil {
		s.end(err)
	}
	return n, err
}

func (s *streamConn) Write(p []byte) (int, error) {
	n, err := s.ReadWriteCloser.Write(p)
	if err != nil {
		s.end(err)
	}
	return n, err
}

func (s *streamConn) Close() error {
	s.end(nil)
	return s.ReadWriteCloser.Close()
}

func (s *streamConn) end(err error) {
	s.once.Do(func() {
		if !errors.Is(err, io.EOF) {
			s.err = err
		}
		close(s.done)
	})
}

// cause is why the stream ended; nil while it lives and after an orderly end.
func (s *streamConn) cause() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

func (s *streamConn) LocalAddr() net.Addr              { return streamAddr{} }
func (s *streamConn) RemoteAddr() net.Addr             { return streamAddr{} }
func (s *streamConn) SetDeadline(time.Time) error      { return nil }
func (s *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (s *streamConn) SetWriteDeadline(time.Time) error { return nil }

type streamAddr struct{}

func (streamAddr) Network() string { return "stream" }
func (streamAddr) String() string  { return "stream" }
