package fusefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// fill takes all space of a disk beside its brick, or all but some bytes.
func (d *disk) fill(keep int64) {
	d.t.Helper()
	fd, err := unix.Open(filepath.Join(d.at, "filler"), unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND|unix.O_SYNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer unix.Close(fd)
	for size := 1 << 20; size > 0; {
		if _, err := unix.Write(fd, make([]byte, size)); err == unix.ENOSPC {
			size /= 2
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Ftruncate(fd, st.Size-keep)); err != nil {
		d.t.Fatal(err)
	}
	d.sync()
}

// free gives back what fill took.
func (d *disk) free() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.at, "filler")); err != nil {
		d.t.Fatal(err)
	}
	d.sync()
}

func (d *disk) sync() {
	d.t.Helper()
	fd, err := unix.Open(d.at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		d.t.Fatal(err)
	}
}

// The disk is full, and fops that need no space go on: each succeeds, the log is
// in a gap and says so on the brick. When there is space again, or when the mount
// was killed meanwhile and is mounted again, readers see a new HTIME file, and
// xtimes lead to all that was changed.
func TestFullDiskIsAGap(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			d := newExt4(t, 48<<20)
			s := newServer(t, d.at)
			s.start()
			const files = 400
			for i := range files {
				if err := os.WriteFile(filepath.Join(s.dir, fmt.Sprint(i)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s.roll()
			rec := newRecords(s.brick)
			rec.read(t)
			before, since := readTree(t, s.brick), rec.last

			d.fill(0)
			for i := range files {
				if err := os.Chmod(filepath.Join(s.dir, fmt.Sprint(i)), 0o640); err != nil {
					t.Fatalf("chmod %d on a full disk: %v", i, err)
				}
			}
			mark, err := os.ReadFile(filepath.Join(s.brick, brick.Dir, "changelogs", "gap"))
			if err != nil || !strings.Contains(string(mark), "no space left") {
				t.Errorf("the mark of a gap is %q, %v", mark, err)
			}
			if answer := s.tell("roll"); !strings.Contains(answer, "no space left") {
				t.Errorf("rollover says %q, want no space left", answer)
			}
			if killed {
				s.kill()
			}
			d.free()
			if killed {
				s.start()
			}
			s.roll()
			s.roll()
			rec.read(t)
			if rec.spans != 2 {
				t.Errorf("%d HTIME files, want 2", rec.spans)
			}
			now := readTree(t, s.brick)
			lost := 0
			for _, o := range now.diff(before).meta {
				if !after(rec.meta[o.g], since) {
					lost++
				}
				if int64(o.xtime.Sec) < since {
					t.Errorf("%s was changed, and its xtime %v is older than %d", o.path, o.xtime, since)
				}
			}
			if lost == 0 {
				t.Error("no record was lost: this was no gap")
			}
			if err := os.Chmod(filepath.Join(s.dir, "0"), 0o600); err != nil {
				t.Fatal(err)
			}
			last := rec.last
			s.roll()
			rec.read(t)
			if g := now.names[changelog.Name{Parent: gfid.Root, Base: "0"}]; !after(rec.meta[g], last) {
				t.Error("nothing is recorded after the gap")
			}
			s.end()
			checkBrick(t, s.brick)
		})
	}
}

// What the disk has no space or no inode for fails with ENOSPC, and leaves
// nothing half made.
func TestFullDiskMakesNothingByHalves(t *testing.T) {
	long := strings.Repeat("n", 200)
	try := map[string]func(dir string, i int) error{
		"create": func(dir string, i int) error {
			return unix.Mknod(fmt.Sprintf("%s/f%d-%s", dir, i, long), unix.S_IFREG|0o600, 0)
		},
		"mkdir":   func(dir string, i int) error { return unix.Mkdir(fmt.Sprintf("%s/d%d-%s", dir, i, long), 0o700) },
		"symlink": func(dir string, i int) error { return unix.Symlink(long, fmt.Sprintf("%s/s%d-%s", dir, i, long)) },
		"link":    func(dir string, i int) error { return unix.Link(dir+"/file", fmt.Sprintf("%s/l%d-%s", dir, i, long)) },
		"rename": func(dir string, i int) error {
			return unix.Rename(fmt.Sprintf("%s/dir%d", dir, i), fmt.Sprintf("%s/r%d-%s", dir, i, long))
		},
		"open": func(dir string, i int) error {
			fd, err := unix.Open(fmt.Sprintf("%s/o%d-%s", dir, i, long), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			_, err = unix.Write(fd, make([]byte, 2000))
			return err
		},
		"setxattr": func(dir string, i int) error {
			return unix.Setxattr(fmt.Sprintf("%s/dir%d", dir, i), "user.k", make([]byte, 900), 0)
		},
	}
	for what, mkfs := range map[string][]string{
		"blocks": {"mkfs.ext4", "-q", "-m", "0"},
		"inodes": {"mkfs.ext4", "-q", "-m", "0", "-N", "1200"},
	} {
		t.Run(what, func(t *testing.T) {
			d := newDisk(t, 48<<20, "loop", mkfs...)
			s := newServer(t, d.at)
			s.start()
			const dirs = 60
			for i := range dirs {
				if err := os.Mkdir(fmt.Sprintf("%s/dir%d", s.dir, i), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(s.dir+"/file", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if what == "blocks" {
				d.fill(100 << 10)
			}
			refused := map[string]int{}
			for i := range 2000 {
				for name, f := range try {
					switch err := f(s.dir, i); {
					case err == unix.ENOSPC:
						refused[name]++
					case err == nil || i >= dirs && (name == "rename" || name == "setxattr"):
					case err == unix.ENOENT && name == "setxattr": // renamed
					default:
						t.Fatalf("%s %d: %v", name, i, err)
					}
				}
				if refused["create"] > 40 && refused["mkdir"] > 40 && i > dirs {
					break
				}
			}
			t.Log("refused:", refused)
			if refused["mkdir"] == 0 || refused["open"] == 0 {
				t.Error("the disk was never full")
			}
			lookAtAll(t, s.dir)
			if what == "blocks" {
				d.free()
			} else {
				made, err := filepath.Glob(s.dir + "/f?-*")
				if err != nil || len(made) != 10 {
					t.Fatalf("made are %v, %v", made, err)
				}
				for _, f := range made {
					if err := os.Remove(f); err != nil {
						t.Error(err)
					}
				}
			}
			s.tell("roll")
			s.end()
			checkBrickBut(t, s.brick, brick.NoPath) // a hint, left out where there is no room
		})
	}
}
