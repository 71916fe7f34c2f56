package translator

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
)

// object is how to name an inode in a system call: relative to an open
// directory, or a directory itself by an empty name.
type object struct {
	dirfd int
	name  string
	dirs  *dirCache // with in: what to give back; nil for none
	in    *Inode
}

// object returns a name for in that no rename can change: a directory's own
// descriptor, or the handle of anything else.
func (t *Translator) object(in *Inode) (object, syscall.Errno) {
	if !in.IsDir() {
		return object{dirfd: t.b.Handles(), name: brick.HandlePath(in.gfid)}, 0
	}
	fd, errno := t.dirs.acquire(in)
	if errno != 0 {
		return object{}, errno
	}
	return object{dirfd: fd, dirs: t.dirs, in: in}, 0
}

func (o object) release() {
	if o.dirs != nil {
		o.dirs.release(o.in)
	}
}

func nanos(ts unix.StatxTimestamp) int64 { return ts.Sec*1e9 + int64(ts.Nsec) }

func timestamp(ns int64) unix.StatxTimestamp {
	sec, nsec := ns/1e9, ns%1e9
	if nsec < 0 {
		sec, nsec = sec-1, nsec+1e9
	}
	return unix.StatxTimestamp{Sec: sec, Nsec: uint32(nsec)}
}

// hidingCtime runs act, which changes an xattr of our own, so that users go on
// seeing the ctime from before. The caller holds mu.
func (in *Inode) hidingCtime(o object, act func() syscall.Errno) syscall.Errno {
	var before, after Attr
	if errno := brick.Statx(o.dirfd, o.name, &before); errno != 0 {
		return errno
	}
	if errno := act(); errno != 0 {
		return errno
	}
	if errno := brick.Statx(o.dirfd, o.name, &after); errno != 0 {
		return errno
	}
	in.hideCtime(&before, &after)
	return 0
}

// hideCtime remembers that the ctime of after is ours and that of before, or
// what that hid, is to be shown. The caller holds mu.
func (in *Inode) hideCtime(before, after *Attr) {
	shown := nanos(before.Ctime)
	if shown == in.hiddenCtime {
		shown = in.shownCtime
	}
	in.hiddenCtime, in.shownCtime = nanos(after.Ctime), shown
}

// show turns what the brick says into what users see: without the handle's link,
// without .glusterfs, with the ctime of the last change of theirs. The caller
// holds mu.
func (t *Translator) show(in *Inode, st *Attr) {
	switch {
	case in.typ != unix.S_IFDIR:
		in.linked.Store(st.Nlink > 2)
		if st.Nlink > 0 {
			st.Nlink--
		}
	case in == t.table.root && st.Nlink > 2:
		st.Nlink-- // for .glusterfs; a file system that does not count says 1
	}
	if c := nanos(st.Ctime); c == in.hiddenCtime && c != 0 {
		shown := in.shownCtime
		// A change of contents that fell between our two looks moved mtime too.
		if m := nanos(st.Mtime); m > shown && m <= c {
			shown = m
		}
		st.Ctime = timestamp(shown)
	}
}

// Getattr fills st for in, and says whether the kernel may keep it: not while
// somebody may write past us.
func (t *Translator) Getattr(in *Inode, st *Attr) (keep bool, errno syscall.Errno) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return t.getattr(in, st)
}

// getattr is Getattr for one who holds in.mu.
func (t *Translator) getattr(in *Inode, st *Attr) (keep bool, errno syscall.Errno) {
	t.checkSetuid(in)
	o, errno := t.object(in)
	if errno != 0 {
		return false, errno
	}
	defer o.release()
	if errno := brick.Statx(o.dirfd, o.name, st); errno != 0 {
		return false, errno
	}
	t.show(in, st)
	return in.isSteady(), 0
}

// Setattr is what a user wants changed. Nil pointers and false stand for what is
// not to change.
type Setattr struct {
	Mode     *uint32 // permission bits, setuid, setgid, sticky
	UID, GID *uint32
	Size     *uint64
	// Ftruncate says that Size came from ftruncate(2), which moves mtime even if
	// the size stays.
	Ftruncate bool
	// KillPriv clears setuid and setgid as a change by one without privileges
	// does.
	KillPriv     bool
	By           Caller
	Atime, Mtime *time.Time
	AtimeNow     bool
	MtimeNow     bool
}

func (s *Setattr) isMeta() bool {
	// An empty one is chown(-1, -1), which moves ctime.
	return s.Mode != nil || s.UID != nil || s.GID != nil || s.hasTimes() || s.Size == nil
}

func (s *Setattr) hasTimes() bool {
	return s.Atime != nil || s.Mtime != nil || s.AtimeNow || s.MtimeNow
}

// Setattr changes what s names and fills st with the result.
//
// Source: glusterfs posix-inode-fd-ops.c, posix_setattr.
func (t *Translator) Setattr(in *Inode, s *Setattr, st *Attr) (keep bool, errno syscall.Errno) {
	in.mu.Lock()
	defer in.mu.Unlock()
	o, errno := t.object(in)
	if errno != 0 {
		return false, errno
	}
	defer o.release()
	if s.Size != nil {
		r := &changelog.Record{Type: changelog.Data, GFID: in.gfid}
		if errno := t.actOnce(in, classData, r, func() syscall.Errno { return t.truncate(in, s) }); errno != 0 {
			return false, errno
		}
	}
	if s.isMeta() {
		if s.hasTimes() && in.isWritten() {
			// A time set back could hide writes past us that nobody looked at.
			in.open.owed, in.open.exposed = true, true
		}
		r := &changelog.Record{Type: changelog.Meta, GFID: in.gfid, Fop: changelog.FopSetattr}
		if errno := t.actOnce(in, classAttr, r, func() syscall.Errno { return t.setattr(in, o, s) }); errno != 0 {
			return false, errno
		}
	}
	if s.Mode != nil && *s.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		t.watchSetuid(in)
	}
	if errno := brick.Statx(o.dirfd, o.name, st); errno != 0 {
		return false, errno
	}
	t.show(in, st)
	return in.isSteady(), 0
}

// setattr changes owner, mode and times, in that order: a chown clears setuid
// and setgid, which a mode in the same request has the last word on.
func (t *Translator) setattr(in *Inode, o object, s *Setattr) syscall.Errno {
	if s.UID != nil || s.GID != nil || s.Mode == nil && !s.hasTimes() {
		uid, gid := -1, -1
		if s.UID != nil {
			uid = int(*s.UID)
		}
		if s.GID != nil {
			gid = int(*s.GID)
		}
		if errno := o.chownFor(s.By, uid, gid); errno != 0 {
			return errno
		}
	}
	if s.Mode != nil {
		if in.typ == unix.S_IFLNK {
			return syscall.EOPNOTSUPP
		}
		if errno := o.chmod(*s.Mode); errno != 0 {
			return errno
		}
	}
	if s.hasTimes() {
		return o.utimens(timespec(s.Atime, s.AtimeNow), timespec(s.Mtime, s.MtimeNow))
	}
	return 0
}

func timespec(at *time.Time, now bool) unix.Timespec {
	switch {
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case at != nil:
		return unix.Timespec{Sec: at.Unix(), Nsec: int64(at.Nanosecond())}
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}

func errnoOf(err error) syscall.Errno {
	switch e := err.(type) {
	case nil:
		return 0
	case syscall.Errno:
		return e
	}
	return syscall.EIO
}

func (o object) chown(uid, gid int) syscall.Errno {
	return errnoOf(unix.Fchownat(o.dirfd, o.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH))
}

// chownFor is chown with what depends on who asks.
func (o object) chownFor(c Caller, uid, gid int) syscall.Errno {
	var st Attr
	if errno := brick.Statx(o.dirfd, o.name, &st); errno != 0 {
		return errno
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return o.chown(uid, gid)
	}
	drop := c.drops(&st)
	if uid == -1 && gid == -1 && drop != 0 && c.UID != st.Uid && !c.capable(unix.CAP_FOWNER) {
		// Either chown(-1, -1), which would be EPERM because it changes the mode of
		// another's file, or the kernel before a write of one who may write there.
		// The write says itself what it clears.
		return 0
	}
	if errno := o.chown(uid, gid); errno != 0 {
		return errno
	}
	// Ours is one who may keep setgid on a file that its group can't execute.
	if drop&unix.S_ISGID != 0 && st.Mode&unix.S_IXGRP == 0 {
		return o.chmod(uint32(st.Mode) & 0o7777 &^ drop)
	}
	return 0
}

// chmod is never called for a symlink, so following the last component is safe.
func (o object) chmod(mode uint32) syscall.Errno {
	if o.name == "" {
		return errnoOf(unix.Fchmod(o.dirfd, mode))
	}
	return errnoOf(unix.Fchmodat(o.dirfd, o.name, mode, 0))
}

func (o object) utimens(atime, mtime unix.Timespec) syscall.Errno {
	ts := [2]unix.Timespec{atime, mtime}
	if o.name == "" {
		return errnoOf(unix.UtimesNanoAt(o.dirfd, ".", ts[:], 0))
	}
	return errnoOf(unix.UtimesNanoAt(o.dirfd, o.name, ts[:], unix.AT_SYMLINK_NOFOLLOW))
}

// killPriv clears setuid and setgid as a change of contents by c does, who has no
// CAP_FSETID. Capabilities of the file go by themselves when we change it. The
// caller holds in.mu.
func (t *Translator) killPriv(in *Inode, c Caller) syscall.Errno {
	h, name := t.b.Handles(), brick.HandlePath(in.gfid)
	var st Attr
	if errno := brick.Statx(h, name, &st); errno != 0 {
		return errno
	}
	drop := c.drops(&st)
	if drop == 0 {
		return 0
	}
	return errnoOf(unix.Fchmodat(h, name, uint32(st.Mode)&0o7777&^drop, 0))
}

// killPrivUnlessCapable is killPriv where the kernel does not tell whether it is
// called for. The caller holds in.mu.
func (t *Translator) killPrivUnlessCapable(in *Inode, c Caller) syscall.Errno {
	var st Attr
	if errno := t.b.StatHandle(in.gfid, &st); errno != 0 {
		return errno
	}
	if st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 || c.capable(unix.CAP_FSETID) {
		return 0
	}
	return t.killPriv(in, c)
}

// Statfs fills st for the brick's file system.
func (t *Translator) Statfs(st *unix.Statfs_t) syscall.Errno {
	return errnoOf(unix.Fstatfs(t.b.Root(), st))
}
