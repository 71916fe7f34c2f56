package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/georep/georep/translator"
)

func (f *fileSystem) Mknod(_ <-chan struct{}, input *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	var st translator.Attr
	in, errno := f.t.Mknod(parent, name, input.Mode, input.Rdev, masked(&input.InHeader, input.Umask), &st)
	return f.made(out, in, &st, errno)
}

func (f *fileSystem) Mkdir(_ <-chan struct{}, input *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	var st translator.Attr
	in, errno := f.t.Mkdir(parent, name, input.Mode, masked(&input.InHeader, input.Umask), &st)
	return f.made(out, in, &st, errno)
}

func (f *fileSystem) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	parent, code := f.node(h.NodeId)
	if !code.Ok() {
		return code
	}
	var st translator.Attr
	in, errno := f.t.Symlink(parent, name, target, caller(h), &st)
	return f.made(out, in, &st, errno)
}

func (f *fileSystem) made(out *fuse.EntryOut, in *translator.Inode, st *translator.Attr, errno syscall.Errno) fuse.Status {
	if errno != 0 {
		return status(errno)
	}
	f.entry(out, in, st, true)
	return fuse.OK
}

func (f *fileSystem) Link(_ <-chan struct{}, input *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	in, code := f.node(input.Oldnodeid)
	if !code.Ok() {
		return code
	}
	var st translator.Attr
	keep, errno := f.t.Link(in, parent, name, &st)
	if errno != 0 {
		return status(errno)
	}
	f.entry(out, in, &st, keep)
	return fuse.OK
}

func (f *fileSystem) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	parent, code := f.node(h.NodeId)
	if !code.Ok() {
		return code
	}
	return status(f.t.Unlink(parent, name))
}

func (f *fileSystem) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	parent, code := f.node(h.NodeId)
	if !code.Ok() {
		return code
	}
	return status(f.t.Rmdir(parent, name))
}

func (f *fileSystem) Rename(_ <-chan struct{}, input *fuse.RenameIn, oldName, newName string) fuse.Status {
	from, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	to, code := f.node(input.Newdir)
	if !code.Ok() {
		return code
	}
	var flags uint32
	if input.Opcode == opRename2 {
		flags = input.Flags // RENAME has no such field
	}
	return status(f.t.Rename(from, oldName, to, newName, flags))
}

// opRename2 is FUSE_RENAME2 of linux/fuse.h.
const opRename2 = 45

func (f *fileSystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	in, code := f.node(h.NodeId)
	if !code.Ok() {
		return nil, code
	}
	target, errno := f.t.Readlink(in)
	return target, status(errno)
}
