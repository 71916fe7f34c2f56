package slave

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// receiversFile is locked, shared, by every rsync that writes to the slave, for
// as long as it lives. An rsync that outlives its session could write into a file
// after the next session has finished it: so the next one waits for it.
const receiversFile = keptDir + "/receivers"

// holdReceivers opens the lock of the slave at root for an rsync to inherit.
func holdReceivers(root string) (*os.File, error) {
	path := filepath.Join(root, brick.Dir, receiversFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("slave: receivers: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		f.Close()
		return nil, fmt.Errorf("slave: lock %q: %w", path, err)
	}
	return f, nil
}

// checkReceivers says with ErrBusy that an rsync of an earlier session is alive.
func (t *tree) checkReceivers() error {
	path := filepath.Join(t.brick.Path(), brick.Dir, receiversFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("slave: receivers: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if err == unix.EWOULDBLOCK {
			return fmt.Errorf("slave: lock %q: %w: its rsync is alive", t.brick.Path(), ErrBusy)
		}
		return fmt.Errorf("slave: lock %q: %w", path, err)
	}
	return nil
}
