package translator

import (
	"syscall"

	"github.com/georep/georep/brick"
)

// isHidden reports whether name in parent belongs to the brick and not to users.
func (t *Translator) isHidden(parent *Inode, name string) bool {
	return parent == t.table.root && name == brick.Dir
}

// Lookup finds name in parent, adds one to the references the kernel has to it,
// and fills st. What lacks a GFID gets one. ENOENT: there is no such name.
func (t *Translator) Lookup(parent *Inode, name string, st *Attr) (in *Inode, keep bool, errno syscall.Errno) {
	if t.isHidden(parent, name) {
		return nil, false, syscall.ENOENT
	}
	switch name {
	case ".":
		return t.again(parent, st)
	case "..":
		up, _ := t.table.where(parent)
		if up == nil {
			up = t.table.root
		}
		return t.again(up, st)
	}
	fd, errno := t.dirs.acquire(parent)
	if errno != 0 {
		return nil, false, errno
	}
	defer t.dirs.release(parent)
	return t.lookupAt(parent, fd, name, st)
}

// again is one more reference to an inode that is known, which is how file
// handles of NFS are resolved.
func (t *Translator) again(in *Inode, st *Attr) (*Inode, bool, syscall.Errno) {
	keep, errno := t.Getattr(in, st)
	if errno != 0 {
		return nil, false, errno
	}
	t.table.mu.Lock()
	in.nlookup++
	t.table.mu.Unlock()
	return in, keep, 0
}

func (t *Translator) lookupAt(parent *Inode, fd int, name string, st *Attr) (in *Inode, keep bool, errno syscall.Errno) {
	if errno := brick.Statx(fd, name, st); errno != 0 {
		return nil, false, errno
	}
	in, errno = t.identify(parent, fd, name, st, true)
	if errno != 0 {
		return nil, false, errno
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.isWritten() && in.open.setuid {
		t.checkSetuid(in)
		if errno := brick.Statx(fd, name, st); errno != 0 {
			return in, false, 0 // raced with its removal; what was seen stands
		}
	}
	t.show(in, st)
	return in, in.isSteady(), 0
}

// identify enters what was seen as name in parent, st, in the table, healing the
// brick at the first sight of it. known is as for table.enter.
func (t *Translator) identify(parent *Inode, fd int, name string, st *Attr, known bool) (*Inode, syscall.Errno) {
	g, errno := t.b.GFIDOf(fd, name)
	if errno == 0 {
		// An inode that is known needs no more checks: nobody else writes here.
		// A number that differs is another object with a copied GFID.
		if in := t.table.findGFID(g); in != nil && in.ino == st.Ino && in != t.table.root {
			return t.table.enter(seen{g, st.Ino, uint32(st.Mode)}, parent, name, known), 0
		}
	} else if errno != syscall.ENODATA {
		return nil, errno
	}
	before := *st
	g, healed, errno := t.b.Identify(fd, name, parent.gfid, st, &t.gfids)
	if errno != 0 {
		return nil, errno
	}
	if healed == brick.HealedCopy {
		t.opts.Logger.Warn("object bore the gfid of another one and got a fresh one", "gfid", g, "parent", parent.gfid, "name", name)
	}
	in := t.table.enter(seen{g, st.Ino, uint32(st.Mode)}, parent, name, known)
	if healed != brick.HealedNothing {
		in.mu.Lock()
		if errno := brick.Statx(fd, name, st); errno == 0 {
			in.hideCtime(&before, st)
		}
		in.mu.Unlock()
	}
	return in, 0
}

// Forget takes n references of the kernel away.
func (t *Translator) Forget(in *Inode, n uint64) {
	if in == t.table.root {
		return
	}
	if t.table.forget(in, n) {
		t.reap(in)
	}
}

// reap removes what an inode that left the table leaves behind: a descriptor, and
// the handle of one whose last name is gone.
func (t *Translator) reap(in *Inode) {
	if in.IsDir() {
		t.dirs.drop(in)
		return
	}
	if in.nameless == 0 {
		return
	}
	if errno := t.b.UnlinkHandle(in.gfid); errno != 0 && errno != syscall.ENOENT {
		t.opts.Logger.Warn("handle of a removed file not removed; georep brick check finds it", "gfid", in.gfid, "err", errno)
		return
	}
	if in.nameless > 1 {
		t.orphaned.remove(in.nameless - 2)
	}
}

// loseName notes that in has no name any more: its handle stays for those who
// have it open, and is entered on the brick so that a crash does not leave it
// for ever. The caller holds in.mu.
func (t *Translator) loseName(in *Inode) {
	slot, errno := t.orphaned.add(in.gfid)
	if errno != 0 {
		t.opts.Logger.Warn("set of nameless files is full; after a crash georep brick check finds the file", "gfid", in.gfid, "err", errno)
		slot = -1
	}
	in.nameless = slot + 2
}

// gainName undoes loseName: an open file without a name was given one.
func (t *Translator) gainName(in *Inode) {
	if in.nameless > 1 {
		t.orphaned.remove(in.nameless - 2)
	}
	in.nameless = 0
}

// forgetAll is the end of the mount: the kernel has no references any more.
func (t *Translator) forgetAll() {
	t.table.mu.RLock()
	defer t.table.mu.RUnlock()
	for _, in := range t.table.byID {
		if in.open != nil && in.open.watchFD >= 0 {
			brick.Close(in.open.watchFD)
			in.open.watchFD = -1
		}
		if in.nameless != 0 {
			t.reap(in)
		}
	}
}

// hasDefaultACL reports whether what is created in dir inherits an ACL, in which
// case the umask does not count.
func (t *Translator) hasDefaultACL(dir *Inode, fd int) bool {
	const unknown, none, some = 0, 1, 2
	switch dir.acl.Load() {
	case none:
		return false
	case some:
		return true
	}
	_, errno := brick.Getxattr(fd, "", xattrDefaultACL, nil)
	if errno == 0 {
		dir.acl.Store(some)
		return true
	}
	// A brick without ACLs says EOPNOTSUPP.
	dir.acl.Store(none)
	return false
}

// createMode is the mode to create with in dir.
func (t *Translator) createMode(dir *Inode, fd int, mode uint32, c Caller) uint32 {
	if c.Umask != 0 && !t.hasDefaultACL(dir, fd) {
		return mode &^ (c.Umask & 0o777)
	}
	return mode
}

// names of root's parts that a user could try to make.
func (t *Translator) mayMake(parent *Inode, name string) syscall.Errno {
	if t.isHidden(parent, name) {
		return syscall.EPERM
	}
	return 0
}
