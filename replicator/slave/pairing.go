package slave

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"github.com/google/uuid"

	"github.com/georep/georep/brick"
)

// pairingFile says below .glusterfs whose slave a directory is.
const pairingFile = keptDir + "/slave"

// Pairing is the content of .glusterfs/georep/slave, as JSON.
type Pairing struct {
	Master uuid.UUID `json:"master"` // volume id of the master brick
	Slave  uuid.UUID `json:"slave"`  // volume id of this one
}

// readPairing reads whose slave the directory root is. The error wraps
// fs.ErrNotExist if it is no slave.
func readPairing(root string) (Pairing, error) {
	var p Pairing
	path := filepath.Join(root, brick.Dir, pairingFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return p, fmt.Errorf("slave: %w", err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("slave: %q: %w", path, err)
	}
	return p, nil
}

// claim is what a master says of itself when it asks for a slave.
type claim struct {
	master   uuid.UUID
	boot     string   // boot id of its kernel
	path     []inodeN // its root and all directories above
	create   bool
	readOnly bool
}

// inodeN is an inode by its numbers.
type inodeN struct{ dev, ino uint64 }

// admit opens root as the slave of the master that claims it, or says why not:
// the error wraps one of the refusals. created: it was an empty directory.
func admit(root string, c claim, log *slog.Logger) (t *tree, created bool, err error) {
	root, err = filepath.EvalSymlinks(root)
	if err == nil {
		var st os.FileInfo
		if st, err = os.Stat(root); err == nil && !st.IsDir() {
			err = &os.PathError{Op: "open", Path: root, Err: syscall.ENOTDIR}
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrNotSlave, err)
	}
	if err := checkOverlap(root, c); err != nil {
		return nil, false, err
	}
	p, err := readPairing(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if p, err = pair(root, c); err != nil {
			return nil, false, err
		}
		created = true
	case err != nil:
		return nil, false, err
	}
	if p.Master != c.master {
		return nil, false, fmt.Errorf("%w: %q is the slave of volume %v, not of %v", ErrOtherMaster, root, p.Master, c.master)
	}
	b, err := brick.Open(root)
	if err != nil {
		return nil, false, err
	}
	if b.Volume() != p.Slave {
		b.Close()
		return nil, false, fmt.Errorf("%w: %q is a copy of another slave: volume id %v, was paired as %v",
			ErrNotSlave, root, b.Volume(), p.Slave)
	}
	t, err = openTree(b, c.readOnly, log)
	return t, created, err
}

// checkOverlap refuses a root that is the master's, lies in it, or holds it.
// Inodes can be compared only under one kernel.
func checkOverlap(root string, c claim) error {
	if c.boot == "" || c.boot != bootID() || len(c.path) == 0 {
		return nil
	}
	up, err := inodesUp(root)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotSlave, err)
	}
	here := inodeN{up[0].Dev, up[0].Ino}
	for i, m := range c.path {
		if m == here {
			if i == 0 {
				return fmt.Errorf("%w: %q is the master brick", ErrOverlap, root)
			}
			return fmt.Errorf("%w: %q holds the master brick", ErrOverlap, root)
		}
	}
	for _, u := range up {
		if c.path[0] == (inodeN{u.Dev, u.Ino}) {
			return fmt.Errorf("%w: %q lies inside the master brick", ErrOverlap, root)
		}
	}
	return nil
}

// pair makes the empty directory root a slave.
func pair(root string, c claim) (Pairing, error) {
	none := Pairing{}
	if err := checkEmpty(root); err != nil {
		return none, err
	}
	for up := filepath.Dir(root); up != "/"; up = filepath.Dir(up) {
		if _, err := brick.ReadXattr(up, brick.XattrVolumeID); err == nil {
			return none, fmt.Errorf("%w: %q lies inside the brick or slave %q", ErrOverlap, root, up)
		}
	}
	if !c.create || c.readOnly {
		return none, fmt.Errorf("%w: %q is empty", ErrNotSlave, root)
	}
	b, err := brick.Create(root)
	if err != nil {
		return none, err
	}
	defer b.Close()
	// A mount that began since checkEmpty has the lock; it is held until the
	// pairing is written, after which a mount can see what this is.
	if err := b.Lock(); err != nil {
		return none, err
	}
	p := Pairing{Master: c.master, Slave: b.Volume()}
	if p.Slave == c.master {
		return none, fmt.Errorf("%w: %q has the volume id of the master %v: is it a copy?", ErrOverlap, root, c.master)
	}
	data, err := json.Marshal(p)
	if err != nil {
		return none, err
	}
	path := filepath.Join(root, brick.Dir, pairingFile)
	if err := renameio.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return none, fmt.Errorf("slave: write %q: %w", path, err)
	}
	return p, nil
}

// checkEmpty says what root holds that a directory to become a slave must not.
// What an earlier attempt at it left is no harm, nor is lost+found.
func checkEmpty(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotSlave, err)
	}
	for _, e := range entries {
		if e.Name() != brick.Dir && e.Name() != lostFound {
			return fmt.Errorf("%w: %q holds %q", ErrNotSlave, root, e.Name())
		}
	}
	entries, err = os.ReadDir(filepath.Join(root, brick.Dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotSlave, err)
	}
	for _, e := range entries {
		// brick.Create makes handle directories and georep's own, no more.
		if n := e.Name(); n != keptDir && (len(n) != 2 || strings.Trim(n, "0123456789abcdef") != "") {
			return fmt.Errorf("%w: %q is a brick already, it has %s/%s", ErrNotSlave, root, brick.Dir, n)
		}
	}
	// A mount leaves these.
	for _, n := range []string{"intents", "writers"} {
		if _, err := os.Lstat(filepath.Join(root, brick.Dir, keptDir, n)); err == nil {
			return fmt.Errorf("%w: %q has been mounted as a brick", ErrNotSlave, root)
		}
	}
	return nil
}

// lostFound is made in the root by mkfs and is neither the master's nor others'.
const lostFound = "lost+found"
