package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Writers change a mount; the mount and the replicator are killed at any moment
// and started again; in the end the slave is as the brick. GEOREP_SOAK is the
// number of runs, GEOREP_SEED the first of their seeds.
func TestMountAndReplicatorKilled(t *testing.T) {
	runs, err := strconv.Atoi(os.Getenv("GEOREP_SOAK"))
	many := err == nil
	if !many {
		runs = 1
	}
	seed, err := strconv.ParseUint(os.Getenv("GEOREP_SEED"), 10, 64)
	if err != nil && many {
		seed = uint64(time.Now().UnixNano()) % 1e9
	}
	for i := range runs {
		seed := seed + uint64(i)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			soak(t, seed)
			if t.Failed() {
				t.Logf("to repeat: GEOREP_SOAK=1 GEOREP_SEED=%d", seed)
			}
		})
	}
}

func soak(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	s := newStation(t)
	s.serve()
	s.replicate()
	defer func() {
		if t.Failed() {
			s.tellRecords()
		}
	}()
	for round := range 2 + r.IntN(3) {
		stop := make(chan struct{})
		var writers sync.WaitGroup
		for id := range 2 {
			w := &writer{root: s.mnt, r: rand.New(rand.NewPCG(seed, uint64(round*2+id+1)))}
			writers.Go(func() { w.run(stop) })
		}
		for range 1 + r.IntN(3) {
			time.Sleep(time.Duration(50+r.IntN(600)) * time.Millisecond) // at any moment is what is tested
			switch r.IntN(4) {
			case 0:
				s.unmount(syscall.SIGKILL)
				s.serve()
			case 1:
				s.unmount(syscall.SIGTERM)
				s.serve()
			default:
				s.live.end(syscall.SIGKILL)
				s.replicate("--sync-method=" + []string{"auto", "rsync", "stream"}[r.IntN(3)])
			}
		}
		close(stop)
		writers.Wait()
		if r.IntN(3) == 0 {
			s.inStep()
			wantSameTrees(t, s.brick, s.slave)
		}
	}
	s.live.end([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[r.IntN(2)])
	s.live = nil
	s.once()
	s.same(s.slave)
}

// tellRecords logs what was recorded, which may tell why trees differ.
func (s *station) tellRecords() {
	files, err := filepath.Glob(filepath.Join(s.brick, ".glusterfs/changelogs/*/*/*/CHANGELOG.*"))
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(files)
	out, err := exec.Command("georep", append([]string{"changelog", "dump"}, files...)...).CombinedOutput()
	s.t.Logf("%s\n%v", out, err)
}

// writer makes random changes below a mount that may die under it.
type writer struct {
	root string
	r    *rand.Rand
	open []*os.File
}

func (w *writer) run(stop <-chan struct{}) {
	defer func() {
		for _, f := range w.open {
			f.Close()
		}
	}()
	for {
		select {
		case <-stop:
			return
		default:
		}
		if err := w.step(); errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ENXIO) {
			time.Sleep(5 * time.Millisecond) // no mount just now
		}
	}
}

// pick is a random path that is there: a directory or any other.
func (w *writer) pick(dir bool) string {
	at := w.root
	for range 6 {
		entries, err := os.ReadDir(at)
		if err != nil {
			return at
		}
		var some []fs.DirEntry
		for _, e := range entries {
			if e.IsDir() || !dir {
				some = append(some, e)
			}
		}
		if len(some) == 0 || dir && w.r.IntN(3) == 0 {
			return at
		}
		e := some[w.r.IntN(len(some))]
		at = filepath.Join(at, e.Name())
		if !e.IsDir() || !dir && w.r.IntN(8) == 0 {
			return at
		}
	}
	return at
}

// name is a name that may be free or not.
func (w *writer) name() string {
	names := []string{"a", "b", "c", "d", "e f", "g\n", "h%2F", "\xff"}
	return filepath.Join(w.pick(true), names[w.r.IntN(len(names))])
}

func (w *writer) noise() []byte {
	size := w.r.IntN(5000)
	if w.r.IntN(25) == 0 {
		size = 1<<20 + w.r.IntN(3<<20)
	}
	b := make([]byte, size)
	for i := 0; i < len(b); i += 1 + len(b)/500 {
		b[i] = byte(w.r.Uint32())
	}
	return b
}

// step makes one change. It may well be refused, which is no matter.
func (w *writer) step() error {
	switch w.r.IntN(26) {
	case 0, 1, 2:
		return w.create()
	case 3, 4:
		return os.Mkdir(w.name(), 0o755)
	case 5:
		return os.Symlink(w.name(), w.name())
	case 6:
		return os.Link(w.pick(false), w.name())
	case 7, 8:
		return os.Rename(w.pick(false), w.name())
	case 9:
		return os.Rename(w.pick(true), w.name())
	case 10:
		return unix.Renameat2(unix.AT_FDCWD, w.pick(w.r.IntN(2) == 0), unix.AT_FDCWD, w.pick(w.r.IntN(2) == 0), unix.RENAME_EXCHANGE)
	case 11, 12:
		return os.Remove(w.pick(false))
	case 13:
		if p := w.pick(true); p != w.root && w.r.IntN(3) == 0 {
			return os.RemoveAll(p)
		}
		return nil
	case 14:
		return os.Chmod(w.pick(w.r.IntN(2) == 0), fs.FileMode(0o600+w.r.IntN(0o200)))
	case 15:
		return os.Lchown(w.pick(false), w.r.IntN(3), w.r.IntN(3))
	case 16:
		ts := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Sec: int64(w.r.Uint32()), Nsec: int64(w.r.IntN(1e9))}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, w.pick(w.r.IntN(2) == 0), ts, unix.AT_SYMLINK_NOFOLLOW)
	case 17:
		attr := []string{"user.a", "user.b", "security.c", "trusted.d"}[w.r.IntN(4)]
		if w.r.IntN(3) == 0 {
			return unix.Lremovexattr(w.pick(false), attr)
		}
		return unix.Lsetxattr(w.pick(w.r.IntN(2) == 0), attr, []byte(fmt.Sprint("value ", w.r.IntN(100))), 0)
	case 18:
		return unix.Mknod(w.name(), []uint32{unix.S_IFIFO, unix.S_IFCHR, unix.S_IFSOCK}[w.r.IntN(3)]|0o644, 0x103)
	case 19:
		return os.Truncate(w.pick(false), int64(w.r.IntN(9000)))
	case 20:
		return w.tmpfile()
	default:
		return w.write()
	}
}

// create makes a file, or replaces the content of one. It does not wait for the
// other end of a fifo.
func (w *writer) create() error {
	f, err := os.OpenFile(w.name(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(w.noise())
	return errors.Join(err, f.Close())
}

// write changes a file in one of the ways there are, which may be open from
// before, by a name that it has no more.
func (w *writer) write() error {
	if len(w.open) > 0 && w.r.IntN(3) == 0 {
		i := w.r.IntN(len(w.open))
		f := w.open[i]
		_, err := f.WriteAt([]byte("later"), int64(w.r.IntN(4000)))
		if w.r.IntN(2) == 0 {
			err = errors.Join(err, f.Close())
			w.open = append(w.open[:i], w.open[i+1:]...)
		}
		return err
	}
	path := w.pick(false)
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	switch w.r.IntN(6) {
	case 0: // sparse
		_, err = f.WriteAt([]byte("far"), int64(w.r.IntN(8<<20)))
	case 1:
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(w.r.IntN(3000)), 4096)
	case 2:
		err = w.mapped(f)
	case 3:
		var from *os.File
		if from, err = os.OpenFile(w.pick(false), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0); err == nil {
			_, err = unix.CopyFileRange(int(from.Fd()), nil, int(f.Fd()), nil, 3000, 0)
			from.Close()
		}
	default:
		_, err = f.WriteAt(w.noise(), int64(w.r.IntN(4000)))
	}
	if len(w.open) < 4 && w.r.IntN(4) == 0 {
		w.open = append(w.open, f)
		return err
	}
	return errors.Join(err, f.Close())
}

// mapped stores to f through a shared mapping.
func (w *writer) mapped(f *os.File) error {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(min(st.Size(), 4096)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	return errors.Join(store(m, byte(w.r.Uint32())), unix.Munmap(m))
}

// store changes a byte of m. A fault is an error: the file may be cut off or its
// mount dead.
func store(m []byte, b byte) (err error) {
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("store: %v", e)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	m[len(m)/2] = b
	return unix.Msync(m, unix.MS_SYNC)
}

// tmpfile makes a file that gets its name when it is complete.
func (w *writer) tmpfile() error {
	fd, err := unix.Open(w.pick(true), unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "tmpfile")
	if _, err = f.Write(w.noise()); err == nil {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, w.name(), unix.AT_SYMLINK_FOLLOW)
	}
	return errors.Join(err, f.Close())
}
