package slave

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// Directories below .glusterfs that a slave has besides a brick's.
const (
	keptDir      = "georep"
	orphansDir   = keptDir + "/orphans"
	conflictsDir = keptDir + "/conflicts"
	tmpDir       = keptDir + "/tmp"
)

// tree is a slave's root, open for operations. Its methods may be called by many
// at once.
type tree struct {
	brick     *brick.Brick
	readOnly  bool
	log       *slog.Logger
	paired    *os.File // flock held while writing; nil if readOnly; owned
	orphans   int      // owned, as the following
	conflicts int
	tmp       int
	dirs      dirs
	root      *dir         // held for as long as the tree is open
	moving    sync.RWMutex // held for writing while a directory and its handle change
}

// openTree opens the slave at b, and finishes or undoes what a crash cut short.
// It takes b over, on error too.
func openTree(b *brick.Brick, readOnly bool, log *slog.Logger) (_ *tree, err error) {
	t := &tree{brick: b, readOnly: readOnly, log: log, orphans: -1, conflicts: -1, tmp: -1}
	t.dirs.init()
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if !readOnly {
		if err := t.lock(); err != nil {
			return nil, err
		}
	}
	for _, d := range []struct {
		name string
		fd   *int
	}{{orphansDir, &t.orphans}, {conflictsDir, &t.conflicts}, {tmpDir, &t.tmp}} {
		if !readOnly {
			if err := unix.Mkdirat(b.Handles(), d.name, 0o700); err != nil && err != unix.EEXIST {
				return nil, fmt.Errorf("slave: make %s: %w", d.name, err)
			}
		}
		var errno syscall.Errno
		if *d.fd, errno = openDir(b.Handles(), d.name); errno != 0 {
			return nil, fmt.Errorf("slave: open %s: %w", d.name, errno)
		}
	}
	root, errno := openDir(b.Root(), ".")
	if errno != 0 {
		return nil, fmt.Errorf("slave: open %q: %w", b.Path(), errno)
	}
	t.root = t.dirs.add(gfid.Root, root)
	if !readOnly {
		if err := t.recover(); err != nil {
			return nil, fmt.Errorf("slave: recover %q: %w", b.Path(), err)
		}
	}
	return t, nil
}

// lock takes the brick against mounts, and the pairing to tell those that it is
// an agent that has the brick.
func (t *tree) lock() error {
	path := filepath.Join(t.brick.Path(), brick.Dir, pairingFile)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("slave: lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return fmt.Errorf("slave: lock %q: %w", t.brick.Path(), ErrBusy)
		}
		return fmt.Errorf("slave: lock %q: %w", path, err)
	}
	t.paired = f
	if err := t.brick.Lock(); err != nil {
		if errors.Is(err, brick.ErrMounted) {
			return fmt.Errorf("slave: lock %q: %w", t.brick.Path(), brick.ErrMounted)
		}
		return fmt.Errorf("slave: %w", err)
	}
	return t.checkReceivers()
}

func (t *tree) close() error {
	t.dirs.release(t.root)
	t.dirs.close()
	for _, fd := range []int{t.orphans, t.conflicts, t.tmp} {
		if fd >= 0 {
			brick.Close(fd)
		}
	}
	err := t.brick.Close()
	if t.paired != nil {
		err = errors.Join(err, t.paired.Close())
	}
	return err
}

// sync makes all that was applied durable.
func (t *tree) sync() syscall.Errno { return errnoOf(unix.Syncfs(t.brick.Root())) }
