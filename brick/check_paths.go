package brick

import (
	"fmt"
	"syscall"

	"github.com/georep/georep/brick/gfid"
)

// roomForPaths is how many bytes of xattrs an object has before a missing
// gfid2path is no longer a damage: file systems have room for some 4 KiB, and a
// name that finds no room there is left out.
const roomForPaths = 2 << 10

// paths checks the gfid2paths of the non-directory name in at, whose GFID is g:
// that there is one for this name. Those for other names are looked at when all
// directories have been, which tell where they are.
func (c *checker) paths(at *place, fd int, name string, g gfid.GFID) {
	keys, errno := GFID2Paths(fd, name)
	if errno == syscall.ENOENT {
		return
	}
	f := Finding{GFID: g, Path: at.path(name)}
	if errno != 0 {
		f.Problem, f.Detail = Unreadable, "its xattrs: "+errno.Error()
		c.found(f, nil)
		return
	}
	own, want := GFID2Path(at.gfid, name)
	has := false
	for _, key := range keys {
		if key == own {
			has = string(c.value(fd, name, key)) == string(want)
		} else if !c.leads(fd, name, key, g) {
			c.suspect(f, own, want)
		}
	}
	if !has {
		c.noPath(f, fd, name, own, want)
	}
}

// noPath tells that an object lacks the gfid2path own, if it has room for it.
func (c *checker) noPath(f Finding, fd int, name, own string, want []byte) {
	if !c.hasRoom(fd, name) {
		return
	}
	f.Problem, f.Detail = NoPath, "has no xattr "+own
	c.found(f, func(*Finding) error { return asError(Setxattr(fd, name, own, want, 0)) })
}

// suspect is an object with a gfid2path that did not lead to it when one of its
// names was looked at.
type suspect struct {
	f    Finding // of that name
	own  string  // its gfid2path
	want []byte
}

// manySuspects bounds the suspects in memory. What comes after is looked at when
// it is found: a name in a directory that moved may then be taken off and be
// added again when it is met.
const manySuspects = 1 << 16

func (c *checker) suspect(f Finding, own string, want []byte) {
	s := suspect{f, own, want}
	c.mu.Lock()
	before, again := c.suspects[f.GFID]
	if !again && len(c.suspects) >= manySuspects {
		c.mu.Unlock()
		c.judge(s)
		return
	}
	if !again || f.Path < before.f.Path {
		c.suspects[f.GFID] = s
	}
	c.mu.Unlock()
}

// judgeAll looks at all suspects. The walk through the names is done.
func (c *checker) judgeAll() {
	for _, s := range c.suspects {
		c.judge(s)
	}
}

// judge tells of each gfid2path of s that is not the path of a name.
func (c *checker) judge(s suspect) {
	fd, name := c.b.handles, HandlePath(s.f.GFID)
	keys, errno := GFID2Paths(fd, name)
	if errno != 0 {
		return // it has no handle, which is told
	}
	has := false
	for _, key := range keys {
		if key == s.own {
			has = true
		} else if !c.leads(fd, name, key, s.f.GFID) {
			f := s.f
			f.Problem, f.Detail = StalePath, fmt.Sprintf("the xattr %s has %q", key, c.value(fd, name, key))
			c.found(f, func(*Finding) error { return asError(Removexattr(fd, name, key)) })
		}
	}
	if !has && c.opts.Repair { // there may be room for it now
		c.noPath(s.f, fd, name, s.own, s.want)
	}
}

func (c *checker) value(fd int, name, key string) []byte {
	buf := make([]byte, 512)
	n, errno := Getxattr(fd, name, key, buf)
	if errno != 0 {
		return nil
	}
	return buf[:n]
}

// leads reports whether the gfid2path key of an object says what is a name of it,
// or may be one for all that can be told.
func (c *checker) leads(fd int, name, key string, g gfid.GFID) bool {
	value := c.value(fd, name, key)
	parent, base, err := ParseGFID2Path(value)
	if err != nil {
		return false
	}
	if k, _ := GFID2Path(parent, base); k != key {
		return false
	}
	holds, errno := c.b.holds(parent, base, g)
	return holds || errno != 0 || c.underTold(parent)
}

// holds reports whether base in the directory parent has the GFID g. The errno
// is of a brick that can't be read: then nobody knows.
func (b *Brick) holds(parent gfid.GFID, base string, g gfid.GFID) (bool, syscall.Errno) {
	// The kernel finds most by the parent's handle in one call. What it does not
	// find so, for depth or for a damage further up, is opened name by name.
	if has, errno := b.GFIDOf(b.handles, HandlePath(parent)+"/"+base); errno == 0 && has == g {
		return true, 0
	}
	fd, errno := b.OpenDir(parent)
	var has gfid.GFID
	if errno == 0 {
		has, errno = b.GFIDOf(fd, base)
		Close(fd)
	}
	switch errno {
	case 0:
		return has == g, 0
	case syscall.ENOENT, syscall.ENODATA, syscall.ENOTDIR, syscall.ESTALE, syscall.ELOOP, syscall.EINVAL:
		return false, 0
	}
	return false, errno
}

// underTold reports whether the directory g or one above it was told of: what
// lies below is then not where handles say, whoever is to blame.
func (c *checker) underTold(g gfid.GFID) bool {
	for n := 0; n < maxDepth && g != gfid.Root; n++ {
		if c.wasTold(g) {
			return true
		}
		parent, _, errno := c.b.ReadDirHandle(g)
		if errno != 0 {
			return false
		}
		g = parent
	}
	return false
}

func (c *checker) hasRoom(fd int, name string) bool {
	keys, errno := ListAll(fd, name)
	if errno != 0 {
		return false
	}
	used := 0
	for _, key := range keys {
		n, _ := Getxattr(fd, name, key, nil) // gone or unreadable: it counts as empty
		used += len(key) + n
	}
	return used < roomForPaths
}

func asError(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}
