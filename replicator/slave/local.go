package slave

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/georep/georep/brick"
)

// Local serves the slave in the directory dir from this process, for the master
// brick. Both ends are those of a connection to another host, over a socket
// pair: what holds there holds here.
func Local(ctx context.Context, dir string, master *brick.Brick, o Options) (*Client, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("slave: socket pair: %w", err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		so := ServerOptions{Root: dir, Version: o.Version, Keepalive: o.Keepalive, Logger: o.Logger}
		err := Serve(context.WithoutCancel(ctx), theirs, so)
		if err != nil && !errors.Is(err, grpc.ErrServerStopped) && o.Logger != nil {
			o.Logger.Error("slave's server ended", "err", err)
		}
	}()
	c, err := Connect(ctx, ours, master, o)
	if err != nil {
		<-served
		return nil, err
	}
	c.served = served
	if !o.ReadOnly {
		if c.receivers, err = holdReceivers(c.info.Path); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func socketPair() (a, b net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	conn := func(fd int) (net.Conn, error) {
		f := os.NewFile(uintptr(fd), "slave")
		defer f.Close() // FileConn has a copy
		return net.FileConn(f)
	}
	a, err = conn(fds[0])
	b, err2 := conn(fds[1])
	if err = errors.Join(err, err2); err != nil {
		if a != nil {
			a.Close()
		}
		if b != nil {
			b.Close()
		}
		return nil, nil, err
	}
	return a, b, nil
}
