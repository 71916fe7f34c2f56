package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/replicator/daemon"
	"github.com/georep/georep/replicator/session"
	"github.com/georep/georep/replicator/slave"
	"github.com/georep/georep/replicator/transport"
)

// daemonHost does for the daemon what has to do with bricks and slaves.
type daemonHost struct {
	log *slog.Logger
}

// PrepareBrick makes path a brick of the volume id.
func (h *daemonHost) PrepareBrick(path string, id uuid.UUID) (string, uuid.UUID, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", id, session.Errorf(session.NotFound, "brick %q: there is no such directory", path)
	}
	if err != nil {
		return "", id, err
	}
	if st, err := os.Stat(real); err != nil || !st.IsDir() {
		return "", id, session.Errorf(session.Precondition, "brick %q is not a directory", path)
	}
	had, err := brick.ReadXattr(real, brick.XattrVolumeID)
	switch {
	case err == nil && len(had) == 16 && id != uuid.Nil && uuid.UUID(had) != id:
		return "", id, session.Errorf(session.Precondition, "brick %q has volume id %v, the volume has %v", path, uuid.UUID(had), id).
			WithHint("it is a brick of another volume: make a volume of its own for it")
	case errors.Is(err, syscall.ENODATA) && id != uuid.Nil:
		if err := unix.Setxattr(real, brick.XattrVolumeID, id[:], unix.XATTR_CREATE); err != nil {
			return "", id, fmt.Errorf("brick %q: set its volume id: %w", path, err)
		}
	}
	b, err := brick.Create(real)
	if err != nil {
		return "", id, session.Errorf(session.Precondition, "%v", err)
	}
	defer b.Close()
	return b.Path(), b.Volume(), nil
}

// connect connects with a slave as a worker would, for what is done beside one.
func (h *daemonHost) connect(ctx context.Context, b *brick.Brick, s daemon.Slave, create bool) (*slave.Client, error) {
	o := connectOptions{create: create, make: create, readOnly: !create, logger: h.log, knownHosts: s.KnownHosts, remote: "georep"}
	if s.Identity != "" {
		o.identities = []string{s.Identity}
	}
	return connectSlave(ctx, b, s.Address, o)
}

// PrepareSlave makes the slave that of the brick.
func (h *daemonHost) PrepareSlave(ctx context.Context, path string, s daemon.Slave, force bool) error {
	b, err := brick.Open(path)
	if err != nil {
		return session.Errorf(session.Precondition, "%v", err)
	}
	defer b.Close()
	undo := func() {}
	if s.KnownHosts == "" {
		if err := checkRoom(path, s.Base, force); err != nil {
			return err
		}
		var made []string
		for _, dir := range []string{s.Base, s.Address} {
			if err := os.Mkdir(dir, 0o755); err == nil {
				made = append(made, dir)
			} else if !errors.Is(err, fs.ErrExist) {
				return session.Errorf(session.Failed, "slave %s: %v", s.Address, err)
			}
		}
		undo = func() {
			for _, dir := range slices.Backward(made) {
				_ = os.Remove(dir) // if it became more than an empty directory it stays
			}
		}
	}
	c, err := h.connect(ctx, b, s, true)
	if err != nil {
		undo()
		return slaveError(s, err)
	}
	defer c.Close()
	if s.KnownHosts == "" || force {
		return nil
	}
	to, err := c.StatFS(ctx)
	if err != nil {
		return slaveError(s, err)
	}
	return compareRoom(path, s.Address, to.Size, to.Free)
}

// slaveError says what an operator can do about a slave that can't be had.
func slaveError(s daemon.Slave, err error) error {
	var changed *transport.ChangedHostError
	var unknown *transport.UnknownHostError
	e := session.Errorf(session.Precondition, "slave %s: %v", s.Address, err)
	switch {
	case errors.Is(err, slave.ErrNotSlave):
		return e.WithHint("a slave is an empty directory at first: empty it, or name another one")
	case errors.Is(err, slave.ErrOtherMaster):
		return e.WithHint("name another directory; to give this one up, remove it there and make it anew")
	case errors.Is(err, slave.ErrOverlap):
		return e.WithHint("name a directory outside the master's brick")
	case errors.Is(err, slave.ErrBusy):
		return e.WithHint("another session or georep replicate uses it")
	case errors.Is(err, brick.ErrMounted):
		return e.WithHint("a slave must not be mounted as a brick: unmount it there")
	case errors.As(err, &changed), errors.As(err, &unknown):
		return e.WithHint("if the host was set up anew: georep destination reestablish")
	}
	e.Kind = session.Failed
	return e
}

// checkRoom compares the file systems of a brick and of a slave on this host.
func checkRoom(brick, dir string, force bool) error {
	if force {
		return nil
	}
	var st unix.Statfs_t
	at := dir
	err := unix.Statfs(at, &st)
	if errors.Is(err, unix.ENOENT) {
		at = filepath.Dir(dir)
		err = unix.Statfs(at, &st)
	}
	if errors.Is(err, unix.ENOENT) {
		return session.Errorf(session.Precondition, "slave %s: there is no %s", dir, at).WithHint("make it first")
	}
	if err != nil {
		return fmt.Errorf("slave %s: %w", dir, err)
	}
	return compareRoom(brick, dir, st.Blocks*uint64(st.Bsize), st.Bfree*uint64(st.Bsize))
}

// compareRoom refuses a slave that has not room for what is used on the brick's
// file system.
func compareRoom(brick, slave string, size, free uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(brick, &st); err != nil {
		return fmt.Errorf("brick %q: %w", brick, err)
	}
	master := st.Blocks * uint64(st.Bsize)
	if size < master {
		return session.Errorf(session.Precondition, "slave %s: its file system has %s, that of the brick %s", slave, bytesText(size), bytesText(master)).
			WithHint("--force creates the session all the same")
	}
	return nil
}

// Purge removes changelogs from before a time.
func (h *daemonHost) Purge(path string, before time.Time) (files int, bytes int64, err error) {
	u, err := changelog.Purge(changelogsDir(path), before.Unix())
	return u.Files, u.Bytes, err
}

// ChangelogUsage is what changelogs take on disk.
func (h *daemonHost) ChangelogUsage(path string) (files int, bytes int64, err error) {
	u, err := changelog.DiskUsage(changelogsDir(path))
	return u.Files, u.Bytes, err
}

// ResetStime takes away what the brick knows of its slave's progress.
func (h *daemonHost) ResetStime(ctx context.Context, path string, s daemon.Slave) error {
	b, err := brick.Open(path)
	if err != nil {
		return session.Errorf(session.Precondition, "%v", err)
	}
	defer b.Close()
	c, err := h.connect(ctx, b, s, false)
	if err != nil {
		return slaveError(s, err)
	}
	id := c.Info().Slave
	c.Close()
	keys := []string{brick.StimeKey(b.Volume(), id), brick.EntryStimeKey(b.Volume(), id)}
	for _, ours := range []string{"cursor", "crawl", "open"} {
		keys = append(keys, "trusted.georep."+id.String()+"."+ours)
	}
	for _, key := range keys {
		if errno := brick.Removexattr(b.Root(), "", key); errno != 0 && errno != syscall.ENODATA {
			return fmt.Errorf("brick %q: remove %s: %w", path, key, errno)
		}
	}
	return nil
}
