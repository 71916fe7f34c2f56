package slave

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// namespaceTests are xattrs to try, one for each namespace that is replicated.
var namespaceTests = []struct {
	name, attr string
	value      []byte
}{
	{"user", "user.georep.probe", []byte("x")},
	{"trusted", "trusted.probe", []byte("x")},
	{"security", "security.georep.probe", []byte("x")},
	// The ACL u::rw-, g::r--, o::r-- and one named user, who makes it a real one.
	{"posix_acl", "system.posix_acl_access", []byte{
		2, 0, 0, 0,
		1, 0, 6, 0, 255, 255, 255, 255,
		2, 0, 4, 0, 1, 0, 0, 0,
		4, 0, 4, 0, 255, 255, 255, 255,
		16, 0, 4, 0, 255, 255, 255, 255,
		32, 0, 4, 0, 255, 255, 255, 255,
	}},
}

// namespaces tries which xattrs can be set; unset says why others can't.
func (t *tree) namespaces() (set []string, unset string) {
	if t.readOnly {
		return nil, ""
	}
	i := inode{t.tmp, "probe"}
	fd, errno := i.open(unix.O_WRONLY|unix.O_CREAT, 0o600)
	if errno != 0 {
		return nil, "create a file: " + errno.Error()
	}
	brick.Close(fd)
	defer i.unlink()
	for _, n := range namespaceTests {
		errno := i.setxattr(n.attr, n.value)
		if errno == 0 {
			set = append(set, n.name)
			continue
		}
		if unset != "" {
			unset += "; "
		}
		unset += n.name + ": " + errno.Error()
		if errno == syscall.EOPNOTSUPP {
			unset += " (is the file system mounted without it?)"
		}
	}
	return set, unset
}
