package fusefs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/translator"
)

// fileSystem answers the kernel's requests.
type fileSystem struct {
	fuse.RawFileSystem
	t     *translator.Translator
	keep  time.Duration
	files handles[*translator.Handle]
	dirs  handles[*translator.DirHandle]
}

func (f *fileSystem) String() string { return "georep" }

// close is for what the kernel left open when the mount went away.
func (f *fileSystem) close() error {
	for _, h := range f.files.open {
		if h != nil {
			f.t.Release(h)
		}
	}
	for _, d := range f.dirs.open {
		if d != nil {
			d.Close()
		}
	}
	return f.t.Close()
}

// node finds the inode of a request. The kernel asks only for numbers that it
// has a reference to; a file handle of NFS may be older than us.
func (f *fileSystem) node(id uint64) (*translator.Inode, fuse.Status) {
	if in := f.t.Find(id); in != nil {
		return in, fuse.OK
	}
	return nil, fuse.Status(syscall.ESTALE)
}

func status(errno syscall.Errno) fuse.Status { return fuse.Status(errno) }

func caller(h *fuse.InHeader) translator.Caller {
	return translator.Caller{UID: h.Uid, GID: h.Gid, PID: h.Pid}
}

func masked(h *fuse.InHeader, umask uint32) translator.Caller {
	return translator.Caller{UID: h.Uid, GID: h.Gid, PID: h.Pid, Umask: umask}
}

// attr is st as the kernel wants it.
func attr(out *fuse.Attr, st *translator.Attr) {
	out.Ino = st.Ino
	out.Size = st.Size
	out.Blocks = st.Blocks
	out.Atime, out.Atimensec = uint64(st.Atime.Sec), st.Atime.Nsec
	out.Mtime, out.Mtimensec = uint64(st.Mtime.Sec), st.Mtime.Nsec
	out.Ctime, out.Ctimensec = uint64(st.Ctime.Sec), st.Ctime.Nsec
	out.Mode = uint32(st.Mode)
	out.Nlink = st.Nlink
	out.Uid, out.Gid = st.Uid, st.Gid
	out.Rdev = uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor))
	out.Blksize = st.Blksize
}

// entry is what a lookup or a creation answers.
func (f *fileSystem) entry(out *fuse.EntryOut, in *translator.Inode, st *translator.Attr, keep bool) {
	out.NodeId = in.ID()
	out.Generation = 1 // numbers are never used twice
	out.SetEntryTimeout(f.keep)
	if keep {
		out.SetAttrTimeout(f.keep)
	}
	attr(&out.Attr, st)
}

func (f *fileSystem) attrOut(out *fuse.AttrOut, st *translator.Attr, keep bool) {
	if keep {
		out.SetTimeout(f.keep)
	}
	attr(&out.Attr, st)
}

func (f *fileSystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	parent, code := f.node(h.NodeId)
	if !code.Ok() {
		return code
	}
	var st translator.Attr
	in, keep, errno := f.t.Lookup(parent, name, &st)
	if errno == syscall.ENOENT {
		// Node 0 lets the kernel keep that there is no such name.
		out.SetEntryTimeout(f.keep)
		return fuse.OK
	}
	if errno != 0 {
		return status(errno)
	}
	f.entry(out, in, &st, keep)
	return fuse.OK
}

func (f *fileSystem) Forget(id, n uint64) {
	if in := f.t.Find(id); in != nil {
		f.t.Forget(in, n)
	}
}

func (f *fileSystem) GetAttr(_ <-chan struct{}, input *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	in, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	var st translator.Attr
	keep, errno := f.t.Getattr(in, &st)
	if errno != 0 {
		return status(errno)
	}
	f.attrOut(out, &st, keep)
	return fuse.OK
}

func (f *fileSystem) Statx(_ <-chan struct{}, input *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	in, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	var st translator.Attr
	keep, errno := f.t.Getattr(in, &st)
	if errno != 0 {
		return status(errno)
	}
	if keep {
		out.SetTimeout(f.keep)
	}
	out.FromStatx(&st)
	return fuse.OK
}

func (f *fileSystem) SetAttr(_ <-chan struct{}, input *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	in, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	s := translator.Setattr{By: caller(&input.InHeader)}
	if input.Valid&fuse.FATTR_MODE != 0 {
		mode := input.Mode & 0o7777
		s.Mode = &mode
	}
	if input.Valid&fuse.FATTR_UID != 0 {
		s.UID = &input.Uid
	}
	if input.Valid&fuse.FATTR_GID != 0 {
		s.GID = &input.Gid
	}
	if input.Valid&fuse.FATTR_SIZE != 0 {
		s.Size = &input.Size
		s.Ftruncate = input.Valid&fuse.FATTR_FH != 0
	}
	s.KillPriv = input.Valid&fuse.FATTR_KILL_SUIDGID != 0
	if input.Valid&fuse.FATTR_ATIME != 0 {
		at := time.Unix(int64(input.Atime), int64(input.Atimensec))
		s.Atime, s.AtimeNow = &at, input.Valid&fuse.FATTR_ATIME_NOW != 0
	}
	if input.Valid&fuse.FATTR_MTIME != 0 {
		at := time.Unix(int64(input.Mtime), int64(input.Mtimensec))
		s.Mtime, s.MtimeNow = &at, input.Valid&fuse.FATTR_MTIME_NOW != 0
	}
	var st translator.Attr
	keep, errno := f.t.Setattr(in, &s, &st)
	if errno != 0 {
		return status(errno)
	}
	f.attrOut(out, &st, keep)
	return fuse.OK
}

func (f *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if errno := f.t.Statfs(&st); errno != 0 {
		return status(errno)
	}
	out.Blocks, out.Bfree, out.Bavail = st.Blocks, st.Bfree, st.Bavail
	out.Files, out.Ffree = st.Files, st.Ffree
	out.Bsize, out.Frsize, out.NameLen = uint32(st.Bsize), uint32(st.Frsize), uint32(st.Namelen)
	return fuse.OK
}

// Access is never asked with default_permissions, and grants all without.
func (f *fileSystem) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }
