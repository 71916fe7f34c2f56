package fusefs

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// acked is a change that the mount acknowledged to a user.
type acked struct {
	what string
	// since is the newest stamp sealed for certain when the change began.
	since int64
	typ   changelog.Type
	g     gfid.GFID        // Data and Meta
	names []changelog.Name // Entry: each must have a record
}

// load is several users who change a mount until it dies under them.
type load struct {
	dir    string       // the mount
	sealed atomic.Int64 // newest stamp sealed for certain
	done   atomic.Int64 // changes acknowledged
	// killAt is how many changes are acknowledged when kill is called, by whom
	// made the last of them.
	killAt int64
	kill   func()
	// anyError: the mount goes on, with any errno, when its disk is gone.
	anyError bool

	mu    sync.Mutex
	acks  []acked     // guarded by mu
	held  []*heldFile // left open by users; guarded by mu
	fails []string    // what should not have happened; guarded by mu
}

// heldFile is a file that a user keeps open, and writes through a mapping too.
type heldFile struct {
	g   gfid.GFID
	fd  int
	mem []byte // MAP_SHARED of its first page; nil if not mapped
}

func (h *heldFile) close() {
	if h.mem != nil {
		unix.Munmap(h.mem)
	}
	unix.Close(h.fd)
}

func (l *load) ack(a acked) {
	l.mu.Lock()
	l.acks = append(l.acks, a)
	l.mu.Unlock()
	if l.done.Add(1) == l.killAt {
		l.kill()
	}
}

// user is one who works in directories of its own.
type worker struct {
	l     *load
	r     *rand.Rand
	id    string // unique, of names
	n     int
	dirs  []*workDir
	files []*workFile
	held  []*heldFile
	dead  bool // the mount is gone
	noMap bool // hold no mapping: a mount that is gone faults it
}

type workDir struct {
	g      gfid.GFID
	fd     int
	parent *workDir
	name   string
	used   int // names in it
}

type workFile struct {
	g    gfid.GFID
	dir  *workDir
	name string
}

// ok notes that the mount is gone when err says so; any other error is one that
// should not have happened.
func (w *worker) ok(what string, err error) bool {
	if err == nil {
		return true
	}
	w.dead = true
	if w.l.anyError && w.l.done.Load() >= w.l.killAt {
		return false
	}
	switch err {
	case unix.ENOTCONN, unix.ECONNABORTED, unix.ECANCELED, unix.EIO, unix.EINTR:
	default:
		w.l.mu.Lock()
		w.l.fails = append(w.l.fails, fmt.Sprintf("%s: %s: %v", w.id, what, err))
		w.l.mu.Unlock()
	}
	return false
}

func (w *worker) name() string {
	w.n++
	return w.id + "-" + strconv.Itoa(w.n)
}

// gfidOf asks the mount for the GFID of an open file.
func gfidOf(fd int) (g gfid.GFID, err error) {
	_, err = unix.Fgetxattr(fd, "glusterfs.gfid", g[:])
	return g, err
}

// run works until the mount is gone or stop is closed.
func (w *worker) run(stop <-chan struct{}) {
	defer func() {
		for _, d := range w.dirs {
			unix.Close(d.fd)
		}
		w.l.mu.Lock()
		w.l.held = append(w.l.held, w.held...)
		w.l.mu.Unlock()
	}()
	rootFD, err := unix.Open(w.l.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if !w.ok("open of the mount", err) {
		return
	}
	w.dirs = append(w.dirs, &workDir{g: gfid.Root, fd: rootFD, name: "."})
	for !w.dead {
		select {
		case <-stop:
			return
		default:
			w.step()
		}
	}
}

func (w *worker) dir() *workDir   { return w.dirs[w.r.IntN(len(w.dirs))] }
func (w *worker) file() *workFile { return w.files[w.r.IntN(len(w.files))] }

// step does one thing.
func (w *worker) step() {
	if len(w.dirs) < 3 || len(w.dirs) < 6 && w.r.IntN(10) == 0 {
		w.mkdir()
		return
	}
	if len(w.files) < 4 {
		w.create()
		return
	}
	switch k := w.r.IntN(24); k {
	case 0, 1, 2:
		w.create()
	case 3, 4:
		w.writeHeld()
	case 5, 6:
		w.storeHeld()
	case 7, 8:
		w.rename(0)
	case 9:
		w.renameOver()
	case 10:
		w.renameDir()
	case 11:
		w.exchange()
	case 12:
		w.link()
	case 13, 14:
		w.unlink()
	case 15:
		w.chmod()
	case 16:
		w.setxattr()
	case 17:
		w.truncate()
	case 18:
		w.fallocate()
	case 19:
		w.special()
	case 20:
		w.tmpfile()
	case 21:
		w.rewrite()
	case 22:
		w.rmdir()
	case 23:
		w.rename(unix.RENAME_NOREPLACE)
	}
}

func (w *worker) entry(what string, since int64, names ...changelog.Name) {
	w.l.ack(acked{what: what, since: since, typ: changelog.Entry, names: names})
}

func (w *worker) data(what string, since int64, g gfid.GFID) {
	w.l.ack(acked{what: what, since: since, typ: changelog.Data, g: g})
}

func (w *worker) mkdir() {
	p, name, since := w.dir(), w.name(), w.l.sealed.Load()
	if !w.ok("mkdir", unix.Mkdirat(p.fd, name, 0o755)) {
		return
	}
	w.entry("mkdir", since, changelog.Name{Parent: p.g, Base: name})
	p.used++
	fd, err := unix.Openat(p.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if !w.ok("open of a directory", err) {
		return
	}
	d := &workDir{fd: fd, parent: p, name: name}
	if d.g, err = gfidOf(fd); !w.ok("gfid", err) {
		unix.Close(fd)
		return
	}
	w.dirs = append(w.dirs, d)
}

func (w *worker) rmdir() {
	for i, d := range w.dirs {
		if d.parent == nil || d.used > 0 || len(w.dirs) < 4 {
			continue
		}
		since := w.l.sealed.Load()
		if !w.ok("rmdir", unix.Unlinkat(d.parent.fd, d.name, unix.AT_REMOVEDIR)) {
			return
		}
		w.entry("rmdir", since, changelog.Name{Parent: d.parent.g, Base: d.name})
		d.parent.used--
		unix.Close(d.fd)
		w.dirs = append(w.dirs[:i], w.dirs[i+1:]...)
		return
	}
}

// create makes a file, writes to it, and holds it open now and then.
func (w *worker) create() {
	d, name, since := w.dir(), w.name(), w.l.sealed.Load()
	fd, err := unix.Openat(d.fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if !w.ok("create", err) {
		return
	}
	w.entry("create", since, changelog.Name{Parent: d.g, Base: name})
	d.used++
	g, err := gfidOf(fd)
	if !w.ok("gfid", err) {
		unix.Close(fd)
		return
	}
	w.files = append(w.files, &workFile{g, d, name})
	since = w.l.sealed.Load()
	if _, err := unix.Pwrite(fd, fmt.Appendf(nil, "%-5000d", w.n), 0); !w.ok("write", err) {
		unix.Close(fd)
		return
	}
	w.data("write", since, g)
	if w.r.IntN(3) > 0 || len(w.held) >= 6 {
		unix.Close(fd)
		return
	}
	h := &heldFile{g: g, fd: fd}
	if !w.noMap && w.r.IntN(2) == 0 {
		h.mem, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if !w.ok("mmap", err) {
			unix.Close(fd)
			return
		}
	}
	w.held = append(w.held, h)
}

func (w *worker) writeHeld() {
	if len(w.held) == 0 {
		return
	}
	h, since := w.held[w.r.IntN(len(w.held))], w.l.sealed.Load()
	if _, err := unix.Pwrite(h.fd, []byte(w.name()), int64(w.r.IntN(9000))); w.ok("write", err) {
		w.data("write to a held file", since, h.g)
	}
}

// storeHeld stores through a mapping, and ends one now and then.
func (w *worker) storeHeld() {
	for i, h := range w.held {
		if h.mem == nil {
			continue
		}
		since := w.l.sealed.Load()
		copy(h.mem[w.r.IntN(4000):], w.name())
		w.data("store", since, h.g)
		if w.r.IntN(8) == 0 {
			h.close()
			w.held = append(w.held[:i], w.held[i+1:]...)
		}
		return
	}
}

func (w *worker) rename(flags uint) {
	f, d, name, since := w.file(), w.dir(), w.name(), w.l.sealed.Load()
	if !w.ok("rename", unix.Renameat2(f.dir.fd, f.name, d.fd, name, flags)) {
		return
	}
	w.entry("rename", since, changelog.Name{Parent: f.dir.g, Base: f.name}, changelog.Name{Parent: d.g, Base: name})
	f.dir.used--
	d.used++
	f.dir, f.name = d, name
}

// drop forgets the i-th file.
func (w *worker) drop(i int) {
	w.files[i] = w.files[len(w.files)-1]
	w.files = w.files[:len(w.files)-1]
}

func (w *worker) renameOver() {
	i := w.r.IntN(len(w.files))
	f, o, since := w.files[i], w.file(), w.l.sealed.Load()
	if f.g == o.g {
		return
	}
	if !w.ok("rename over", unix.Renameat(f.dir.fd, f.name, o.dir.fd, o.name)) {
		return
	}
	w.entry("rename over", since, changelog.Name{Parent: f.dir.g, Base: f.name}, changelog.Name{Parent: o.dir.g, Base: o.name})
	f.dir.used--
	o.g = f.g
	w.drop(i)
}

func (w *worker) renameDir() {
	d, to := w.dir(), w.dir()
	for up := to; up != nil; up = up.parent {
		if up == d {
			return
		}
	}
	name, since := w.name(), w.l.sealed.Load()
	if d.parent == nil || !w.ok("rename of a directory", unix.Renameat(d.parent.fd, d.name, to.fd, name)) {
		return
	}
	w.entry("rename of a directory", since, changelog.Name{Parent: d.parent.g, Base: d.name}, changelog.Name{Parent: to.g, Base: name})
	d.parent.used--
	to.used++
	d.parent, d.name = to, name
}

func (w *worker) exchange() {
	a, b, since := w.file(), w.file(), w.l.sealed.Load()
	if a.g == b.g {
		return
	}
	if !w.ok("exchange", unix.Renameat2(a.dir.fd, a.name, b.dir.fd, b.name, unix.RENAME_EXCHANGE)) {
		return
	}
	w.entry("exchange", since, changelog.Name{Parent: a.dir.g, Base: a.name}, changelog.Name{Parent: b.dir.g, Base: b.name})
	a.g, b.g = b.g, a.g
}

func (w *worker) link() {
	f, d, name, since := w.file(), w.dir(), w.name(), w.l.sealed.Load()
	if !w.ok("link", unix.Linkat(f.dir.fd, f.name, d.fd, name, 0)) {
		return
	}
	w.entry("link", since, changelog.Name{Parent: d.g, Base: name})
	d.used++
	w.files = append(w.files, &workFile{f.g, d, name})
}

func (w *worker) unlink() {
	i := w.r.IntN(len(w.files))
	f, since := w.files[i], w.l.sealed.Load()
	if !w.ok("unlink", unix.Unlinkat(f.dir.fd, f.name, 0)) {
		return
	}
	w.entry("unlink", since, changelog.Name{Parent: f.dir.g, Base: f.name})
	f.dir.used--
	w.drop(i)
}

func (w *worker) meta(what string, since int64, g gfid.GFID) {
	w.l.ack(acked{what: what, since: since, typ: changelog.Meta, g: g})
}

func (w *worker) chmod() {
	f, since := w.file(), w.l.sealed.Load()
	if w.r.IntN(2) == 0 {
		if w.ok("chown", unix.Fchownat(f.dir.fd, f.name, 1000+w.r.IntN(9), 1000, 0)) {
			w.meta("chown", since, f.g)
		}
		return
	}
	if w.ok("chmod", unix.Fchmodat(f.dir.fd, f.name, 0o600|uint32(w.r.IntN(0o100)), 0)) {
		w.meta("chmod", since, f.g)
	}
}

// at opens a file of the worker's for one thing to be done to it.
func (w *worker) at(f *workFile, flags int, do func(fd int)) {
	fd, err := unix.Openat(f.dir.fd, f.name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if w.ok("open", err) {
		do(fd)
		unix.Close(fd)
	}
}

func (w *worker) setxattr() {
	f := w.file()
	w.at(f, unix.O_RDONLY, func(fd int) {
		since := w.l.sealed.Load()
		if w.ok("setxattr", unix.Fsetxattr(fd, "user.k", []byte(w.name()), 0)) {
			w.meta("setxattr", since, f.g)
		}
	})
}

// truncate makes a file longer or shorter, but not so short that a mapping of it
// would fault.
func (w *worker) truncate() {
	f := w.file()
	w.at(f, unix.O_RDWR, func(fd int) {
		since := w.l.sealed.Load()
		if w.ok("truncate", unix.Ftruncate(fd, 4096+int64(w.r.IntN(9000)))) {
			w.data("truncate", since, f.g)
		}
	})
}

func (w *worker) fallocate() {
	f, o := w.file(), w.file()
	w.at(f, unix.O_RDWR, func(fd int) {
		since := w.l.sealed.Load()
		if w.r.IntN(2) == 0 {
			if w.ok("fallocate", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 100, 2000)) {
				w.data("punch", since, f.g)
			}
			return
		}
		w.at(o, unix.O_RDONLY, func(from int) {
			if o.g == f.g {
				return
			}
			var in, out int64
			if n, err := unix.CopyFileRange(from, &in, fd, &out, 3000, 0); w.ok("copy_file_range", err) && n > 0 {
				w.data("copy_file_range", since, f.g)
			}
		})
	})
}

// special makes a symlink or a fifo.
func (w *worker) special() {
	d, name, since := w.dir(), w.name(), w.l.sealed.Load()
	var err error
	if w.r.IntN(2) == 0 {
		err = unix.Symlinkat("anywhere", d.fd, name)
	} else {
		err = unix.Mknodat(d.fd, name, unix.S_IFIFO|0o600, 0)
	}
	if w.ok("mknod or symlink", err) {
		w.entry("mknod or symlink", since, changelog.Name{Parent: d.g, Base: name})
		d.used++
	}
}

// tmpfile writes to a file that gets its name afterwards.
func (w *worker) tmpfile() {
	d := w.dir()
	fd, err := unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if !w.ok("tmpfile", err) {
		return
	}
	defer unix.Close(fd)
	since := w.l.sealed.Load()
	if _, err := unix.Pwrite(fd, make([]byte, 6000), 0); !w.ok("write", err) {
		return
	}
	g, err := gfidOf(fd)
	if !w.ok("gfid", err) {
		return
	}
	name := w.name()
	named := w.l.sealed.Load()
	if !w.ok("link of a tmpfile", unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), d.fd, name, unix.AT_SYMLINK_FOLLOW)) {
		return
	}
	w.data("write to a tmpfile", since, g)
	w.entry("link of a tmpfile", named, changelog.Name{Parent: d.g, Base: name})
	d.used++
	w.files = append(w.files, &workFile{g, d, name})
}

// rewrite empties a file and fills it again, unless it may be mapped.
func (w *worker) rewrite() {
	f := w.file()
	for _, h := range w.held {
		if h.g == f.g {
			return
		}
	}
	since := w.l.sealed.Load()
	w.at(f, unix.O_WRONLY|unix.O_TRUNC, func(fd int) {
		w.data("open with O_TRUNC", since, f.g)
		since := w.l.sealed.Load()
		if _, err := unix.Write(fd, fmt.Appendf(nil, "%6000d", w.n)); w.ok("write", err) {
			w.data("write of a rewrite", since, f.g)
		}
	})
}

// spin waits without giving the processor away: timers are too coarse for what a
// kill in the middle of a fop needs.
func spin(d time.Duration) {
	for began := time.Now(); time.Since(began) < d; {
	}
}
