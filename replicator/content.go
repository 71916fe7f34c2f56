package replicator

import (
	"fmt"
	"hash/maphash"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/replicator/slave"
)

// file is a regular file of the master, read whole.
type file struct {
	content *slave.Content
	meta    *slave.Meta
	mark    sentMark
}

// Size is the object's size in bytes.
func (o *object) Size() int64 { return int64(o.Stat.Size) }

// bytes is how much there is of o's content, holes left out.
func (o *object) bytes() int64 { return min(o.Size(), int64(o.Stat.Blocks)*512) }

// gone reports whether the master has g no longer under any name.
func (m *master) gone(g gfid.GFID) bool {
	_, errno := m.stat(g)
	return errno == syscall.ENOENT
}

// open opens the regular file o for reading.
func (m *master) open(o *object) (int, syscall.Errno) {
	return m.brick.OpenHandle(o.GFID, unix.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK)
}

// meta reads the attributes of o.
func (m *master) meta(o *object) (*slave.Meta, syscall.Errno) {
	fd, name, done, errno := m.at(o)
	if errno != 0 {
		return nil, errno
	}
	defer done()
	a, xattrs, errno := slave.ReadMeta(fd, name, true)
	if errno != 0 {
		return nil, errno
	}
	return metaOf(&a, xattrs), 0
}

func metaOf(a *slave.Attr, xattrs []slave.Xattr) *slave.Meta {
	return &slave.Meta{Mode: a.Mode, UID: a.UID, GID: a.GID, Mtime: a.Mtime, Xattrs: xattrs}
}

// special reads what makes an object that is neither a regular file nor a
// directory.
func (m *master) special(o *object) (target string, dev slave.Rdev, meta *slave.Meta, errno syscall.Errno) {
	h := brick.HandlePath(o.GFID)
	a, xattrs, errno := slave.ReadMeta(m.brick.Handles(), h, true)
	if errno != 0 {
		return "", dev, nil, errno
	}
	if a.Type() == unix.S_IFLNK {
		buf := make([]byte, 4096)
		n, err := unix.Readlinkat(m.brick.Handles(), h, buf)
		if err != nil {
			return "", dev, nil, err.(syscall.Errno)
		}
		target = string(buf[:n])
	}
	return target, a.Rdev, metaOf(&a, xattrs), 0
}

// read reads the regular file o whole: contents, attributes, and what it was
// when they were read. A file that is being written is read again, a few times;
// whoever writes to it records that. EFBIG: it has more than limit bytes.
func (m *master) read(o *object, limit int64) (*file, syscall.Errno) {
	fd, errno := m.open(o)
	if errno != 0 {
		return nil, errno
	}
	defer brick.Close(fd)
	for try := 0; ; try++ {
		at := time.Now()
		attr, xattrs, errno := slave.ReadMeta(fd, "", true)
		if errno != 0 {
			return nil, errno
		}
		content, errno := slave.ReadContent(fd, limit)
		if errno != 0 {
			return nil, errno
		}
		var after unix.Statx_t
		if errno := brick.Fstatx(fd, &after); errno != 0 {
			return nil, errno
		}
		if after.Nlink < 2 {
			return nil, syscall.ENOENT // unlinked while open
		}
		mark := sentMark{at: at, size: attr.Size, mtime: attr.Mtime, ctime: attr.Ctime}
		if same := mark.sameAs(&after); same || try == 3 {
			if !same {
				mark = sentMark{} // equals nothing: to be sent again
			}
			f := &file{content: content, meta: metaOf(&attr, xattrs), mark: mark}
			if same {
				f.mark.sum = f.sum()
			}
			return f, 0
		}
	}
}

// sumSeed makes sums those of this process.
var sumSeed = maphash.MakeSeed()

// sum is a hash of content and attributes; never 0.
func (f *file) sum() uint64 {
	var h maphash.Hash
	h.SetSeed(sumSeed)
	m := f.meta
	// Lengths go before what they are of, so that no two files give the same bytes.
	fmt.Fprintf(&h, "%o %d %d %d %d %d %d ", m.Mode, m.UID, m.GID, m.Mtime, f.content.Size, len(m.Xattrs), len(f.content.Extents))
	for _, x := range m.Xattrs {
		fmt.Fprintf(&h, "%d %d %s%s", len(x.Name), len(x.Value), x.Name, x.Value)
	}
	for _, x := range f.content.Extents {
		fmt.Fprintf(&h, "%d %d ", x.Offset, len(x.Data))
		h.Write(x.Data) // never fails
	}
	return max(h.Sum64(), 1)
}
