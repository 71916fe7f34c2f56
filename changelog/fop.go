package changelog

import "strconv"

// Fop is the number of a file operation, as GlusterFS counts them. In E and M
// records it says what was done.
//
// Source: glusterfs 10.3 glusterfs-fops.x, glusterfs_fop_t; the numbers of the
// fops found in changelogs have not changed since 3.x.
type Fop uint32

// The fops that occur in changelogs. Entry records have the first eight, meta
// records the others.
const (
	FopMknod        Fop = 3
	FopMkdir        Fop = 4
	FopUnlink       Fop = 5
	FopRmdir        Fop = 6
	FopSymlink      Fop = 7
	FopRename       Fop = 8
	FopLink         Fop = 9
	FopCreate       Fop = 23
	FopSetxattr     Fop = 17
	FopRemovexattr  Fop = 19
	FopXattrop      Fop = 33
	FopFxattrop     Fop = 34
	FopFsetxattr    Fop = 36
	FopSetattr      Fop = 38
	FopFsetattr     Fop = 39
	FopFremovexattr Fop = 45
)

// fopNames are the names of all fops by number; PARSED lines use them verbatim.
var fopNames = [...]string{
	"NULL", "STAT", "READLINK", "MKNOD", "MKDIR", "UNLINK", "RMDIR", "SYMLINK", "RENAME", "LINK",
	"TRUNCATE", "OPEN", "READ", "WRITE", "STATFS", "FLUSH", "FSYNC", "SETXATTR", "GETXATTR", "REMOVEXATTR",
	"OPENDIR", "FSYNCDIR", "ACCESS", "CREATE", "FTRUNCATE", "FSTAT", "LK", "LOOKUP", "READDIR", "INODELK",
	"FINODELK", "ENTRYLK", "FENTRYLK", "XATTROP", "FXATTROP", "FGETXATTR", "FSETXATTR", "RCHECKSUM", "SETATTR", "FSETATTR",
	"READDIRP", "FORGET", "RELEASE", "RELEASEDIR", "GETSPEC", "FREMOVEXATTR", "FALLOCATE", "DISCARD", "ZEROFILL", "IPC",
	"SEEK", "LEASE", "COMPOUND", "GETACTIVELK", "SETACTIVELK", "PUT", "ICREATE", "NAMELINK", "COPY_FILE_RANGE",
}

// String is the fop's name as in PARSED lines, such as CREATE, or its number
// when it has no name.
func (f Fop) String() string {
	if uint64(f) < uint64(len(fopNames)) {
		return fopNames[f]
	}
	return strconv.FormatUint(uint64(f), 10)
}

// ParseFop finds the fop with the given name.
func ParseFop(name string) (Fop, bool) {
	for i, n := range fopNames {
		if n == name {
			return Fop(i), true
		}
	}
	return 0, false
}

// isMeta reports whether an M record can name f: any numbered fop but NULL.
func (f Fop) isMeta() bool { return f > 0 && uint64(f) < uint64(len(fopNames)) }
