package slave

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// Attr is what stat(2) says of an object.
type Attr struct {
	Mode     uint32 // st_mode: type and permission bits
	UID, GID uint32
	Rdev     Rdev
	Nlink    uint32 // names, without the handle; of a directory as stat says
	Size     int64  // bytes
	Blocks   int64  // of 512 bytes
	Mtime    Time
	Ctime    Time
	Atime    Time
}

// Type is the type bits of Mode: unix.S_IFREG and so on.
func (a *Attr) Type() uint32 { return a.Mode & unix.S_IFMT }

// IsDir reports whether it is a directory.
func (a *Attr) IsDir() bool { return a.Type() == unix.S_IFDIR }

// Entry is what holds a name.
type Entry struct {
	// Errno of Lookup is 0 also if the name is free. ESTALE: the slave lacks
	// the parent. Others come from the file system.
	Errno syscall.Errno
	Base  string // of List
	// GFID is zero if the name is free, or if Foreign.
	GFID gfid.GFID
	// Foreign is set for what others put there: it has no GFID, or it is a copy
	// of the object that has it.
	Foreign bool
	Attr    Attr // the type in Mode always; the rest if asked for, see List
}

// Free reports whether nothing has the name.
func (e *Entry) Free() bool { return e.Errno == 0 && e.GFID.IsZero() && !e.Foreign }

// Want says what Stat is to tell besides type and attributes.
type Want uint8

const (
	WantXattrs Want = 1 << iota // Object.Xattrs
	WantNames                   // Object.Names
)

// Object is what Stat tells of a GFID.
type Object struct {
	// Errno is 0 if the GFID exists, ENOENT if not.
	Errno  syscall.Errno
	Attr   Attr
	Target string  // of a symlink
	Xattrs []Xattr // sorted by name; those that IsReplicated says yes to
	// Names are a directory's one place, or the places of a non-directory that
	// its gfid2path xattrs name and that hold it. At most 500.
	Names []Name
	// Orphan is set for a directory that has no name now.
	Orphan bool
	// Busy is set between Begin and Setattr: data is still coming.
	Busy bool
	// Changed is set if size or mtime are not what we left: others wrote.
	Changed bool
}

// IsReplicated reports whether an xattr is carried from master to slave: those
// of users, security and trusted ones that are not the brick's own, and ACLs.
// XFS shows an ACL a second time, as trusted.SGI_ACL_FILE: that is not carried,
// for to remove it would remove the ACL.
func IsReplicated(attr string) bool {
	switch {
	case attr == "system.posix_acl_access", attr == "system.posix_acl_default":
		return true
	case strings.HasPrefix(attr, "user."), strings.HasPrefix(attr, "security."):
		return true
	}
	return strings.HasPrefix(attr, "trusted.") && !strings.HasPrefix(attr, "trusted.SGI_") && !brick.IsInternal(attr)
}
