package translator

import (
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// victim is what a name to be removed or replaced stands for.
type victim struct {
	in    *Inode // pinned until release
	links uint32 // of a non-directory, its handle's among them; set by count
}

// victimAt finds what name in parent stands for. The kernel has looked it up, so
// its GFID alone tells as a rule.
func (t *Translator) victimAt(parent *Inode, pfd int, name string) (v victim, errno syscall.Errno) {
	g, errno := t.b.GFIDOf(pfd, name)
	if errno == 0 {
		if v.in = t.table.pinGFID(g); v.in != nil {
			return v, 0
		}
	} else if errno != syscall.ENODATA {
		return v, errno
	}
	var st Attr
	if errno := brick.Statx(pfd, name, &st); errno != 0 {
		return v, errno
	}
	v.in, errno = t.identify(parent, pfd, name, &st, false)
	return v, errno
}

// count looks how many links v has. The caller holds v.in.mu, under which names
// neither come nor go.
func (t *Translator) count(v *victim) syscall.Errno {
	if v.in.IsDir() {
		return 0
	}
	var st Attr
	errno := t.b.StatHandle(v.in.gfid, &st)
	v.links = st.Nlink
	return errno
}

// hasOneName reports whether a file has one name; its handle is another link.
func (v *victim) hasOneName() bool { return !v.in.IsDir() && v.links <= 2 }

// removing runs act, which takes the name of v in parent away, and notes what
// that means: a file's last name makes it nameless, a directory's makes it gone.
// The caller holds v.in.mu.
func (t *Translator) removing(v *victim, parent *Inode, name string, act func() syscall.Errno) syscall.Errno {
	// Before the act: a crash right after it must not leave a handle for ever.
	last := v.hasOneName()
	if last {
		t.loseName(v.in)
	}
	if errno := act(); errno != 0 {
		if last {
			t.gainName(v.in)
		}
		return errno
	}
	t.lostName(v, parent, name)
	return 0
}

func (t *Translator) lostName(v *victim, parent *Inode, name string) {
	t.table.displace(v.in, parent, name)
	if t.marker != nil && (v.in.IsDir() || v.hasOneName()) {
		t.marker.Drop(v.in.gfid)
	}
	switch {
	case v.in.IsDir():
		t.dirs.pin(v.in)
		if errno := t.b.UnlinkHandle(v.in.gfid); errno != 0 && errno != syscall.ENOENT {
			t.opts.Logger.Warn("handle of a removed directory not removed; georep brick check finds it", "gfid", v.in.gfid, "err", errno)
		}
	case !v.hasOneName():
		key, _ := brick.GFID2Path(parent.gfid, name)
		errno := brick.Removexattr(t.b.Handles(), brick.HandlePath(v.in.gfid), key)
		if errno != 0 && errno != syscall.ENODATA {
			t.opts.Logger.Warn("gfid2path of a removed name not removed; georep brick check finds it", "gfid", v.in.gfid, "err", errno)
		}
	}
}

// Unlink removes the name of a non-directory.
func (t *Translator) Unlink(parent *Inode, name string) syscall.Errno {
	return t.remove(parent, name, changelog.FopUnlink, 0)
}

// Rmdir removes an empty directory.
func (t *Translator) Rmdir(parent *Inode, name string) syscall.Errno {
	return t.remove(parent, name, changelog.FopRmdir, unix.AT_REMOVEDIR)
}

func (t *Translator) remove(parent *Inode, name string, fop changelog.Fop, flags int) syscall.Errno {
	if t.isHidden(parent, name) {
		return syscall.ENOENT
	}
	pfd, errno := t.dirs.acquire(parent)
	if errno != 0 {
		return errno
	}
	defer t.dirs.release(parent)
	v, errno := t.victimAt(parent, pfd, name)
	if errno != 0 {
		return errno
	}
	defer t.unpin(v.in)
	if v.in.IsDir() {
		// Who is in the directory goes on through the descriptor: it has no
		// name to open it by any more.
		if _, errno := t.dirs.acquire(v.in); errno != 0 {
			return errno
		}
		defer t.dirs.release(v.in)
	}
	r := &changelog.Record{
		Type: changelog.Entry, GFID: v.in.gfid, Fop: fop,
		Entry: changelog.Name{Parent: parent.gfid, Base: name}, DelPath: t.delPath(parent, name),
	}
	v.in.mu.Lock()
	defer v.in.mu.Unlock()
	if errno := t.count(&v); errno != 0 {
		return errno
	}
	return t.act(r, func() syscall.Errno {
		return t.removing(&v, parent, name, func() syscall.Errno { return errnoOf(unix.Unlinkat(pfd, name, flags)) })
	}, parent.gfid)
}

// Rename moves oldName in oldParent to newName in newParent. flags are those of
// renameat2(2).
//
// Source: glusterfs posix-entry-ops.c, posix_rename; changelog.c,
// changelog_rename_cbk, but for file renames, which are always recorded.
func (t *Translator) Rename(oldParent *Inode, oldName string, newParent *Inode, newName string, flags uint32) syscall.Errno {
	if t.isHidden(oldParent, oldName) {
		return syscall.ENOENT
	}
	if errno := t.mayMake(newParent, newName); errno != 0 {
		return errno
	}
	ofd, errno := t.dirs.acquire(oldParent)
	if errno != 0 {
		return errno
	}
	defer t.dirs.release(oldParent)
	nfd, errno := t.dirs.acquire(newParent)
	if errno != 0 {
		return errno
	}
	defer t.dirs.release(newParent)
	src, errno := t.victimAt(oldParent, ofd, oldName)
	if errno != 0 {
		return errno
	}
	defer t.unpin(src.in)
	dst, errno := t.victimAt(newParent, nfd, newName)
	switch {
	case errno == syscall.ENOENT && flags&unix.RENAME_EXCHANGE == 0:
		dst.in = nil
	case errno != 0:
		return errno
	default:
		defer t.unpin(dst.in)
		if dst.in == src.in && flags&unix.RENAME_NOREPLACE == 0 {
			return 0 // two names of one file: rename(2) does nothing
		}
		if dst.in.IsDir() && flags&unix.RENAME_EXCHANGE == 0 {
			if _, errno := t.dirs.acquire(dst.in); errno != 0 {
				return errno
			}
			defer t.dirs.release(dst.in)
		}
		if dst.in != src.in {
			defer lockBoth(src.in, dst.in)()
		} else {
			src.in.mu.Lock()
			defer src.in.mu.Unlock()
		}
		if errno := t.count(&dst); errno != 0 {
			return errno
		}
	}
	if dst.in == nil {
		src.in.mu.Lock()
		defer src.in.mu.Unlock()
	}
	m := move{t, src, dst, oldParent, newParent, oldName, newName, ofd, nfd, flags}
	if flags&unix.RENAME_EXCHANGE != 0 {
		return m.exchange()
	}
	return m.move()
}

// lockBoth locks two inodes, the one with the smaller GFID first, and returns
// what unlocks them.
func lockBoth(a, b *Inode) func() {
	if a.gfid.Compare(b.gfid) > 0 {
		a, b = b, a
	}
	a.mu.Lock()
	b.mu.Lock()
	return func() { b.mu.Unlock(); a.mu.Unlock() }
}

// move is a rename with all it needs found and locked.
type move struct {
	t                    *Translator
	src, dst             victim // dst.in is nil when the new name is free
	oldParent, newParent *Inode
	oldName, newName     string
	ofd, nfd             int
	flags                uint32
}

func (m *move) record(g gfid.GFID, from, to changelog.Name) *changelog.Record {
	return &changelog.Record{Type: changelog.Entry, GFID: g, Fop: changelog.FopRename, Entry: from, NewEntry: to}
}

func (m *move) names() (from, to changelog.Name) {
	return changelog.Name{Parent: m.oldParent.gfid, Base: m.oldName}, changelog.Name{Parent: m.newParent.gfid, Base: m.newName}
}

func (m *move) rename() syscall.Errno {
	return errnoOf(unix.Renameat2(m.ofd, m.oldName, m.nfd, m.newName, uint(m.flags)))
}

func (m *move) move() syscall.Errno {
	t := m.t
	from, to := m.names()
	records := []*changelog.Record{m.record(m.src.in.gfid, from, to)}
	if m.dst.in != nil {
		// For a crash behind the act: what the new name stood for has lost it.
		gone := &changelog.Record{Type: changelog.Entry, GFID: m.dst.in.gfid, Fop: changelog.FopUnlink, Entry: to}
		if m.dst.in.IsDir() {
			gone.Fop = changelog.FopRmdir
		}
		records = append(records, gone)
	}
	recorded := 1
	touched := []gfid.GFID{m.src.in.gfid, m.oldParent.gfid, m.newParent.gfid}
	if m.flags&unix.RENAME_WHITEOUT != 0 {
		left := &changelog.Record{Type: changelog.Entry, GFID: t.gfids.Next(), Fop: changelog.FopMknod, Mode: unix.S_IFCHR, Entry: from}
		records = slices.Insert(records, 1, left)
		recorded = 2
		touched = append(touched, left.GFID)
	}
	return t.actTwice(records, recorded, func() syscall.Errno {
		drop, errno := m.stage()
		if errno != 0 {
			return errno
		}
		act := m.rename
		if m.dst.in != nil {
			act = func() syscall.Errno { return t.removing(&m.dst, m.newParent, m.newName, m.rename) }
		}
		if errno := act(); errno != 0 {
			drop()
			return errno
		}
		t.relocate(m.src.in, m.oldParent, m.oldName, m.newParent, m.newName)
		if m.flags&unix.RENAME_WHITEOUT != 0 {
			m.adornWhiteout(records[1])
		}
		return 0
	}, touched...)
}

// exchange swaps two names: two renames for those who read the changelog.
func (m *move) exchange() syscall.Errno {
	t := m.t
	from, to := m.names()
	both := []*changelog.Record{m.record(m.src.in.gfid, from, to), m.record(m.dst.in.gfid, to, from)}
	return t.actTwice(both, 2, func() syscall.Errno {
		drop, errno := m.stage()
		if errno != 0 {
			return errno
		}
		if errno := m.rename(); errno != 0 {
			drop()
			return errno
		}
		t.relocate(m.src.in, m.oldParent, m.oldName, m.newParent, m.newName)
		t.relocate(m.dst.in, m.newParent, m.newName, m.oldParent, m.oldName)
		return 0
	}, m.src.in.gfid, m.dst.in.gfid, m.oldParent.gfid, m.newParent.gfid)
}

// stage prepares for directories to move: what that takes of the disk is taken
// before anything has moved. It returns what undoes it.
func (m *move) stage() (drop func(), errno syscall.Errno) {
	var staged []gfid.GFID
	drop = func() {
		for _, g := range staged {
			m.t.b.DropDirHandle(g)
		}
	}
	from, to := m.names()
	stage := func(in *Inode, at changelog.Name) {
		if in.IsDir() && errno == 0 {
			if errno = m.t.b.StageDirHandle(in.gfid, at.Parent, at.Base); errno == 0 {
				staged = append(staged, in.gfid)
			}
		}
	}
	stage(m.src.in, to)
	if m.flags&unix.RENAME_EXCHANGE != 0 {
		stage(m.dst.in, from)
	}
	if errno != 0 {
		drop()
	}
	return drop, errno
}

// relocate makes what the brick says of in's place true after it moved.
func (t *Translator) relocate(in, oldParent *Inode, oldName string, newParent *Inode, newName string) {
	t.table.move(in, newParent, newName)
	if in.IsDir() {
		if errno := t.b.CommitDirHandle(in.gfid); errno != 0 {
			t.opts.Logger.Error("handle of a renamed directory not moved; the next lookup after a restart heals it", "gfid", in.gfid, "err", errno)
		}
		return
	}
	h := brick.HandlePath(in.gfid)
	oldKey, _ := brick.GFID2Path(oldParent.gfid, oldName)
	newKey, val := brick.GFID2Path(newParent.gfid, newName)
	errno := brick.Removexattr(t.b.Handles(), h, oldKey)
	if errno == 0 || errno == syscall.ENODATA {
		errno = brick.Setxattr(t.b.Handles(), h, newKey, val, 0)
	}
	if errno != 0 {
		t.opts.Logger.Warn("gfid2path of a renamed file not moved; georep brick check finds it", "gfid", in.gfid, "err", errno)
	}
}

// adornWhiteout gives the device that RENAME_WHITEOUT left under the old name
// what any object has, and r says.
func (m *move) adornWhiteout(r *changelog.Record) {
	var st Attr
	if errno := m.t.adorn(m.oldParent, m.ofd, m.oldName, -1, r.GFID, r.Mode, &st); errno != 0 {
		m.t.opts.Logger.Error("whiteout without a gfid; the next lookup heals it", "name", m.oldName, "err", errno)
	}
}
