package changelog

import (
	"github.com/georep/georep/brick/gfid"
)

// Type is the class of a record, the first byte of it on disk.
type Type byte

// The three classes of records.
const (
	Entry Type = 'E' // a name was made, moved or removed
	Data  Type = 'D' // contents changed
	Meta  Type = 'M' // attributes or xattrs changed
)

// String is the letter of the type.
func (t Type) String() string { return string(rune(t)) }

// maxBase is the most bytes a name has (NAME_MAX).
const maxBase = 255

// Name is a name in a directory.
type Name struct {
	Parent gfid.GFID // the directory
	Base   string    // 1 to 255 bytes, any but NUL and '/', stored as given
}

// Record is one change. Which fields count depends on Type and Fop:
//
//	D                        GFID
//	M                        GFID Fop
//	E CREATE, MKNOD, MKDIR   GFID Fop Mode UID GID Entry
//	E SYMLINK, LINK          GFID Fop Entry
//	E RENAME                 GFID Fop Entry NewEntry
//	E UNLINK, RMDIR          GFID Fop Entry DelPath
//
// A record has no time: it is that of its sealed changelog, in seconds.
//
// Source: glusterfs changelog-encoders.c and changelog.c.
type Record struct {
	Type Type
	// GFID is the inode changed, made, linked, moved or removed.
	GFID gfid.GFID
	// Fop is what was done; Entry and Meta only.
	Fop Fop
	// Mode is st_mode as asked for, with the file type bits, after the umask.
	Mode uint32
	// UID and GID are the caller's, not the resulting owner's.
	UID, GID uint32
	// Entry is the name made or removed; of a RENAME the old name.
	Entry Name
	// NewEntry is the new name of a RENAME.
	NewEntry Name
	// DelPath is the path of what UNLINK or RMDIR removed, relative to the
	// brick's root without a leading slash; "" when it was not captured.
	DelPath string
}
