package translator

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/marker"
)

// Parent is g's directory, for the marker.
func (t *Translator) Parent(g gfid.GFID) (gfid.GFID, bool) {
	if g == gfid.Root {
		return g, false
	}
	if in := t.table.findGFID(g); in != nil {
		if p, _ := t.table.where(in); p != nil {
			return p.gfid, true
		}
	}
	// Forgotten by the kernel, or a file that lost the name it was seen by.
	if parent, _, errno := t.b.ReadDirHandle(g); errno == 0 {
		return parent, true
	}
	parent, _, ok := t.anyName(g)
	return parent, ok
}

// OtherParents are the directories of g's other names, for the marker.
func (t *Translator) OtherParents(g gfid.GFID) (others []gfid.GFID) {
	// Of one that the kernel has forgotten since, only the brick can tell.
	if in := t.table.findGFID(g); in != nil && !in.linked.Load() {
		return nil
	}
	t.names(g, func(parent gfid.GFID, _ string) bool {
		others = append(others, parent)
		return true
	})
	return others
}

// anyName finds a name of the non-directory g by its gfid2path xattrs.
func (t *Translator) anyName(g gfid.GFID) (parent gfid.GFID, base string, ok bool) {
	t.names(g, func(p gfid.GFID, b string) bool {
		parent, base, ok = p, b, true
		return false
	})
	return parent, base, ok
}

// names calls found for the names of the non-directory g that its gfid2path
// xattrs tell, until it returns false.
func (t *Translator) names(g gfid.GFID, found func(parent gfid.GFID, base string) bool) {
	keys, errno := brick.GFID2Paths(t.b.Handles(), brick.HandlePath(g))
	if errno != 0 {
		return // gone
	}
	var buf [gfid.TextLen + 1 + unix.NAME_MAX]byte
	for _, key := range keys {
		n, errno := brick.Getxattr(t.b.Handles(), brick.HandlePath(g), key, buf[:])
		if errno != 0 {
			continue
		}
		if parent, base, err := brick.ParseGFID2Path(buf[:n]); err == nil && !found(parent, base) {
			return
		}
	}
}

// SetXtime writes g's xtime, for the marker, and hides the ctime this causes. It
// does not wait for who holds up a file, which may be for ever.
func (t *Translator) SetXtime(g gfid.GFID, at time.Time) error {
	err := t.setXtime(g, brick.StampOf(at).Bytes())
	if errors.Is(err, syscall.ESTALE) {
		err = marker.ErrBusy // it, or what it lies in, is being renamed
	}
	if errors.Is(err, syscall.ENOSPC) && t.hasSpace() {
		// ext4 has one block for all xattrs of an inode, and a user filled it.
		if !t.noRoom.Swap(true) {
			t.opts.Logger.Warn("a file has no room left for an xtime beside its other xattrs: only changelogs lead to its changes", "gfid", g)
		}
		return fs.ErrNotExist
	}
	// One that is busy is written by somebody, and touched again after a crash.
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, marker.ErrBusy) {
		t.owe()
	}
	return err
}

// hasSpace reports whether the brick's file system has blocks left.
func (t *Translator) hasSpace() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(t.b.Root(), &st) == nil && st.Bavail > 64
}

func (t *Translator) setXtime(g gfid.GFID, val []byte) error {
	in := t.table.findGFID(g)
	if in == nil {
		return t.setXtimeCold(g, val)
	}
	if !in.lockSoon() {
		return marker.ErrBusy
	}
	defer in.mu.Unlock()
	if in.nameless != 0 {
		return fs.ErrNotExist
	}
	if in.isWritten() {
		return t.setXtimeAside(in, val)
	}
	o, errno := t.object(in)
	if errno != 0 {
		return errno
	}
	defer o.release()
	return errnoErr(in.hidingCtime(o, func() syscall.Errno {
		return brick.SetOwnXattr(o.dirfd, o.name, t.xtimeKey, val, 0)
	}))
}

// setXtimeCold is SetXtime for what the kernel has forgotten.
func (t *Translator) setXtimeCold(g gfid.GFID, val []byte) error {
	if _, _, errno := t.b.ReadDirHandle(g); errno == 0 {
		fd, errno := t.b.OpenDir(g)
		if errno != 0 {
			return errno
		}
		defer brick.Close(fd)
		return errnoErr(brick.SetOwnXattr(fd, "", t.xtimeKey, val, 0))
	}
	var st Attr
	if t.b.StatHandle(g, &st) == 0 && st.Nlink == 1 {
		return fs.ErrNotExist // no name is left, and nobody has it open
	}
	return errnoErr(brick.SetOwnXattr(t.b.Handles(), brick.HandlePath(g), t.xtimeKey, val, 0))
}

func errnoErr(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func (t *Translator) rootXtime() (time.Time, error) {
	var buf [8]byte
	n, errno := brick.Getxattr(t.b.Root(), "", t.xtimeKey, buf[:])
	if errno == syscall.ENODATA {
		return time.Time{}, nil
	}
	if errno != 0 {
		return time.Time{}, fmt.Errorf("translator: xtime of the root: %w", errno)
	}
	s, err := brick.ParseStamp(buf[:n])
	if err != nil {
		return time.Time{}, fmt.Errorf("translator: xtime of the root: %w", err)
	}
	return s.Time(), nil
}
