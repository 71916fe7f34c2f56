package slave

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// make does Make.
func (t *tree) make(op *Op, res *Result) *fault {
	if op.Meta == nil {
		return failed(syscall.EINVAL, "no attributes")
	}
	if op.Content != nil {
		if f := checkContent(op.Content, false); f != nil {
			return f
		}
	}
	i, st, d, f := t.find(op.GFID)
	t.dirs.release(d)
	kind := op.Meta.Mode & unix.S_IFMT
	switch {
	case f == nil && uint32(st.Mode)&unix.S_IFMT != kind:
		return failed(syscall.EEXIST, "gfid "+op.GFID.String()+" is of another type")
	case f == nil && kind == unix.S_IFLNK:
		if f := sameTarget(i, op); f != nil {
			return f
		}
		return t.remake(op, res)
	case f == nil:
		return t.remake(op, res)
	case f.errno != syscall.ENOENT:
		return f
	case kind == unix.S_IFDIR:
		return t.makeDir(op, res)
	}
	return t.makeFile(op, res)
}

// sameTarget checks that the symlink i is the one op means: a GFID's target
// never changes.
func sameTarget(i inode, op *Op) *fault {
	target, errno := i.readlink()
	if errno == 0 && target != op.Target {
		errno = syscall.EEXIST
	}
	return failed(errno, "symlink to "+quote(target))
}

// remake is Make of a GFID that exists.
func (t *tree) remake(op *Op, res *Result) *fault {
	var f *fault
	if op.Content != nil {
		f = t.put(op, res)
	}
	if f == nil && !op.Name.IsZero() {
		again := *op
		again.Old = Name{}
		f = t.rename(&again, res)
	}
	if f == nil && op.Content == nil {
		f = t.setattr(op, res)
	}
	return f
}

// makeFile makes a non-directory under its handle, its GFID last, and then gives
// it its name.
func (t *tree) makeFile(op *Op, res *Result) *fault {
	var d *dir
	var names []Name
	if !op.Name.IsZero() {
		var f *fault
		if d, f = t.parent(op.Name); f != nil {
			return f
		}
		defer t.dirs.release(d)
		names = []Name{op.Name}
	}
	if d == nil {
		if f := t.note(op.GFID); f != nil {
			return f
		}
	}
	h := t.handle(op.GFID)
	fd, errno := t.create(h, op)
	if errno == syscall.EEXIST { // half made, or of a directory that others removed
		if errno = h.unlink(); errno == 0 {
			fd, errno = t.create(h, op)
		}
	}
	if errno != 0 {
		return failed(errno, "create")
	}
	var f *fault
	if fd >= 0 {
		f = finishRegular(inode{fd: fd}, op.GFID, names, renewal{content: op.Content, meta: op.Meta}, res)
		brick.Close(fd)
	} else {
		f = finishSpecial(h, op, names)
	}
	if f != nil {
		h.unlink()
		return f
	}
	res.Made = true
	if d == nil {
		return nil
	}
	return t.linkFile(op.GFID, d, op.Name, res)
}

// create makes the new inode h; of a regular file fd is open for writing, else
// it is -1.
func (t *tree) create(h inode, op *Op) (fd int, errno syscall.Errno) {
	fd = -1
	errno = t.withHandleDir(op.GFID, func() (errno syscall.Errno) {
		switch kind := op.Meta.Mode & unix.S_IFMT; kind {
		case unix.S_IFREG:
			fd, errno = h.open(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
			return errno
		case unix.S_IFLNK:
			if op.Target == "" || len(op.Target) >= unix.PathMax || strings.Contains(op.Target, "\x00") {
				return syscall.EINVAL
			}
			return errnoOf(unix.Symlinkat(op.Target, h.fd, h.name))
		case unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFBLK, unix.S_IFCHR:
			return errnoOf(unix.Mknodat(h.fd, h.name, kind|0o600, int(unix.Mkdev(op.Rdev.Major, op.Rdev.Minor))))
		}
		return syscall.EINVAL
	})
	return fd, errno
}

// finishSpecial makes the new inode h, no regular file nor directory, be GFID.
func finishSpecial(h inode, op *Op, names []Name) *fault {
	var st unix.Statx_t
	if errno := h.statx(&st); errno != 0 {
		return failed(errno, "stat")
	}
	if f := setMeta(h, &st, op.Meta, true); f != nil {
		return f
	}
	for _, n := range names {
		if f := addPath(h, n); f != nil {
			return f
		}
	}
	return failed(h.setxattr(brick.XattrGFID, op.GFID[:]), "xattr "+brick.XattrGFID)
}

// makeDir makes a directory out of sight and moves it, complete, to its place.
func (t *tree) makeDir(op *Op, res *Result) *fault {
	g := op.GFID
	tmp := inode{t.tmp, "dir-" + g.String()}
	err := unix.Mkdirat(tmp.fd, tmp.name, 0o700)
	if err == unix.EEXIST {
		tmp.rmdir()
		err = unix.Mkdirat(tmp.fd, tmp.name, 0o700)
	}
	if err != nil {
		return failed(errnoOf(err), "make a directory")
	}
	fd, errno := openDir(tmp.fd, tmp.name)
	if errno != 0 {
		return failed(errno, "open a new directory")
	}
	f := t.finishDir(inode{fd: fd}, tmp, op, res)
	if f != nil {
		brick.Close(fd)
		tmp.rmdir()
		return f
	}
	t.dirs.release(t.dirs.add(g, fd))
	res.Made = true
	return nil
}

func (t *tree) finishDir(i, tmp inode, op *Op, res *Result) *fault {
	var st unix.Statx_t
	if errno := i.statx(&st); errno != 0 {
		return failed(errno, "stat")
	}
	if f := setMeta(i, &st, op.Meta, true); f != nil {
		return f
	}
	if errno := i.setxattr(brick.XattrGFID, op.GFID[:]); errno != 0 {
		return failed(errno, "xattr "+brick.XattrGFID)
	}
	if op.Name.IsZero() {
		return t.orphan(op.GFID, tmp)
	}
	return t.nameDir(op.GFID, tmp, op.Name, res)
}

// link does Link.
func (t *tree) link(op *Op, res *Result) *fault {
	_, st, d, f := t.find(op.GFID)
	if f != nil {
		return f
	}
	if d != nil {
		t.dirs.release(d)
		return failed(syscall.EPERM, "a directory has one name")
	}
	return t.nameFound(op, st, res)
}

// nameFound gives the non-directory GFID, whose handle has st, the name Name.
func (t *tree) nameFound(op *Op, st *unix.Statx_t, res *Result) *fault {
	f := t.nameFile(op.GFID, op.Name, res)
	if f == nil && st.Nlink == 1 {
		t.unnote(op.GFID)
	}
	return f
}

// rename does Rename.
func (t *tree) rename(op *Op, res *Result) *fault {
	i, st, d, f := t.find(op.GFID)
	if f != nil {
		return f
	}
	if d != nil {
		defer t.dirs.release(d)
		return t.renameDir(op.GFID, op.Name, res)
	}
	if op.Old.IsZero() || op.Old == op.Name {
		return t.nameFound(op, st, res)
	}
	from, f := t.parent(op.Old)
	if f != nil && f.errno == syscall.ESTALE { // gone with the old name
		return t.nameFound(op, st, res)
	}
	if f != nil {
		return f
	}
	defer t.dirs.release(from)
	var there unix.Statx_t
	if errno := from.at(op.Old.Base).statx(&there); errno != 0 || !sameInode(st, &there) {
		return t.nameFound(op, st, res)
	}
	return t.renameFile(op, i, from.at(op.Old.Base), res)
}

// renameFile renames the non-directory GFID, whose handle is i, from its name at
// from to op.Name.
func (t *tree) renameFile(op *Op, i, from inode, res *Result) *fault {
	d, f := t.parent(op.Name)
	if f != nil {
		return f
	}
	defer t.dirs.release(d)
	o, errno := t.occupant(d, op.Name.Base)
	if errno != 0 {
		return failed(errno, "look at "+quote(op.Name.Base))
	}
	if f := addPath(i, op.Name); f != nil {
		return f
	}
	if f := t.removePath(op.GFID, op.Old); f != nil {
		return f
	}
	if o.g == op.GFID {
		// rename(2) does nothing when both are names of one inode.
		return failed(from.unlink(), "unlink "+quote(op.Old.Base))
	}
	return t.supplant(from, d.at(op.Name.Base), op.Name, &o, res)
}

// renameDir moves the directory g, which the caller has seen, to the name n.
func (t *tree) renameDir(g gfid.GFID, n Name, res *Result) *fault {
	p, errno := t.readPlace(g)
	if errno != 0 {
		return failed(errno, "handle of "+g.String())
	}
	if p.orphan {
		return t.nameDir(g, inode{t.orphans, g.String()}, n, res)
	}
	if p.name == n {
		return nil
	}
	from, errno := t.dir(p.name.Parent)
	if errno != 0 {
		return failed(errno, "directory "+p.name.Parent.String())
	}
	defer t.dirs.release(from)
	return t.nameDir(g, from.at(p.name.Base), n, res)
}
