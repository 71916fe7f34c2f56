package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/georep/georep/translator"
)

func (f *fileSystem) OpenDir(_ <-chan struct{}, input *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	in, code := f.node(input.NodeId)
	if !code.Ok() {
		return code
	}
	d, errno := f.t.OpenDir(in)
	if errno != 0 {
		return status(errno)
	}
	out.Fh = f.dirs.add(d)
	return fuse.OK
}

func (f *fileSystem) ReleaseDir(input *fuse.ReleaseIn) {
	if d := f.dirs.remove(input.Fh); d != nil {
		d.Close()
	}
}

func (f *fileSystem) FsyncDir(_ <-chan struct{}, input *fuse.FsyncIn) fuse.Status {
	d := f.dirs.get(input.Fh)
	if d == nil {
		return fuse.EBADF
	}
	return status(d.Fsync(input.FsyncFlags&1 != 0))
}

func dirEntry(e *translator.Dirent) fuse.DirEntry {
	return fuse.DirEntry{Name: string(e.Name), Ino: e.Ino, Mode: uint32(e.Type) << 12, Off: uint64(e.Next)}
}

func (f *fileSystem) ReadDir(_ <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	d := f.dirs.get(input.Fh)
	if d == nil {
		return fuse.EBADF
	}
	return status(f.t.ReadDir(d, int64(input.Offset), func(e *translator.Dirent) bool {
		return out.AddDirEntry(dirEntry(e))
	}))
}

func (f *fileSystem) ReadDirPlus(_ <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	d := f.dirs.get(input.Fh)
	if d == nil {
		return fuse.EBADF
	}
	return status(f.t.ReadDir(d, int64(input.Offset), func(e *translator.Dirent) bool {
		de := dirEntry(e)
		entry := out.AddDirLookupEntry(de)
		if entry == nil {
			return false
		}
		if de.Name == "." || de.Name == ".." {
			return true // the kernel does not want these looked up
		}
		var st translator.Attr
		in, keep, errno := f.t.LookupEntry(d, de.Name, &st)
		if errno != 0 {
			// Node 0: the kernel looks it up if somebody wants it, and hears why.
			return true
		}
		f.entry(entry, in, &st, keep)
		out.FixMode(uint32(st.Mode))
		return true
	}))
}
