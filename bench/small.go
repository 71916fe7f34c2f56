package bench

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/changelog"
)

// statPasses is how often each file is looked at: a stat is quick.
const statPasses = 10

// smallFiles makes n files of size bytes in one directory for each of threads
// threads, does everything with them that is done to small files, and removes them.
func smallFiles(n, size, threads int) *workload {
	per := perThread(n, threads)
	n = per * threads
	s := &small{per: per, size: size, threads: threads}
	params := []Param{{"size", int64(size)}, {"threads", int64(threads)}}
	without := params[1:] // of steps that do not care for the size
	one := func(f changelog.Fop) func(*run) records {
		return func(*run) records { return records{entries: map[changelog.Fop]int{f: n}} }
	}
	meta := func(*run) records { return records{meta: n} }
	w := &workload{
		family: "small",
		title:  fmt.Sprintf("small files, %d threads", threads),
		setup:  func(r *run) error { return r.name(threads, per) },
		steps: []*step{
			{name: "create", params: params, ops: n, work: s.create, check: s.checkWritten(0),
				leaves: func(*run) records {
					return records{entries: map[changelog.Fop]int{changelog.FopCreate: n}, data: n}
				}},
			{name: "stat-warm", params: without, ops: n * statPasses, before: s.look, work: s.stat(statPasses)},
			{name: "stat-cold", params: without, ops: n, cold: true, work: s.stat(1)},
			{name: "read", params: params, ops: n, before: s.look, work: s.read},
			{name: "overwrite", params: params, ops: n, work: s.overwrite, check: s.checkWritten(overwritten),
				leaves: func(*run) records { return records{data: n} }},
			{name: "chmod", params: without, ops: n, work: s.chmod, check: s.checkMode, leaves: meta},
			{name: "setxattr", params: without, ops: n, work: s.setxattr, check: s.checkXattr, leaves: meta},
			{name: "rename", params: without, ops: n, work: s.rename, check: s.checkNames('g'), leaves: one(changelog.FopRename)},
			{name: "unlink", params: without, ops: n, work: s.unlink, check: s.checkEmpty, leaves: one(changelog.FopUnlink)},
			{name: "mkdir", params: without, ops: n, work: s.mkdir, check: s.checkNames('f'), leaves: one(changelog.FopMkdir)},
			{name: "rmdir", params: without, ops: n, work: s.rmdir, check: s.checkEmpty, leaves: one(changelog.FopRmdir)},
		},
	}
	for _, st := range w.steps {
		st.threads = threads
	}
	return w
}

// small has the steps of smallFiles.
type small struct{ per, size, threads int }

// number tells the contents of files apart.
func (s *small) number(thread, i int) uint64 { return uint64(thread*s.per + i) }

func (s *small) create(r *run, thread int) (int, error) {
	c := newContent(s.size)
	return each("create", r.files[thread], func(i int, p cpath) error {
		return writeNew(p, c.block(s.number(thread, i)))
	})
}

// writeNew makes a file with these contents.
func writeNew(p cpath, b []byte) error {
	fd, err := sysOpen(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if err := sysWrite(fd, b); err != nil {
		_ = sysClose(fd) // the write's error counts
		return err
	}
	return sysClose(fd)
}

// look looks at each file once, so that the kernel knows it.
func (s *small) look(r *run) error {
	for t := range r.files {
		if _, err := s.stat(1)(r, t); err != nil {
			return err
		}
	}
	return nil
}

func (s *small) stat(passes int) func(*run, int) (int, error) {
	return func(r *run, thread int) (ops int, err error) {
		var st unix.Stat_t
		for range passes {
			n, err := each("stat", r.files[thread], func(_ int, p cpath) error {
				if err := sysStat(p, &st); err != nil {
					return err
				}
				if st.Size != int64(s.size) {
					return fmt.Errorf("%d bytes, want %d", st.Size, s.size)
				}
				return nil
			})
			ops += n
			if err != nil {
				return ops, err
			}
		}
		return ops, nil
	}
}

func (s *small) read(r *run, thread int) (int, error) {
	b := make([]byte, s.size+1)
	return each("read", r.files[thread], func(i int, p cpath) error {
		fd, err := sysOpen(p, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		n, err := sysRead(fd, b)
		if cerr := sysClose(fd); err == nil {
			err = cerr
		}
		// The number is proof enough on the clock; the rest was checked when written.
		if err == nil && (n != s.size || n >= 8 && binary.LittleEndian.Uint64(b) != s.number(thread, i)) {
			err = fmt.Errorf("%d bytes: %w", n, errContent)
		}
		return err
	})
}

// overwritten is added to a file's number when it is written again.
const overwritten = 1 << 32

func (s *small) overwrite(r *run, thread int) (int, error) {
	c := newContent(s.size)
	return each("overwrite", r.files[thread], func(i int, p cpath) error {
		fd, err := sysOpen(p, unix.O_WRONLY, 0)
		if err != nil {
			return err
		}
		err = sysWrite(fd, c.block(s.number(thread, i)|overwritten))
		if cerr := sysClose(fd); err == nil {
			err = cerr
		}
		return err
	})
}

// each does one thing to every file of a thread, and returns to how many.
func each(what string, files []cpath, do func(i int, p cpath) error) (int, error) {
	for i, p := range files {
		if err := do(i, p); err != nil {
			return i, fmt.Errorf("%s %s: %w", what, p, err)
		}
	}
	return len(files), nil
}

// newMode is a mode that no file has from its creation.
const newMode = 0o640

func (s *small) chmod(r *run, thread int) (int, error) {
	return each("chmod", r.files[thread], func(_ int, p cpath) error { return sysChmod(p, newMode) })
}

// The xattr that is set, and its value.
const xattrName = "user.georep-bench"

var xattrValue = []byte("0123456789abcdef0123456789abcdef")

func (s *small) setxattr(r *run, thread int) (int, error) {
	name := newCPath(xattrName)
	return each("setxattr", r.files[thread], func(_ int, p cpath) error { return sysSetxattr(p, name, xattrValue) })
}

func (s *small) rename(r *run, thread int) (int, error) {
	return each("rename", r.files[thread], func(i int, p cpath) error { return sysRename(p, r.to[thread][i]) })
}

func (s *small) unlink(r *run, thread int) (int, error) {
	return each("unlink", r.to[thread], func(_ int, p cpath) error { return sysUnlink(p, 0) })
}

func (s *small) mkdir(r *run, thread int) (int, error) {
	return each("mkdir", r.files[thread], func(_ int, p cpath) error { return sysMkdir(p, 0o755) })
}

func (s *small) rmdir(r *run, thread int) (int, error) {
	return each("rmdir", r.files[thread], func(_ int, p cpath) error { return sysUnlink(p, unix.AT_REMOVEDIR) })
}

// checkAll checks each file of each thread beneath the mount.
func (s *small) checkAll(check func(thread, i int, path string) error) func(*run) error {
	return func(r *run) error {
		for t, files := range r.files {
			for i, p := range files {
				if err := check(t, i, r.below(p)); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func (s *small) checkWritten(generation uint64) func(*run) error {
	return s.checkAll(func(t, i int, path string) error {
		return checkFile(path, int64(s.size), s.size, s.number(t, i)|generation)
	})
}

func (s *small) checkMode(r *run) error {
	return s.checkAll(func(_, _ int, path string) error {
		st, err := os.Lstat(path)
		if err == nil && st.Mode() != newMode {
			err = fmt.Errorf("%q has mode %v, want %v", path, st.Mode(), fs.FileMode(newMode))
		}
		return err
	})(r)
}

func (s *small) checkXattr(r *run) error {
	return s.checkAll(func(_, _ int, path string) error {
		v, err := xattr.LGet(path, xattrName)
		if err == nil && string(v) != string(xattrValue) {
			err = fmt.Errorf("%q has %s=%q, want %q", path, xattrName, v, xattrValue)
		}
		return err
	})(r)
}

// checkNames checks that each thread's directory has the files whose names begin
// with initial, and no others.
func (s *small) checkNames(initial byte) func(*run) error { return s.checkDirs(initial, s.per) }

func (s *small) checkEmpty(r *run) error { return s.checkDirs(0, 0)(r) }

func (s *small) checkDirs(initial byte, want int) func(*run) error {
	return func(r *run) error {
		for t := range s.threads {
			dir := fmt.Sprintf("%s/t%02d", r.truth, t)
			names, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			got := 0
			for _, e := range names {
				if e.Name()[0] == initial {
					got++
				}
			}
			if got != want || len(names) != want {
				return fmt.Errorf("%q has %d names, %d of them right, want %d", dir, len(names), got, want)
			}
		}
		return nil
	}
}
