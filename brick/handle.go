package brick

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// handleLen is the length of a handle's path below .glusterfs: aa/bb/<gfid>.
const handleLen = 6 + gfid.TextLen

// handlePath is a handle's path with a NUL behind it, ready for a system call.
type handlePath [handleLen + 1]byte

func (p *handlePath) set(g gfid.GFID) *byte {
	b := hex.AppendEncode(p[:0], g[:1])
	b = append(b, '/')
	b = hex.AppendEncode(b, g[1:2])
	b = append(b, '/')
	b = g.Append(b)
	p[len(b)] = 0
	return &p[0]
}

// HandlePath is the path of g's handle below .glusterfs: "aa/bb/<gfid>".
func HandlePath(g gfid.GFID) string {
	var p handlePath
	p.set(g)
	return string(p[:handleLen])
}

// OpenHandle opens a non-directory by its GFID. A directory's handle is a
// symlink, so it answers ELOOP.
func (b *Brick) OpenHandle(g gfid.GFID, flags int) (int, syscall.Errno) {
	var p handlePath
	return openat(b.handles, p.set(g), flags, 0)
}

// StatHandle fills st for g's handle itself: a directory's is a symlink.
func (b *Brick) StatHandle(g gfid.GFID, st *unix.Statx_t) syscall.Errno {
	var p handlePath
	return statx(b.handles, p.set(g), st)
}

// LinkHandle makes the handle of the non-directory name in dirfd.
func (b *Brick) LinkHandle(dirfd int, name string, g gfid.GFID) syscall.Errno {
	n, errno := cstring(name)
	if errno != 0 {
		return errno
	}
	flags := uintptr(0)
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	var p handlePath
	h := p.set(g)
	return b.withHandleDir(g, func() syscall.Errno {
		_, _, e := syscall.Syscall6(unix.SYS_LINKAT, uintptr(dirfd), uintptr(unsafe.Pointer(n)),
			uintptr(b.handles), uintptr(unsafe.Pointer(h)), flags, 0)
		return e
	})
}

// SymlinkHandle makes the handle of the directory base in the directory parent,
// or changes it to say so, in one step.
func (b *Brick) SymlinkHandle(g, parent gfid.GFID, base string) syscall.Errno {
	target := DirHandleTarget(parent, base)
	errno := b.withHandleDir(g, func() syscall.Errno {
		return errnoOf(unix.Symlinkat(target, b.handles, HandlePath(g)))
	})
	if errno != syscall.EEXIST {
		return errno
	}
	if errno := b.StageDirHandle(g, parent, base); errno != 0 {
		return errno
	}
	return b.CommitDirHandle(g)
}

// StageDirHandle prepares for g's handle to say that the directory is base in
// parent, with all the space that takes. CommitDirHandle makes it so, or
// DropDirHandle undoes it; what a crash leaves staged is removed by Lock.
func (b *Brick) StageDirHandle(g, parent gfid.GFID, base string) syscall.Errno {
	target, tmp := DirHandleTarget(parent, base), stagedHandle(g)
	errno := errnoOf(unix.Symlinkat(target, b.handles, tmp))
	if errno == syscall.EEXIST {
		// Left by a crash: nobody else makes a name with this GFID now.
		unix.Unlinkat(b.handles, tmp, 0)
		errno = errnoOf(unix.Symlinkat(target, b.handles, tmp))
	}
	return errno
}

// CommitDirHandle puts what was staged in the place of g's handle, in one step.
func (b *Brick) CommitDirHandle(g gfid.GFID) syscall.Errno {
	return b.withHandleDir(g, func() syscall.Errno {
		return errnoOf(unix.Renameat(b.handles, stagedHandle(g), b.handles, HandlePath(g)))
	})
}

// DropDirHandle removes what was staged for g.
func (b *Brick) DropDirHandle(g gfid.GFID) {
	// Lock removes it if this fails.
	unix.Unlinkat(b.handles, stagedHandle(g), 0)
}

func stagedHandle(g gfid.GFID) string { return "georep/" + tmpPrefix + g.String() }

// UnlinkHandle removes g's handle, that of a protected file too.
func (b *Brick) UnlinkHandle(g gfid.GFID) syscall.Errno {
	var p handlePath
	path := p.set(g)
	unlink := func() syscall.Errno {
		_, _, errno := syscall.Syscall(unix.SYS_UNLINKAT, uintptr(b.handles), uintptr(unsafe.Pointer(path)), 0)
		return errno
	}
	if errno := unlink(); errno != syscall.EPERM {
		return errno
	}
	return lifting(b.handles, HandlePath(g), unlink)
}

// ReadDirHandle says where the directory g is: its parent's GFID and its name
// there. The root has neither: EINVAL.
func (b *Brick) ReadDirHandle(g gfid.GFID) (parent gfid.GFID, base string, errno syscall.Errno) {
	buf := make([]byte, 512)
	n, err := unix.Readlinkat(b.handles, HandlePath(g), buf)
	if err != nil {
		return parent, "", errnoOf(err)
	}
	return ParseDirHandleTarget(string(buf[:n]))
}

// DirHandleTarget is what the handle of the directory base in parent points to:
// "../../aa/bb/<parent gfid>/base".
//
// Source: glusterfs posix-handle.c, posix_handle_soft.
func DirHandleTarget(parent gfid.GFID, base string) string {
	return "../../" + HandlePath(parent) + "/" + base
}

// ParseDirHandleTarget reads what DirHandleTarget wrote; anything else is EINVAL.
func ParseDirHandleTarget(target string) (parent gfid.GFID, base string, errno syscall.Errno) {
	rest, ok := strings.CutPrefix(target, "../../")
	if !ok || len(rest) < handleLen+2 || rest[handleLen] != '/' {
		return parent, "", syscall.EINVAL
	}
	parent, err := gfid.Parse(rest[6:handleLen])
	base = rest[handleLen+1:]
	if err != nil || rest[:handleLen] != HandlePath(parent) || !isName(base) {
		return parent, "", syscall.EINVAL
	}
	return parent, base, 0
}

// isName reports whether base can be a name in a directory.
func isName(base string) bool {
	return base != "" && base != "." && base != ".." && !strings.Contains(base, "/")
}

// DirPath is where the directory g is below the root, "" for the root itself, by
// following handles upward. A handle that leads nowhere is its errno; a circle
// is ELOOP.
func (b *Brick) DirPath(g gfid.GFID) (string, syscall.Errno) {
	var parts []string
	for g != gfid.Root {
		if len(parts) > maxDepth {
			return "", syscall.ELOOP
		}
		parent, base, errno := b.ReadDirHandle(g)
		if errno != 0 {
			return "", errno
		}
		parts = append(parts, base)
		g = parent
	}
	slices.Reverse(parts)
	return filepath.Join(parts...), 0
}

// withHandleDir calls link, and once more after making g's handle directory if
// that was missing.
func (b *Brick) withHandleDir(g gfid.GFID, link func() syscall.Errno) syscall.Errno {
	errno := link()
	if errno != syscall.ENOENT {
		return errno
	}
	dir := HandlePath(g)[:5]
	for _, d := range []string{dir[:2], dir} {
		if err := unix.Mkdirat(b.handles, d, 0o700); err != nil && err != syscall.EEXIST {
			return errnoOf(err)
		}
	}
	return link()
}

// isHandleDir reports whether name can be a first or second level handle
// directory.
func isHandleDir(name string) bool {
	_, err := hex.DecodeString(name)
	return len(name) == 2 && err == nil && name == strings.ToLower(name)
}

// tmpPrefix begins the names of half-made handles in .glusterfs/georep.
const tmpPrefix = "tmp-"

// removeTemporary removes half-made handles left by a crash.
func (b *Brick) removeTemporary() error {
	names, err := os.ReadDir(filepath.Join(b.path, Dir, "georep"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), tmpPrefix) {
			if err := unix.Unlinkat(b.handles, "georep/"+n.Name(), 0); err != nil {
				return err
			}
		}
	}
	return nil
}
