package slave

import (
	"bytes"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

const aclPrefix = "system.posix_acl_"

// ReadMeta reads the attributes of name in the directory dirfd, or of dirfd
// itself if name is empty; with xattrs those that IsReplicated says yes to,
// sorted by name. It serves the master's brick as well.
func ReadMeta(dirfd int, name string, xattrs bool) (Attr, []Xattr, syscall.Errno) {
	i := inode{dirfd, name}
	var st unix.Statx_t
	if errno := i.statx(&st); errno != 0 {
		return Attr{}, nil, errno
	}
	a := attrOfStat(&st)
	if !xattrs {
		return a, nil, 0
	}
	x, errno := readXattrs(i)
	return a, x, errno
}

// readXattrs reads all replicated xattrs of i.
func readXattrs(i inode) ([]Xattr, syscall.Errno) {
	names, errno := listXattrs(i)
	if errno != 0 {
		return nil, errno
	}
	var xattrs []Xattr
	for _, name := range names {
		if !IsReplicated(name) {
			continue
		}
		value, errno := readXattr(i, name)
		if errno == syscall.ENODATA {
			continue // removed meanwhile
		}
		if errno != 0 {
			return nil, errno
		}
		xattrs = append(xattrs, Xattr{Name: name, Value: value})
	}
	slices.SortFunc(xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return xattrs, 0
}

func readXattr(i inode, name string) ([]byte, syscall.Errno) {
	var buf [256]byte
	n, errno := i.getxattr(name, buf[:])
	if errno == 0 {
		return bytes.Clone(buf[:n]), 0
	}
	for errno == syscall.ERANGE {
		if n, errno = i.getxattr(name, nil); errno != 0 {
			break
		}
		big := make([]byte, n+64)
		if n, errno = i.getxattr(name, big); errno == 0 {
			return big[:n], 0
		}
	}
	return nil, errno
}

// listXattrs lists the names of i's xattrs; none where there can be none.
func listXattrs(i inode) ([]string, syscall.Errno) {
	var small [1024]byte
	buf := small[:]
	n, errno := brick.Listxattr(i.fd, i.name, buf)
	for errno == syscall.ERANGE {
		if n, errno = brick.Listxattr(i.fd, i.name, nil); errno != 0 {
			break
		}
		buf = make([]byte, n+256)
		n, errno = brick.Listxattr(i.fd, i.name, buf)
	}
	if errno == syscall.EOPNOTSUPP {
		return nil, 0
	}
	if errno != 0 || n == 0 {
		return nil, errno
	}
	return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), 0
}

// setMeta makes the attributes of i, whose state is st, be m's; times come last.
// What is right already is not touched. fresh: i has no xattrs yet.
func setMeta(i inode, st *unix.Statx_t, m *Meta, fresh bool) *fault {
	chmod := uint32(st.Mode)&0o7777 != m.Mode&0o7777
	if st.Uid != m.UID || st.Gid != m.GID {
		if errno := i.chown(m.UID, m.GID); errno != 0 {
			return failed(errno, "chown")
		}
		chmod = true // chown clears setuid bits, and file capabilities before they are set below
	}
	if !m.KeepXattrs {
		acl, f := setXattrs(i, m.Xattrs, fresh)
		if f != nil {
			return f
		}
		chmod = chmod || acl // an ACL sets permission bits
	}
	if chmod && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if errno := i.chmod(m.Mode); errno != 0 {
			return failed(errno, "chmod")
		}
	}
	if fresh || st.Mtime.Sec != m.Mtime.Sec || st.Mtime.Nsec != m.Mtime.Nsec || !m.Atime.IsZero() {
		return failed(i.utimes(m.Atime, m.Mtime), "set times")
	}
	return nil
}

// setXattrs makes want be all replicated xattrs of i. acl: an ACL changed.
func setXattrs(i inode, want []Xattr, fresh bool) (acl bool, f *fault) {
	var have []Xattr
	if !fresh {
		var errno syscall.Errno
		if have, errno = readXattrs(i); errno != 0 {
			return false, failed(errno, "read xattrs")
		}
	}
	for _, h := range have {
		if slices.ContainsFunc(want, func(w Xattr) bool { return w.Name == h.Name }) {
			continue
		}
		if errno := brick.Removexattr(i.fd, i.name, h.Name); errno != 0 && errno != syscall.ENODATA {
			return acl, failed(errno, "remove xattr "+quote(h.Name))
		}
		acl = acl || strings.HasPrefix(h.Name, aclPrefix)
	}
	for _, w := range want {
		if slices.ContainsFunc(have, func(h Xattr) bool { return h.Name == w.Name && bytes.Equal(h.Value, w.Value) }) {
			continue
		}
		if errno := i.setxattr(w.Name, w.Value); errno != 0 {
			return acl, failed(errno, "set xattr "+quote(w.Name))
		}
		acl = acl || strings.HasPrefix(w.Name, aclPrefix)
	}
	return acl, nil
}

// checkMeta refuses what no honest peer sends.
func checkMeta(m *Meta) *fault {
	size := 0
	for _, x := range m.Xattrs {
		if !IsReplicated(x.Name) || len(x.Name) > 255 || strings.Contains(x.Name, "\x00") {
			return failed(syscall.EPERM, "xattr "+quote(x.Name))
		}
		size += len(x.Name) + len(x.Value)
	}
	if size > MaxXattrs {
		return failed(syscall.EMSGSIZE, "xattrs")
	}
	if m.Mtime.Nsec > 999_999_999 || m.Atime.Nsec > 999_999_999 {
		return failed(syscall.EINVAL, "times")
	}
	return nil
}

// setattr does Setattr.
func (t *tree) setattr(op *Op, res *Result) *fault {
	if op.Meta == nil {
		return failed(syscall.EINVAL, "no attributes")
	}
	i, st, d, f := t.find(op.GFID)
	if f != nil {
		return f
	}
	defer t.dirs.release(d)
	if !isRegular(st) {
		return setMeta(i, st, op.Meta, false)
	}
	l := readLeft(i)
	if l.changed(st) {
		return failed(syscall.EUCLEAN, "others changed the file")
	}
	if f := setMeta(i, st, op.Meta, false); f != nil {
		return f
	}
	return leave(i, l, l.busy && !op.End, res)
}

// find is the object g by the way its kind is reached: a directory by a
// descriptor, which the caller releases with d; anything else by its handle.
// ENOENT: the slave has no such GFID.
func (t *tree) find(g gfid.GFID) (i inode, st *unix.Statx_t, d *dir, f *fault) {
	st = new(unix.Statx_t)
	what := "gfid " + g.String()
	if errno := t.brick.StatHandle(g, st); errno != 0 {
		return i, nil, nil, failed(errno, what)
	}
	switch {
	case t.isObject(g):
		return t.handle(g), st, nil, nil
	case st.Mode&unix.S_IFMT != unix.S_IFLNK:
		// A handle without GFID is half made: it counts once it is done.
		return i, nil, nil, failed(syscall.ENOENT, what)
	}
	d, errno := t.dir(g)
	if errno != 0 {
		return i, nil, nil, failed(errno, what)
	}
	i = inode{fd: d.fd}
	errno = i.statx(st)
	if errno == 0 && st.Nlink == 0 { // others removed it while it was open
		t.dirs.forget(g)
		errno = syscall.ENOENT
	}
	if errno != 0 {
		t.dirs.release(d)
		return i, nil, nil, failed(errno, what)
	}
	return i, st, d, nil
}

// isObject reports whether g's handle is the inode of an object itself, and not
// the symlink that leads to a directory.
func (t *tree) isObject(g gfid.GFID) bool {
	h := t.handle(g)
	got, errno := t.brick.GFIDOf(h.fd, h.name)
	return errno == 0 && got == g
}
