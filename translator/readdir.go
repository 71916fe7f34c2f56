package translator

import (
	"encoding/binary"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// DirHandle is a directory open for reading. Entries come from the brick as they
// are asked for, with the brick's own offsets, so that reading stays right while
// the directory changes and holds one block of names at a time.
type DirHandle struct {
	in *Inode

	mu   sync.Mutex
	fd   int    // own file offset; guarded by mu; owned
	buf  []byte // of getdents64(2); guarded by mu
	rest []byte // part of buf not handed out; guarded by mu
	at   int64  // offset of what comes first in rest; guarded by mu
}

// Dirent is an entry of a directory.
type Dirent struct {
	Name []byte // valid until the next entry is read
	Ino  uint64
	Type uint8 // DT_*
	Next int64 // offset behind this entry
}

const direntBuffer = 32 << 10

// OpenDir opens the directory in for reading.
func (t *Translator) OpenDir(in *Inode) (*DirHandle, syscall.Errno) {
	fd, errno := t.dirs.acquire(in)
	if errno != 0 {
		return nil, errno
	}
	defer t.dirs.release(in)
	// A descriptor of its own: the one in the cache shares its offset with none.
	own, errno := brick.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		return nil, errno
	}
	return &DirHandle{in: in, fd: own}, 0
}

// Close closes the handle.
func (d *DirHandle) Close() { brick.Close(d.fd) }

// FD is the handle's descriptor, valid until Close.
func (d *DirHandle) FD() int { return d.fd }

// Fsync makes the directory durable.
func (d *DirHandle) Fsync(dataOnly bool) syscall.Errno {
	if dataOnly {
		return errnoOf(unix.Fdatasync(d.fd))
	}
	return errnoOf(unix.Fsync(d.fd))
}

// ReadDir calls add for the entries of d from offset off on, until add returns
// false, which leaves that entry to be read again, or the end.
func (t *Translator) ReadDir(d *DirHandle, off int64, add func(*Dirent) bool) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off != d.at {
		if _, err := unix.Seek(d.fd, off, unix.SEEK_SET); err != nil {
			return errnoOf(err)
		}
		d.rest, d.at = nil, off
	}
	var e Dirent
	for {
		if len(d.rest) == 0 {
			if d.buf == nil {
				d.buf = make([]byte, direntBuffer)
			}
			n, err := unix.Getdents(d.fd, d.buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n == 0 {
				return errnoOf(err)
			}
			d.rest = d.buf[:n]
		}
		size := e.parse(d.rest)
		if !t.isHidden(d.in, string(e.Name)) && !add(&e) {
			return 0
		}
		d.rest = d.rest[size:]
		d.at = e.Next
	}
}

// parse reads the struct linux_dirent64 at the start of b and returns its size.
func (e *Dirent) parse(b []byte) int {
	const header = 19
	size := int(binary.NativeEndian.Uint16(b[16:]))
	e.Ino = binary.NativeEndian.Uint64(b)
	e.Next = int64(binary.NativeEndian.Uint64(b[8:]))
	e.Type = b[18]
	e.Name = b[header:size]
	for i, c := range e.Name {
		if c == 0 {
			e.Name = e.Name[:i]
			break
		}
	}
	return size
}

// LookupEntry is Lookup for an entry just read from d. ENOENT: it is gone again.
func (t *Translator) LookupEntry(d *DirHandle, name string, st *Attr) (in *Inode, keep bool, errno syscall.Errno) {
	return t.lookupAt(d.in, d.fd, name, st)
}
