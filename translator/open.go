package translator

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
)

// Handle is an open file of a user.
type Handle struct {
	in *Inode
	// fd reads the file; it also writes when the handle is not passed through.
	// Owned.
	fd int
	// write says that the user may write.
	write bool
	// maps says that the user can map the file past us and store to it.
	maps bool
	// plain says that it was opened for writing by one without privileges.
	plain bool

	mu  sync.Mutex
	wfd int // writes the file for fops that must; -1 until needed; guarded by mu; owned
}

// Inode is whose file is open.
func (h *Handle) Inode() *Inode { return h.in }

// FD is a descriptor that reads the file, valid until Release.
func (h *Handle) FD() int { return h.fd }

// openState is who has a file open. Guarded by the inode's mu.
type openState struct {
	handles int
	writers int
	// mappers is how many of the writers can map the file, and so store to it
	// without the kernel's mount layer seeing it: those that may read too.
	mappers int
	// passthrough is the one mode that all handles of the inode share: the
	// kernel answers EIO to a mixture.
	passthrough bool
	backing     int32 // id, while handles > 0 and passthrough
	// slot in the set of writers on the brick, -1 when in none.
	slot int
	// last is the version last looked at while open for writing.
	last version
	// owed says that a record must be made even if nothing is seen to change.
	owed bool
	// exposed says that contents changed since the pages were last made clean, so
	// that a store to one of them may not move a time.
	exposed bool
	// written says that contents changed since it was first open for writing.
	written bool
	// setuid says that the file was given such a bit while it was open for
	// writing past us, so that a write has yet to clear it: one through a plain
	// handle, since the privileged may write and keep it.
	setuid bool
	// plain counts the writers that are plain, and plainest opened the last.
	plain    int
	plainest Caller
	// watchFD is a descriptor of ours kept while the last handle is closed and a
	// writer is left all the same, -1 otherwise.
	watchFD int
}

// isWritten reports whether somebody may write past us. The caller holds mu.
func (in *Inode) isWritten() bool {
	return in.open != nil && in.open.slot >= 0
}

// isSteady reports whether the kernel may keep in's attributes: it notices what
// write(2) does to them, not what a store to a mapping does. The caller holds mu.
func (in *Inode) isSteady() bool {
	o := in.open
	return o == nil || o.mappers == 0 && o.watchFD < 0 && !o.setuid
}

// writingSet is the inodes that somebody may write to past us.
type writingSet struct {
	mu   sync.Mutex
	open map[*Inode]struct{} // pinned
}

func (w *writingSet) add(in *Inode) {
	w.mu.Lock()
	w.open[in] = struct{}{}
	w.mu.Unlock()
}

func (w *writingSet) remove(in *Inode) {
	w.mu.Lock()
	delete(w.open, in)
	w.mu.Unlock()
}

func (w *writingSet) all() []*Inode {
	w.mu.Lock()
	defer w.mu.Unlock()
	ins := make([]*Inode, 0, len(w.open))
	for in := range w.open {
		ins = append(ins, in)
	}
	return ins
}

// Mode is how the kernel is to serve a handle.
type Mode struct {
	// Passthrough: the kernel reads and writes the backing file itself.
	Passthrough bool
	Backing     int32 // its id
	// Steady: the kernel may keep the file's attributes.
	Steady bool
}

// Open opens the file in. flags are those of open(2); O_TRUNC is carried out,
// with killPriv clearing what a truncation by one without privileges clears.
func (t *Translator) Open(in *Inode, flags int, killPriv bool, c Caller) (*Handle, Mode, syscall.Errno) {
	in.mu.Lock()
	defer in.mu.Unlock()
	t.checkSetuid(in)
	var st Attr
	if errno := brick.Statx(t.b.Handles(), brick.HandlePath(in.gfid), &st); errno != 0 {
		return nil, Mode{}, errno
	}
	if errno := mayOpen(flags, &st); errno != 0 {
		return nil, Mode{}, errno
	}
	passthrough := t.mayPassThrough(in, &st)
	own := openFlags(flags, passthrough)
	if st.Attributes&unix.STATX_ATTR_APPEND != 0 {
		own |= flags & unix.O_APPEND
	}
	fd, errno := t.b.OpenHandle(in.gfid, own)
	if errno != 0 {
		return nil, Mode{}, errno
	}
	if flags&unix.O_TRUNC != 0 {
		size := uint64(0)
		r := &changelog.Record{Type: changelog.Data, GFID: in.gfid}
		s := &Setattr{Size: &size, Ftruncate: true, KillPriv: killPriv, By: c}
		if errno := t.actOnce(in, classData, r, func() syscall.Errno { return t.truncate(in, s) }); errno != 0 {
			brick.Close(fd)
			return nil, Mode{}, errno
		}
		if errno := brick.Fstatx(fd, &st); errno != 0 {
			brick.Close(fd)
			return nil, Mode{}, errno
		}
	}
	return t.opened(in, fd, flags, passthrough, &st, c)
}

// mayOpen checks what the kernel leaves to us, and what the descriptor that we
// open for a file that is passed through does not show: chattr +i and +a.
//
// Source: Linux fs/namei.c, may_open.
func mayOpen(flags int, st *Attr) syscall.Errno {
	if flags&unix.O_ACCMODE == unix.O_RDONLY && flags&unix.O_TRUNC == 0 {
		return 0
	}
	switch {
	case st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0,
		st.Attributes&unix.STATX_ATTR_APPEND != 0 && (flags&unix.O_APPEND == 0 || flags&unix.O_TRUNC != 0):
		return syscall.EPERM
	}
	return 0
}

// openFlags are those for our own descriptor. A passed-through file is written
// by the kernel, and a descriptor of ours that could write would hide from us
// when the last writer has gone.
func openFlags(flags int, passthrough bool) int {
	if passthrough || flags&unix.O_ACCMODE == unix.O_RDONLY {
		return unix.O_RDONLY | flags&unix.O_NOATIME
	}
	// Offsets come with each request, so appending is the kernel's business.
	return unix.O_RDWR | flags&(unix.O_DSYNC|unix.O_SYNC)
}

// mayPassThrough decides the mode of a new handle. The caller holds in.mu.
func (t *Translator) mayPassThrough(in *Inode, st *Attr) bool {
	if in.open != nil && in.open.handles > 0 {
		return in.open.passthrough
	}
	// A write past us to a setuid file would not clear the bit.
	return t.opts.Backing != nil && !t.cold.Load() && st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0
}

// opened makes a handle of fd, which it owns from then on. The caller holds
// in.mu; st is the file's.
func (t *Translator) opened(in *Inode, fd, flags int, passthrough bool, st *Attr, c Caller) (*Handle, Mode, syscall.Errno) {
	h := &Handle{in: in, fd: fd, write: flags&unix.O_ACCMODE != unix.O_RDONLY, wfd: -1}
	if in.open == nil {
		in.open = &openState{slot: -1, watchFD: -1}
	}
	o := in.open
	if o.handles == 0 {
		o.passthrough = passthrough
		if passthrough {
			if errno := t.register(o, fd, c); errno != 0 {
				brick.Close(fd)
				t.closedIfUnused(in)
				if errno != errNoPassthrough {
					return nil, Mode{}, errno
				}
				// From now on no file is passed through; this one neither.
				fd, errno := t.b.OpenHandle(in.gfid, openFlags(flags, false))
				if errno != 0 {
					return nil, Mode{}, errno
				}
				return t.opened(in, fd, flags, false, st, c)
			}
		}
	}
	if h.write {
		if errno := t.beginWriting(in, st); errno != 0 {
			if o.handles == 0 && o.passthrough {
				t.unregister(o)
			}
			brick.Close(fd)
			t.closedIfUnused(in)
			return nil, Mode{}, errno
		}
		o.writers++
		if h.plain = c.UID != 0; h.plain {
			o.plain++
			o.plainest = c
			if o.setuid {
				o.plainest = c.remembered()
			}
		}
		if h.maps = o.passthrough && flags&unix.O_ACCMODE == unix.O_RDWR; h.maps {
			o.mappers++
			// A mapping stored through would leave what the kernel has cached of
			// the attributes stale: it asks again, and is told not to keep them.
			t.opts.Invalidate(in.id)
		}
	}
	o.handles++
	t.table.pin(in)
	return h, Mode{Passthrough: o.passthrough, Backing: o.backing, Steady: in.isSteady()}, 0
}

// errNoPassthrough says that the kernel takes no backing files from us.
const errNoPassthrough = syscall.ENOTSUP

// register makes fd the backing file of o. The first refusal of the kernel ends
// passthrough for the whole mount.
func (t *Translator) register(o *openState, fd int, c Caller) syscall.Errno {
	if t.cold.Load() {
		return errNoPassthrough
	}
	// The kernel writes with the credentials that register: what is kept free for
	// root is not for who opens.
	var id int32
	errno := c.as(func() (e syscall.Errno) {
		id, e = t.opts.Backing.Register(fd)
		return e
	})
	switch errno {
	case 0:
		o.backing = id
		return 0
	case syscall.ENOMEM, syscall.ENFILE, syscall.EMFILE:
		return errno
	}
	if !t.cold.Swap(true) {
		t.opts.Logger.Warn("kernel passthrough not available, reads and writes take the longer way", "err", errno)
	}
	return errNoPassthrough
}

func (t *Translator) unregister(o *openState) {
	t.opts.Backing.Unregister(o.backing)
	o.backing = 0
}

// beginWriting enters in among the writers, on the brick too. The caller holds
// in.mu; st is the file's from before any write of the new handle.
func (t *Translator) beginWriting(in *Inode, st *Attr) syscall.Errno {
	o := in.open
	if o.slot >= 0 {
		return 0
	}
	slot, errno := t.writers.add(in.gfid)
	if errno != 0 {
		return errno
	}
	o.slot = slot
	o.last = t.clock.version(st)
	t.table.pin(in)
	t.writing.add(in)
	return 0
}

// endWriting takes in out again, once nobody can write. The caller holds in.mu.
func (t *Translator) endWriting(in *Inode) {
	o := in.open
	t.writers.remove(o.slot)
	o.slot = -1
	o.owed, o.exposed, o.written, o.setuid = false, false, false, false
	if o.watchFD >= 0 {
		brick.Close(o.watchFD)
		o.watchFD = -1
	}
	t.writing.remove(in)
	t.unpin(in)
}

func (t *Translator) closedIfUnused(in *Inode) {
	if o := in.open; o.handles == 0 && o.slot < 0 {
		in.open = nil
	}
}

// Release closes a handle: the kernel's last close(2) of it.
func (t *Translator) Release(h *Handle) {
	in := h.in
	in.mu.Lock()
	h.closeWritable()
	o := in.open
	fd := h.fd
	if h.write {
		if h.plain {
			t.checkSetuid(in)
			o.plain--
		}
		o.writers--
		if h.maps {
			o.mappers--
		}
		if o.writers == 0 {
			fd = t.lastWriterClosed(in, fd)
		}
	}
	o.handles--
	if o.handles == 0 && o.passthrough {
		t.unregister(o)
	}
	t.closedIfUnused(in)
	in.mu.Unlock()
	if fd >= 0 {
		brick.Close(fd)
	}
	t.unpin(in)
}

// lastWriterClosed records what was written and ends the watch over in, unless a
// mapping outlives its descriptor. It returns the descriptor that is left to
// close, -1 when it was kept. The caller holds in.mu.
func (t *Translator) lastWriterClosed(in *Inode, fd int) int {
	o := in.open
	if !o.passthrough {
		brick.Close(fd) // it could write, and would look like a writer
		if o.watchFD < 0 {
			t.endWriting(in)
		}
		return -1
	}
	// A write that stalled over more than one seal has no other record.
	o.owed = o.owed || o.written
	left := hasWriter(fd)
	// After the lease: with the last writer gone, this look sees its last store.
	t.check(in, fd)
	switch {
	case !left:
		t.endWriting(in)
	case o.watchFD < 0:
		o.watchFD = fd
		t.linger(in)
		return -1
	}
	return fd
}

// hasWriter reports whether somebody has the file behind fd, which is open for
// reading only, open or mapped for writing: then the kernel grants no read lease.
// Any other refusal counts as yes.
func hasWriter(fd int) bool {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return true
	}
	// Under in.mu nobody can be told of an open meanwhile and run into the lease.
	unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return false
}

// writable returns a descriptor that writes h's file, valid until Release, for
// fops that come to us even with passthrough.
func (h *Handle) writable() (int, syscall.Errno) {
	if !h.write {
		return -1, syscall.EBADF
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wfd < 0 {
		fd, errno := brick.Reopen(h.fd, unix.O_RDWR)
		if errno == syscall.EPERM { // chattr +a
			fd, errno = brick.Reopen(h.fd, unix.O_RDWR|unix.O_APPEND)
		}
		if errno != 0 {
			return -1, errno
		}
		h.wfd = fd
	}
	return h.wfd, 0
}

func (h *Handle) closeWritable() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wfd >= 0 {
		brick.Close(h.wfd)
		h.wfd = -1
	}
}

// unpin drops a pin, and what in leaves behind if it was the last reference.
func (t *Translator) unpin(in *Inode) {
	if t.table.unpin(in) {
		t.reap(in)
	}
}
