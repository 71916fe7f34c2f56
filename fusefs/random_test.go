package fusefs

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// soakEnv makes the tests of random programs and of other people's programs last
// longer: the factor.
const soakEnv = "GEOREP_SOAK"

func soak() int {
	n, err := strconv.Atoi(os.Getenv(soakEnv))
	return max(n, 1) * b2i(err == nil || os.Getenv(soakEnv) == "") // a typo tests nothing
}

func seed() uint64 {
	if s, err := strconv.ParseUint(os.Getenv("GEOREP_SEED"), 10, 64); err == nil {
		return s
	}
	return uint64(time.Now().UnixNano())
}

// rollOver seals changelogs one after the other until the returned function is
// called: what is watched at a seal must bear it at any time.
func (m *mounted) rollOver(every time.Duration) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := m.srv.Translator().Log().Rollover(); err != nil {
					m.t.Error(err)
				}
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

// A file that is changed at random in all ways there are holds what a model of it
// holds, after every step, through another descriptor, and on the brick.
func TestRandomFile(t *testing.T) {
	eachMode(t, func(t *testing.T, s setup) {
		m := mount(t, s)
		defer m.rollOver(20 * time.Millisecond)()
		s0 := seed()
		t.Logf("seed %d", s0)
		for i := range 3 {
			out := output(t, m.dir, "random-file", fmt.Sprint(s0+uint64(i)), fmt.Sprint(800*soak()), fmt.Sprintf("f%d", i))
			var size int
			var sum uint64
			if _, err := fmt.Sscanf(out, "%d %x", &size, &sum); err != nil {
				t.Fatalf("seed %d: %s", s0+uint64(i), out)
			}
			m.waitOpen(0)
			data, err := os.ReadFile(fmt.Sprintf("%s/f%d", m.brick.Path(), i))
			mustDo(t, err)
			if len(data) != size || checksum(data) != sum {
				t.Errorf("seed %d: the brick's file of %d bytes is not the %d of the model", s0+uint64(i), len(data), size)
			}
		}
	})
}

func checksum(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

const modelMax = 300_000

func init() {
	programs["random-file"] = func(w *world) {
		seed, err := strconv.ParseUint(w.args[0], 10, 64)
		w.must("seed", err)
		steps, err := strconv.Atoi(w.args[1])
		w.must("steps", err)
		m := &model{w: w, r: rand.New(rand.NewPCG(seed, 1)), path: w.args[2]}
		m.reopen()
		for range steps {
			m.step()
			m.check()
		}
		unix.Close(m.fd)
		fmt.Printf("%d %x\n", len(m.data), checksum(m.data))
	}
}

// model is a file and what it has to hold.
type model struct {
	w    *world
	r    *rand.Rand
	path string
	fd   int
	data []byte
	log  []string // the last steps
}

func (m *model) reopen() {
	if m.fd > 0 {
		unix.Close(m.fd)
	}
	flags := []int{unix.O_RDWR, unix.O_RDWR, unix.O_RDWR | unix.O_SYNC, unix.O_RDWR | unix.O_NOATIME}[m.r.IntN(4)]
	fd, err := unix.Open(m.path, flags|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	m.w.must("open", err)
	m.fd = fd
}

// span is a range within the most that the file may hold.
func (m *model) span(most int) (off, n int) {
	off = m.r.IntN(most)
	n = 1 + m.r.IntN(min(most-off, []int{10, 5000, 70000}[m.r.IntN(3)]))
	return off, n
}

func (m *model) fill(n int) []byte {
	b := make([]byte, n)
	v := byte(m.r.IntN(255)) + 1
	for i := range b {
		b[i] = v + byte(i>>8)
	}
	return b
}

// grow makes the model n bytes long at least, with zeros.
func (m *model) grow(n int) {
	if n > len(m.data) {
		m.data = append(m.data, make([]byte, n-len(m.data))...)
	}
}

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
	if len(m.log) > 30 {
		m.log = m.log[1:]
	}
}

func (m *model) ok(err error) {
	if err != nil {
		panic(fmt.Sprintf("%v after %s", err, strings.Join(m.log, "; ")))
	}
}

func (m *model) step() {
	switch m.r.IntN(15) {
	case 0, 1, 2:
		off, n := m.span(modelMax)
		m.note("write [%d +%d)", off, n)
		m.write(m.fd, off, m.fill(n))
	case 3:
		n := 1 + m.r.IntN(3000)
		if len(m.data)+n > modelMax {
			return
		}
		m.note("append +%d", n)
		b := m.fill(n)
		m.ok(with(m.path, unix.O_WRONLY|unix.O_APPEND, 0, func(fd int) error { _, err := unix.Write(fd, b); return err }))
		m.data = append(m.data, b...)
	case 4:
		size := m.r.IntN(modelMax)
		m.note("truncate %d", size)
		if m.r.IntN(2) == 0 {
			m.ok(unix.Ftruncate(m.fd, int64(size)))
		} else {
			m.ok(unix.Truncate(m.path, int64(size)))
		}
		m.grow(size)
		m.data = m.data[:size:size]
	case 5, 6:
		m.store()
	case 7, 8:
		m.fallocate()
	case 9:
		m.copy()
	case 10:
		m.note("reopen")
		m.reopen()
	case 11:
		m.note("fsync")
		m.ok(unix.Fsync(m.fd))
	case 12:
		off, n := m.r.IntN(modelMax/4096)*4096, (1+m.r.IntN(8))*4096
		if off+n > modelMax {
			return
		}
		m.note("direct [%d +%d)", off, n)
		b := aligned(n)
		copy(b, m.fill(n))
		m.ok(with(m.path, unix.O_WRONLY|unix.O_DIRECT, 0, func(fd int) error { m.write(fd, off, b); return nil }))
		unix.Munmap(b)
	case 13:
		if m.r.IntN(20) == 0 {
			m.note("open truncating")
			m.ok(with(m.path, unix.O_WRONLY|unix.O_TRUNC, 0, func(int) error { return nil }))
			m.data = nil
		}
	case 14:
		m.note("rename")
		m.ok(unix.Rename(m.path, m.path+".other"))
		m.ok(unix.Rename(m.path+".other", m.path))
	}
}

func (m *model) write(fd, off int, b []byte) {
	n, err := unix.Pwrite(fd, b, int64(off))
	m.ok(err)
	if n != len(b) {
		panic(fmt.Sprintf("wrote %d of %d", n, len(b)))
	}
	m.grow(off + n)
	copy(m.data[off:], b)
}

func (m *model) store() {
	if len(m.data) == 0 {
		return
	}
	off, n := m.span(len(m.data))
	m.note("store [%d +%d)", off, n)
	mem, err := unix.Mmap(m.fd, 0, len(m.data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	m.ok(err)
	if !bytes.Equal(mem, m.data) {
		m.differs("mapping", mem)
	}
	b := m.fill(n)
	copy(mem[off:], b)
	copy(m.data[off:], b)
	if m.r.IntN(3) == 0 {
		m.ok(unix.Msync(mem, unix.MS_SYNC))
	}
	m.ok(unix.Munmap(mem))
}

func (m *model) fallocate() {
	mode := []uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
		unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE}[m.r.IntN(5)]
	off, n := m.span(modelMax)
	m.note("fallocate %x [%d +%d)", mode, off, n)
	m.ok(unix.Fallocate(m.fd, mode, int64(off), int64(n)))
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		m.grow(off + n)
	}
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 && off < len(m.data) {
		clear(m.data[off:min(off+n, len(m.data))])
	}
}

func (m *model) copy() {
	if len(m.data) < 2 {
		return
	}
	from, n := m.span(len(m.data))
	to := m.r.IntN(modelMax - n)
	if from < to+n && to < from+n {
		return // overlaps, which is EINVAL
	}
	m.note("copy [%d +%d) to %d", from, n, to)
	for n > 0 {
		src, dst := int64(from), int64(to)
		c, err := unix.CopyFileRange(m.fd, &src, m.fd, &dst, n, 0)
		m.ok(err)
		if c == 0 {
			panic("copied nothing")
		}
		b := bytes.Clone(m.data[from : from+c])
		m.grow(to + c)
		copy(m.data[to:], b)
		from, to, n = from+c, to+c, n-c
	}
}

// check compares size and contents, through the descriptor or another one.
func (m *model) check() {
	var st unix.Stat_t
	m.ok(unix.Stat(m.path, &st))
	if int(st.Size) != len(m.data) {
		panic(fmt.Sprintf("stat says %d bytes, want %d, after %s", st.Size, len(m.data), strings.Join(m.log, "; ")))
	}
	got := make([]byte, len(m.data)+10)
	read := func(fd int) error {
		n, err := unix.Pread(fd, got, 0)
		got = got[:max(n, 0)]
		return err
	}
	if m.r.IntN(3) == 0 {
		m.ok(with(m.path, unix.O_RDONLY, 0, read))
	} else {
		m.ok(read(m.fd))
	}
	if !bytes.Equal(got, m.data) {
		m.differs("file", got)
	}
}

func (m *model) differs(what string, got []byte) {
	at := 0
	for at < min(len(got), len(m.data)) && got[at] == m.data[at] {
		at++
	}
	panic(fmt.Sprintf("%s of %d bytes differs from the model's %d at %d after %s", what, len(got), len(m.data), at, strings.Join(m.log, "; ")))
}

// Threads that make, link, move, exchange and remove at random, each its own names
// in directories of all, leave on a mount the tree they leave in a bare directory,
// and meet with the same errors.
func TestRandomTree(t *testing.T) {
	s0 := seed()
	t.Logf("seed %d", s0)
	args := []string{fmt.Sprint(s0), fmt.Sprint(400 * soak())}
	bare := publicDir(t)
	want := output(t, bare, "random-tree", args...)
	wantTree := treeText(t, bare)
	eachMode(t, func(t *testing.T, s setup) {
		m := mount(t, s)
		stop := m.rollOver(20 * time.Millisecond)
		got := output(t, m.dir, "random-tree", args...)
		stop()
		if diff := differing(want, got); diff != "" {
			t.Errorf("seed %d: errnos, -bare +mount:\n%s", s0, diff)
		}
		if diff := differing(wantTree, treeText(t, m.dir)); diff != "" {
			t.Errorf("seed %d: tree, -bare +mount:\n%s", s0, diff)
		}
		m.unmount()
		// The same after the mount, with the handles' links.
		s.brick = m.brick.Path()
		m = mount(t, s)
		if diff := differing(wantTree, treeText(t, m.dir)); diff != "" {
			t.Errorf("seed %d: tree mounted again, -bare +mount:\n%s", s0, diff)
		}
	})
}

// treeText is what is below dir as text.
func treeText(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		size := st.Size
		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			size = 0
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%x", checksum(data))
		case unix.S_IFLNK:
			content, _ = os.Readlink(path)
		}
		x := make([]byte, 10)
		n, _ := unix.Lgetxattr(path, "user.x", x)
		fmt.Fprintf(&b, "%s %o %d %d:%d %d %s %q\n", strings.TrimPrefix(path, dir), st.Mode, st.Nlink, st.Uid, st.Gid, size, content, x[:max(n, 0)])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func init() {
	programs["random-tree"] = func(w *world) {
		seed, err := strconv.ParseUint(w.args[0], 10, 64)
		w.must("seed", err)
		steps, err := strconv.Atoi(w.args[1])
		w.must("steps", err)
		const threads, dirs = 4, 3
		for i := range dirs {
			w.must("mkdir", unix.Mkdir(fmt.Sprintf("d%d", i), 0o777))
		}
		logs := make([]*bytes.Buffer, threads)
		done := make(chan struct{})
		for i := range threads {
			logs[i] = &bytes.Buffer{}
			go func() {
				defer func() { done <- struct{}{} }()
				g := gardener{r: rand.New(rand.NewPCG(seed, uint64(i))), log: logs[i], id: i, dirs: dirs}
				for range steps {
					g.step()
				}
			}()
		}
		for range threads {
			<-done
		}
		for _, l := range logs {
			w.out.Write(l.Bytes())
		}
	}
}

// gardener is one thread, which owns the names that begin with its number.
type gardener struct {
	r    *rand.Rand
	log  *bytes.Buffer
	id   int
	dirs int
}

// name is one of few, so that most are met again: in a directory of all, or in one
// of those that it makes itself there.
func (g *gardener) name() string {
	n := fmt.Sprintf("d%d/%d-%d", g.r.IntN(g.dirs), g.id, g.r.IntN(6))
	for g.r.IntN(3) == 0 {
		n += fmt.Sprintf("/%d", g.r.IntN(3))
	}
	return n
}

func (g *gardener) step() {
	a, b := g.name(), g.name()
	var what string
	var err error
	switch g.r.IntN(16) {
	case 0, 1, 2:
		// Not waiting for who reads, where a fifo is in the way.
		what, err = "create", with(a, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NONBLOCK, 0o644, func(fd int) error { return write(fd, b) })
	case 3, 4:
		what, err = "mkdir", unix.Mkdir(a, 0o755)
	case 5:
		what, err = "symlink", unix.Symlink(b, a)
	case 6:
		what, err = "mknod", unix.Mknod(a, unix.S_IFIFO|0o600, 0)
	case 7, 8:
		what, err = "link", unix.Link(a, b)
	case 9, 10:
		what, err = "rename", unix.Rename(a, b)
	case 11:
		what, err = "exchange", unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	case 12:
		what, err = "move", unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE)
	case 13:
		what, err = "unlink", unix.Unlink(a)
	case 14:
		what, err = "rmdir", unix.Rmdir(a)
	case 15:
		mode := uint32(0o600 + g.r.IntN(0o100))
		if statMode(a)&unix.S_IFMT == unix.S_IFDIR {
			mode |= 0o700
		}
		what, err = "chmod and xattr", unix.Fchmodat(unix.AT_FDCWD, a, mode, unix.AT_SYMLINK_NOFOLLOW)
		unix.Lsetxattr(a, "user.x", []byte{byte(g.r.IntN(256))}, 0)
	}
	fmt.Fprintf(g.log, "%d: %s %s %s: %s\n", g.id, what, a, b, errno(err))
}
