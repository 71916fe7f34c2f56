package brick

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// walkHandles checks all handles, the 256 directories of the first level shared
// among workers.
func (c *checker) walkHandles(ctx context.Context) error {
	parts := make(chan string)
	var wg sync.WaitGroup
	for range c.opts.Workers {
		wg.Go(func() {
			buf := make([]byte, 64<<10)
			for part := range parts {
				c.part(ctx, part, buf)
				c.parts.Add(1)
			}
		})
	}
	defer wg.Wait()
	defer close(parts)
	for i := range 256 {
		select {
		case parts <- fmt.Sprintf("%02x", i):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// part checks the handles in the directory first of .glusterfs.
func (c *checker) part(ctx context.Context, first string, buf []byte) {
	c.entries(first, buf, func(fd int, second string, dtype byte) {
		dir := first + "/" + second
		if !isHandleDir(second) || !c.isDirAt(fd, second, dtype) {
			c.foreign(dir, "want a directory of two hexadecimal digits")
			return
		}
		if ctx.Err() != nil {
			return
		}
		c.entries(dir, make([]byte, 64<<10), func(fd int, name string, dtype byte) {
			c.handles.Add(1)
			c.handle(fd, dir, name, dtype)
		})
	})
}

// entries calls found for each entry of a directory below .glusterfs.
func (c *checker) entries(dir string, buf []byte, found func(fd int, name string, dtype byte)) {
	fail := func(errno syscall.Errno) {
		c.found(Finding{Problem: Unreadable, Path: Dir + "/" + dir, Detail: errno.Error()}, nil)
	}
	fd, errno := Openat(c.b.handles, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		if errno != syscall.ENOENT {
			fail(errno)
		}
		return
	}
	defer Close(fd)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			fail(errnoOf(err))
		}
		if n <= 0 {
			return
		}
		dirents(buf[:n], func(name string, dtype byte) {
			if name != "." && name != ".." {
				found(fd, name, dtype)
			}
		})
	}
}

func (c *checker) isDirAt(fd int, name string, dtype byte) bool {
	if dtype != unix.DT_UNKNOWN {
		return dtype == unix.DT_DIR
	}
	var st unix.Statx_t
	return Statx(fd, name, &st) == 0 && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

func (c *checker) foreign(path, detail string) {
	c.found(Finding{Problem: Foreign, Path: Dir + "/" + path, Detail: detail}, nil)
}

// handle checks the entry name of the handle directory dir, which is fd.
func (c *checker) handle(fd int, dir, name string, dtype byte) {
	path := dir + "/" + name
	g, err := gfid.Parse(name)
	switch {
	case err != nil || HandlePath(g) != path:
		c.foreign(path, "no GFID that belongs here")
		return
	case g == gfid.Root:
		return // checked first of all
	case c.isDirAt(fd, name, dtype):
		c.foreign(path, "a directory, want a symlink to one")
		return
	}
	has, errno := c.b.GFIDOf(fd, name)
	f := Finding{GFID: g, Path: Dir + "/" + path}
	switch {
	case errno == syscall.ENOENT:
	case errno == syscall.ENODATA && c.isSymlink(fd, name):
		c.dirHandle(f)
	case errno == 0 && has == g:
		c.fileHandle(f, fd, name)
	case errno == 0:
		f.Problem, f.Detail = OtherGFID, "its object has the GFID "+has.String()
		c.found(f, func(f *Finding) error { return c.drop(f, fd, name) })
	case errno == syscall.ENODATA:
		f.Problem, f.Detail = OtherGFID, "its object has no GFID"
		c.found(f, func(f *Finding) error { return c.drop(f, fd, name) })
	default:
		f.Problem, f.Detail = Unreadable, errno.Error()
		c.found(f, nil)
	}
}

func (c *checker) isSymlink(fd int, name string) bool {
	var st unix.Statx_t
	return Statx(fd, name, &st) == 0 && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// dirHandle checks that a directory's handle leads to that directory.
func (c *checker) dirHandle(f Finding) {
	f.Problem = StaleHandle
	parent, base, errno := c.b.ReadDirHandle(f.GFID)
	holds := false
	if errno == 0 {
		holds, errno = c.b.holds(parent, base, f.GFID)
		f.Detail = fmt.Sprintf("%q is gone or another", c.b.pathOf(parent, base))
	} else if errno == syscall.EINVAL {
		holds, errno = c.isOrphan(f.GFID), 0
		f.Detail = "does not lead to a name in a parent"
	}
	switch {
	case errno != 0:
		f.Problem, f.Detail = Unreadable, errno.Error()
		c.found(f, nil)
	case holds, c.wasTold(f.GFID), c.underTold(parent):
		// In order, or told of already where its directory was found.
	default:
		c.found(f, func(f *Finding) error { return asError(c.b.UnlinkHandle(f.GFID)) })
	}
}

// orphans is where a slave keeps directories that have no name for now, below
// .glusterfs; their handles lead there.
const orphans = "georep/orphans/"

func (c *checker) isOrphan(g gfid.GFID) bool {
	want := "../../" + orphans + g.String()
	buf := make([]byte, len(want)+1)
	n, err := unix.Readlinkat(c.b.handles, HandlePath(g), buf)
	if err != nil || string(buf[:n]) != want {
		return false
	}
	has, errno := c.b.GFIDOf(c.b.handles, orphans+g.String())
	return errno == 0 && has == g
}

// fileHandle checks that the object of a handle, which has its GFID, has a name.
func (c *checker) fileHandle(f Finding, fd int, name string) {
	var st unix.Statx_t
	if errno := Statx(fd, name, &st); errno != 0 || st.Nlink > 1 {
		return
	}
	f.Problem, f.Detail = NoName, describe(&st)
	for _, path := range c.lastNames(fd, name) {
		f.Detail += fmt.Sprintf(", was %q", path)
	}
	c.found(f, func(f *Finding) error { return c.drop(f, fd, name) })
}

// lastNames are the paths at which an object without a name was known.
func (c *checker) lastNames(fd int, name string) []string {
	keys, errno := GFID2Paths(fd, name)
	if errno != 0 {
		return nil
	}
	var names []string
	for _, key := range keys {
		if parent, base, err := ParseGFID2Path(c.value(fd, name, key)); err == nil {
			names = append(names, c.b.pathOf(parent, base))
		}
	}
	return names
}

func describe(st *unix.Statx_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return fmt.Sprintf("file of %d bytes", st.Size)
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}

// drop takes a handle that must not be away. If it is the last link of what has
// content, that moves to Lost.
func (c *checker) drop(f *Finding, fd int, name string) error {
	// Two handles of one object at once would each take the other for a link
	// that stays.
	c.dropping.Lock()
	defer c.dropping.Unlock()
	var st unix.Statx_t
	if errno := Statx(fd, name, &st); errno != 0 {
		return errno
	}
	kind := st.Mode & unix.S_IFMT
	empty := kind == unix.S_IFREG && st.Size == 0 || kind == unix.S_IFIFO || kind == unix.S_IFSOCK
	if st.Nlink > 1 || empty {
		if err := unix.Unlinkat(fd, name, 0); err != nil {
			return err
		}
		f.Detail += "; removed"
		return nil
	}
	for _, d := range []string{"georep", Lost} {
		if err := unix.Mkdirat(c.b.handles, d, 0o700); err != nil && err != unix.EEXIST {
			return err
		}
	}
	// What an earlier repair left there stays.
	for n := range 1000 {
		to := Lost + "/" + name + strings.Repeat("+", min(n, 1))
		if n > 0 {
			to += fmt.Sprint(n)
		}
		err := unix.Renameat2(fd, name, c.b.handles, to, unix.RENAME_NOREPLACE)
		if err == nil {
			f.Detail += "; moved to " + Dir + "/" + to
			return nil
		}
		if err != unix.EEXIST {
			return err
		}
	}
	return errors.New("too many of its name in " + Dir + "/" + Lost)
}
