package changelog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Modes of what a Log makes, GlusterFS's own: only root can look.
const (
	dirMode  = 0o600
	fileMode = 0o644
)

// disk is the changelogs directory as a Log changes it. Names are relative to it
// and resolved from descriptors, so that a mount over the brick's path changes
// nothing. Each method that changes something is one step: what a crash leaves
// is the state between two of them.
type disk struct {
	path  string
	dir   *os.File // owned; locked while the Log is open
	htime *os.File // owned; dir/htime
	// step is called before each step with its name; an error stops it. Tests only.
	step func(op, name string) error
}

// openDisk opens the changelogs directory, making it and htime when missing,
// and locks it against a second writer.
func openDisk(dir string, step func(op, name string) error) (*disk, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	for _, p := range []string{dir, filepath.Join(dir, htimeDir)} {
		if err := os.Mkdir(p, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	d := &disk{path: dir, step: step}
	var err error
	if d.dir, err = os.Open(dir); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrBusy)
		}
		return nil, &fs.PathError{Op: "flock", Path: dir, Err: err}
	}
	if d.htime, err = os.Open(filepath.Join(dir, htimeDir)); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *disk) close() {
	for _, f := range []*os.File{d.htime, d.dir} {
		if f != nil {
			_ = f.Close() // a directory has nothing to lose
		}
	}
}

// do carries out one step.
func (d *disk) do(op, name string, fn func() error) error {
	if d.step != nil {
		if err := d.step(op, name); err != nil {
			return &fs.PathError{Op: op, Path: filepath.Join(d.path, name), Err: err}
		}
	}
	for {
		switch err := fn(); {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR):
			return &fs.PathError{Op: op, Path: filepath.Join(d.path, name), Err: err}
		}
	}
}

func (d *disk) fd() int { return int(d.dir.Fd()) }

// create makes a new file, which must not exist.
func (d *disk) create(name string, flags int) (*os.File, error) {
	var fd int
	err := d.do("create", name, func() (err error) {
		fd, err = unix.Openat(d.fd(), name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW|flags, fileMode)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.path, name)), nil
}

// open opens a file that exists for reading and writing.
func (d *disk) open(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(d.fd(), name, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW|flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.path, name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.path, name)), nil
}

// exists reports whether name is there.
func (d *disk) exists(name string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &fs.PathError{Op: "stat", Path: filepath.Join(d.path, name), Err: err}
	}
	return true, nil
}

// renameNew renames without replacing: fs.ErrExist when to is taken.
func (d *disk) renameNew(from, to string) error {
	return d.do("rename", from+" to "+to, func() error {
		err := unix.Renameat2(d.fd(), from, d.fd(), to, unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
		// A file system without the flag. Nobody else makes these names.
		if taken, err := d.exists(to); err != nil || taken {
			return errors.Join(err, unix.EEXIST)
		}
		return unix.Renameat(d.fd(), from, d.fd(), to)
	})
}

// rename renames, replacing what is there.
func (d *disk) rename(from, to string) error {
	return d.do("rename", from+" to "+to, func() error { return unix.Renameat(d.fd(), from, d.fd(), to) })
}

// unlink removes a file; that it is not there is no error.
func (d *disk) unlink(name string) error {
	return d.do("unlink", name, func() error {
		err := unix.Unlinkat(d.fd(), name, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	})
}

// mkdirs makes the directory YYYY/MM/DD, durably.
func (d *disk) mkdirs(name string) error {
	if ok, err := d.exists(name); ok || err != nil {
		return err
	}
	parent := "."
	for _, part := range strings.Split(name, "/") {
		sub := path.Join(parent, part)
		err := d.do("mkdir", sub, func() error { return unix.Mkdirat(d.fd(), sub, dirMode) })
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := d.syncDir(parent); err != nil {
			return err
		}
		parent = sub
	}
	return nil
}

// syncDir makes the names in a directory durable.
func (d *disk) syncDir(name string) error {
	return d.do("fsync", name, func() error {
		fd, err := unix.Openat(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Fsync(fd)
	})
}

// sync makes a file's contents and size durable. name is for errors.
func (d *disk) sync(f *os.File, name string) error {
	return d.do("fsync", name, func() error { return unix.Fsync(int(f.Fd())) })
}

func (d *disk) truncate(f *os.File, name string, size int64) error {
	return d.do("truncate", name, func() error { return unix.Ftruncate(int(f.Fd()), size) })
}

// write writes all of b at off.
func (d *disk) write(f *os.File, name string, b []byte, off int64) error {
	return d.do("write", name, func() error { return pwriteAll(int(f.Fd()), b, off) })
}

func (d *disk) setxattr(f *os.File, name, attr string, value []byte) error {
	return d.do("setxattr", name, func() error { return unix.Fsetxattr(int(f.Fd()), attr, value, 0) })
}

// pwriteAll writes all of b at off, with one system call but for rare causes.
func pwriteAll(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EIO
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
