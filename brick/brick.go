package brick

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// Dir is the directory below a brick's root that holds handles, changelogs and
// what georep keeps. No user of the mount sees it.
const Dir = ".glusterfs"

var (
	// ErrNotBrick is wrapped by Open when the directory was never made a brick.
	ErrNotBrick = errors.New("not a brick")
	// ErrMounted is wrapped by Lock when another process serves the brick.
	ErrMounted = errors.New("brick is mounted already")
)

// Brick is an open brick. Its methods may be called by many at once.
type Brick struct {
	path    string
	root    int // O_RDONLY|O_DIRECTORY; owned
	handles int // of .glusterfs; owned
	volume  uuid.UUID
	lock    *os.File // flock held while mounted; nil if not; owned
}

// Create opens the directory path as a brick, making what a brick has and this
// one lacks: .glusterfs, the root's GFID and handle, the volume id. Files in it
// keep their place and get their GFIDs at first lookup.
func Create(path string) (*Brick, error) {
	path, err := checkDir(path)
	if err != nil {
		return nil, err
	}
	if err := checkXattrs(path); err != nil {
		return nil, err
	}
	// 0600 on directories is what GlusterFS has: only root gets in anyway.
	for _, d := range []struct {
		name string
		mode os.FileMode
	}{{Dir, 0o600}, {Dir + "/georep", 0o700}} {
		if err := os.Mkdir(filepath.Join(path, d.name), d.mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("brick: create: %w", err)
		}
	}
	b, err := open(path)
	if err != nil {
		return nil, err
	}
	if err := b.fill(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Open opens an existing brick without changing it. The error wraps ErrNotBrick
// if path has no .glusterfs or no volume id.
func Open(path string) (*Brick, error) {
	path, err := checkDir(path)
	if err != nil {
		return nil, err
	}
	b, err := open(path)
	if err != nil {
		return nil, err
	}
	id, err := ReadXattr(path, XattrVolumeID)
	if err != nil || len(id) != 16 {
		b.Close()
		return nil, fmt.Errorf("brick: open %q: %w: no valid xattr %s", path, ErrNotBrick, XattrVolumeID)
	}
	b.volume = uuid.UUID(id)
	return b, nil
}

func checkDir(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("brick: %w", err)
	}
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("brick: %w", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("brick: %w", err)
	}
	if !st.IsDir() {
		return "", fmt.Errorf("brick: %q is not a directory", path)
	}
	if strings.Contains(path+"/", "/"+Dir+"/") {
		return "", fmt.Errorf("brick: %q lies inside a %s directory", path, Dir)
	}
	return path, nil
}

// checkXattrs asks the file system whether it keeps trusted.* xattrs.
func checkXattrs(path string) error {
	_, err := ReadXattr(path, XattrGFID)
	if err == nil || errors.Is(err, syscall.ENODATA) {
		return nil
	}
	return fmt.Errorf("brick: %q can't hold xattrs of the trusted namespace, which needs root and a file system such as ext4, XFS or Btrfs: %w", path, err)
}

func open(path string) (*Brick, error) {
	b := &Brick{path: path, root: -1, handles: -1}
	var errno syscall.Errno
	b.root, errno = Openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		return nil, fmt.Errorf("brick: open %q: %w", path, errno)
	}
	b.handles, errno = Openat(b.root, Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		b.Close()
		if errno == syscall.ENOENT {
			return nil, fmt.Errorf("brick: open %q: %w: no %s", path, ErrNotBrick, Dir)
		}
		return nil, fmt.Errorf("brick: open %q: %w", filepath.Join(path, Dir), errno)
	}
	return b, nil
}

// fill makes the parts of a brick that are missing. Each step is harmless when
// done twice, so a crash in between needs no repair.
func (b *Brick) fill() error {
	fail := func(what string, err error) error {
		return fmt.Errorf("brick: create %q: %s: %w", b.path, what, err)
	}
	for i := range 256 {
		if err := unix.Mkdirat(b.handles, fmt.Sprintf("%02x", i), 0o700); err != nil && err != syscall.EEXIST {
			return fail("handle directory", err)
		}
	}
	switch g, errno := b.GFIDOf(b.root, ""); {
	case errno == syscall.ENODATA:
		if errno := Setxattr(b.root, "", XattrGFID, gfid.Root[:], unix.XATTR_CREATE); errno != 0 {
			return fail("gfid of the root", errno)
		}
	case errno != 0:
		return fail("gfid of the root", errno)
	case g != gfid.Root:
		return fail("gfid of the root", fmt.Errorf("is %v, want %v: is this directory a part of another brick?", g, gfid.Root))
	}
	errno := b.withHandleDir(gfid.Root, func() syscall.Errno {
		return errnoOf(unix.Symlinkat("../../..", b.handles, HandlePath(gfid.Root)))
	})
	if errno != 0 && errno != syscall.EEXIST {
		return fail("handle of the root", errno)
	}
	id := uuid.New()
	if errno := Setxattr(b.root, "", XattrVolumeID, id[:], unix.XATTR_CREATE); errno != 0 && errno != syscall.EEXIST {
		return fail("volume id", errno)
	}
	// What stands is what counts: another process may have been first.
	if n, errno := Getxattr(b.root, "", XattrVolumeID, b.volume[:]); errno != 0 || n != len(b.volume) {
		return fail("volume id", fmt.Errorf("%d bytes, want %d: %w", n, len(b.volume), errno))
	}
	return nil
}

// How long Lock waits for a process that serves the brick: briefly, because it may
// be about to notice that its mount is gone, and longer once it said that it ends.
const (
	lockPatience   = 300 * time.Millisecond
	endingPatience = time.Minute
)

// ending is what the lock file says beside the pid once its holder is ending.
const ending = " ending"

// Lock takes the brick for the one process that may change it, until Close.
// The error wraps ErrMounted if another has it; one that has been unmounted and
// is only finishing is waited for.
func (b *Brick) Lock() error {
	path := filepath.Join(b.path, Dir, "georep", "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("brick: lock: %w", err)
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		text := make([]byte, 64)
		n, _ := f.ReadAt(text, 0) // only a help to who waits, and to the reader of the error
		holder := strings.TrimSpace(string(text[:n]))
		patience := lockPatience
		if strings.HasSuffix(holder, ending) {
			patience = endingPatience
		}
		if err == unix.EWOULDBLOCK && time.Since(began) < patience {
			continue
		}
		f.Close()
		if err == unix.EWOULDBLOCK {
			return fmt.Errorf("brick: %q: %w by process %s", b.path, ErrMounted, holder)
		}
		return fmt.Errorf("brick: lock %q: %w", path, err)
	}
	b.lock = f
	if err := b.sayLocked(""); err != nil {
		return err
	}
	return b.removeTemporary()
}

// Ending tells those who wait for the lock that it will soon be free. It does
// nothing without the lock.
func (b *Brick) Ending() error {
	if b.lock == nil {
		return nil
	}
	return b.sayLocked(ending)
}

func (b *Brick) sayLocked(state string) error {
	err := b.lock.Truncate(0)
	if err == nil {
		_, err = b.lock.WriteAt(fmt.Appendf(nil, "%d%s\n", os.Getpid(), state), 0)
	}
	if err != nil {
		return fmt.Errorf("brick: lock: %w", err)
	}
	return nil
}

// Close closes the brick's descriptors and gives up its lock.
func (b *Brick) Close() error {
	if b.handles >= 0 {
		Close(b.handles)
	}
	Close(b.root)
	if b.lock != nil {
		return b.lock.Close()
	}
	return nil
}

// Path is the brick's directory, absolute and without symlinks.
func (b *Brick) Path() string { return b.path }

// Root is a descriptor of the brick's root directory, owned by b.
func (b *Brick) Root() int { return b.root }

// Handles is a descriptor of .glusterfs, owned by b.
func (b *Brick) Handles() int { return b.handles }

// Volume is the volume id kept on the root.
func (b *Brick) Volume() uuid.UUID { return b.volume }

// GFIDOf reads the GFID of name in dirfd, or of dirfd itself when name is empty.
// ENODATA: it has none yet. An xattr of any size but 16 is EIO.
func (b *Brick) GFIDOf(dirfd int, name string) (gfid.GFID, syscall.Errno) {
	var buf [17]byte
	n, errno := Getxattr(dirfd, name, XattrGFID, buf[:])
	if errno != 0 && errno != syscall.ERANGE {
		return gfid.GFID{}, errno
	}
	if n != 16 || errno != 0 {
		return gfid.GFID{}, syscall.EIO
	}
	return gfid.GFID(buf[:16]), 0
}
