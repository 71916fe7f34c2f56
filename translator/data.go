package translator

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
)

// Write writes data at off, for handles that are not passed through. killPriv is
// as for Open.
func (t *Translator) Write(h *Handle, data []byte, off int64, killPriv bool, c Caller) (int, syscall.Errno) {
	if killPriv {
		h.in.mu.Lock()
		errno := t.killPriv(h.in, c)
		h.in.mu.Unlock()
		if errno != 0 {
			return 0, errno
		}
	}
	done := 0
	// As the caller: what is kept free for root is not for everybody.
	errno := c.as(func() (e syscall.Errno) {
		done, e = pwriteAll(h.fd, data, off)
		return e
	})
	if done > 0 {
		t.recordData(h.in)
		return done, 0
	}
	return 0, errno
}

// pwriteAll writes data, and says how much of it could be written.
func pwriteAll(fd int, data []byte, off int64) (done int, errno syscall.Errno) {
	for done < len(data) {
		n, err := unix.Pwrite(fd, data[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, errnoOf(err)
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, 0
}

// truncate sets the size of in. The caller holds in.mu.
func (t *Translator) truncate(in *Inode, s *Setattr) syscall.Errno {
	if s.KillPriv {
		if errno := t.killPriv(in, s.By); errno != 0 {
			return errno
		}
	}
	if !s.Ftruncate {
		// truncate(2) to the same size moves no time; only it can say so.
		path := "/proc/self/fd/" + strconv.Itoa(t.b.Handles()) + "/" + brick.HandlePath(in.gfid)
		return errnoOf(unix.Truncate(path, int64(*s.Size)))
	}
	fd, errno := t.b.OpenHandle(in.gfid, unix.O_WRONLY)
	if errno != 0 {
		return errno
	}
	defer brick.Close(fd)
	return errnoOf(unix.Ftruncate(fd, int64(*s.Size)))
}

// Fallocate changes the blocks of h's file as mode says, and clears setuid and
// the like as a write of the caller would.
func (t *Translator) Fallocate(h *Handle, mode uint32, off, size int64, c Caller) syscall.Errno {
	fd, errno := h.writable()
	if errno != 0 {
		return errno
	}
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	r := &changelog.Record{Type: changelog.Data, GFID: h.in.gfid}
	return t.actOnce(h.in, classData, r, func() syscall.Errno {
		if errno := t.killPrivUnlessCapable(h.in, c); errno != 0 {
			return errno
		}
		for {
			err := unix.Fallocate(fd, mode, off, size)
			if err != unix.EINTR {
				return errnoOf(err)
			}
		}
	})
}

// CopyFileRange copies up to size bytes from in to out on the brick, which may
// share blocks instead. It returns how many.
func (t *Translator) CopyFileRange(in *Handle, inOff int64, out *Handle, outOff int64, size int, flags int, c Caller) (int, syscall.Errno) {
	fd, errno := out.writable()
	if errno != 0 {
		return 0, errno
	}
	out.in.mu.Lock()
	defer out.in.mu.Unlock()
	var n int
	r := &changelog.Record{Type: changelog.Data, GFID: out.in.gfid}
	errno = t.actOnce(out.in, classData, r, func() syscall.Errno {
		if errno := t.killPrivUnlessCapable(out.in, c); errno != 0 {
			return errno
		}
		var err error
		n, err = unix.CopyFileRange(in.fd, &inOff, fd, &outOff, size, flags)
		return errnoOf(err)
	})
	return n, errno
}

// Lseek finds data or a hole in h's file.
func (t *Translator) Lseek(h *Handle, off int64, whence int) (int64, syscall.Errno) {
	n, err := unix.Seek(h.fd, off, whence)
	return n, errnoOf(err)
}

// Fsync makes h's file durable, without times and the like if dataOnly.
func (t *Translator) Fsync(h *Handle, dataOnly bool) syscall.Errno {
	if dataOnly {
		return errnoOf(unix.Fdatasync(h.fd))
	}
	return errnoOf(unix.Fsync(h.fd))
}
