package translator

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// outcome is what the brick tells of a change that was intended.
type outcome uint8

const (
	undone outcome = iota
	done
	// unknown: a directory is not where its handle says. It may have been moved by
	// another intent that is not dealt with yet, or be gone.
	unknown
)

// redoIntents records what intents left and the brick shows to have happened,
// and finishes what was half done of it.
//
// Two fops may have been under way in one tree, one of them moving a directory
// above the other's: it is found again once the first is dealt with. So intents
// are tried until none gets further, and then directories not found are gone.
func (t *Translator) redoIntents(left [][]changelog.Record) error {
	for final := false; len(left) > 0; {
		var later [][]changelog.Record
		for _, rs := range left {
			settled, err := t.redo(rs, final)
			if err != nil {
				return err
			}
			if !settled {
				later = append(later, rs)
			}
		}
		final = len(later) == len(left)
		left = later
	}
	return nil
}

// redo deals with one intent. settled is false when it is to be tried again,
// which it is not when this is the final try.
func (t *Translator) redo(rs []changelog.Record, final bool) (settled bool, err error) {
	var happened []*changelog.Record
	for i := range rs {
		r := &rs[i]
		displaced := i > 0 && (r.Fop == changelog.FopUnlink || r.Fop == changelog.FopRmdir)
		if displaced && len(happened) == 0 {
			break // the rename did not happen
		}
		o, errno := t.outcome(r)
		switch {
		case errno != 0:
			// When in doubt, record: who reads it looks at the brick.
			t.opts.Logger.Warn("can't tell whether a fop happened that a crash interrupted; it is recorded", "fop", r.Fop, "gfid", r.GFID, "err", errno)
			o = done
		case o == unknown && !final:
			return false, nil
		case o == unknown && (r.Fop == changelog.FopUnlink || r.Fop == changelog.FopRmdir):
			o = done // with its directory
		}
		if o == done && !displaced {
			happened = append(happened, r)
		}
	}
	for _, r := range happened {
		if _, err := t.log.Append(r); err != nil {
			return false, fmt.Errorf("translator: recover %s of %v: %w", r.Fop, r.GFID, err)
		}
		t.touchRecord(r)
	}
	return true, nil
}

// outcome finds out whether r's change happened, and finishes it if it did.
func (t *Translator) outcome(r *changelog.Record) (outcome, syscall.Errno) {
	if r.Type != changelog.Entry {
		return done, 0 // it can't be seen
	}
	switch r.Fop {
	case changelog.FopUnlink, changelog.FopRmdir:
		return t.isRemoved(r)
	case changelog.FopRename:
		return t.isRenamed(r)
	case changelog.FopLink:
		o, _, errno := t.isNamed(r.Entry, r.GFID)
		return o, errno
	}
	return t.finishCreation(r)
}

// openParent opens n's directory; unknown if it is not where its handle says.
func (t *Translator) openParent(n changelog.Name) (fd int, o outcome, errno syscall.Errno) {
	fd, errno = t.b.OpenDir(n.Parent)
	switch errno {
	case 0:
		return fd, done, 0
	case syscall.ENOENT, syscall.ESTALE, syscall.ENOTDIR, syscall.EINVAL, syscall.ELOOP:
		return -1, unknown, 0
	}
	return -1, unknown, errno
}

// isNamed reports whether n stands for g, and as what type, and gives a name the
// gfid2path that a crash may have kept from it.
func (t *Translator) isNamed(n changelog.Name, g gfid.GFID) (o outcome, typ uint16, errno syscall.Errno) {
	fd, o, errno := t.openParent(n)
	if o != done {
		return o, 0, errno
	}
	defer brick.Close(fd)
	var st Attr
	if errno := brick.Statx(fd, n.Base, &st); errno != 0 {
		return undone, 0, ignore(errno, syscall.ENOENT)
	}
	has, errno := t.b.GFIDOf(fd, n.Base)
	if errno != 0 || has != g {
		return undone, 0, ignore(errno, syscall.ENODATA)
	}
	typ = st.Mode & unix.S_IFMT
	if typ == unix.S_IFDIR {
		return done, typ, 0
	}
	return done, typ, t.addPath(fd, n)
}

// addPath gives the name n, of a non-directory in the directory behind fd, its
// gfid2path if there is room.
func (t *Translator) addPath(fd int, n changelog.Name) syscall.Errno {
	key, val := brick.GFID2Path(n.Parent, n.Base)
	return ignore(brick.Setxattr(fd, n.Base, key, val, 0), syscall.ENOSPC, syscall.EDQUOT, syscall.E2BIG)
}

// ignore is errno unless it is one of those that don't matter.
func ignore(errno syscall.Errno, not ...syscall.Errno) syscall.Errno {
	for _, n := range not {
		if errno == n {
			return 0
		}
	}
	return errno
}

// isRemoved reports whether the name of r is gone, or stands for another object,
// and removes what hung on it.
func (t *Translator) isRemoved(r *changelog.Record) (outcome, syscall.Errno) {
	o, _, errno := t.isNamed(r.Entry, r.GFID)
	switch {
	case errno != 0 || o == unknown:
		return o, errno
	case o == done:
		return undone, 0
	case r.Fop == changelog.FopRmdir:
		return done, t.removeDirHandle(r.GFID, r.Entry)
	}
	t.dropName(r.GFID, r.Entry)
	t.removeOrphan(r.GFID)
	return done, 0
}

// removeDirHandle removes g's handle if it says that g is at n.
func (t *Translator) removeDirHandle(g gfid.GFID, n changelog.Name) syscall.Errno {
	parent, base, errno := t.b.ReadDirHandle(g)
	if errno != 0 || parent != n.Parent || base != n.Base {
		return 0
	}
	return ignore(t.b.UnlinkHandle(g), syscall.ENOENT)
}

// dropName removes the gfid2path that says that n is a name of g.
func (t *Translator) dropName(g gfid.GFID, n changelog.Name) {
	key, _ := brick.GFID2Path(n.Parent, n.Base)
	// Of no use to anybody if it stays, and georep brick check finds it.
	_ = brick.Removexattr(t.b.Handles(), brick.HandlePath(g), key)
}

// removeOrphan removes the handle of a file if it is its only link, and says so. A symlink
// that has no GFID of its own is the handle of a directory.
func (t *Translator) removeOrphan(g gfid.GFID) bool {
	var st Attr
	if t.b.StatHandle(g, &st) != 0 || st.Nlink != 1 {
		return false
	}
	if has, errno := t.b.GFIDOf(t.b.Handles(), brick.HandlePath(g)); errno != 0 || has != g {
		return false
	}
	if errno := t.b.UnlinkHandle(g); errno != 0 {
		t.opts.Logger.Warn("handle of a removed file not removed; georep brick check finds it", "gfid", g, "err", errno)
		return false
	}
	return true
}

// isRenamed reports whether r's new name stands for its GFID, and makes the
// handle or the gfid2path say so.
func (t *Translator) isRenamed(r *changelog.Record) (outcome, syscall.Errno) {
	o, typ, errno := t.isNamed(r.NewEntry, r.GFID)
	if errno != 0 || o != done {
		return o, errno
	}
	if typ == unix.S_IFDIR {
		return done, t.b.SymlinkHandle(r.GFID, r.NewEntry.Parent, r.NewEntry.Base)
	}
	if still, _, errno := t.isNamed(r.Entry, r.GFID); errno == 0 && still != done {
		t.dropName(r.GFID, r.Entry)
	}
	return done, 0
}

// finishCreation reports whether r's name was made, and gives what was made what
// the crash kept from it, or takes away what a failed creation left.
func (t *Translator) finishCreation(r *changelog.Record) (outcome, syscall.Errno) {
	fd, o, errno := t.openParent(r.Entry)
	if o != done {
		return o, errno
	}
	defer brick.Close(fd)
	base := r.Entry.Base
	var st Attr
	errno = brick.Statx(fd, base, &st)
	if errno == syscall.ENOENT {
		t.removeOrphan(r.GFID)
		return undone, t.removeDirHandle(r.GFID, r.Entry)
	}
	if errno != 0 {
		return undone, errno
	}
	has, errno := t.b.GFIDOf(fd, base)
	if errno == syscall.ENODATA {
		has, errno = r.GFID, brick.Setxattr(fd, base, brick.XattrGFID, r.GFID[:], unix.XATTR_CREATE)
	}
	if errno != 0 || has != r.GFID {
		return undone, errno
	}
	_, _, errno = t.b.Identify(fd, base, r.Entry.Parent, &st, &t.gfids)
	if errno != 0 || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return done, errno
	}
	return done, t.addPath(fd, r.Entry)
}
