package translator

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// dirFD is an open descriptor of a directory in the cache.
type dirFD struct {
	fd   int // O_RDONLY|O_DIRECTORY; owned
	refs int // users now
	used bool
	// pinned keeps the descriptor of a removed directory, which has no name to
	// open it by again, until its inode leaves the table.
	pinned bool
	at     int // place in dirCache.ring
}

// dirCache keeps at most max directories open, beside those in use at once.
type dirCache struct {
	b   *brick.Brick
	t   *table
	max int

	mu   sync.Mutex
	ring []*Inode // those with a dirFD; guarded by mu
	hand int      // guarded by mu
}

// acquire returns a descriptor of the directory in, valid until release.
func (c *dirCache) acquire(in *Inode) (int, syscall.Errno) {
	if in == c.t.root {
		return c.b.Root(), 0
	}
	if !in.IsDir() {
		return -1, syscall.ENOTDIR
	}
	c.mu.Lock()
	if d := in.dir; d != nil {
		d.refs++
		d.used = true
		c.mu.Unlock()
		return d.fd, 0
	}
	c.mu.Unlock()
	fd, errno := c.openDir(in)
	if errno != 0 {
		return -1, errno
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := in.dir; d != nil { // another was faster
		brick.Close(fd)
		d.refs++
		return d.fd, 0
	}
	in.dir = &dirFD{fd: fd, refs: 1, used: true, at: len(c.ring)}
	c.ring = append(c.ring, in)
	c.shrink()
	return fd, 0
}

// release gives back what acquire returned.
func (c *dirCache) release(in *Inode) {
	if in == c.t.root {
		return
	}
	c.mu.Lock()
	in.dir.refs--
	c.mu.Unlock()
}

// pin keeps in's descriptor, which the caller has acquired, until drop.
func (c *dirCache) pin(in *Inode) {
	c.mu.Lock()
	in.dir.pinned = true
	c.mu.Unlock()
}

// drop closes in's descriptor once in has left the table.
func (c *dirCache) drop(in *Inode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := in.dir; d != nil {
		d.pinned, d.used = false, false
		if d.refs == 0 {
			c.close(in)
		}
	}
}

// shrink closes the descriptors that were not used since the hand last passed,
// until the cache is within its bound or all are in use. The caller holds mu.
func (c *dirCache) shrink() {
	for tries := 2 * len(c.ring); len(c.ring) > c.max && tries > 0; tries-- {
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		in := c.ring[c.hand]
		switch d := in.dir; {
		case d.refs > 0 || d.pinned:
			c.hand++
		case d.used:
			d.used = false
			c.hand++
		default:
			c.close(in)
		}
	}
}

// close takes in out of the ring. The caller holds mu.
func (c *dirCache) close(in *Inode) {
	d, last := in.dir, c.ring[len(c.ring)-1]
	c.ring[d.at] = last
	last.dir.at = d.at
	c.ring = c.ring[:len(c.ring)-1]
	in.dir = nil
	brick.Close(d.fd)
}

// openDir opens in by its name in its parent. A rename may move either between
// two steps, so what was opened is compared and the place read again; handles,
// which are right once a rename is over, are the last resort.
func (c *dirCache) openDir(in *Inode) (int, syscall.Errno) {
	for range 3 {
		parent, name := c.t.where(in)
		if parent == nil {
			break
		}
		pfd, errno := c.acquire(parent)
		if errno != 0 {
			return -1, errno
		}
		fd, errno := brick.Openat(pfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.release(parent)
		switch errno {
		case 0:
			if g, errno := c.b.GFIDOf(fd, ""); errno == 0 && g == in.gfid {
				return fd, 0
			}
			brick.Close(fd)
		case syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP:
		default:
			return -1, errno
		}
	}
	fd, errno := c.b.OpenDir(in.gfid)
	if errno == syscall.ENOENT {
		errno = syscall.ESTALE
	}
	return fd, errno
}

// closeAll closes everything, at the end.
func (c *dirCache) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ring) > 0 {
		c.close(c.ring[0])
	}
}
