package translator

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// leftovers is what a process before this one left in shared memory, which a
// clean stop leaves empty.
type leftovers struct {
	intents []changelog.Record
	writers []member
	orphans []member
}

// recover records what a killed process could not.
//
//   - An intent whose act happened is recorded; a creation that got half way is
//     finished, so that it has the GFID of its record.
//   - A file that was open for writing counts as changed. One that somebody still
//     has open or mapped, past us, is watched until they end.
//   - A file that had lost its last name is removed.
//
// Each leaves the shared memory only once it was dealt with, so a second crash in
// the middle repeats the rest.
func (t *Translator) recover(left leftovers) error {
	for i := range left.intents {
		if err := t.recoverIntent(&left.intents[i]); err != nil {
			return err
		}
	}
	t.intents.clear()
	if err := t.recoverWriters(left.writers); err != nil {
		return err
	}
	for _, m := range left.orphans {
		t.removeOrphan(m.gfid)
		t.orphaned.remove(m.slot)
	}
	if n := len(left.intents) + len(left.writers) + len(left.orphans); n > 0 {
		t.opts.Logger.Info("recovered from an unclean stop", "intents", len(left.intents), "writers", len(left.writers), "nameless", len(left.orphans))
	}
	return nil
}

func (t *Translator) recoverIntent(r *changelog.Record) error {
	happened := true
	var errno syscall.Errno
	if r.Type == changelog.Entry {
		switch r.Fop {
		case changelog.FopUnlink, changelog.FopRmdir:
			happened, errno = t.isRemoved(r)
		case changelog.FopRename:
			happened, errno = t.isRenamed(r)
		case changelog.FopLink:
			happened, errno = t.isNamed(r.Entry, r.GFID)
		default:
			happened, errno = t.finishCreation(r)
		}
	}
	if errno != 0 {
		return fmt.Errorf("translator: recover %s of %v: %w", r.Fop, r.GFID, errno)
	}
	if !happened {
		return nil
	}
	if _, err := t.log.Append(r); err != nil {
		return fmt.Errorf("translator: recover %s of %v: %w", r.Fop, r.GFID, err)
	}
	t.touchRecord(r)
	return nil
}

// at calls f with a descriptor of n's directory. A directory that is gone is
// errGone.
func (t *Translator) at(n changelog.Name, f func(dirfd int) syscall.Errno) syscall.Errno {
	fd, errno := t.b.OpenDir(n.Parent)
	if errno != 0 {
		return errno
	}
	defer brick.Close(fd)
	return f(fd)
}

// isNamed reports whether n stands for g, and gives the name the gfid2path that
// a crash may have kept from it.
func (t *Translator) isNamed(n changelog.Name, g gfid.GFID) (bool, syscall.Errno) {
	named := false
	errno := t.at(n, func(fd int) syscall.Errno {
		var st Attr
		if errno := brick.Statx(fd, n.Base, &st); errno != 0 {
			return errno
		}
		has, errno := t.b.GFIDOf(fd, n.Base)
		if errno == syscall.ENODATA {
			return 0
		}
		if named = errno == 0 && has == g; !named || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return errno
		}
		key, val := brick.GFID2Path(n.Parent, n.Base)
		return brick.Setxattr(fd, n.Base, key, val, 0)
	})
	return named, ignoreGone(errno)
}

func ignoreGone(errno syscall.Errno) syscall.Errno {
	switch errno {
	case syscall.ENOENT, syscall.ESTALE, syscall.ENOTDIR:
		return 0
	}
	return errno
}

// isRemoved reports whether the name of r is gone, or stands for another object,
// and removes what hung on it.
func (t *Translator) isRemoved(r *changelog.Record) (bool, syscall.Errno) {
	named, errno := t.isNamed(r.Entry, r.GFID)
	if errno != 0 || named {
		return false, errno
	}
	if r.Fop == changelog.FopRmdir {
		if parent, base, errno := t.b.ReadDirHandle(r.GFID); errno == 0 && parent == r.Entry.Parent && base == r.Entry.Base {
			return true, t.b.UnlinkHandle(r.GFID)
		}
		return true, 0
	}
	t.dropName(r.GFID, r.Entry)
	t.removeOrphan(r.GFID)
	return true, 0
}

// dropName removes the gfid2path that says that n is a name of g.
func (t *Translator) dropName(g gfid.GFID, n changelog.Name) {
	key, _ := brick.GFID2Path(n.Parent, n.Base)
	// Of no use to anybody if it stays, and georep brick check finds it.
	_ = brick.Removexattr(t.b.Handles(), brick.HandlePath(g), key)
}

// removeOrphan removes the handle of a file if it is its only link.
func (t *Translator) removeOrphan(g gfid.GFID) {
	var st Attr
	if t.b.StatHandle(g, &st) != 0 || st.Nlink != 1 || st.Mode&unix.S_IFMT == unix.S_IFLNK && t.isDirHandle(g) {
		return
	}
	if errno := t.b.UnlinkHandle(g); errno != 0 {
		t.opts.Logger.Warn("handle of a removed file not removed; georep brick check finds it", "gfid", g, "err", errno)
	}
}

// isDirHandle reports whether g's handle is the symlink of a directory.
func (t *Translator) isDirHandle(g gfid.GFID) bool {
	_, _, errno := t.b.ReadDirHandle(g)
	return errno == 0
}

// isRenamed reports whether r's new name stands for its GFID, and makes the
// handle or the gfid2path say so.
func (t *Translator) isRenamed(r *changelog.Record) (bool, syscall.Errno) {
	moved, errno := t.isNamed(r.NewEntry, r.GFID)
	if errno != 0 || !moved {
		return false, errno
	}
	if t.isDirHandle(r.GFID) {
		return true, t.b.SymlinkHandle(r.GFID, r.NewEntry.Parent, r.NewEntry.Base)
	}
	if still, errno := t.isNamed(r.Entry, r.GFID); errno == 0 && !still {
		t.dropName(r.GFID, r.Entry)
	}
	return true, 0
}

// finishCreation reports whether r's name was made, and gives what was made what
// the crash kept from it.
func (t *Translator) finishCreation(r *changelog.Record) (bool, syscall.Errno) {
	made := false
	errno := t.at(r.Entry, func(fd int) syscall.Errno {
		var st Attr
		if errno := brick.Statx(fd, r.Entry.Base, &st); errno != 0 {
			return errno
		}
		has, errno := t.b.GFIDOf(fd, r.Entry.Base)
		if errno == syscall.ENODATA {
			if errno = brick.Setxattr(fd, r.Entry.Base, brick.XattrGFID, r.GFID[:], unix.XATTR_CREATE); errno != 0 {
				return errno
			}
			has = r.GFID
		} else if errno != 0 {
			return errno
		}
		if made = has == r.GFID; !made {
			return 0
		}
		_, _, errno = t.b.Identify(fd, r.Entry.Base, r.Entry.Parent, &st, &t.gfids)
		if errno != 0 || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return errno
		}
		key, val := brick.GFID2Path(r.Entry.Parent, r.Entry.Base)
		return brick.Setxattr(fd, r.Entry.Base, key, val, 0)
	})
	return made, ignoreGone(errno)
}

// recoverWriters deals with the files that were open for writing. One may be
// there twice when the process died while it was entered.
func (t *Translator) recoverWriters(left []member) error {
	seen := make(map[gfid.GFID]bool, len(left))
	for _, m := range left {
		watched := false
		if !seen[m.gfid] {
			seen[m.gfid] = true
			var err error
			if watched, err = t.recoverWriter(m); err != nil {
				return fmt.Errorf("translator: recover writes to %v: %w", m.gfid, err)
			}
		}
		if !watched {
			t.writers.remove(m.slot)
		}
	}
	return nil
}

// recoverWriter records that m, which was open for writing, changed, and watches
// it if it still can change.
func (t *Translator) recoverWriter(m member) (watched bool, err error) {
	fd, errno := t.b.OpenHandle(m.gfid, unix.O_RDONLY)
	if errno != 0 {
		return false, nil // removed since
	}
	if _, err := t.log.Append(&changelog.Record{Type: changelog.Data, GFID: m.gfid}); err != nil {
		brick.Close(fd)
		return false, err
	}
	t.touch(m.gfid)
	var st Attr
	errno = brick.Fstatx(fd, &st)
	if errno != 0 || !hasWriter(fd) {
		brick.Close(fd)
		return false, errnoErr(errno)
	}
	t.opts.Logger.Warn("a process still writes to a file through a mount that is gone; it is watched until it ends", "gfid", m.gfid)
	in := t.table.enter(seen{m.gfid, st.Ino, uint32(st.Mode)}, nil, "", false)
	in.mu.Lock()
	errno = t.watch(in, fd, m.slot)
	in.mu.Unlock()
	t.unpin(in)
	if errno != 0 {
		brick.Close(fd)
	}
	return errno == 0, errnoErr(errno)
}
