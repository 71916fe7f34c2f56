package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

func (f *fileSystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	in, code := f.node(h.NodeId)
	if !code.Ok() {
		return 0, code
	}
	n, errno := f.t.Getxattr(in, attr, dest)
	return uint32(n), status(errno)
}

func (f *fileSystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	in, code := f.node(h.NodeId)
	if !code.Ok() {
		return 0, code
	}
	n, errno := f.t.Listxattr(in, dest, caller(h))
	return uint32(n), status(errno)
}

func (f *fileSystem) SetXAttr(_ <-chan struct{}, input *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	in, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	kill := input.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0
	return status(f.t.Setxattr(in, attr, data, int(input.Flags), kill, caller(&input.InHeader)))
}

func (f *fileSystem) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	in, code := f.node(h.NodeId)
	if !code.Ok() {
		return code
	}
	return status(f.t.Removexattr(in, attr))
}
