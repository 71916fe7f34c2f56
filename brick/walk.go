package brick

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// visit is what a walk does with what it finds.
type visit struct {
	// dir is called for each directory but the root before anything in it, one
	// call at a time. fd is the directory it is in, known as at. The GFID it
	// returns is at's for what lies below; false leaves all that out.
	dir func(at *place, fd int, name string, st *unix.Statx_t) (gfid.GFID, bool)
	// file is called for each name of a non-directory, by many at once.
	file func(at *place, fd int, name string)
	// trouble is called where a directory could not be read, one call at a time.
	trouble func(at *place, name string, errno syscall.Errno)
}

// place is a directory on a walk. Places are linked upward and never change, so
// that a path is put together only where one is shown to a person.
type place struct {
	up   *place // nil above the root
	name string
	gfid gfid.GFID
}

// path is the path of name in p below the brick's root. It may be of any length.
func (p *place) path(name string) string {
	parts := []string{name}
	for ; p.up != nil; p = p.up {
		parts = append(parts, p.name)
	}
	var b bytes.Buffer
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteString(parts[i])
		if i > 0 && parts[i-1] != "" {
			b.WriteByte('/')
		}
	}
	return b.String()
}

const (
	// keepOpen is how many directories above the current one a walk keeps open:
	// those further up are closed and opened again through "..", so that neither
	// the depth of a tree nor a limit on descriptors stops it.
	keepOpen = 64
	// manySubs is how many subdirectories of one directory are remembered
	// before they are entered, which bounds what a walk holds in memory.
	manySubs = 1024
	// batch is how many names a worker takes at once.
	batch = 256
)

// openDir is a directory's descriptor, closed by the last who lets go.
type openDir struct {
	fd   int
	refs atomic.Int32
}

func newOpenDir(fd int) *openDir {
	d := &openDir{fd: fd}
	d.refs.Store(1)
	return d
}

func (d *openDir) release() {
	if d.refs.Add(-1) == 0 {
		Close(d.fd)
	}
}

// frame is a directory between the root and where a walk is.
type frame struct {
	at   *place
	dir  *openDir // nil: closed for now, see keepOpen
	ino  uint64
	read bool  // to its end
	pos  int64 // where reading goes on, if it was closed before its end
	subs []string
}

type job struct {
	at    *place
	dir   *openDir
	names []string
}

type walker struct {
	b            *Brick
	v            visit
	jobs         chan job
	stack        []frame
	buf          []byte
	major, minor uint32 // of the file system
}

// walk visits all names of the brick, .glusterfs apart, depth first. A name that
// is gone when its turn comes is passed over. What lies on another file system
// is trouble (EXDEV), for it can have no handle here. The error is that of ctx or
// says that a directory was moved under the walk's feet.
func (b *Brick) walk(ctx context.Context, workers int, v visit) error {
	w := &walker{b: b, v: v, jobs: make(chan job, workers), buf: make([]byte, 64<<10)}
	fd, errno := Openat(b.root, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		return fmt.Errorf("brick: walk %q: %w", b.path, errno)
	}
	dir := newOpenDir(fd)
	var st unix.Statx_t
	if errno := Fstatx(fd, &st); errno != 0 {
		dir.release()
		return fmt.Errorf("brick: walk %q: %w", b.path, errno)
	}
	w.major, w.minor = st.Dev_major, st.Dev_minor
	w.stack = []frame{{at: &place{gfid: gfid.Root}, dir: dir, ino: st.Ino}}

	var wg sync.WaitGroup
	for range workers {
		wg.Go(w.work)
	}
	err := w.run(ctx)
	close(w.jobs)
	wg.Wait()
	for _, f := range w.stack {
		if f.dir != nil {
			f.dir.release()
		}
	}
	return err
}

func (w *walker) work() {
	for j := range w.jobs {
		for _, name := range j.names {
			w.v.file(j.at, j.dir.fd, name)
		}
		j.dir.release()
	}
}

func (w *walker) run(ctx context.Context) error {
	for len(w.stack) > 0 {
		f := &w.stack[len(w.stack)-1]
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case len(f.subs) > 0:
			name := f.subs[len(f.subs)-1]
			f.subs = f.subs[:len(f.subs)-1]
			w.enter(f, name)
		case !f.read:
			w.read(f)
		default:
			if err := w.leave(); err != nil {
				return err
			}
		}
	}
	return nil
}

// read takes names from f until its end, or until many subdirectories wait.
func (w *walker) read(f *frame) {
	var files []string
	flush := func() {
		if len(files) > 0 {
			f.dir.refs.Add(1)
			w.jobs <- job{at: f.at, dir: f.dir, names: files}
			files = nil
		}
	}
	defer flush()
	for len(f.subs) < manySubs {
		n, err := unix.ReadDirent(f.dir.fd, w.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil && err != unix.ENOENT {
			w.v.trouble(f.at, "", errnoOf(err))
		}
		if n <= 0 {
			f.read = true
			return
		}
		dirents(w.buf[:n], func(name string, dtype byte) {
			switch {
			case name == "." || name == ".." || f.at.up == nil && name == Dir:
			case w.isDir(f.dir.fd, name, dtype):
				f.subs = append(f.subs, name)
			default:
				if files = append(files, name); len(files) == batch {
					flush()
				}
			}
		})
	}
}

func (w *walker) isDir(fd int, name string, dtype byte) bool {
	if dtype != unix.DT_UNKNOWN {
		return dtype == unix.DT_DIR
	}
	var st unix.Statx_t
	return Statx(fd, name, &st) == 0 && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// enter goes down into the directory name of f.
func (w *walker) enter(f *frame, name string) {
	fd, errno := Openat(f.dir.fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	var st unix.Statx_t
	if errno == 0 {
		errno = Fstatx(fd, &st)
		if errno == 0 && (st.Dev_major != w.major || st.Dev_minor != w.minor) {
			errno = syscall.EXDEV
		}
		if errno != 0 {
			Close(fd)
		}
	}
	if errno != 0 {
		if errno != syscall.ENOENT {
			w.v.trouble(f.at, name, errno)
		}
		return
	}
	g, ok := w.v.dir(f.at, f.dir.fd, name, &st)
	if !ok {
		Close(fd)
		return
	}
	if far := len(w.stack) - keepOpen; far >= 0 {
		w.stack[far].suspend()
	}
	w.stack = append(w.stack, frame{at: &place{up: f.at, name: name, gfid: g}, dir: newOpenDir(fd), ino: st.Ino})
}

// suspend closes f until the walk comes back to it.
func (f *frame) suspend() {
	if f.dir == nil {
		return
	}
	if !f.read {
		pos, err := unix.Seek(f.dir.fd, 0, unix.SEEK_CUR)
		if err != nil {
			return // it stays open: that costs a descriptor, not a name
		}
		f.pos = pos
	}
	f.dir.release()
	f.dir = nil
}

// leave goes up from the last frame.
func (w *walker) leave() error {
	last := &w.stack[len(w.stack)-1]
	if len(w.stack) > 1 {
		if f := &w.stack[len(w.stack)-2]; f.dir == nil {
			if err := f.resume(last.dir.fd); err != nil {
				return fmt.Errorf("brick: walk: on %q: %w", last.at.path(""), err)
			}
		}
	}
	last.dir.release()
	w.stack = w.stack[:len(w.stack)-1]
	return nil
}

// resume opens f again from the directory below in it.
func (f *frame) resume(below int) error {
	fd, errno := Openat(below, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		return errno
	}
	f.dir = newOpenDir(fd)
	var st unix.Statx_t
	if errno := Fstatx(fd, &st); errno != 0 {
		return errno
	}
	if st.Ino != f.ino {
		return fmt.Errorf("moved to another directory meanwhile: %w", syscall.ESTALE)
	}
	if !f.read {
		if _, err := unix.Seek(fd, f.pos, unix.SEEK_SET); err != nil {
			return err
		}
	}
	return nil
}

// dirents calls found for each entry in a buffer of getdents64(2).
func dirents(buf []byte, found func(name string, dtype byte)) {
	const header = 19 // ino, off, reclen, type
	for len(buf) > header {
		size := binary.NativeEndian.Uint16(buf[16:])
		name := buf[header:size]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		found(string(name), buf[18])
		buf = buf[size:]
	}
}
