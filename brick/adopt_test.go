package brick

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// plant makes a tree as a brick may hold one from before: all kinds of objects,
// names in any bytes, hard links across directories.
func plant(t testing.TB, b *Brick) {
	t.Helper()
	for _, d := range []string{"a/b/c", "a/\xff\n %", "empty", ".hidden", "sub/" + Dir + "/aa/bb"} {
		mkdir(t, b, d)
	}
	for i := range 600 { // more than a batch
		write(t, b, fmt.Sprintf("a/f%03d", i), "x")
	}
	p := func(name string) string { return filepath.Join(b.Path(), name) }
	write(t, b, strings.Repeat("n", 255), "")
	write(t, b, "a/b/twice", "one file")
	check(t, os.Link(p("a/b/twice"), p("empty/again")))
	check(t, os.Link(p("a/b/twice"), p("a/b/c/third")))
	check(t, os.Symlink("../a", p("a/b/link")))
	check(t, os.Symlink("/nowhere", p("a/b/dangling")))
	check(t, unix.Mkfifo(p("a/fifo"), 0o600))
	check(t, unix.Mknod(p("a/dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	check(t, unix.Mknod(p("a/sock"), unix.S_IFSOCK|0o600, 0))
	write(t, b, "sub/"+Dir+"/aa/bb/file", "a name below the root is a name as any other")
}

// plantDeep makes a directory whose path is longer than any call takes, with a
// file at each level, and returns its depth.
func plantDeep(t testing.TB, b *Brick) int {
	t.Helper()
	const depth = 3 * keepOpen
	base := strings.Repeat("d", 100)
	at, errno := Openat(b.Root(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, errno)
	for range depth {
		check(t, unix.Mkdirat(at, base, 0o755))
		fd, errno := Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, errno)
		f, errno := Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY, 0o600)
		must(t, errno)
		Close(f)
		Close(at)
		at = fd
	}
	Close(at)
	return depth
}

// adopt adopts all of b and fails if an object could not be.
func adopt(t testing.TB, b *Brick) Adoption {
	t.Helper()
	a, err := b.Adopt(context.Background(), AdoptOptions{Notice: func(path string, _ gfid.GFID, err error) {
		if err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}})
	check(t, err)
	return a
}

func TestAdopt(t *testing.T) {
	b := newBrick(t)
	plant(t, b)
	names, err := b.CountNames(t.Context(), nil)
	check(t, err)
	var last Adoption
	got, err := b.Adopt(t.Context(), AdoptOptions{Progress: func(a Adoption) { last = a }})
	check(t, err)
	want := Adoption{Dirs: 10, Files: 610, Given: 618}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("adoption (-want +got):\n%s", diff)
	}
	if last != got {
		t.Errorf("last progress %+v, want %+v", last, got)
	}
	if names != want.Names() {
		t.Errorf("CountNames = %d, want %d", names, want.Names())
	}
	wantSound(t, b)
	again := adopt(t, b)
	if diff := cmp.Diff(Adoption{Dirs: 10, Files: 610}, again); diff != "" {
		t.Errorf("second adoption (-want +got):\n%s", diff)
	}
}

// wantSound fails unless every name in b has its GFID, its handle and its
// gfid2path, seen from outside with paths and os calls.
func wantSound(t *testing.T, b *Brick) {
	t.Helper()
	parents := map[string]gfid.GFID{}
	check(t, filepath.WalkDir(b.Path(), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == filepath.Join(b.Path(), Dir) {
			return filepath.SkipDir
		}
		raw, err := ReadXattr(path, XattrGFID)
		if err != nil {
			return err
		}
		g, err := gfid.FromBytes(raw)
		if err != nil {
			return err
		}
		handle := filepath.Join(b.Path(), Dir, HandlePath(g))
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		parent := parents[filepath.Dir(path)]
		if d.IsDir() {
			parents[path] = g
			target, err := os.Readlink(handle)
			if want := DirHandleTarget(parent, filepath.Base(path)); err != nil || g != gfid.Root && target != want {
				t.Errorf("handle of %q is %q, %v, want %q", path, target, err, want)
			}
			return nil
		}
		h, err := os.Lstat(handle)
		if err != nil || !os.SameFile(st, h) {
			t.Errorf("handle of %q is another object: %v", path, err)
		}
		key, value := GFID2Path(parent, filepath.Base(path))
		if got, err := ReadXattr(path, key); err != nil || string(got) != string(value) {
			t.Errorf("gfid2path of %q is %q, %v, want %q", path, got, err, value)
		}
		return nil
	}))
}

func TestAdoptDeep(t *testing.T) {
	b := newBrick(t)
	depth := int64(plantDeep(t, b))
	plant(t, b)
	got := adopt(t, b)
	if diff := cmp.Diff(Adoption{Dirs: 10 + depth, Files: 610 + depth, Given: 618 + 2*depth}, got); diff != "" {
		t.Errorf("adoption (-want +got):\n%s", diff)
	}
}

// A directory with more subdirectories than are remembered at once is gone
// through in parts, also when it was closed in between.
func TestAdoptManyDirs(t *testing.T) {
	b := newBrick(t)
	wide := func(at string, n int) {
		mkdir(t, b, at)
		for i := range n {
			check(t, os.Mkdir(filepath.Join(b.Path(), at, fmt.Sprintf("d%05d", i)), 0o700))
		}
	}
	wide("wide", 2*manySubs+100)
	var far strings.Builder
	for range keepOpen + 2 {
		far.WriteString("/x")
	}
	mkdir(t, b, "wide/d00007"+far.String())
	mkdir(t, b, "wide/d02000"+far.String())
	want := int64(2*manySubs + 100 + 1 + 2*(keepOpen+2))
	if got := adopt(t, b); got.Given != want || got.Dirs != want {
		t.Errorf("adopted %+v, want %d directories", got, want)
	}
	if got := adopt(t, b); got.Given != 0 || got.Dirs != want {
		t.Errorf("looked at %+v again, want %d directories", got, want)
	}
}

// Stopped at any point, it is taken up again by the next run.
func TestAdoptRestart(t *testing.T) {
	b := newBrick(t)
	plant(t, b)
	stopped := errors.New("stopped by the test")
	for _, after := range []int64{0, 1, 5, 300} {
		ctx, cancel := context.WithCancelCause(t.Context())
		a := &adopter{b: b, stop: cancel}
		var seen atomic.Int64
		step := func() {
			if seen.Add(1) > after {
				cancel(stopped)
			}
		}
		err := b.walk(ctx, 2, visit{
			dir: func(at *place, fd int, name string, st *unix.Statx_t) (gfid.GFID, bool) {
				step()
				return a.dir(at, fd, name, st)
			},
			file: func(at *place, fd int, name string) {
				step()
				a.file(at, fd, name)
			},
			trouble: a.trouble,
		})
		if !errors.Is(err, stopped) {
			t.Fatalf("stopped after %d: %v", after, err)
		}
	}
	rest := adopt(t, b)
	if rest.Given == 0 || rest.Given >= 618 {
		t.Errorf("the last run gave %d GFIDs, want some of 618", rest.Given)
	}
	wantSound(t, b)
}

// A copy that brought its GFID along is told of.
func TestAdoptCopies(t *testing.T) {
	b := newBrick(t)
	mkdir(t, b, "d")
	write(t, b, "d/f", "x")
	adopt(t, b)
	run(t, "cp", "-a", "--preserve=all", filepath.Join(b.Path(), "d"), filepath.Join(b.Path(), "e"))
	var told []string
	got, err := b.Adopt(t.Context(), AdoptOptions{Notice: func(path string, g gfid.GFID, err error) {
		if err != nil || g.IsZero() {
			t.Errorf("%q: %v, %v", path, g, err)
		}
		told = append(told, path)
	}})
	check(t, err)
	slices.Sort(told)
	if diff := cmp.Diff([]string{"e", "e/f"}, told); diff != "" {
		t.Errorf("told of (-want +got):\n%s", diff)
	}
	if got.Copies != 2 {
		t.Errorf("%d copies, want 2", got.Copies)
	}
	wantSound(t, b)
}

// An object that can't be adopted is told of and does not stop the others; a
// file system mounted in the brick is such an object.
func TestAdoptTrouble(t *testing.T) {
	b := newBrick(t)
	write(t, b, "damaged", "")
	must(t, Setxattr(b.Root(), "damaged", XattrGFID, []byte("short"), 0))
	mkdir(t, b, "foreign")
	write(t, b, "sound", "")
	point := filepath.Join(b.Path(), "foreign")
	run(t, "mount", "-t", "tmpfs", "none", point)
	defer run(t, "umount", point)
	write(t, b, "foreign/file", "")

	told := map[string]error{}
	got, err := b.Adopt(t.Context(), AdoptOptions{Notice: func(path string, _ gfid.GFID, err error) { told[path] = err }})
	check(t, err)
	want := map[string]error{"damaged": syscall.EIO, "foreign": syscall.EXDEV}
	if diff := cmp.Diff(want, told, cmp.Comparer(func(a, b error) bool { return a == b })); diff != "" {
		t.Errorf("told of (-want +got):\n%s", diff)
	}
	if got.Failed != 2 || got.Given != 1 {
		t.Errorf("%+v, want 2 failed and 1 given", got)
	}
}

// A brick that takes no more ends the run with the reason.
func TestAdoptReadOnly(t *testing.T) {
	path := fileSystem(t, "ext4")
	b := createBrick(t, path)
	plant(t, b)
	run(t, "mount", "-o", "remount,ro", path)
	got, err := b.Adopt(t.Context(), AdoptOptions{})
	if !errors.Is(err, syscall.EROFS) {
		t.Errorf("on a read-only brick: %v, want EROFS", err)
	}
	if got.Given != 0 || got.Failed == 0 {
		t.Errorf("%+v, want nothing given and some failed", got)
	}
	run(t, "mount", "-o", "remount,rw", path)
	adopt(t, b)
	wantSound(t, b)
}

func TestAdoptFull(t *testing.T) {
	path := fileSystem(t, "ext4", "-N", "2000")
	b := createBrick(t, path)
	plant(t, b)
	mkdir(t, b, "fill")
	var err error
	n := 0
	for ; err == nil; n++ {
		err = os.WriteFile(filepath.Join(path, "fill", fmt.Sprint(n)), nil, 0o600)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	got, err := b.Adopt(t.Context(), AdoptOptions{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full brick: %+v, %v, want ENOSPC", got, err)
	}
	if got.Names() >= int64(n) {
		t.Errorf("went on to %d names on a full brick", got.Names())
	}
	check(t, os.RemoveAll(filepath.Join(path, "fill")))
	adopt(t, b)
	wantSound(t, b)
}

// BenchmarkAdopt adopts a tree of 20,000 files with more and more workers.
func BenchmarkAdopt(b *testing.B) {
	for _, workers := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("files=20000/workers=%d", workers), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				br := newBrick(b)
				for d := range 200 {
					mkdir(b, br, fmt.Sprint(d))
					for f := range 100 {
						write(b, br, fmt.Sprintf("%d/%d", d, f), "")
					}
				}
				b.StartTimer()
				a, err := br.Adopt(context.Background(), AdoptOptions{Workers: workers})
				if err != nil || a.Given != 20200 {
					b.Fatalf("%+v, %v", a, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/20200, "µs/name")
		})
	}
}
