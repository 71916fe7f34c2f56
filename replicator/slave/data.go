package slave

import (
	"encoding/binary"
	"io"
	"math"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// leftXattr holds on a regular file how we left it, 24 bytes in network order:
// u64 size, u64 mtime seconds, u32 mtime nanoseconds, u32 flags (1: busy).
const leftXattr = "trusted.georep.left"

// left is how we left a regular file.
type left struct {
	known bool
	busy  bool // data is coming: size and mtime say nothing
	size  int64
	mtime Time
}

func readLeft(i inode) left {
	var b [24]byte
	if n, errno := i.getxattr(leftXattr, b[:]); errno != 0 || n != len(b) {
		return left{}
	}
	return left{
		known: true,
		busy:  binary.BigEndian.Uint32(b[20:])&1 != 0,
		size:  int64(binary.BigEndian.Uint64(b[:])),
		mtime: Time{int64(binary.BigEndian.Uint64(b[8:])), binary.BigEndian.Uint32(b[16:])},
	}
}

// changed reports whether others wrote to the file since, which has st now.
func (l left) changed(st *unix.Statx_t) bool {
	return l.known && !l.busy && (l.size != int64(st.Size) || l.mtime != Time{st.Mtime.Sec, st.Mtime.Nsec})
}

// set writes l. Where it does not fit among the xattrs, changes by others go
// unseen.
func (l left) set(i inode) *fault {
	var b [24]byte
	binary.BigEndian.PutUint64(b[:], uint64(l.size))
	binary.BigEndian.PutUint64(b[8:], uint64(l.mtime.Sec))
	binary.BigEndian.PutUint32(b[16:], l.mtime.Nsec)
	if l.busy {
		b[23] = 1
	}
	errno := i.setxattr(leftXattr, b[:])
	if errno == syscall.ENOSPC || errno == syscall.E2BIG {
		errno = 0
	}
	return failed(errno, "xattr "+leftXattr)
}

// leave notes that i is now as we want it, or busy. was is what it said before.
func leave(i inode, was left, busy bool, res *Result) *fault {
	var st unix.Statx_t
	if errno := i.statx(&st); errno != 0 {
		return failed(errno, "stat")
	}
	res.Size = int64(st.Size)
	now := left{known: true, busy: busy, size: int64(st.Size), mtime: Time{st.Mtime.Sec, st.Mtime.Nsec}}
	if now == was {
		return nil
	}
	return now.set(i)
}

// maxExtents bounds the extents of one Op.
const maxExtents = 1 << 14

// checkContent refuses what no honest peer sends.
func checkContent(c *Content, write bool) *fault {
	if c == nil || c.Size < 0 && !write {
		return failed(syscall.EINVAL, "content")
	}
	if len(c.Extents) > maxExtents {
		return failed(syscall.EMSGSIZE, "content")
	}
	total := 0
	for _, e := range c.Extents {
		total += len(e.Data)
		if e.Offset < 0 || e.Offset > math.MaxInt64-int64(len(e.Data)) || c.Size >= 0 && e.Offset+int64(len(e.Data)) > c.Size {
			return failed(syscall.EINVAL, "extent")
		}
	}
	if total > MaxContent {
		return failed(syscall.EMSGSIZE, "content")
	}
	return nil
}

// fill writes c to the empty file fd.
func fill(fd int, c *Content) *fault {
	end := int64(0)
	for _, e := range c.Extents {
		if f := pwrite(fd, e); f != nil {
			return f
		}
		end = max(end, e.Offset+int64(len(e.Data)))
	}
	if end < c.Size {
		return failed(errnoOf(unix.Ftruncate(fd, c.Size)), "set size")
	}
	return nil
}

func pwrite(fd int, e Extent) *fault {
	for off, b := e.Offset, e.Data; len(b) > 0; {
		n, err := unix.Pwrite(fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return failed(errnoOf(err), "write")
		}
		off, b = off+int64(n), b[n:]
	}
	return nil
}

// regular is the regular file g, for operations on data.
func (t *tree) regular(g gfid.GFID) (inode, *unix.Statx_t, *fault) {
	i, st, d, f := t.find(g)
	t.dirs.release(d)
	if f == nil && !isRegular(st) {
		f = failed(syscall.EINVAL, "not a regular file")
	}
	return i, st, f
}

// put does Put.
func (t *tree) put(op *Op, res *Result) *fault {
	if op.Meta == nil {
		return failed(syscall.EINVAL, "no attributes")
	}
	if f := checkContent(op.Content, false); f != nil {
		return f
	}
	h, st, f := t.regular(op.GFID)
	if f != nil {
		return f
	}
	l := readLeft(h)
	names, errno := t.names(op.GFID, st)
	if errno != 0 {
		return failed(errno, "names")
	}
	if l.changed(st) || len(names) <= 1 && int(st.Nlink) == 1+len(names) {
		return t.renew(op.GFID, st, names, l.changed(st), renewal{content: op.Content, meta: op.Meta}, res)
	}
	l.busy, l.known = true, true
	if f := l.set(h); f != nil {
		return f
	}
	fd, errno := h.open(unix.O_WRONLY|unix.O_TRUNC, 0)
	if errno != 0 {
		return failed(errno, "open")
	}
	defer brick.Close(fd)
	if f := fill(fd, op.Content); f != nil {
		return f
	}
	if errno := h.statx(st); errno != 0 {
		return failed(errno, "stat")
	}
	if f := setMeta(h, st, op.Meta, false); f != nil {
		return f
	}
	return leave(h, l, false, res)
}

// renewal is what a new inode gets.
type renewal struct {
	content *Content
	meta    *Meta
	busy    bool
}

// putPrefix begins the names of new inodes below tmp. One with a second link is
// complete: recover finishes the work.
const putPrefix = "put-"

// renew gives the regular file g, whose handle has st, a new inode under all of
// names, each replaced in one step. With keep the old one goes to the conflicts.
func (t *tree) renew(g gfid.GFID, st *unix.Statx_t, names []Name, keep bool, r renewal, res *Result) *fault {
	h, tmp := t.handle(g), inode{t.tmp, putPrefix + g.String()}
	if f := t.makeInode(tmp, g, names, r, res); f != nil {
		tmp.unlink()
		return f
	}
	if keep {
		base := g.String()
		if len(names) > 0 {
			base = names[0].Base
		}
		kept, f := t.keep(h, st, base)
		if f != nil {
			tmp.unlink()
			return f
		}
		res.Conflict = kept.name
	}
	return t.swapIn(g, tmp, names, keep)
}

// makeInode makes the regular file tmp as g's new inode. Its GFID comes last.
func (t *tree) makeInode(tmp inode, g gfid.GFID, names []Name, r renewal, res *Result) *fault {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL
	fd, errno := tmp.open(flags, 0o600)
	if errno == syscall.EEXIST { // of an attempt that failed
		tmp.unlink()
		fd, errno = tmp.open(flags, 0o600)
	}
	if errno != 0 {
		return failed(errno, "create")
	}
	defer brick.Close(fd)
	meta := *r.meta
	if meta.KeepXattrs {
		if meta.Xattrs, errno = readXattrs(t.handle(g)); errno != 0 {
			return failed(errno, "read xattrs")
		}
		meta.KeepXattrs = false
	}
	return finishRegular(inode{fd: fd}, g, names, renewal{r.content, &meta, r.busy}, res)
}

// finishRegular fills the empty new regular file i and makes it g.
func finishRegular(i inode, g gfid.GFID, names []Name, r renewal, res *Result) *fault {
	if r.content != nil {
		if f := fill(i.fd, r.content); f != nil {
			return f
		}
	}
	var st unix.Statx_t
	if errno := i.statx(&st); errno != 0 {
		return failed(errno, "stat")
	}
	if f := setMeta(i, &st, r.meta, true); f != nil {
		return f
	}
	for _, n := range names {
		if f := addPath(i, n); f != nil {
			return f
		}
	}
	if f := leave(i, left{}, r.busy, res); f != nil {
		return f
	}
	return failed(i.setxattr(brick.XattrGFID, g[:]), "xattr "+brick.XattrGFID)
}

// swapIn makes tmp, a complete inode of g, be what names and then g's handle are
// links to. With keep the old inode lives on and must not seem ours.
func (t *tree) swapIn(g gfid.GFID, tmp inode, names []Name, keep bool) *fault {
	for _, n := range names {
		d, f := t.parent(n)
		if f != nil {
			return f
		}
		link := inode{t.tmp, "name-" + g.String()}
		errno := tmp.link(link)
		if errno == syscall.EEXIST {
			link.unlink()
			errno = tmp.link(link)
		}
		if errno == 0 {
			errno = link.rename(d.at(n.Base), 0)
		}
		t.dirs.release(d)
		if errno != 0 {
			return failed(errno, "replace "+quote(n.Base))
		}
	}
	h := t.handle(g)
	if keep {
		// Before the handle goes: after a crash recover finds both by it.
		if errno := t.disown(h); errno != 0 {
			return failed(errno, "xattrs of a conflict")
		}
	}
	return failed(tmp.rename(h, 0), "handle")
}

// begin does Begin.
func (t *tree) begin(op *Op, res *Result) *fault {
	h, st, f := t.regular(op.GFID)
	if f != nil {
		return f
	}
	l := readLeft(h)
	if !l.changed(st) {
		if l.busy {
			return nil
		}
		l.known, l.busy = true, true
		return l.set(h)
	}
	names, errno := t.names(op.GFID, st)
	if errno != 0 {
		return failed(errno, "names")
	}
	a := attrOfStat(st)
	meta := &Meta{Mode: a.Mode, UID: a.UID, GID: a.GID, Mtime: a.Mtime, KeepXattrs: true}
	return t.renew(op.GFID, st, names, true, renewal{meta: meta, busy: true}, res)
}

// write does Write.
func (t *tree) write(op *Op, res *Result) *fault {
	if f := checkContent(op.Content, true); f != nil {
		return f
	}
	h, st, f := t.regular(op.GFID)
	if f != nil {
		return f
	}
	l := readLeft(h)
	if l.changed(st) {
		return failed(syscall.EUCLEAN, "others changed the file")
	}
	if !l.busy {
		l.known, l.busy = true, true
		if f := l.set(h); f != nil {
			return f
		}
	}
	fd, errno := h.open(unix.O_WRONLY, 0)
	if errno != 0 {
		return failed(errno, "open")
	}
	defer brick.Close(fd)
	for _, e := range op.Content.Extents {
		if f := pwrite(fd, e); f != nil {
			return f
		}
	}
	if op.Content.Size >= 0 {
		if err := unix.Ftruncate(fd, op.Content.Size); err != nil {
			return failed(errnoOf(err), "set size")
		}
	}
	if errno := (inode{fd: fd}).statx(st); errno != 0 {
		return failed(errno, "stat")
	}
	res.Size = int64(st.Size)
	return nil
}

// ReadContent reads the regular file fd, holes left out. EFBIG: its data is more
// than max bytes, or lies in too many pieces for one Op.
func ReadContent(fd int, max int64) (*Content, syscall.Errno) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errnoOf(err)
	}
	c := &Content{Size: st.Size}
	total := int64(0)
	for off := int64(0); off < st.Size; {
		start, end := off, st.Size
		// A file that takes as much room as it is long has no hole worth a call.
		if st.Blocks*512 < st.Size {
			var errno syscall.Errno
			if start, end, errno = nextData(fd, off, st.Size); errno != 0 {
				return nil, errno
			}
			if start >= st.Size {
				break
			}
		}
		if total += end - start; total > max || len(c.Extents) == maxExtents {
			return nil, syscall.EFBIG
		}
		b := make([]byte, end-start)
		n, err := io.ReadFull(io.NewSectionReader(preader(fd), start, end-start), b)
		if n > 0 {
			c.Extents = append(c.Extents, Extent{start, b[:n]})
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF { // cut while it was read
			c.Size = start + int64(n)
			break
		}
		if err != nil {
			return nil, errnoOf(err)
		}
		off = end
	}
	return c, 0
}

// nextData finds the next run of data at or after off; start is size if there is
// none.
func nextData(fd int, off, size int64) (start, end int64, errno syscall.Errno) {
	start, err := unix.Seek(fd, off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO:
		return size, size, 0
	case err != nil:
		return 0, 0, errnoOf(err)
	}
	end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, errnoOf(err)
	}
	return start, min(end, size), 0
}

// preader reads a descriptor at an offset.
type preader int

func (fd preader) ReadAt(b []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(int(fd), b, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
