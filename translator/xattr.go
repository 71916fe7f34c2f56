package translator

import (
	"encoding/binary"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
)

// Xattrs that are computed, not stored.
//
// Source: glusterfs gfid-access.h, glusterfs.h.
const (
	xattrGFIDText    = "glusterfs.gfid.string"
	xattrGFIDRaw     = "glusterfs.gfid"
	xattrPath        = "glusterfs.gfid2path"
	xattrTriggerSync = "glusterfs.geo-rep.trigger-sync"

	xattrAccessACL  = "system.posix_acl_access"
	xattrDefaultACL = "system.posix_acl_default"
)

// Getxattr reads an xattr of in into buf and returns its size; an empty buf asks
// for the size only.
func (t *Translator) Getxattr(in *Inode, attr string, buf []byte) (int, syscall.Errno) {
	if strings.HasPrefix(attr, "glusterfs.") || attr == brick.XattrVolumeMark {
		val, errno := t.virtual(in, attr)
		if errno != 0 {
			return 0, errno
		}
		if len(buf) > 0 && len(buf) < len(val) {
			return len(val), syscall.ERANGE
		}
		copy(buf, val)
		return len(val), 0
	}
	if attr == t.xtimeKey && t.marker != nil {
		// The answer is what it will be after the next flush.
		if err := t.marker.Flush(); err != nil {
			return 0, syscall.EIO
		}
	}
	o, errno := t.object(in)
	if errno != 0 {
		return 0, errno
	}
	defer o.release()
	n, errno := brick.Getxattr(o.dirfd, o.name, attr, buf)
	if errno == syscall.ERANGE {
		if need, e := brick.Getxattr(o.dirfd, o.name, attr, nil); e == 0 {
			n = need
		}
	}
	return n, errno
}

func (t *Translator) virtual(in *Inode, attr string) ([]byte, syscall.Errno) {
	switch attr {
	case xattrGFIDText:
		return in.gfid.Append(nil), 0
	case xattrGFIDRaw:
		return in.gfid[:], 0
	case xattrPath:
		names, ok := t.table.path(in)
		if !ok {
			return nil, syscall.ENOENT
		}
		return append([]byte("/"+strings.Join(names, "/")), 0), 0
	case brick.XattrVolumeMark:
		m, err := t.b.VolumeMark()
		if err != nil {
			return nil, syscall.EIO
		}
		return m.Bytes(), 0
	}
	return nil, syscall.ENODATA
}

// Listxattr lists the names of in's xattrs, each behind a NUL, without ours. Those
// of the trusted namespace are listed to who may read them.
func (t *Translator) Listxattr(in *Inode, buf []byte, c Caller) (int, syscall.Errno) {
	o, errno := t.object(in)
	if errno != 0 {
		return 0, errno
	}
	defer o.release()
	attrs, errno := brick.ListAll(o.dirfd, o.name)
	if errno != 0 {
		return 0, errno
	}
	n := 0
	for _, a := range attrs {
		if brick.IsInternal(a) || strings.HasPrefix(a, "trusted.") && !c.capable(unix.CAP_SYS_ADMIN) {
			continue
		}
		if len(buf) > 0 {
			if n+len(a)+1 > len(buf) {
				return 0, syscall.ERANGE
			}
			copy(buf[n:], a)
			buf[n+len(a)] = 0
		}
		n += len(a) + 1
	}
	return n, 0
}

// Setxattr sets an xattr of in. flags are XATTR_CREATE, XATTR_REPLACE or 0;
// killSetgid says that a new access ACL takes the setgid bit away.
func (t *Translator) Setxattr(in *Inode, attr string, val []byte, flags int, killSetgid bool, c Caller) syscall.Errno {
	switch {
	case attr == xattrTriggerSync:
		return t.triggerSync(in, val, c)
	case attr == brick.XattrVolumeMark:
		return t.resetVolumeMark(val)
	case brick.IsInternal(attr):
		return syscall.EPERM
	}
	return t.changeXattr(in, changelog.FopSetxattr, attr, func(o object) syscall.Errno {
		if errno := brick.Setxattr(o.dirfd, o.name, attr, val, flags); errno != 0 {
			return errno
		}
		if !killSetgid {
			return 0
		}
		var st Attr
		if errno := brick.Statx(o.dirfd, o.name, &st); errno != 0 || st.Mode&unix.S_ISGID == 0 {
			return errno
		}
		return o.chmod(uint32(st.Mode) & 0o7777 &^ unix.S_ISGID)
	})
}

// Removexattr removes an xattr of in.
func (t *Translator) Removexattr(in *Inode, attr string) syscall.Errno {
	if brick.IsInternal(attr) {
		return syscall.EPERM
	}
	return t.changeXattr(in, changelog.FopRemovexattr, attr, func(o object) syscall.Errno {
		return brick.Removexattr(o.dirfd, o.name, attr)
	})
}

func (t *Translator) changeXattr(in *Inode, fop changelog.Fop, attr string, change func(object) syscall.Errno) syscall.Errno {
	in.mu.Lock()
	defer in.mu.Unlock()
	o, errno := t.object(in)
	if errno != 0 {
		return errno
	}
	defer o.release()
	if attr == xattrDefaultACL {
		// Before and after: a creation in between must not keep the old answer.
		in.acl.Store(0)
		defer in.acl.Store(0)
	}
	r := &changelog.Record{Type: changelog.Meta, GFID: in.gfid, Fop: fop}
	return t.actOnce(in, classXattr, r, func() syscall.Errno { return change(o) })
}

// triggerSync records in as if it had just been made and written, which makes a
// replicator send it. The value is the integer 1.
//
// Source: glusterfs changelog.c, changelog_setxattr.
func (t *Translator) triggerSync(in *Inode, val []byte, c Caller) syscall.Errno {
	if !isOne(val) || !in.IsDir() && !in.isRegular() {
		return syscall.EOPNOTSUPP
	}
	parent, name := t.table.where(in)
	if parent == nil {
		return syscall.ENOENT
	}
	r := &changelog.Record{
		Type: changelog.Entry, GFID: in.gfid, UID: c.UID, GID: c.GID, Fop: changelog.FopCreate, Mode: unix.S_IFREG | 0o644,
		Entry: changelog.Name{Parent: parent.gfid, Base: name},
	}
	if in.IsDir() {
		r.Fop, r.Mode = changelog.FopMkdir, unix.S_IFDIR|0o755
		t.record(r)
		return 0
	}
	t.record(r)
	t.recordData(in)
	return 0
}

// isOne reads an integer as setfattr(1) and C programs write it.
func isOne(val []byte) bool {
	switch len(val) {
	case 1:
		return val[0] == '1' || val[0] == 1
	case 2:
		return string(val) == "1\x00"
	case 4:
		return binary.NativeEndian.Uint32(val) == 1
	case 8:
		return binary.NativeEndian.Uint64(val) == 1
	}
	return false
}

// resetVolumeMark takes an empty value or RESET, as GlusterFS does.
func (t *Translator) resetVolumeMark(val []byte) syscall.Errno {
	if s := strings.TrimRight(string(val), "\x00"); s != "" && s != "RESET" {
		return syscall.EINVAL
	}
	if err := t.b.ResetVolumeMark(); err != nil {
		return syscall.EIO
	}
	return 0
}
