package replicator

import (
	"container/list"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// maxDirs is how many directories of the master are kept open. One names a
// hundred thousand files as cheaply as one, so a few hundred serve any order of
// records; the limit leaves room under the usual 1,024 descriptors.
const maxDirs = 256

// master reads the master brick by GFID: what a name is now, what an object is
// now. It changes nothing but the times on the root. It is safe for concurrent
// use.
type master struct {
	brick    *brick.Brick
	xtimeKey string

	mu   sync.Mutex
	dirs map[gfid.GFID]*openDir // guarded by mu
	lru  *list.List             // of *openDir, newest first; guarded by mu
}

// openDir is a directory of the master held open. The descriptor is the
// directory itself, so it stays right when the directory is renamed.
type openDir struct {
	g    gfid.GFID
	fd   int // owned by the cache, closed when out of it and refs is 0
	refs int // guarded by master.mu
	elem *list.Element
}

// object is what the master has at a name or under a GFID.
type object struct {
	GFID gfid.GFID
	Stat unix.Statx_t
	at   time.Time // just before Stat was taken
}

func (o *object) mode() uint32 { return uint32(o.Stat.Mode) }

func (o *object) isDir() bool { return o.mode()&unix.S_IFMT == unix.S_IFDIR }

func (o *object) isRegular() bool { return o.mode()&unix.S_IFMT == unix.S_IFREG }

func newMaster(b *brick.Brick) *master {
	return &master{brick: b, xtimeKey: brick.XtimeKey(b.Volume()), dirs: make(map[gfid.GFID]*openDir), lru: list.New()}
}

func (m *master) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := m.lru.Front(); e != nil; e = e.Next() {
		brick.Close(e.Value.(*openDir).fd)
	}
	clear(m.dirs)
	m.lru.Init()
}

// dir opens the directory g. ENOENT: the master has no such directory now. The
// caller releases it.
func (m *master) dir(g gfid.GFID) (*openDir, syscall.Errno) {
	m.mu.Lock()
	if d := m.dirs[g]; d != nil {
		d.refs++
		m.lru.MoveToFront(d.elem)
		m.mu.Unlock()
		return d, 0
	}
	m.mu.Unlock()
	fd, errno := m.openDir(g)
	if errno != 0 {
		return nil, errno
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.dirs[g]; d != nil { // another was first
		brick.Close(fd)
		d.refs++
		return d, 0
	}
	d := &openDir{g: g, fd: fd, refs: 1}
	d.elem = m.lru.PushFront(d)
	m.dirs[g] = d
	if m.lru.Len() > maxDirs {
		old := m.lru.Remove(m.lru.Back()).(*openDir)
		delete(m.dirs, old.g)
		old.elem = nil
		if old.refs == 0 {
			brick.Close(old.fd)
		}
	}
	return d, 0
}

func (m *master) release(d *openDir) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d.refs--
	if d.refs == 0 && d.elem == nil {
		brick.Close(d.fd)
	}
}

// openDir opens the directory g. While it or one above it is being renamed its
// handle can lead nowhere for a moment; only one that does so for a while, or is
// missing, tells that the directory is gone.
func (m *master) openDir(g gfid.GFID) (int, syscall.Errno) {
	for try := range 6 {
		fd, errno := m.brick.OpenDir(g)
		switch errno {
		case 0:
			return fd, 0
		case syscall.ENOENT, syscall.ESTALE, syscall.ENOTDIR, syscall.EINVAL, syscall.ELOOP:
		default:
			return -1, errno
		}
		if _, _, errno := m.brick.ReadDirHandle(g); errno == syscall.ENOENT || errno == syscall.EINVAL {
			return -1, syscall.ENOENT
		}
		if try > 0 {
			time.Sleep(time.Millisecond << try)
		}
	}
	return -1, syscall.ENOENT
}

// lookup tells what the name is now. ENOENT: the name is free, or its parent is
// gone. ENODATA: something without a GFID is there.
func (m *master) lookup(n changelog.Name) (object, syscall.Errno) {
	if n.Parent == gfid.Root && n.Base == brick.Dir {
		return object{}, syscall.ENOENT
	}
	d, errno := m.dir(n.Parent)
	if errno != 0 {
		return object{}, errno
	}
	defer m.release(d)
	return m.lookupAt(d.fd, n.Base)
}

// lookupAt is lookup of base in the open directory fd.
func (m *master) lookupAt(fd int, base string) (object, syscall.Errno) {
	o := object{at: time.Now()}
	for range 8 {
		g, errno := m.brick.GFIDOf(fd, base)
		if errno != 0 {
			return o, errno
		}
		if errno := brick.Statx(fd, base, &o.Stat); errno != 0 {
			return o, errno
		}
		// The same GFID before and after: the stat is this object's and not
		// that of another which took the name in between.
		again, errno := m.brick.GFIDOf(fd, base)
		if errno != 0 {
			return o, errno
		}
		if g == again {
			o.GFID = g
			return o, 0
		}
	}
	return o, syscall.EAGAIN
}

// stat tells what the object g is now. ENOENT: the master has it no longer, or
// only as a file that was unlinked while open, which has no name.
func (m *master) stat(g gfid.GFID) (object, syscall.Errno) {
	o := object{GFID: g, at: time.Now()}
	errno := m.brick.StatHandle(g, &o.Stat)
	if errno != 0 {
		return o, errno
	}
	if o.mode()&unix.S_IFMT == unix.S_IFLNK {
		// A symlink's handle is the symlink itself and bears its GFID; that of
		// a directory is a symlink made for it and bears none.
		if got, e := m.brick.GFIDOf(m.brick.Handles(), brick.HandlePath(g)); e != 0 || got != g {
			d, errno := m.dir(g)
			if errno != 0 {
				return o, errno
			}
			defer m.release(d)
			if errno := brick.Fstatx(d.fd, &o.Stat); errno != 0 {
				return o, errno
			}
			if o.Stat.Nlink == 0 {
				return o, syscall.ENOENT
			}
			return o, 0
		}
	}
	if o.Stat.Nlink < 2 {
		return o, syscall.ENOENT
	}
	return o, 0
}

// names lists where the object g is, as the brick says: from the handle for a
// directory, from gfid2path for others, which may lack some beyond 500 links.
func (m *master) names(g gfid.GFID) ([]changelog.Name, syscall.Errno) {
	if parent, base, errno := m.brick.ReadDirHandle(g); errno == 0 {
		if got, e := m.brick.GFIDOf(m.brick.Handles(), brick.HandlePath(g)); e != 0 || got != g {
			return []changelog.Name{{Parent: parent, Base: base}}, 0
		}
	}
	h := brick.HandlePath(g)
	attrs, errno := brick.GFID2Paths(m.brick.Handles(), h)
	if errno != 0 {
		return nil, errno
	}
	var out []changelog.Name
	for _, a := range attrs {
		val, errno := getXattr(m.brick.Handles(), h, a)
		if errno != 0 {
			continue // removed since: the name is gone
		}
		if parent, base, err := brick.ParseGFID2Path(val); err == nil {
			out = append(out, changelog.Name{Parent: parent, Base: base})
		}
	}
	return out, 0
}

// path is where f's item is below the brick's root, as far as can be told.
func (m *master) path(f Failure) string {
	n := f.Name
	if n == (changelog.Name{}) {
		names, errno := m.names(f.GFID)
		if errno != 0 || len(names) == 0 {
			return ""
		}
		n = names[0]
	}
	dir, errno := m.brick.DirPath(n.Parent)
	if errno != 0 {
		return ""
	}
	return filepath.Join(dir, n.Base)
}

// at is where g's xattrs are read: a descriptor and a name in it.
func (m *master) at(o *object) (fd int, name string, done func(), errno syscall.Errno) {
	if !o.isDir() {
		return m.brick.Handles(), brick.HandlePath(o.GFID), func() {}, 0
	}
	d, errno := m.dir(o.GFID)
	if errno != 0 {
		return -1, "", nil, errno
	}
	return d.fd, "", func() { m.release(d) }, 0
}

// getXattr is the value of one xattr, at most 64 KiB long.
func getXattr(fd int, name, attr string) ([]byte, syscall.Errno) {
	buf := make([]byte, 256)
	for {
		n, errno := brick.Getxattr(fd, name, attr, buf)
		if errno == syscall.ERANGE && len(buf) < 1<<16 {
			buf = make([]byte, 1<<16)
			continue
		}
		if errno != 0 {
			return nil, errno
		}
		return buf[:n:n], 0
	}
}
