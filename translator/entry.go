package translator

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// Create makes and opens the file name in parent. If the name is there by now
// and flags have no O_EXCL it is opened as it is.
//
// Source: glusterfs posix-entry-ops.c, posix_create.
func (t *Translator) Create(parent *Inode, name string, flags int, mode uint32, c Caller, st *Attr) (*Inode, *Handle, Mode, syscall.Errno) {
	if errno := t.mayMake(parent, name); errno != 0 {
		return nil, nil, Mode{}, errno
	}
	pfd, errno := t.dirs.acquire(parent)
	if errno != 0 {
		return nil, nil, Mode{}, errno
	}
	defer t.dirs.release(parent)
	mode = t.createMode(parent, pfd, mode, c)
	passthrough := t.opts.Backing != nil && !t.cold.Load() && mode&(unix.S_ISUID|unix.S_ISGID) == 0
	fd := -1
	in, errno := t.make(parent, pfd, name, changelog.FopCreate, mode|unix.S_IFREG, c, st, func() (int, syscall.Errno) {
		errno := c.as(func() (e syscall.Errno) {
			fd, e = brick.Openat(pfd, name, openFlags(flags, passthrough)|unix.O_CREAT|unix.O_EXCL, mode&0o7777)
			return e
		})
		return fd, errno
	})
	if errno != 0 {
		if errno == syscall.EEXIST && flags&unix.O_EXCL == 0 {
			return t.openExisting(parent, pfd, name, flags, c, st)
		}
		return nil, nil, Mode{}, errno
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	raw := *st
	h, how, errno := t.opened(in, fd, flags, passthrough, &raw, c)
	if errno != 0 {
		t.Forget(in, 1)
		return nil, nil, Mode{}, errno
	}
	t.show(in, st)
	return in, h, how, 0
}

func (t *Translator) openExisting(parent *Inode, pfd int, name string, flags int, c Caller, st *Attr) (*Inode, *Handle, Mode, syscall.Errno) {
	in, _, errno := t.lookupAt(parent, pfd, name, st)
	if errno != 0 {
		return nil, nil, Mode{}, errno
	}
	h, how, errno := t.Open(in, flags, false, c)
	if errno != 0 {
		t.Forget(in, 1)
		return nil, nil, Mode{}, errno
	}
	_, errno = t.Getattr(in, st)
	return in, h, how, errno
}

// make carries out a fop that creates an object: create makes the name and
// returns a descriptor of it if it has one, or -1. The result has one more
// reference of the kernel, and st is as the brick has it.
//
// A failure after create takes the name away again, so that nothing half made is
// seen; after a crash in between, recover finishes what the intent says.
func (t *Translator) make(parent *Inode, pfd int, name string, fop changelog.Fop, mode uint32, c Caller, st *Attr, create func() (int, syscall.Errno)) (*Inode, syscall.Errno) {
	r := &changelog.Record{
		Type: changelog.Entry, GFID: t.gfids.Next(), Fop: fop,
		Mode: mode, UID: c.UID, GID: c.GID,
		Entry: changelog.Name{Parent: parent.gfid, Base: name},
	}
	var in *Inode
	errno := t.act(r, func() syscall.Errno {
		fd, errno := create()
		if errno != 0 {
			return errno
		}
		if errno := t.adorn(parent, pfd, name, fd, r.GFID, mode, st); errno != 0 {
			t.unmake(pfd, name, fd, r.GFID, mode)
			return errno
		}
		in = t.table.enter(seen{r.GFID, st.Ino, mode}, parent, name, true)
		return 0
	}, r.GFID, parent.gfid)
	return in, errno
}

// adorn gives a new object its GFID, its gfid2path and its handle. fd is of the
// object, or -1.
func (t *Translator) adorn(parent *Inode, pfd int, name string, fd int, g gfid.GFID, mode uint32, st *Attr) syscall.Errno {
	at, as := pfd, name
	if fd >= 0 {
		at, as = fd, ""
	}
	if errno := brick.Setxattr(at, as, brick.XattrGFID, g[:], unix.XATTR_CREATE); errno != 0 {
		return errno
	}
	if mode&unix.S_IFMT == unix.S_IFDIR {
		if errno := t.b.SymlinkHandle(g, parent.gfid, name); errno != 0 {
			return errno
		}
		return brick.Statx(at, as, st)
	}
	if name != "" {
		key, val := brick.GFID2Path(parent.gfid, name)
		if errno := brick.Setxattr(at, as, key, val, unix.XATTR_CREATE); errno != 0 {
			return errno
		}
	}
	if errno := t.b.LinkHandle(at, as, g); errno != 0 {
		return errno
	}
	return brick.Statx(at, as, st)
}

// unmake takes away what make has made so far.
func (t *Translator) unmake(pfd int, name string, fd int, g gfid.GFID, mode uint32) {
	flags := 0
	if mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	// Errors are for the next lookup to heal: the first one is what counts.
	if name != "" {
		unix.Unlinkat(pfd, name, flags)
	}
	t.b.UnlinkHandle(g)
	if fd >= 0 {
		brick.Close(fd)
	}
}

// Tmpfile makes and opens a file without a name in parent. It has a handle like
// any other file, which is entered among those to be removed.
func (t *Translator) Tmpfile(parent *Inode, flags int, mode uint32, c Caller, st *Attr) (*Inode, *Handle, Mode, syscall.Errno) {
	pfd, errno := t.dirs.acquire(parent)
	if errno != 0 {
		return nil, nil, Mode{}, errno
	}
	defer t.dirs.release(parent)
	mode = t.createMode(parent, pfd, mode, c)
	passthrough := t.opts.Backing != nil && !t.cold.Load() && mode&(unix.S_ISUID|unix.S_ISGID) == 0
	fd := -1
	errno = c.as(func() (e syscall.Errno) {
		// The kernel wants a writable one.
		fd, e = brick.Openat(pfd, ".", unix.O_TMPFILE|unix.O_RDWR, mode&0o7777)
		return e
	})
	if errno != 0 {
		return nil, nil, Mode{}, errno
	}
	g := t.gfids.Next()
	slot, errno := t.orphaned.add(g)
	if errno == 0 {
		errno = t.adorn(parent, pfd, "", fd, g, mode|unix.S_IFREG, st)
	}
	var rfd int
	if errno == 0 {
		rfd, errno = t.b.OpenHandle(g, openFlags(flags, passthrough))
	}
	brick.Close(fd)
	if errno != 0 {
		t.b.UnlinkHandle(g)
		if slot >= 0 {
			t.orphaned.remove(slot)
		}
		return nil, nil, Mode{}, errno
	}
	in := t.table.enter(seen{g, st.Ino, mode | unix.S_IFREG}, nil, "", true)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.nameless = slot + 2
	h, how, errno := t.opened(in, rfd, flags, passthrough, st, c)
	if errno != 0 {
		t.Forget(in, 1)
		return nil, nil, Mode{}, errno
	}
	t.show(in, st)
	return in, h, how, 0
}

// Mknod makes a fifo, a socket, a device or a regular file that is not opened.
func (t *Translator) Mknod(parent *Inode, name string, mode, rdev uint32, c Caller, st *Attr) (*Inode, syscall.Errno) {
	return t.makeName(parent, name, changelog.FopMknod, mode, c, st, func(pfd int, mode uint32) syscall.Errno {
		return errnoOf(unix.Mknodat(pfd, name, mode, int(rdev)))
	})
}

// Mkdir makes a directory.
func (t *Translator) Mkdir(parent *Inode, name string, mode uint32, c Caller, st *Attr) (*Inode, syscall.Errno) {
	return t.makeName(parent, name, changelog.FopMkdir, mode|unix.S_IFDIR, c, st, func(pfd int, mode uint32) syscall.Errno {
		return errnoOf(unix.Mkdirat(pfd, name, mode&^unix.S_IFMT))
	})
}

// Symlink makes a symlink to target, any bytes.
func (t *Translator) Symlink(parent *Inode, name, target string, c Caller, st *Attr) (*Inode, syscall.Errno) {
	c.Umask = 0
	return t.makeName(parent, name, changelog.FopSymlink, unix.S_IFLNK|0o777, c, st, func(pfd int, _ uint32) syscall.Errno {
		return errnoOf(unix.Symlinkat(target, pfd, name))
	})
}

// makeName is make for objects that are not opened.
func (t *Translator) makeName(parent *Inode, name string, fop changelog.Fop, mode uint32, c Caller, st *Attr, create func(pfd int, mode uint32) syscall.Errno) (*Inode, syscall.Errno) {
	if errno := t.mayMake(parent, name); errno != 0 {
		return nil, errno
	}
	pfd, errno := t.dirs.acquire(parent)
	if errno != 0 {
		return nil, errno
	}
	defer t.dirs.release(parent)
	mode = t.createMode(parent, pfd, mode, c)
	in, errno := t.make(parent, pfd, name, fop, mode, c, st, func() (int, syscall.Errno) {
		return -1, c.as(func() syscall.Errno { return create(pfd, mode) })
	})
	if errno != 0 {
		return nil, errno
	}
	in.mu.Lock()
	t.show(in, st)
	in.mu.Unlock()
	return in, 0
}

// Link gives in the name name in parent and fills st.
func (t *Translator) Link(in, parent *Inode, name string, st *Attr) (keep bool, errno syscall.Errno) {
	if errno := t.mayMake(parent, name); errno != 0 {
		return false, errno
	}
	if in.IsDir() {
		return false, syscall.EPERM
	}
	pfd, errno := t.dirs.acquire(parent)
	if errno != 0 {
		return false, errno
	}
	defer t.dirs.release(parent)
	in.mu.Lock()
	defer in.mu.Unlock()
	handle := brick.HandlePath(in.gfid)
	r := &changelog.Record{
		Type: changelog.Entry, GFID: in.gfid, Fop: changelog.FopLink,
		Entry: changelog.Name{Parent: parent.gfid, Base: name},
	}
	errno = t.act(r, func() syscall.Errno {
		if errno := errnoOf(unix.Linkat(t.b.Handles(), handle, pfd, name, 0)); errno != 0 {
			return errno
		}
		key, val := brick.GFID2Path(parent.gfid, name)
		// Hundreds of names do not all have room; GlusterFS leaves some out too.
		if errno := brick.Setxattr(pfd, name, key, val, 0); errno != 0 && errno != syscall.ENOSPC && errno != syscall.E2BIG {
			unix.Unlinkat(pfd, name, 0)
			return errno
		}
		return 0
	}, in.gfid, parent.gfid)
	if errno != 0 {
		return false, errno
	}
	t.gainName(in)
	t.table.mu.Lock()
	t.table.place(in, parent, name)
	in.nlookup++
	t.table.mu.Unlock()
	if errno := brick.Statx(t.b.Handles(), handle, st); errno != 0 {
		return false, errno
	}
	t.show(in, st)
	return in.isSteady(), 0
}

// Readlink returns the target of the symlink in.
func (t *Translator) Readlink(in *Inode) ([]byte, syscall.Errno) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(t.b.Handles(), brick.HandlePath(in.gfid), buf)
	if err != nil {
		return nil, errnoOf(err)
	}
	return buf[:n], 0
}
