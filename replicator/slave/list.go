package slave

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// listStep is how many entries go in one message.
const listStep = 512

// list calls fn with the entries of the directory g.
func (t *tree) list(g gfid.GFID, attrs bool, fn func([]Entry) error) error {
	d, errno := t.dir(g)
	if errno != 0 {
		return errno
	}
	defer t.dirs.release(d)
	f, errno := openList(d.fd)
	if errno != 0 {
		return errno
	}
	defer f.Close()
	for {
		names, err := f.ReadDir(listStep)
		entries := make([]Entry, 0, len(names))
		for _, n := range names {
			if e, ok := t.entry(d, n, attrs); ok {
				entries = append(entries, e)
			}
		}
		if err := fn(entries); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return listErrno(err)
		}
	}
}

// entry tells of one name of d, if it is to be listed.
func (t *tree) entry(d *dir, n fs.DirEntry, attrs bool) (e Entry, ok bool) {
	base := n.Name()
	if d.g == gfid.Root && base == brick.Dir {
		return e, false
	}
	if attrs || n.Type()&fs.ModeIrregular != 0 {
		o, errno := t.occupant(d, base)
		if o.free {
			return e, false
		}
		e = entryOfOccupant(&o)
		e.Errno = errno
	} else {
		e.Attr.Mode = typeBits(n.Type())
		var errno syscall.Errno
		if e.GFID, errno = t.brick.GFIDOf(d.fd, base); errno != 0 {
			e.GFID, e.Foreign = gfid.GFID{}, true
		}
		if errno == syscall.ENOENT {
			return e, false
		}
	}
	e.Base = base
	return e, !(e.Foreign && d.g == gfid.Root && base == lostFound)
}

// typeBits are the type bits of st_mode for m.
func typeBits(m fs.FileMode) uint32 {
	switch m.Type() {
	case fs.ModeDir:
		return unix.S_IFDIR
	case fs.ModeSymlink:
		return unix.S_IFLNK
	case fs.ModeNamedPipe:
		return unix.S_IFIFO
	case fs.ModeSocket:
		return unix.S_IFSOCK
	case fs.ModeDevice:
		return unix.S_IFBLK
	case fs.ModeDevice | fs.ModeCharDevice:
		return unix.S_IFCHR
	}
	return unix.S_IFREG
}

// nameless calls fn with the GFIDs that the orphans hold or note.
func (t *tree) nameless(fn func([]gfid.GFID) error) error {
	names, err := allNames(t.orphans)
	if err != nil {
		return err
	}
	found := make([]gfid.GFID, 0, len(names))
	for _, n := range names {
		i := inode{t.orphans, n}
		var st unix.Statx_t
		g, err := gfid.Parse(n)
		if err != nil || i.statx(&st) != 0 {
			continue
		}
		if !isDir(&st) {
			// One without handle is about to be made, or was destroyed half.
			if errno := t.brick.StatHandle(g, &st); errno == 0 && st.Nlink > 1 {
				if !t.readOnly {
					t.unnote(g) // a crash came before it could be taken back
				}
				continue
			}
		}
		found = append(found, g)
	}
	return fn(found)
}

// scanNameless calls fn with the GFIDs whose handles are all there is of them.
func (t *tree) scanNameless(fn func([]gfid.GFID) error) error {
	first, err := subdirs(t.brick.Handles())
	if err != nil {
		return err
	}
	var found []gfid.GFID
	for _, aa := range first {
		fd, errno := openDir(t.brick.Handles(), aa)
		if errno != 0 {
			return errno
		}
		second, err := subdirs(fd)
		for _, bb := range second {
			if err != nil {
				break
			}
			if found, err = t.namelessIn(fd, bb, found[:0]); err == nil && len(found) > 0 {
				err = fn(found)
			}
		}
		brick.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// subdirs are the names in dirfd that handle directories can have.
func subdirs(dirfd int) ([]string, error) {
	names, err := allNames(dirfd)
	kept := names[:0]
	for _, n := range names {
		if len(n) == 2 && strings.Trim(n, "0123456789abcdef") == "" {
			kept = append(kept, n)
		}
	}
	return kept, err
}

// namelessIn appends to found the nameless GFIDs in the handle directory bb.
func (t *tree) namelessIn(dirfd int, bb string, found []gfid.GFID) ([]gfid.GFID, error) {
	fd, errno := openDir(dirfd, bb)
	if errno != 0 {
		return found, errno
	}
	defer brick.Close(fd)
	names, err := allNames(fd)
	if err != nil {
		return found, err
	}
	for _, n := range names {
		g, err := gfid.Parse(n)
		if err != nil || g == gfid.Root {
			continue
		}
		var st unix.Statx_t
		if errno := (inode{fd, n}).statx(&st); errno != 0 {
			continue // destroyed meanwhile
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK && !t.isObject(g) {
			if p, errno := t.readPlace(g); errno == 0 && (p.orphan || !t.isElsewhere(g)) {
				found = append(found, g)
			}
		} else if st.Nlink == 1 {
			found = append(found, g)
		}
	}
	return found, nil
}

// conflictList calls fn with what is kept aside.
func (t *tree) conflictList(fn func(Conflict) error) error {
	names, err := allNames(t.conflicts)
	if err != nil {
		return err
	}
	for _, n := range names {
		var st unix.Statx_t
		if errno := (inode{t.conflicts, n}).statx(&st); errno != 0 {
			continue // taken away meanwhile
		}
		a := attrOfStat(&st)
		if err := fn(Conflict{Name: n, Mode: a.Mode, Size: a.Size, Mtime: a.Mtime}); err != nil {
			return err
		}
	}
	return nil
}

// listErrno is the errno in an error of package os.
func listErrno(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}
