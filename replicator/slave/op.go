package slave

import (
	"fmt"
	"syscall"

	"github.com/georep/georep/brick/gfid"
)

// Kind says what an Op does.
type Kind uint8

const (
	// Make brings GFID into being: its type and permissions are Meta.Mode, for
	// a symlink Target, for a device Rdev. A regular file with Content is
	// complete before it gets its name. With a zero Name it has none: a
	// directory waits among the orphans, anything else lives by its handle.
	// If the slave has the GFID already, Make acts as Rename for a directory and
	// Link for the rest, and replaces Content and Meta as Put and Setattr do.
	// EEXIST: it has the GFID, with another type.
	Make Kind = iota + 1
	// Link gives the non-directory GFID the further name Name. EPERM: GFID is a
	// directory.
	Link
	// Rename gives GFID the name Name. A directory is found where it is, among
	// the orphans too; of a non-directory the name Old is removed in the same
	// step, if it is GFID's. EINVAL: Name lies below the directory itself.
	Rename
	// Unlink removes the name Name if it is GFID's. A file without names lives
	// on by its handle; a directory moves to the orphans, whole. With Gone
	// set, a file that has no name left, or an empty directory, is destroyed.
	// With a zero GFID it moves whatever has no GFID out of the way, to the
	// conflicts. Success if the name is free. ESTALE: the name is another's.
	Unlink
	// Destroy ends GFID: of a non-directory the handle is removed, of an orphan
	// the directory. What an orphan held is never destroyed with it: names of
	// files are removed, directories become orphans, and Result.Released has
	// the GFIDs. EBUSY: it has a name still. EAGAIN: part is released, ask again.
	Destroy
	// Setattr makes GFID's owner, permissions, times and xattrs be Meta's; with
	// End set it also ends what Begin began. ENOENT: the slave lacks the GFID.
	// EUCLEAN: others changed the content, which must be sent again.
	Setattr
	// Put makes Content the whole content of the regular file GFID, and Meta its
	// attributes. A file with one name or none is replaced with a new inode, so
	// a reader sees old or new; one with more names is written in place.
	Put
	// Begin marks the regular file GFID as about to get data (from rsync, or by
	// Write), until a Setattr with End. A file that others changed since we
	// left it is moved to the conflicts, an empty one in its place.
	Begin
	// Write writes Content's extents in place, and cuts or grows the file to
	// Content.Size if that is not negative. It implies Begin; EUCLEAN: that was
	// not done before, and others changed the content.
	Write
)

// Name is one name of an object: the directory it is in and its name there.
// Base is 1 to 255 bytes, any but NUL and '/'; not "." or "..", nor ".glusterfs"
// in the root.
type Name struct {
	Parent gfid.GFID
	Base   string
}

// IsZero reports whether n is no name.
func (n Name) IsZero() bool { return n == Name{} }

// Op is one operation. Fields its Kind does not name are ignored.
type Op struct {
	Kind    Kind
	GFID    gfid.GFID
	Name    Name     // Make, Link, Rename, Unlink
	Old     Name     // Rename of a non-directory; zero: it loses no name
	Gone    bool     // Unlink: the master has this GFID no more
	End     bool     // Setattr: the data that Begin announced is there
	Target  string   // Make of a symlink, at most 4095 bytes
	Rdev    Rdev     // Make of a device
	Meta    *Meta    // Make, Put, Setattr: EINVAL without it
	Content *Content // Make of a regular file, Put, Write
}

// Rdev is a device number.
type Rdev struct{ Major, Minor uint32 }

// Result is what became of one Op. A Result with an Errno changed nothing that a
// later Op could not mend.
type Result struct {
	// Errno is 0 if the Op is done. ENOENT: the slave lacks GFID. ESTALE: it
	// lacks the parent, or a name is another's. Others come from the file system.
	Errno syscall.Errno
	// Detail says on what and why when Errno is set.
	Detail string
	// Displaced is the GFID that lost Name to this Op and lives on, by its handle
	// or among the orphans; of Unlink only one that has no name left. Else zero.
	Displaced gfid.GFID
	// Made is set if Make made the GFID, which the slave did not have.
	Made bool
	// Conflict is the name below .glusterfs/georep/conflicts of what was kept
	// aside; "" if nothing was.
	Conflict string
	// Released are the GFIDs a destroyed directory held.
	Released []gfid.GFID
	// Size is the regular file's size as it is now: Make, Put, Setattr, Write.
	Size int64
}

// Time is a time of an inode: seconds and nanoseconds since 1970. It has a wider
// range than nanoseconds in 64 bits.
type Time struct {
	Sec  int64
	Nsec uint32
}

// String is seconds with nanoseconds behind a dot.
func (t Time) String() string { return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec) }

// IsZero reports whether t is the zero Time, which in Meta means leave as it is.
func (t Time) IsZero() bool { return t == Time{} }

// Meta are the attributes that are replicated.
type Meta struct {
	Mode     uint32 // st_mode: type and permission bits; Setattr and Put ignore the type
	UID, GID uint32
	Mtime    Time
	Atime    Time // zero: leave as it is
	// Xattrs are all those that IsReplicated says yes to, ACLs included: any
	// such xattr that is not listed is removed. With KeepXattrs none is touched.
	Xattrs     []Xattr
	KeepXattrs bool
}

// Xattr is one extended attribute.
type Xattr struct {
	Name  string // with its namespace: "user.x", "system.posix_acl_access"
	Value []byte
}

// Content is data of a regular file. What lies between the extents is a hole.
type Content struct {
	// Size is the file's size in bytes. In Write a negative one means leave it.
	Size    int64
	Extents []Extent
}

// Extent is a run of bytes.
type Extent struct {
	Offset int64
	Data   []byte
}

// Bounds of what one Op may carry. The server refuses more: EMSGSIZE.
const (
	MaxContent = 2 << 20 // bytes in all extents of one Op; larger files go by rsync or Write
	MaxXattrs  = 1 << 20 // bytes of all xattr names and values of one Op
)
