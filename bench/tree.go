package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/changelog"
)

// filesPerDir is how many files a directory of a tree has, besides one symlink.
const filesPerDir = 25

// untarTime is the mtime that everything in a tree is given.
var untarTime = []unix.Timespec{{Sec: 1400000000}, {Sec: 1400000000}}

// untarTree unpacks n files in directories the way tar does: it makes each file,
// writes it, and gives it its owner, mode and times.
func untarTree(n int) *workload {
	dirs := max(1, n/filesPerDir)
	n = dirs * filesPerDir
	u := &untar{dirs: dirs}
	return &workload{
		family: "tree",
		title:  "untar",
		steps: []*step{{
			name: "untar", ops: n + 2*dirs, work: u.work, check: u.check,
			leaves: func(*run) records {
				return records{
					entries: map[changelog.Fop]int{changelog.FopCreate: n, changelog.FopMkdir: dirs, changelog.FopSymlink: dirs},
					data:    n, meta: n + dirs,
				}
			},
		}},
	}
}

type untar struct{ dirs int }

// size of file i of a directory: most are small, as in a source tree.
func (u *untar) size(i int) int { return []int{300, 1500, 4096, 9000, 40000}[i%5] }

func (u *untar) mode(i int) uint32 { return []uint32{0o644, 0o755}[i%2] }

func (u *untar) dir(root string, d int) string {
	return fmt.Sprintf("%s/d%02d-%04d", root, d%10, d)
}

func (u *untar) work(r *run, _ int) (ops int, err error) {
	c := newContent(64 << 10)
	for d := range u.dirs {
		dir := u.dir(r.dir, d)
		if err := unix.Mkdir(dir, 0o700); err != nil {
			return ops, fmt.Errorf("mkdir %s: %w", dir, err)
		}
		for i := range filesPerDir {
			p := fmt.Sprintf("%s/f%03d", dir, i)
			if err := u.file(newCPath(p), c.block(uint64(d*filesPerDir + i))[:u.size(i)], u.mode(i)); err != nil {
				return ops, fmt.Errorf("%s: %w", p, err)
			}
		}
		if err := unix.Symlink("f000", dir+"/link"); err != nil {
			return ops, fmt.Errorf("symlink in %s: %w", dir, err)
		}
		if err := unix.Chmod(dir, 0o755); err != nil {
			return ops, fmt.Errorf("chmod %s: %w", dir, err)
		}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, dir, untarTime, 0); err != nil {
			return ops, fmt.Errorf("utimes %s: %w", dir, err)
		}
		ops += filesPerDir + 2
	}
	return ops, nil
}

func (u *untar) file(p cpath, b []byte, mode uint32) error {
	fd, err := sysOpen(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = sysWrite(fd, b)
	if err == nil {
		err = sysFutimes(fd, untarTime)
	}
	if err == nil {
		err = unix.Fchown(fd, os.Getuid(), os.Getgid())
	}
	if err == nil {
		err = unix.Fchmod(fd, mode)
	}
	if cerr := sysClose(fd); err == nil {
		err = cerr
	}
	return err
}

func (u *untar) check(r *run) error {
	for d := range u.dirs {
		dir := u.dir(r.truth, d)
		names, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		if len(names) != filesPerDir+1 {
			return fmt.Errorf("%q has %d names, want %d", dir, len(names), filesPerDir+1)
		}
		for i := range filesPerDir {
			p := fmt.Sprintf("%s/f%03d", dir, i)
			st, err := os.Lstat(p)
			if err != nil {
				return err
			}
			if uint32(st.Mode()) != u.mode(i) || st.ModTime().Unix() != untarTime[1].Sec {
				return fmt.Errorf("%q has mode %v and mtime %v", p, st.Mode(), st.ModTime())
			}
			if err := checkFile(p, int64(u.size(i)), 64<<10, uint64(d*filesPerDir+i)); err != nil {
				return err
			}
		}
		if to, err := os.Readlink(dir + "/link"); err != nil || to != "f000" {
			return fmt.Errorf("%q leads to %q, want f000 (%v)", dir+"/link", to, err)
		}
	}
	return nil
}

// deepFiles makes n files of 4 KiB below depth directories: what a change costs
// that touches every directory up to the root.
func deepFiles(n, depth int) *workload {
	s := &small{per: n, size: 4096, threads: 1}
	return &workload{
		family: "depth",
		title:  fmt.Sprintf("depth %d", depth),
		setup: func(r *run) error {
			dir := filepath.Join(r.dir, strings.Repeat("sub/", depth-1))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			deep := *r
			deep.dir = dir
			err := deep.name(1, n)
			r.files, r.to = deep.files, deep.to
			return err
		},
		steps: []*step{
			{name: "create-deep", params: []Param{{"depth", int64(depth)}}, ops: n, work: s.create, check: s.checkWritten(0),
				leaves: func(*run) records {
					return records{entries: map[changelog.Fop]int{changelog.FopCreate: n}, data: n}
				}},
		},
	}
}

// steadyWork makes files and overwrites each of them again and again for as long as it
// is told: the longer a slice, the fewer of the writes are recorded.
func steadyWork(files int, takes time.Duration) *workload {
	s := &small{per: files, size: 4096, threads: 1}
	return &workload{
		family: "rollover",
		title:  "rollover",
		setup: func(r *run) error {
			if err := r.name(1, files); err != nil {
				return err
			}
			_, err := s.create(r, 0)
			return err
		},
		steps: []*step{{
			name: "overwrite-steadily", work: s.overwriteFor(takes),
			check:  s.checkWritten(overwritten),
			leaves: func(*run) records { return records{data: files} },
		}},
	}
}

// overwriteFor overwrites all files as often as it can within the time.
func (s *small) overwriteFor(takes time.Duration) func(*run, int) (int, error) {
	return func(r *run, thread int) (ops int, err error) {
		var stop atomic.Bool
		timer := time.AfterFunc(takes, func() { stop.Store(true) })
		defer timer.Stop()
		// Always whole passes, so that each file has a record in the end.
		for !stop.Load() && err == nil {
			var n int
			n, err = s.overwrite(r, thread)
			ops += n
		}
		return ops, err
	}
}
