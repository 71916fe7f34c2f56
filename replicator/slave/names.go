package slave

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// occupant is what holds a name: nothing, an object of ours, or a foreign one.
type occupant struct {
	st      unix.Statx_t // valid unless free
	free    bool
	foreign bool // it has no GFID, or bears that of another inode
	g       gfid.GFID
}

// occupant looks at the name base in d. A directory that others moved here is
// ours still: its handle is made to say so.
func (t *tree) occupant(d *dir, base string) (occupant, syscall.Errno) {
	var o occupant
	i := d.at(base)
	switch errno := i.statx(&o.st); errno {
	case 0:
	case syscall.ENOENT:
		return occupant{free: true}, 0
	default:
		return o, errno
	}
	var errno syscall.Errno
	switch o.g, errno = t.brick.GFIDOf(i.fd, i.name); errno {
	case 0:
	case syscall.ENODATA, syscall.EIO, syscall.EOPNOTSUPP: // none, no valid one, another file system
		o.g, o.foreign = gfid.GFID{}, true
		return o, 0
	case syscall.ENOENT:
		return occupant{free: true}, 0
	default:
		return o, errno
	}
	var ours bool
	if isDir(&o.st) {
		ours, errno = t.ownsDir(o.g, &o.st, i, Name{d.g, base})
	} else {
		ours, errno = t.ownsFile(o.g, &o.st, i)
	}
	if !ours {
		o.g, o.foreign = gfid.GFID{}, true
	}
	return o, errno
}

// ownsFile reports whether the inode st at i is the one g's handle has. An inode
// whose handle is gone gets it back.
func (t *tree) ownsFile(g gfid.GFID, st *unix.Statx_t, i inode) (bool, syscall.Errno) {
	var h unix.Statx_t
	switch errno := t.brick.StatHandle(g, &h); errno {
	case 0:
		return sameInode(&h, st), 0
	case syscall.ENOENT:
		if t.readOnly {
			return true, 0
		}
		return true, t.withHandleDir(g, func() syscall.Errno { return i.link(t.handle(g)) })
	default:
		return false, errno
	}
}

// ownsDir reports whether the directory st at i, the name n, is g, and not a copy
// of it.
func (t *tree) ownsDir(g gfid.GFID, st *unix.Statx_t, i inode, n Name) (bool, syscall.Errno) {
	here := place{name: n}
	t.moving.RLock()
	p, errno := t.readPlace(g)
	t.moving.RUnlock()
	if errno == 0 && p == here || t.readOnly && errno == syscall.ENOENT {
		return true, 0
	}
	if errno != 0 && errno != syscall.ENOENT {
		return false, errno
	}
	t.moving.Lock()
	defer t.moving.Unlock()
	// What was seen may have been the middle of a move, and be over now.
	var now unix.Statx_t
	if errno := i.statx(&now); errno != 0 || !sameInode(&now, st) {
		return true, 0
	}
	if p, errno = t.readPlace(g); errno == 0 {
		if p == here {
			return true, 0
		}
		d, errno := t.walk(g)
		if errno == 0 {
			var other unix.Statx_t
			errno = inode{fd: d.fd}.statx(&other)
			t.dirs.release(d)
			if errno != 0 {
				return false, errno
			}
			if !sameInode(&other, st) {
				return false, 0
			}
		} else if errno != syscall.ENOENT {
			return false, errno
		}
	}
	if t.readOnly {
		return true, 0
	}
	if errno := t.mark(g, here); errno != 0 {
		return false, errno
	}
	return true, t.commit(g)
}

// parent opens the directory that n is in, after a check of its base. ESTALE:
// the slave lacks it.
func (t *tree) parent(n Name) (*dir, *fault) {
	if !validBase(n.Parent, n.Base) {
		return nil, failed(syscall.EINVAL, "name "+quote(n.Base))
	}
	d, errno := t.dir(n.Parent)
	if errno == syscall.ENOENT {
		errno = syscall.ESTALE
	}
	return d, failed(errno, "parent "+n.Parent.String())
}

// nameFile gives the non-directory g, which has a handle, the name n.
func (t *tree) nameFile(g gfid.GFID, n Name, res *Result) *fault {
	d, f := t.parent(n)
	if f != nil {
		return f
	}
	defer t.dirs.release(d)
	// First the xattr, then the name: a crash in between is followed by a replay.
	if f := addPath(t.handle(g), n); f != nil {
		return f
	}
	return t.linkFile(g, d, n, res)
}

// linkFile is nameFile with the parent open and the xattr set.
func (t *tree) linkFile(g gfid.GFID, d *dir, n Name, res *Result) *fault {
	h, to := t.handle(g), d.at(n.Base)
	errno := h.link(to)
	if errno != syscall.EEXIST {
		return failed(errno, "link "+quote(n.Base))
	}
	o, errno := t.occupant(d, n.Base)
	if errno != 0 {
		return failed(errno, "look at "+quote(n.Base))
	}
	if o.g == g {
		return nil
	}
	tmp := inode{t.tmp, "name-" + g.String()}
	if errno := h.link(tmp); errno != 0 && errno != syscall.EEXIST {
		return failed(errno, "link for "+quote(n.Base))
	}
	f := t.supplant(tmp, to, n, &o, res)
	tmp.unlink() // gone if all went well
	return f
}

// supplant renames the non-directory from to the name n, which is at to and holds
// o: whoever reads sees one or the other.
func (t *tree) supplant(from, to inode, n Name, o *occupant, res *Result) *fault {
	switch {
	case o.free:
		return failed(from.rename(to, unix.RENAME_NOREPLACE), "rename to "+quote(n.Base))
	case !o.foreign && !isDir(&o.st):
		if f := t.unname(o.g, &o.st, n, res); f != nil {
			return f
		}
		return failed(from.rename(to, 0), "rename over "+quote(n.Base))
	}
	if errno := from.rename(to, unix.RENAME_EXCHANGE); errno != 0 {
		return failed(errno, "exchange "+quote(n.Base))
	}
	return t.dispose(from, n, o, res)
}

// dispose takes away from i what o says it is, after it has lost the name n.
func (t *tree) dispose(i inode, n Name, o *occupant, res *Result) *fault {
	switch {
	case o.foreign:
		var f *fault
		res.Conflict, f = t.aside(i, n.Base)
		return f
	case isDir(&o.st):
		res.Displaced = o.g
		return t.orphan(o.g, i)
	}
	if f := t.unname(o.g, &o.st, n, res); f != nil {
		return f
	}
	return failed(i.unlink(), "unlink what was "+quote(n.Base))
}

// unname is called before the non-directory g, with st, loses the name n, lest a
// crash leave an xattr of a name that nobody asks for again. If it is the last
// name, the orphans get a note, so that g can be found.
func (t *tree) unname(g gfid.GFID, st *unix.Statx_t, n Name, res *Result) *fault {
	res.Displaced = g
	if st.Nlink <= 2 {
		if f := t.note(g); f != nil {
			return f
		}
	}
	return t.removePath(g, n)
}

// note notes among the orphans that the non-directory g has no name.
func (t *tree) note(g gfid.GFID) *fault {
	errno := errnoOf(unix.Symlinkat("nameless", t.orphans, g.String()))
	if errno == syscall.EEXIST {
		errno = 0
	}
	return failed(errno, "note a nameless file")
}

// unnote takes the note back, when g has a name again or is destroyed. One too
// many does no harm: Nameless looks.
func (t *tree) unnote(g gfid.GFID) { inode{t.orphans, g.String()}.unlink() }

// orphan moves the directory g from i to the orphans.
func (t *tree) orphan(g gfid.GFID, i inode) *fault {
	return t.move(g, i, inode{t.orphans, g.String()}, place{orphan: true}, false, gfid.GFID{})
}

// nameDir moves the directory g from from, where it is, to the name n.
func (t *tree) nameDir(g gfid.GFID, from inode, n Name, res *Result) *fault {
	d, f := t.parent(n)
	if f != nil {
		return f
	}
	defer t.dirs.release(d)
	o, errno := t.occupant(d, n.Base)
	if errno != 0 {
		return failed(errno, "look at "+quote(n.Base))
	}
	to, p := d.at(n.Base), place{name: n}
	switch {
	case o.g == g:
		return nil
	case o.free:
		return t.move(g, from, to, p, false, gfid.GFID{})
	case !o.foreign && isDir(&o.st):
		res.Displaced = o.g
		return t.move(g, from, to, p, true, o.g)
	}
	if f := t.move(g, from, to, p, true, gfid.GFID{}); f != nil {
		return f
	}
	return t.dispose(from, n, &o, res)
}

// aside moves what others left at i to the conflicts, and takes from it what
// could make it seem ours. It returns its name there, which ends in base.
func (t *tree) aside(i inode, base string) (string, *fault) {
	for {
		name := conflictName(time.Now(), base)
		kept := inode{t.conflicts, name}
		errno := i.rename(kept, unix.RENAME_NOREPLACE)
		if errno == syscall.EEXIST {
			continue
		}
		if errno != 0 {
			return "", failed(errno, "move to the conflicts")
		}
		return name, failed(t.disown(kept), "xattrs of a conflict")
	}
}

// conflictName is a name for what lost the name base at the time t.
func conflictName(t time.Time, base string) string {
	name := t.UTC().Format("20060102T150405.000000000-") + base
	return name[:min(len(name), 255)]
}

// keep links the file i, which others changed, to the conflicts. Its name there
// has the time of the change, so that it is kept once however often that is
// tried.
func (t *tree) keep(i inode, st *unix.Statx_t, base string) (inode, *fault) {
	for at := time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)); ; at = at.Add(1) {
		kept := inode{t.conflicts, conflictName(at, base)}
		errno := i.link(kept)
		if errno != syscall.EEXIST {
			return kept, failed(errno, "link to the conflicts")
		}
		var there unix.Statx_t
		if errno := kept.statx(&there); errno != 0 || sameInode(st, &there) {
			return kept, failed(errno, "look at a conflict")
		}
	}
}

// disown removes the xattrs that make i ours.
func (t *tree) disown(i inode) syscall.Errno {
	attrs, errno := listXattrs(i)
	if errno != 0 {
		return errno
	}
	for _, a := range attrs {
		if a == brick.XattrGFID || a == leftXattr || brick.IsGFID2Path(a) {
			if errno := brick.Removexattr(i.fd, i.name, a); errno != 0 && errno != syscall.ENODATA {
				return errno
			}
		}
	}
	return 0
}

// addPath notes on the non-directory i that it has the name n. What does not fit
// among its xattrs is left out, as GlusterFS does with many links.
func addPath(i inode, n Name) *fault {
	key, value := brick.GFID2Path(n.Parent, n.Base)
	errno := i.setxattr(key, value)
	if errno == syscall.ENOSPC || errno == syscall.E2BIG {
		errno = 0
	}
	return failed(errno, "xattr "+key)
}

// removePath takes back what addPath noted. A g that is gone is no fault.
func (t *tree) removePath(g gfid.GFID, n Name) *fault {
	key, _ := brick.GFID2Path(n.Parent, n.Base)
	h := t.handle(g)
	errno := brick.Removexattr(h.fd, h.name, key)
	if errno == syscall.ENODATA || errno == syscall.ENOENT {
		errno = 0
	}
	return failed(errno, "xattr "+key)
}

// names are the names that the xattrs of the non-directory g tell and that do
// hold it. st is its handle's.
func (t *tree) names(g gfid.GFID, st *unix.Statx_t) ([]Name, syscall.Errno) {
	h := t.handle(g)
	attrs, errno := listXattrs(h)
	if errno != 0 {
		return nil, errno
	}
	var names []Name
	var buf [512]byte
	for _, a := range attrs {
		if !brick.IsGFID2Path(a) {
			continue
		}
		n, errno := h.getxattr(a, buf[:])
		if errno != 0 {
			continue // removed meanwhile, or nothing we wrote
		}
		parent, base, err := brick.ParseGFID2Path(buf[:n])
		if err != nil || !validBase(parent, base) {
			continue
		}
		d, errno := t.dir(parent)
		if errno == syscall.ENOENT {
			continue
		}
		if errno != 0 {
			return nil, errno
		}
		var there unix.Statx_t
		errno = d.at(base).statx(&there)
		t.dirs.release(d)
		if errno == 0 && sameInode(st, &there) {
			names = append(names, Name{parent, base})
		}
	}
	return names, 0
}
