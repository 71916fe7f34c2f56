package slave

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// protocol is the version of what goes over the stream; both sides must agree.
const protocol = 1

// Why a slave turns a master away.
var (
	ErrProtocol    = errors.New("georep speaks another protocol there")
	ErrOtherMaster = errors.New("slave belongs to another master")
	ErrNotSlave    = errors.New("not an empty directory and not a slave")
	ErrOverlap     = errors.New("slave and master overlap")
	ErrBusy        = errors.New("slave is in use by another connection")
)

// refusals are the errors a slave may answer with, by their number on the wire.
var refusals = []error{
	1: ErrProtocol,
	2: ErrOtherMaster,
	3: ErrNotSlave,
	4: ErrOverlap,
	5: ErrBusy,
	6: brick.ErrMounted,
}

// hello says who asks, and keeps what the slave says of itself.
func (c *Client) hello(ctx context.Context, o Options) error {
	volume := c.master.Volume()
	path, err := inodesUp(c.master.Path())
	if err != nil {
		return fmt.Errorf("slave: connect: %w", err)
	}
	r, err := c.wire.Hello(ctx, &WireHello{
		Protocol: protocol, Version: o.Version, Master: volume[:], Boot: bootID(), Path: path,
		Create: o.Create, ReadOnly: o.ReadOnly,
	})
	if err != nil {
		return c.fail("connect", err)
	}
	if err := refusal(r); err != nil {
		return fmt.Errorf("slave: connect: %w", err)
	}
	id, err := uuid.FromBytes(r.Slave)
	if err != nil {
		return fmt.Errorf("slave: connect: slave's id: %w", err)
	}
	c.info = Info{
		Slave: id, Path: string(r.Path), Created: r.Created, Version: r.Version, Rsync: r.Rsync,
		Namespaces: r.Namespaces, Unset: string(r.Unset), Confined: r.Confined,
	}
	return nil
}

// refusal is the error that r tells of; nil if it is a welcome.
func refusal(r *WireWelcome) error {
	switch {
	case r.Refusal == 0:
		return nil
	case int(r.Refusal) < len(refusals):
		reason := refusals[r.Refusal]
		if why, ok := strings.CutPrefix(string(r.Why), reason.Error()+": "); ok {
			return fmt.Errorf("%w: %s", reason, why)
		}
		return fmt.Errorf("%w: %s", reason, r.Why)
	}
	return fmt.Errorf("refused: %s", r.Why)
}

// bootID is the same for all that run under one kernel, "" if unknown.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// inodesUp are the inodes of the directory path and of all above it.
func inodesUp(path string) ([]*WireInode, error) {
	var inodes []*WireInode
	for {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return nil, &os.PathError{Op: "stat", Path: path, Err: err}
		}
		inodes = append(inodes, &WireInode{Dev: st.Dev, Ino: st.Ino})
		up := filepath.Dir(path)
		if up == path {
			return inodes, nil
		}
		path = up
	}
}
