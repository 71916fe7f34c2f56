package slave

import (
	"container/list"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

const (
	// maxDirs is how many directories are kept open.
	maxDirs = 512
	// dirAge is how long one is taken for what it was: after that it is opened
	// anew from the root, lest we follow one that others moved away.
	dirAge = time.Second
	// maxDepth bounds the walk up through handles: a tree this deep is a circle.
	maxDepth = 1 << 16
)

// dir is an open directory whose GFID has been checked. The descriptor stays the
// directory's however it is renamed.
type dir struct {
	g    gfid.GFID
	fd   int // owned by the cache, closed when out of it and refs is 0
	born time.Time
	refs int // guarded by dirs.mu
	elem *list.Element
}

// at is the name base in d.
func (d *dir) at(base string) inode { return inode{d.fd, base} }

// dirs are the directories kept open, the oldest unused given up first.
type dirs struct {
	mu  sync.Mutex
	all map[gfid.GFID]*dir // guarded by mu
	lru *list.List         // of *dir, newest first; guarded by mu
}

func (c *dirs) init() {
	c.all, c.lru = make(map[gfid.GFID]*dir), list.New()
}

func (c *dirs) get(g gfid.GFID) *dir {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.all[g]
	switch {
	case d == nil:
		return nil
	case g != gfid.Root && time.Since(d.born) > dirAge:
		c.drop(d)
		return nil
	}
	d.refs++
	c.lru.MoveToFront(d.elem)
	return d
}

// add takes fd over as the directory g, with a reference for the caller.
func (c *dirs) add(g gfid.GFID, fd int) *dir {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.all[g]; d != nil {
		c.drop(d) // opened by two at once, or gone and made anew
	}
	d := &dir{g: g, fd: fd, born: time.Now(), refs: 1}
	d.elem = c.lru.PushFront(d)
	c.all[g] = d
	for e := c.lru.Back(); e != nil && len(c.all) > maxDirs; {
		old := e.Value.(*dir)
		e = e.Prev()
		if old.refs == 0 {
			c.drop(old)
		}
	}
	return d
}

// drop takes d out. The caller holds mu.
func (c *dirs) drop(d *dir) {
	c.lru.Remove(d.elem)
	d.elem = nil
	delete(c.all, d.g)
	if d.refs == 0 {
		brick.Close(d.fd)
	}
}

func (c *dirs) release(d *dir) {
	if d == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d.refs--
	if d.refs == 0 && d.elem == nil {
		brick.Close(d.fd)
	}
}

// forget gives g up: the directory is destroyed, or not where it was.
func (c *dirs) forget(g gfid.GFID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.all[g]; d != nil {
		c.drop(d)
	}
}

// close closes all. No reference may be left.
func (c *dirs) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.all {
		c.drop(d)
	}
}

// place is where a directory is: a name in a directory, or the orphans.
type place struct {
	name   Name
	orphan bool
}

const orphanPrefix = "../../georep/orphans/"

// target is what the handle of a directory g at p says.
func (p place) target(g gfid.GFID) string {
	if p.orphan {
		return orphanPrefix + g.String()
	}
	return brick.DirHandleTarget(p.name.Parent, p.name.Base)
}

// placeOf reads the target of a handle or a marker of the directory g.
func placeOf(g gfid.GFID, target string) (place, syscall.Errno) {
	if rest, ok := strings.CutPrefix(target, orphanPrefix); ok {
		if rest != g.String() {
			return place{}, syscall.EINVAL
		}
		return place{orphan: true}, 0
	}
	parent, base, errno := brick.ParseDirHandleTarget(target)
	if errno == 0 && !validBase(parent, base) {
		errno = syscall.EINVAL
	}
	return place{name: Name{parent, base}}, errno
}

// dir opens the directory g. ENOENT: the slave has none. The caller releases it.
//
// Handles are read upward to the next open ancestor, then directories opened
// downward, each by its one name and checked by its GFID: no path is too long
// and no symlink is followed.
func (t *tree) dir(g gfid.GFID) (*dir, syscall.Errno) {
	if d := t.dirs.get(g); d != nil {
		return d, 0
	}
	t.moving.RLock()
	defer t.moving.RUnlock()
	return t.walk(g)
}

// step is one name on the way down to a directory.
type step struct {
	g    gfid.GFID
	base string
}

// walk is dir for callers that hold moving.
func (t *tree) walk(g gfid.GFID) (*dir, syscall.Errno) {
	var below []step
	var d *dir
	for d == nil {
		if d = t.dirs.get(g); d != nil {
			break
		}
		if len(below) > maxDepth {
			return nil, syscall.ELOOP
		}
		p, errno := t.readPlace(g)
		if errno != 0 {
			return nil, errno
		}
		if p.orphan {
			if d, errno = t.openChecked(g, inode{t.orphans, g.String()}); errno != 0 {
				return nil, errno
			}
			break
		}
		below = append(below, step{g, p.name.Base})
		g = p.name.Parent
	}
	for _, s := range slices.Backward(below) {
		child, errno := t.openChecked(s.g, d.at(s.base))
		t.dirs.release(d)
		if errno != 0 {
			return nil, errno
		}
		d = child
	}
	return d, 0
}

// readPlace reads where the handle of the directory g says it is. ENOENT: there
// is no such handle, or g is no directory.
func (t *tree) readPlace(g gfid.GFID) (place, syscall.Errno) {
	target, errno := t.handle(g).readlink()
	if errno == 0 {
		var p place
		if p, errno = placeOf(g, target); errno == 0 {
			return p, 0
		}
	}
	if errno == syscall.EINVAL { // not a symlink, or one that users made
		errno = syscall.ENOENT
	}
	return place{}, errno
}

// openChecked opens i if it is the directory g; else ENOENT.
func (t *tree) openChecked(g gfid.GFID, i inode) (*dir, syscall.Errno) {
	fd, errno := openDir(i.fd, i.name)
	switch errno {
	case 0:
	case syscall.ENOTDIR, syscall.ELOOP, syscall.EXDEV:
		return nil, syscall.ENOENT
	default:
		return nil, errno
	}
	if got, errno := t.brick.GFIDOf(fd, ""); errno != 0 || got != g {
		brick.Close(fd)
		return nil, syscall.ENOENT
	}
	return t.dirs.add(g, fd), 0
}

// marker is the name under which the next handle of the directory g waits while
// g is being moved. One found at the start tells of a move that was cut short.
func (t *tree) marker(g gfid.GFID) inode { return inode{t.tmp, markerPrefix + g.String()} }

const markerPrefix = "at-"

// mark writes where the directory g is about to be. What can fail for want of
// room fails here, before anything is moved.
func (t *tree) mark(g gfid.GFID, p place) syscall.Errno {
	m := t.marker(g)
	target := p.target(g)
	errno := errnoOf(unix.Symlinkat(target, m.fd, m.name))
	if errno == syscall.EEXIST {
		m.unlink()
		errno = errnoOf(unix.Symlinkat(target, m.fd, m.name))
	}
	return errno
}

// commit makes the marker of g its handle.
func (t *tree) commit(g gfid.GFID) syscall.Errno {
	return t.withHandleDir(g, func() syscall.Errno { return t.marker(g).rename(t.handle(g), 0) })
}

// move renames the directory g from where it is to to, which is at p, so that a
// crash at any point leaves it to be found. With exchange, what is at to comes to
// from; if that is the directory x of ours, it goes on to the orphans.
func (t *tree) move(g gfid.GFID, from, to inode, p place, exchange bool, x gfid.GFID) *fault {
	t.moving.Lock()
	defer t.moving.Unlock()
	if errno := t.mark(g, p); errno != 0 {
		return failed(errno, "note a move")
	}
	if !x.IsZero() {
		if errno := t.mark(x, place{orphan: true}); errno != 0 {
			t.marker(g).unlink()
			return failed(errno, "note a move")
		}
	}
	flags := uint(unix.RENAME_NOREPLACE)
	if exchange {
		flags = unix.RENAME_EXCHANGE
	}
	if errno := from.rename(to, flags); errno != 0 {
		t.marker(g).unlink()
		if !x.IsZero() {
			t.marker(x).unlink()
		}
		return failed(errno, "rename")
	}
	// The handle of g comes last: until then it tells recover where x may be.
	if !x.IsZero() {
		if errno := from.rename(inode{t.orphans, x.String()}, unix.RENAME_NOREPLACE); errno != 0 {
			return failed(errno, "move to the orphans")
		}
		if errno := t.commit(x); errno != 0 {
			return failed(errno, "handle of a directory")
		}
	}
	return failed(t.commit(g), "handle of a directory")
}

// withHandleDir calls fn, and once more after making g's handle directory if
// that was missing.
func (t *tree) withHandleDir(g gfid.GFID, fn func() syscall.Errno) syscall.Errno {
	errno := fn()
	if errno != syscall.ENOENT {
		return errno
	}
	path := brick.HandlePath(g)
	for _, d := range []string{path[:2], path[:5]} {
		if err := unix.Mkdirat(t.brick.Handles(), d, 0o700); err != nil && err != unix.EEXIST {
			return errnoOf(err)
		}
	}
	return fn()
}

// validBase reports whether base can be a name in the directory parent.
func validBase(parent gfid.GFID, base string) bool {
	switch {
	case base == "", base == ".", base == "..", len(base) > 255:
		return false
	case parent == gfid.Root && base == brick.Dir:
		return false
	}
	return !strings.ContainsAny(base, "/\x00")
}
