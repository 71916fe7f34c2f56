package brick

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// Healed says what Identify had to mend.
type Healed uint8

const (
	HealedNothing Healed = iota
	HealedHandle         // the handle was missing or led elsewhere
	HealedGFID           // the object had no GFID
	HealedCopy           // the object bore another's GFID and got a fresh one
)

// Identify returns the GFID of name in dirfd, the directory parent, and gives it
// what it lacks: a GFID, a handle, for a non-directory a gfid2path. st is the
// object's. An object that bears the GFID of another one, as a copy with xattrs
// does, gets a fresh GFID.
//
// It is safe beside other calls for the same object: all agree on one GFID.
//
// Source: glusterfs posix-gfid-path.c, posix_gfid_heal; the rule for copies is
// ours.
func (b *Brick) Identify(dirfd int, name string, parent gfid.GFID, st *unix.Statx_t, src *gfid.Source) (g gfid.GFID, healed Healed, errno syscall.Errno) {
	errno = lifting(dirfd, name, func() (errno syscall.Errno) {
		var more Healed
		g, more, errno = b.identify(dirfd, name, parent, st, src)
		healed = max(healed, more)
		return errno
	})
	return g, healed, errno
}

func (b *Brick) identify(dirfd int, name string, parent gfid.GFID, st *unix.Statx_t, src *gfid.Source) (gfid.GFID, Healed, syscall.Errno) {
	g, errno := b.GFIDOf(dirfd, name)
	healed := HealedNothing
	switch {
	case errno == syscall.ENODATA:
		if g, errno = b.giveGFID(dirfd, name, src); errno != 0 {
			return g, HealedNothing, errno
		}
		healed = HealedGFID
	case errno != 0:
		return g, HealedNothing, errno
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return b.identifyDir(dirfd, name, parent, g, healed, src)
	}
	return b.identifyFile(dirfd, name, parent, g, healed, st, src)
}

// giveGFID sets a new GFID unless somebody else was first, whose then counts.
func (b *Brick) giveGFID(dirfd int, name string, src *gfid.Source) (gfid.GFID, syscall.Errno) {
	g := src.Next()
	errno := Setxattr(dirfd, name, XattrGFID, g[:], unix.XATTR_CREATE)
	if errno == syscall.EEXIST {
		return b.GFIDOf(dirfd, name)
	}
	return g, errno
}

func (b *Brick) identifyDir(dirfd int, name string, parent, g gfid.GFID, healed Healed, src *gfid.Source) (gfid.GFID, Healed, syscall.Errno) {
	p, base, errno := b.ReadDirHandle(g)
	switch {
	case errno == 0 && p == parent && base == name:
		return g, healed, 0
	case g == gfid.Root || errno == 0 && b.holdsDir(p, base, g) || errno != syscall.ENOENT && b.isObject(g):
		// The real owner of g stands where its handle says, or the handle is the
		// owner, which may have no other link.
		g = src.Next()
		if errno := Setxattr(dirfd, name, XattrGFID, g[:], unix.XATTR_REPLACE); errno != 0 {
			return g, HealedNothing, errno
		}
		healed = HealedCopy
	case errno != 0 && errno != syscall.ENOENT && errno != syscall.EINVAL:
		return g, HealedNothing, errno
	}
	if errno := b.SymlinkHandle(g, parent, name); errno != 0 {
		return g, HealedNothing, errno
	}
	return g, max(healed, HealedHandle), 0
}

func (b *Brick) identifyFile(dirfd int, name string, parent, g gfid.GFID, healed Healed, st *unix.Statx_t, src *gfid.Source) (gfid.GFID, Healed, syscall.Errno) {
	var h unix.Statx_t
	switch errno := b.StatHandle(g, &h); {
	case errno == 0 && h.Ino == st.Ino && h.Mode&unix.S_IFMT == st.Mode&unix.S_IFMT:
		// One link is the handle, so more than two mean more names than one.
		if healed == HealedNothing && st.Nlink <= 2 {
			return g, healed, 0
		}
		return g, healed, b.ensureGFID2Path(dirfd, name, parent)
	case errno == 0:
		g = src.Next()
		if errno := b.disown(dirfd, name, g); errno != 0 {
			return g, HealedNothing, errno
		}
		healed = HealedCopy
	case errno != syscall.ENOENT:
		return g, HealedNothing, errno
	}
	if errno := b.LinkHandle(dirfd, name, g); errno != 0 && errno != syscall.EEXIST {
		return g, HealedNothing, errno
	}
	return g, max(healed, HealedHandle), b.ensureGFID2Path(dirfd, name, parent)
}

// disown gives a copied non-directory the GFID g and takes the gfid2path xattrs
// away that came along with the copy.
func (b *Brick) disown(dirfd int, name string, g gfid.GFID) syscall.Errno {
	paths, errno := GFID2Paths(dirfd, name)
	if errno != 0 {
		return errno
	}
	for _, key := range paths {
		if errno := Removexattr(dirfd, name, key); errno != 0 && errno != syscall.ENODATA {
			return errno
		}
	}
	return Setxattr(dirfd, name, XattrGFID, g[:], unix.XATTR_REPLACE)
}

// ensureGFID2Path records that name in parent is a name of this object.
func (b *Brick) ensureGFID2Path(dirfd int, name string, parent gfid.GFID) syscall.Errno {
	key, val := GFID2Path(parent, name)
	_, errno := Getxattr(dirfd, name, key, nil)
	if errno == syscall.ENODATA {
		errno = Setxattr(dirfd, name, key, val, 0)
	}
	// An object with hundreds of names has no room for all, which GlusterFS
	// accepts too: the names that are there help, none is relied upon.
	if errno == syscall.ENOSPC || errno == syscall.E2BIG {
		errno = 0
	}
	return errno
}

// GFID2Paths lists the gfid2path keys of an object.
func GFID2Paths(dirfd int, name string) ([]string, syscall.Errno) {
	attrs, errno := ListAll(dirfd, name)
	if errno != 0 {
		return nil, errno
	}
	var keys []string
	for _, a := range attrs {
		if IsGFID2Path(a) {
			keys = append(keys, a)
		}
	}
	return keys, 0
}

// ListAll lists the keys of all xattrs of an object, ours included.
func ListAll(dirfd int, name string) ([]string, syscall.Errno) {
	buf := make([]byte, 1024)
	for {
		n, errno := Listxattr(dirfd, name, buf)
		if errno == syscall.ERANGE {
			if n, errno = Listxattr(dirfd, name, nil); errno == 0 {
				buf = make([]byte, n+256)
				continue
			}
		}
		if errno != 0 {
			return nil, errno
		}
		var keys []string
		for rest := buf[:n]; len(rest) > 0; {
			i := 0
			for i < len(rest) && rest[i] != 0 {
				i++
			}
			keys = append(keys, string(rest[:i]))
			rest = rest[min(i+1, len(rest)):]
		}
		return keys, 0
	}
}

// holdsDir reports whether the directory base in parent exists and is g.
func (b *Brick) holdsDir(parent gfid.GFID, base string, g gfid.GFID) bool {
	fd, errno := b.OpenDir(parent)
	if errno != 0 {
		return false
	}
	defer Close(fd)
	has, errno := b.GFIDOf(fd, base)
	return errno == 0 && has == g
}

// isObject reports whether g's handle is a link of an object, and not the symlink
// that is the handle of a directory: that one has no GFID of its own.
func (b *Brick) isObject(g gfid.GFID) bool {
	_, errno := b.GFIDOf(b.handles, HandlePath(g))
	return errno != syscall.ENODATA
}

// OpenDir opens the directory g for reading, by following handles up to the root
// and then opening one name after the other: no depth and no symlink stops it.
// ESTALE: what stands at that place is not g.
func (b *Brick) OpenDir(g gfid.GFID) (int, syscall.Errno) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	var names []string
	for at := g; at != gfid.Root; {
		parent, base, errno := b.ReadDirHandle(at)
		if errno != 0 {
			return -1, errno
		}
		if names = append(names, base); len(names) > maxDepth {
			return -1, syscall.ELOOP
		}
		at = parent
	}
	fd, errno := Openat(b.root, ".", flags, 0)
	for i := len(names) - 1; i >= 0 && errno == 0; i-- {
		var next int
		next, errno = Openat(fd, names[i], flags, 0)
		Close(fd)
		fd = next
	}
	if errno != 0 {
		return -1, errno
	}
	if has, errno := b.GFIDOf(fd, ""); errno != 0 || has != g {
		Close(fd)
		return -1, syscall.ESTALE
	}
	return fd, 0
}

// maxDepth bounds how many handles are followed upward, so that a circle made by
// a damaged brick ends.
const maxDepth = 1 << 16
