package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/georep/georep/translator"
)

// opened is what an open or a creation answers.
func (f *fileSystem) opened(out *fuse.OpenOut, h *translator.Handle, how translator.Mode) {
	out.Fh = f.files.add(h)
	if how.Passthrough {
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_NOFLUSH
		out.BackingID = how.Backing
		return
	}
	// Nobody else writes, so what the kernel has cached stays good.
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
}

func (f *fileSystem) Create(_ <-chan struct{}, input *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	parent, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	var st translator.Attr
	in, h, how, errno := f.t.Create(parent, name, int(input.Flags), input.Mode&0o7777, masked(&input.InHeader, input.Umask), &st)
	if errno != 0 {
		return status(errno)
	}
	f.entry(&out.EntryOut, in, &st, how.Steady)
	f.opened(&out.OpenOut, h, how)
	return fuse.OK
}

func (f *fileSystem) Tmpfile(_ <-chan struct{}, input *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	parent, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	var st translator.Attr
	in, h, how, errno := f.t.Tmpfile(parent, int(input.Flags), input.Mode&0o7777, masked(&input.InHeader, input.Umask), &st)
	if errno != 0 {
		return status(errno)
	}
	f.entry(&out.EntryOut, in, &st, how.Steady)
	f.opened(&out.OpenOut, h, how)
	return fuse.OK
}

func (f *fileSystem) Open(_ <-chan struct{}, input *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	in, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	h, how, errno := f.t.Open(in, int(input.Flags), input.Mode&fuse.OPEN_KILL_SUIDGID != 0, caller(&input.InHeader))
	if errno != 0 {
		return status(errno)
	}
	f.opened(out, h, how)
	return fuse.OK
}

func (f *fileSystem) Release(_ <-chan struct{}, input *fuse.ReleaseIn) {
	if h := f.files.get(input.Fh); h != nil {
		f.t.Release(h)
		f.files.remove(input.Fh)
	}
}

func (f *fileSystem) Read(_ <-chan struct{}, input *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	h := f.files.get(input.Fh)
	if h == nil {
		return nil, fuse.EBADF
	}
	return fuse.ReadResultFd(uintptr(h.FD()), int64(input.Offset), int(input.Size)), fuse.OK
}

func (f *fileSystem) Write(_ <-chan struct{}, input *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h := f.files.get(input.Fh)
	if h == nil {
		return 0, fuse.EBADF
	}
	n, errno := f.t.Write(h, data, int64(input.Offset), input.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0, caller(&input.InHeader))
	return uint32(n), status(errno)
}

// Flush has nothing to do: a write is on the brick when it is answered.
func (f *fileSystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (f *fileSystem) Fsync(_ <-chan struct{}, input *fuse.FsyncIn) fuse.Status {
	h := f.files.get(input.Fh)
	if h == nil {
		return fuse.EBADF
	}
	return status(f.t.Fsync(h, input.FsyncFlags&1 != 0))
}

func (f *fileSystem) Fallocate(_ <-chan struct{}, input *fuse.FallocateIn) fuse.Status {
	h := f.files.get(input.Fh)
	if h == nil {
		return fuse.EBADF
	}
	return status(f.t.Fallocate(h, input.Mode, int64(input.Offset), int64(input.Length), caller(&input.InHeader)))
}

func (f *fileSystem) CopyFileRange(_ <-chan struct{}, input *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	in, out := f.files.get(input.FhIn), f.files.get(input.FhOut)
	if in == nil || out == nil {
		return 0, fuse.EBADF
	}
	const most = 1 << 30 // the answer has 32 bits; more is asked for again
	n, errno := f.t.CopyFileRange(in, int64(input.OffIn), out, int64(input.OffOut), int(min(input.Len, most)), int(input.Flags), caller(&input.InHeader))
	return uint32(n), status(errno)
}

func (f *fileSystem) Lseek(_ <-chan struct{}, input *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h := f.files.get(input.Fh)
	if h == nil {
		return fuse.EBADF
	}
	off, errno := f.t.Lseek(h, int64(input.Offset), int(input.Whence))
	out.Offset = uint64(off)
	return status(errno)
}

func (f *fileSystem) Ioctl(_ <-chan struct{}, input *fuse.IoctlIn, in []byte, _ *fuse.IoctlOut, out []byte) fuse.Status {
	fd := -1
	if input.Flags&fuse.IOCTL_DIR != 0 {
		if d := f.dirs.get(input.Fh); d != nil {
			fd = d.FD()
		}
	} else if h := f.files.get(input.Fh); h != nil {
		fd = h.FD()
	}
	if fd < 0 {
		return fuse.EBADF
	}
	node, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	return status(f.t.Ioctl(node, fd, input.Cmd, in, out))
}
