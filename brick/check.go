package brick

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// Problem is a kind of damage.
type Problem string

// What Check finds, and what Repair does about it.
const (
	NoGFID      Problem = "no-gfid"         // a name whose object has none; it gets one
	BadGFID     Problem = "bad-gfid"        // one that no object may have; it gets a fresh one
	SharedGFID  Problem = "shared-gfid"     // one that belongs to another object; it gets a fresh one
	NoHandle    Problem = "no-handle"       // a name whose object has none; it is made
	WrongHandle Problem = "wrong-handle"    // a directory's, leading elsewhere; it is changed
	NoPath      Problem = "no-gfid2path"    // a name its object does not know of; it is added
	StalePath   Problem = "stale-gfid2path" // a name its object has no longer; it is taken off
	NoName      Problem = "no-name"         // a handle without a name; see Lost
	OtherGFID   Problem = "other-gfid"      // a handle whose object has another GFID; it is removed, see Lost
	StaleHandle Problem = "stale-handle"    // a directory's handle, the directory gone; it is removed
	Foreign     Problem = "foreign"         // no handle, but among handles; left alone
	Unreadable  Problem = "unreadable"      // left alone
)

// Lost is the directory, below .glusterfs, that takes what has no name and is not
// empty, as <gfid>: a repair destroys no content.
const Lost = "georep/lost"

// Finding is one damage.
type Finding struct {
	Problem Problem
	GFID    gfid.GFID // zero if the object has none
	Path    string    // below the brick's root, of any length and in any bytes
	Detail  string    // what was found, and what was expected or done
	// Repaired: it is no more. Err is why not, if it should be.
	Repaired bool
	Err      error
}

// CheckOptions are the options of Check.
type CheckOptions struct {
	// Repair mends what can be mended without destroying content.
	Repair bool
	// Workers is how many objects are looked at at once; default as in
	// AdoptOptions.
	Workers int
	// Found is told of each finding, one call at a time, in no order.
	Found func(Finding)
	// Progress is told how far Check is, about ten times a second and at the
	// end, one call at a time.
	Progress func(Checked)
}

// Checked counts what Check has done.
type Checked struct {
	Names    int64 // looked at; all are, before the first handle
	Handles  int64 // looked at
	Parts    int64 // of 256, of the handles
	Findings int64
	Repaired int64
}

// Remaining is how many findings are still there.
func (c Checked) Remaining() int64 { return c.Findings - c.Repaired }

// Check compares names, GFIDs, handles and gfid2paths of the whole brick. The
// caller holds the lock: a mount keeps the handles of files that are unlinked but
// open, and changes two things one after the other.
//
// A handle whose object has another link is taken to have a name. Memory is
// bounded however many objects there are. The error is that of ctx or of the
// brick as a whole; damage is told to Found.
func (b *Brick) Check(ctx context.Context, opts CheckOptions) (Checked, error) {
	if opts.Workers <= 0 {
		opts.Workers = defaultWorkers()
	}
	c := &checker{b: b, opts: opts, told: make(map[gfid.GFID]struct{}), suspects: make(map[gfid.GFID]suspect)}
	err := ticking(opts.Progress, c.counts, func() error {
		c.root()
		if err := b.walk(ctx, opts.Workers, visit{dir: c.dir, file: c.file, trouble: c.trouble}); err != nil {
			return err
		}
		c.judgeAll()
		c.walked = true
		return c.walkHandles(ctx)
	})
	if err == nil && opts.Repair {
		if e := unix.Syncfs(b.root); e != nil {
			err = fmt.Errorf("brick: check: sync %q: %w", b.path, e)
		}
	}
	return c.counts(), err
}

type checker struct {
	b    *Brick
	opts CheckOptions
	src  gfid.Source

	names, handles, parts, findings, repaired atomic.Int64

	dropping sync.Mutex // one drop at a time

	mu sync.Mutex // guards told, suspects and the calls of Found
	// told are GFIDs whose names were found damaged: their handles are not told
	// of again. It holds manyTold at most, then a damage may be told twice.
	told     map[gfid.GFID]struct{}
	walked   bool                  // through all names
	suspects map[gfid.GFID]suspect // manySuspects at most
}

const manyTold = 1 << 18

func (c *checker) counts() Checked {
	return Checked{c.names.Load(), c.handles.Load(), c.parts.Load(), c.findings.Load(), c.repaired.Load()}
}

// found tells of f; mend, if there is one and it is wanted, repairs it first and
// says what it did.
func (c *checker) found(f Finding, mend func(*Finding) error) {
	if mend != nil && c.opts.Repair {
		f.Err = mend(&f)
		f.Repaired = f.Err == nil
	}
	c.findings.Add(1)
	if f.Repaired {
		c.repaired.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.walked && !f.GFID.IsZero() && len(c.told) < manyTold {
		c.told[f.GFID] = struct{}{}
	}
	if c.opts.Found != nil {
		c.opts.Found(f)
	}
}

func (c *checker) wasTold(g gfid.GFID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.told[g]
	return ok
}

func (c *checker) trouble(at *place, name string, errno syscall.Errno) {
	c.found(Finding{Problem: Unreadable, Path: at.path(name), Detail: errno.Error()}, nil)
}

// root checks the brick's root, whose GFID never changes.
func (c *checker) root() {
	g, errno := c.b.GFIDOf(c.b.root, "")
	switch {
	case errno == syscall.ENODATA:
		c.found(Finding{Problem: NoGFID, Path: ".", Detail: "the root has no GFID"}, func(*Finding) error { return c.b.fill() })
	case errno != 0:
		c.found(Finding{Problem: BadGFID, Path: ".", Detail: errno.Error()}, nil)
	case g != gfid.Root:
		c.found(Finding{Problem: BadGFID, GFID: g, Path: ".", Detail: "want the root's: is this directory a part of another brick?"}, nil)
	}
	buf := make([]byte, 64)
	n, err := unix.Readlinkat(c.b.handles, HandlePath(gfid.Root), buf)
	f := Finding{GFID: gfid.Root, Path: "."}
	switch {
	case err == unix.ENOENT:
		f.Problem, f.Detail = NoHandle, "the root has no handle"
		c.found(f, func(*Finding) error { return c.b.fill() })
	case err != nil:
		f.Problem, f.Detail = WrongHandle, err.Error()
		c.found(f, nil)
	case string(buf[:n]) != rootHandleTarget:
		f.Problem, f.Detail = WrongHandle, fmt.Sprintf("leads to %q, want %q", buf[:n], rootHandleTarget)
		c.found(f, func(*Finding) error {
			if errno := c.b.UnlinkHandle(gfid.Root); errno != 0 {
				return errno
			}
			return c.b.fill()
		})
	}
}

// rootHandleTarget is what the root's handle, below aa/bb, points to.
const rootHandleTarget = "../../.."

// readGFID reads the GFID of a name and tells what is wrong with it. ok: it has
// one that an object may have, now.
func (c *checker) readGFID(at *place, fd int, name string, st *unix.Statx_t) (g gfid.GFID, ok bool) {
	identify := func(f *Finding) error {
		err := c.identify(f, at, fd, name, st, &g)
		f.GFID, ok = g, err == nil
		return err
	}
	var buf [64]byte
	n, errno := Getxattr(fd, name, XattrGFID, buf[:])
	f := Finding{Path: at.path(name)}
	switch {
	case errno == syscall.ENOENT: // gone since its directory was read
		return g, false
	case errno == syscall.ENODATA:
		f.Problem, f.Detail = NoGFID, "has no GFID"
		c.found(f, identify)
		return g, ok
	case errno != 0 && errno != syscall.ERANGE:
		f.Problem, f.Detail = Unreadable, errno.Error()
		c.found(f, nil)
		return g, false
	case errno == syscall.ERANGE || n != len(g):
		f.Problem, f.Detail = BadGFID, fmt.Sprintf("the xattr %s is not of %d bytes", XattrGFID, len(g))
	default:
		if g = gfid.GFID(buf[:16]); !g.IsZero() && g != gfid.Root {
			return g, true
		}
		f.Problem, f.Detail = BadGFID, "no object but the root may have the GFID "+g.String()
	}
	c.found(f, func(f *Finding) error {
		if errno := c.b.disown(fd, name, c.src.Next()); errno != 0 {
			return errno
		}
		return identify(f)
	})
	return g, ok
}

// dir checks the directory name in at. Below a directory without a GFID of its
// own, at has none: then a handle is right if it leads to this very directory.
func (c *checker) dir(at *place, fd int, name string, st *unix.Statx_t) (gfid.GFID, bool) {
	c.names.Add(1)
	g, ok := c.readGFID(at, fd, name, st)
	if !ok {
		return gfid.GFID{}, true
	}
	parent, base, errno := c.b.ReadDirHandle(g)
	f := Finding{GFID: g, Path: at.path(name)}
	switch {
	case errno == 0 && parent == at.gfid && base == name,
		errno == 0 && at.gfid.IsZero() && c.b.inodeAt(parent, base) == st.Ino:
		return g, true
	case errno == syscall.ENOENT:
		f.Problem, f.Detail = NoHandle, "has no handle"
	case errno == 0 && c.b.holdsDir(parent, base, g):
		f.Problem, f.Detail = SharedGFID, fmt.Sprintf("so has %q", c.b.pathOf(parent, base))
	case (errno == 0 || errno == syscall.EINVAL) && c.b.isObject(g):
		f.Problem, f.Detail = SharedGFID, "so has what is no directory"
	case errno == 0:
		f.Problem, f.Detail = WrongHandle, fmt.Sprintf("its handle leads to %v/%q", parent, base)
	case errno == syscall.EINVAL:
		f.Problem, f.Detail = WrongHandle, "its handle does not lead to a name in a parent"
	default:
		f.Problem, f.Detail = Unreadable, "its handle: "+errno.Error()
		c.found(f, nil)
		return g, true
	}
	mended := false
	c.found(f, func(f *Finding) error {
		err := c.identify(f, at, fd, name, st, &g)
		mended = err == nil
		return err
	})
	if f.Problem == SharedGFID && !mended {
		return gfid.GFID{}, true
	}
	return g, true
}

// inodeAt is the inode of the directory base in parent, 0 if there is none.
func (b *Brick) inodeAt(parent gfid.GFID, base string) uint64 {
	fd, errno := b.OpenDir(parent)
	if errno != 0 {
		return 0
	}
	defer Close(fd)
	var st unix.Statx_t
	if errno := Statx(fd, base, &st); errno != 0 {
		return 0
	}
	return st.Ino
}

// file checks the non-directory name in at.
func (c *checker) file(at *place, fd int, name string) {
	c.names.Add(1)
	var st unix.Statx_t
	if errno := Statx(fd, name, &st); errno != 0 {
		if errno != syscall.ENOENT {
			c.found(Finding{Problem: Unreadable, Path: at.path(name), Detail: errno.Error()}, nil)
		}
		return
	}
	g, ok := c.readGFID(at, fd, name, &st)
	if !ok {
		return
	}
	var h unix.Statx_t
	f := Finding{GFID: g, Path: at.path(name)}
	switch errno := c.b.StatHandle(g, &h); {
	case errno == 0 && h.Ino == st.Ino:
	case errno == 0:
		f.Problem, f.Detail = SharedGFID, fmt.Sprintf("its handle is inode %d, not %d", h.Ino, st.Ino)
		c.found(f, func(f *Finding) error { return c.identify(f, at, fd, name, &st, &g) })
		return // its gfid2paths are the other's
	case errno == syscall.ENOENT:
		f.Problem, f.Detail = NoHandle, "has no handle"
		c.found(f, func(f *Finding) error { return c.identify(f, at, fd, name, &st, &g) })
	default:
		f.Problem, f.Detail = Unreadable, "its handle: "+errno.Error()
		c.found(f, nil)
		return
	}
	if !at.gfid.IsZero() {
		c.paths(at, fd, name, g)
	}
}

var errParent = errors.New("its directory has no GFID of its own")

// identify mends what a lookup would mend.
func (c *checker) identify(f *Finding, at *place, fd int, name string, st *unix.Statx_t, g *gfid.GFID) error {
	if at.gfid.IsZero() {
		return errParent
	}
	has, _, errno := c.b.Identify(fd, name, at.gfid, st, &c.src)
	if errno != 0 {
		return errno
	}
	if has != *g {
		f.Detail += fmt.Sprintf("; its GFID is now %v", has)
	}
	*g = has
	return nil
}

// pathOf is the path of base in the directory parent, to show to a person.
func (b *Brick) pathOf(parent gfid.GFID, base string) string {
	dir, errno := b.DirPath(parent)
	switch {
	case errno != 0:
		return parent.String() + "/" + base
	case dir == "":
		return base
	}
	return dir + "/" + base
}
