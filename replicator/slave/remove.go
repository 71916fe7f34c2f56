package slave

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// unlink does Unlink.
func (t *tree) unlink(op *Op, res *Result) *fault {
	d, f := t.parent(op.Name)
	if f != nil {
		if f.errno == syscall.ESTALE { // without a parent the name is free
			return nil
		}
		return f
	}
	defer t.dirs.release(d)
	o, errno := t.occupant(d, op.Name.Base)
	i := d.at(op.Name.Base)
	switch {
	case errno != 0:
		return failed(errno, "look at "+quote(op.Name.Base))
	case o.free && op.Gone && !op.GFID.IsZero():
		return t.finishGone(op.GFID, res)
	case o.free:
		return nil
	case o.g != op.GFID:
		return failed(syscall.ESTALE, quote(op.Name.Base)+" is another's")
	case o.foreign:
		var f *fault
		res.Conflict, f = t.aside(i, op.Name.Base)
		return f
	case isDir(&o.st):
		if op.Gone {
			done, f := t.rmdir(op.GFID, i)
			if done || f != nil {
				return f
			}
		}
		res.Displaced = op.GFID
		return t.orphan(op.GFID, i)
	case op.Gone && o.st.Nlink <= 2:
		return t.unlinkLast(op.GFID, &o.st, i, op.Name.Base, res)
	}
	var lost Result
	if f := t.unname(op.GFID, &o.st, op.Name, &lost); f != nil {
		return f
	}
	if errno := i.unlink(); errno != 0 && errno != syscall.ENOENT {
		return failed(errno, "unlink "+quote(op.Name.Base))
	}
	if o.st.Nlink <= 2 {
		res.Displaced = op.GFID
	}
	return nil
}

// rmdir destroys the directory g at i if it is empty.
func (t *tree) rmdir(g gfid.GFID, i inode) (done bool, f *fault) {
	switch errno := i.rmdir(); errno {
	case 0, syscall.ENOENT:
	case syscall.ENOTEMPTY, syscall.EEXIST:
		return false, nil
	default:
		return false, failed(errno, "remove a directory")
	}
	t.dirs.forget(g)
	return true, t.dropHandle(g)
}

// finishGone ends what an unlink of the last name of g began before a crash: the
// handle goes if it is all there is.
func (t *tree) finishGone(g gfid.GFID, res *Result) *fault {
	i, st, d, f := t.find(g)
	defer t.dirs.release(d)
	switch {
	case f == nil && d == nil && st.Nlink == 1:
		t.unnote(g)
		return t.drop(g, i, st, res)
	case f != nil && f.errno == syscall.ENOENT: // of a directory that is nowhere
		return t.dropHandle(g)
	}
	return nil
}

// drop destroys the nameless non-directory g, or moves it to the conflicts if
// others changed it.
func (t *tree) drop(g gfid.GFID, h inode, st *unix.Statx_t, res *Result) *fault {
	if isRegular(st) && readLeft(h).changed(st) {
		var f *fault
		res.Conflict, f = t.aside(h, g.String())
		return f
	}
	return t.dropHandle(g)
}

func (t *tree) dropHandle(g gfid.GFID) *fault {
	errno := t.brick.UnlinkHandle(g)
	if errno == syscall.ENOENT {
		errno = 0
	}
	return failed(errno, "remove a handle")
}

// unlinkLast destroys the non-directory g with its last name, which is at i.
func (t *tree) unlinkLast(g gfid.GFID, st *unix.Statx_t, i inode, base string, res *Result) *fault {
	if isRegular(st) && readLeft(i).changed(st) {
		if f := t.dropHandle(g); f != nil {
			return f
		}
		var f *fault
		res.Conflict, f = t.aside(i, base)
		return f
	}
	// The name first: a handle without a name is what Nameless finds.
	if errno := i.unlink(); errno != 0 && errno != syscall.ENOENT {
		return failed(errno, "unlink "+quote(base))
	}
	return t.dropHandle(g)
}

// destroy does Destroy.
func (t *tree) destroy(op *Op, res *Result) *fault {
	g := op.GFID
	if g == gfid.Root {
		return failed(syscall.EBUSY, "the root")
	}
	var st unix.Statx_t
	if errno := t.brick.StatHandle(g, &st); errno != 0 {
		if errno == syscall.ENOENT {
			t.unnote(g)
			return nil
		}
		return failed(errno, "handle")
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK && !t.isObject(g) {
		return t.destroyDir(g, res)
	}
	names, errno := t.names(g, &st)
	if errno != 0 {
		return failed(errno, "names")
	}
	if len(names) > 0 {
		return failed(syscall.EBUSY, "it has the name "+quote(names[0].Base)+" in "+names[0].Parent.String())
	}
	h := t.handle(g)
	t.unnote(g)
	if st.Nlink == 1 {
		return t.drop(g, h, &st, res)
	}
	// Others gave it names that we know nothing of: it becomes theirs.
	if errno := t.disown(h); errno != 0 {
		return failed(errno, "xattrs")
	}
	return t.dropHandle(g)
}

// releaseMax is how many entries of a directory one Destroy lets go.
const releaseMax = 4096

// destroyDir destroys the orphan g after letting go what it holds.
func (t *tree) destroyDir(g gfid.GFID, res *Result) *fault {
	d, errno := t.dir(g)
	if errno == syscall.ENOENT {
		return t.dropHandle(g) // of a directory that is gone
	}
	if errno != 0 {
		return failed(errno, "directory "+g.String())
	}
	defer t.dirs.release(d)
	p, errno := t.readPlace(g)
	if errno != 0 {
		return failed(errno, "handle of "+g.String())
	}
	if !p.orphan {
		return failed(syscall.EBUSY, "it has the name "+quote(p.name.Base)+" in "+p.name.Parent.String())
	}
	more, f := t.release(d, res)
	if f != nil {
		return f
	}
	if more {
		return failed(syscall.EAGAIN, "more entries")
	}
	done, f := t.rmdir(g, inode{t.orphans, g.String()})
	if f == nil && !done {
		f = failed(syscall.EAGAIN, "new entries")
	}
	return f
}

// release lets go what the directory d holds: files lose their name in it,
// directories become orphans, what is foreign goes to the conflicts.
func (t *tree) release(d *dir, res *Result) (more bool, f *fault) {
	names, more, errno := readNames(d, releaseMax)
	if errno != 0 {
		return false, failed(errno, "read a directory")
	}
	for _, base := range names {
		o, errno := t.occupant(d, base)
		if errno != 0 {
			return false, failed(errno, "look at "+quote(base))
		}
		if o.free {
			continue
		}
		var lost Result
		if f := t.dispose(d.at(base), Name{d.g, base}, &o, &lost); f != nil {
			return false, f
		}
		if !lost.Displaced.IsZero() {
			res.Released = append(res.Released, lost.Displaced)
		}
		if lost.Conflict != "" {
			res.Conflict = lost.Conflict
		}
	}
	return more, nil
}

// readNames reads up to max names in d.
func readNames(d *dir, max int) (names []string, more bool, errno syscall.Errno) {
	f, errno := openList(d.fd)
	if errno != 0 {
		return nil, false, errno
	}
	defer f.Close()
	names, err := f.Readdirnames(max)
	if err != nil && err != io.EOF {
		return nil, false, listErrno(err)
	}
	return names, len(names) == max, 0
}

// openList opens the directory dirfd once more, to read its entries.
func openList(dirfd int) (*os.File, syscall.Errno) {
	fd, errno := openDir(dirfd, ".")
	if errno != 0 {
		return nil, errno
	}
	return os.NewFile(uintptr(fd), "directory"), 0
}
