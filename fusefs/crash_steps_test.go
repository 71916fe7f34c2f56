package fusefs

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/translator"
)

// fops are fops on a brick without a mount, by path.
type fops struct {
	b *brick.Brick
	t *translator.Translator
}

func openFops(path string) (*fops, error) {
	b, err := brick.Create(path)
	if err != nil {
		return nil, err
	}
	if err := b.Lock(); err != nil {
		b.Close()
		return nil, err
	}
	return fopsOn(b)
}

func fopsOn(b *brick.Brick) (*fops, error) {
	t, err := translator.Open(translator.Options{Brick: b, Changelog: &changelog.Options{RolloverTime: time.Hour}, Marker: true})
	if err != nil {
		b.Close()
		return nil, err
	}
	return &fops{b, t}, nil
}

func (f *fops) close() error {
	err := f.t.Close()
	f.b.Close()
	return err
}

// must is for what is done before the fop that counts.
func (f *fops) must(errno syscall.Errno) {
	if errno != 0 {
		panic(errno)
	}
}

// in finds a path's inode.
func (f *fops) in(path string) *translator.Inode {
	in := f.t.Root()
	for name := range strings.SplitSeq(path, "/") {
		if name == "." {
			continue
		}
		var st translator.Attr
		next, _, errno := f.t.Lookup(in, name, &st)
		f.must(errno)
		in = next
	}
	return in
}

func (f *fops) at(path string) (*translator.Inode, string) {
	return f.in(filepath.Dir(path)), filepath.Base(path)
}

func (f *fops) create(path, content string) {
	dir, name := f.at(path)
	var st translator.Attr
	_, h, _, errno := f.t.Create(dir, name, unix.O_RDWR|unix.O_EXCL, 0o644, translator.Caller{}, &st)
	f.must(errno)
	if content != "" {
		_, errno = f.t.Write(h, []byte(content), 0, false, translator.Caller{})
		f.must(errno)
	}
	f.t.Release(h)
}

func (f *fops) mkdir(path string) {
	dir, name := f.at(path)
	var st translator.Attr
	_, errno := f.t.Mkdir(dir, name, 0o755, translator.Caller{}, &st)
	f.must(errno)
}

func (f *fops) link(from, to string) {
	dir, name := f.at(to)
	var st translator.Attr
	_, errno := f.t.Link(f.in(from), dir, name, &st)
	f.must(errno)
}

func (f *fops) rename(from, to string, flags uint32) func() {
	fd, fn := f.at(from)
	td, tn := f.at(to)
	return func() { f.must(f.t.Rename(fd, fn, td, tn, flags)) }
}

func (f *fops) open(path string, flags int) *translator.Handle {
	h, _, errno := f.t.Open(f.in(path), flags, false, translator.Caller{})
	f.must(errno)
	return h
}

func (f *fops) setattr(path string, s translator.Setattr) func() {
	in := f.in(path)
	return func() {
		var st translator.Attr
		_, errno := f.t.Setattr(in, &s, &st)
		f.must(errno)
	}
}

// made is what each case of stepCases finds below its directory.
func (f *fops) prepare(dir string) {
	f.mkdir(dir)
	for _, d := range []string{"/d", "/d/sub", "/e", "/empty"} {
		f.mkdir(dir + d)
	}
	for _, n := range []string{"/a", "/b", "/two", "/d/in"} {
		f.create(dir+n, "content of "+n)
	}
	f.link(dir+"/two", dir+"/d/two")
}

// stepCases are fops to be killed at each of their steps: what comes before the
// fop that counts is done first, and the fop returned. p is a directory made by
// prepare.
var stepCases = map[string]func(f *fops, p string) func(){
	"create": func(f *fops, p string) func() {
		f.in(p + "/d")
		return func() { f.create(p+"/d/new", "x") }
	},
	"mkdir":   func(f *fops, p string) func() { f.in(p + "/d"); return func() { f.mkdir(p + "/d/new") } },
	"mknod":   func(f *fops, p string) func() { return f.mknod(p+"/d/new", unix.S_IFIFO|0o600) },
	"mkfile":  func(f *fops, p string) func() { return f.mknod(p+"/d/new", unix.S_IFREG|0o600) },
	"symlink": func(f *fops, p string) func() { return f.symlink(p+"/d/new", "there") },
	"link":    func(f *fops, p string) func() { f.in(p + "/a"); return func() { f.link(p+"/a", p+"/d/new") } },
	"unlink last name": func(f *fops, p string) func() {
		dir, name := f.at(p + "/a")
		return func() { f.must(f.t.Unlink(dir, name)) }
	},
	"unlink one of two names": func(f *fops, p string) func() {
		dir, name := f.at(p + "/two")
		return func() { f.must(f.t.Unlink(dir, name)) }
	},
	"unlink while open": func(f *fops, p string) func() {
		dir, name := f.at(p + "/a")
		h := f.open(p+"/a", unix.O_RDWR)
		return func() {
			f.must(f.t.Unlink(dir, name))
			f.t.Release(h)
		}
	},
	"rmdir": func(f *fops, p string) func() {
		dir, name := f.at(p + "/empty")
		return func() { f.must(f.t.Rmdir(dir, name)) }
	},
	"rename":                        func(f *fops, p string) func() { return f.rename(p+"/a", p+"/d/new", 0) },
	"rename noreplace":              func(f *fops, p string) func() { return f.rename(p+"/a", p+"/d/new", unix.RENAME_NOREPLACE) },
	"rename over last name":         func(f *fops, p string) func() { return f.rename(p+"/a", p+"/b", 0) },
	"rename over one of two":        func(f *fops, p string) func() { return f.rename(p+"/a", p+"/d/two", 0) },
	"rename one of two":             func(f *fops, p string) func() { return f.rename(p+"/two", p+"/d/new", 0) },
	"rename directory":              func(f *fops, p string) func() { return f.rename(p+"/d", p+"/e/new", 0) },
	"rename directory over another": func(f *fops, p string) func() { return f.rename(p+"/d", p+"/empty", 0) },
	"exchange":                      func(f *fops, p string) func() { return f.rename(p+"/a", p+"/d/in", unix.RENAME_EXCHANGE) },
	"exchange with a directory":     func(f *fops, p string) func() { return f.rename(p+"/a", p+"/d/sub", unix.RENAME_EXCHANGE) },
	"exchange directories":          func(f *fops, p string) func() { return f.rename(p+"/e", p+"/d/sub", unix.RENAME_EXCHANGE) },
	"whiteout":                      func(f *fops, p string) func() { return f.rename(p+"/a", p+"/d/new", unix.RENAME_WHITEOUT) },
	"whiteout over another":         func(f *fops, p string) func() { return f.rename(p+"/a", p+"/d/two", unix.RENAME_WHITEOUT) },
	"truncate": func(f *fops, p string) func() {
		size := uint64(3)
		return f.setattr(p+"/a", translator.Setattr{Size: &size})
	},
	"chmod": func(f *fops, p string) func() {
		mode := uint32(0o7711)
		return f.setattr(p+"/a", translator.Setattr{Mode: &mode})
	},
	"chown and chmod": func(f *fops, p string) func() {
		mode, id := uint32(0o711), uint32(77)
		return f.setattr(p+"/d", translator.Setattr{Mode: &mode, UID: &id, GID: &id})
	},
	"setxattr": func(f *fops, p string) func() {
		in := f.in(p + "/a")
		return func() { f.must(f.t.Setxattr(in, "user.k", []byte("v"), 0, false, translator.Caller{})) }
	},
	"setxattr and removexattr": func(f *fops, p string) func() {
		in := f.in(p + "/d")
		return func() {
			f.must(f.t.Setxattr(in, "user.k", []byte("v"), 0, false, translator.Caller{}))
			f.must(f.t.Removexattr(in, "user.k"))
		}
	},
	"open, write, close": func(f *fops, p string) func() {
		in := f.in(p + "/a")
		return func() {
			h, _, errno := f.t.Open(in, unix.O_RDWR, false, translator.Caller{})
			f.must(errno)
			_, errno = f.t.Write(h, []byte("new"), 4, true, translator.Caller{})
			f.must(errno)
			f.t.Release(h)
		}
	},
	"open with O_TRUNC": func(f *fops, p string) func() {
		in := f.in(p + "/a")
		return func() {
			h, _, errno := f.t.Open(in, unix.O_WRONLY|unix.O_TRUNC, true, translator.Caller{})
			f.must(errno)
			f.t.Release(h)
		}
	},
	"fallocate": func(f *fops, p string) func() {
		h := f.open(p+"/a", unix.O_RDWR)
		return func() { f.must(f.t.Fallocate(h, 0, 0, 9000, translator.Caller{UID: 5})) }
	},
	"copy_file_range": func(f *fops, p string) func() {
		from, to := f.open(p+"/a", unix.O_RDONLY), f.open(p+"/b", unix.O_RDWR)
		return func() {
			_, errno := f.t.CopyFileRange(from, 0, to, 20, 5, 0, translator.Caller{})
			f.must(errno)
		}
	},
	"tmpfile and its link": func(f *fops, p string) func() {
		dir := f.in(p + "/d")
		return func() {
			var st translator.Attr
			in, h, _, errno := f.t.Tmpfile(dir, unix.O_RDWR, 0o644, translator.Caller{}, &st)
			f.must(errno)
			_, errno = f.t.Write(h, []byte("data"), 0, false, translator.Caller{})
			f.must(errno)
			_, errno = f.t.Link(in, dir, "new", &st)
			f.must(errno)
			f.t.Release(h)
		}
	},
	"rollover": func(f *fops, p string) func() {
		f.create(p+"/new", "x")
		return func() {
			if err := f.t.Log().Rollover(); err != nil {
				panic(err)
			}
		}
	},
	"close": func(f *fops, p string) func() {
		f.create(p+"/new", "x")
		return func() {
			if err := f.close(); err != nil {
				panic(err)
			}
		}
	},
	"open": nil, // the start itself, over what "create" left
}

func (f *fops) mknod(path string, mode uint32) func() {
	dir, name := f.at(path)
	return func() {
		var st translator.Attr
		_, errno := f.t.Mknod(dir, name, mode, 0, translator.Caller{}, &st)
		f.must(errno)
	}
}

func (f *fops) symlink(path, target string) func() {
	dir, name := f.at(path)
	return func() {
		var st translator.Attr
		_, errno := f.t.Symlink(dir, name, target, translator.Caller{}, &st)
		f.must(errno)
	}
}

func init() { programs["step"] = stepProgram }

// stepProgram carries out the case args[2] below the directory args[1] of the
// brick args[0], to be killed on the way.
func stepProgram(w *world) {
	unix.Umask(0)
	prepare := stepCases[strings.ReplaceAll(w.args[2], "+", " ")]
	if prepare == nil {
		b, err := brick.Create(w.args[0])
		w.must("create", err)
		w.must("lock", b.Lock())
		over := waitToBeTraced()
		f, err := fopsOn(b)
		w.must("open", err)
		w.must("close", f.close())
		over()
		return
	}
	f, err := openFops(w.args[0])
	w.must("open", err)
	act := prepare(f, w.args[1])
	over := waitToBeTraced()
	act()
	over()
}

// stepTest kills fops on one brick.
type stepTest struct {
	t     *testing.T
	brick string
	rec   *records
	r     *rand.Rand
	n     int
}

// try has the fop killed at a step, and the start after it too if again is not
// zero; then it starts once more and compares. It reports whether there were that
// many steps.
func (s *stepTest) try(name string, at, again stopAt) bool {
	t := s.t
	t.Helper()
	s.n++
	dir := "c" + strconv.Itoa(s.n)
	f, err := openFops(s.brick)
	if err != nil {
		t.Fatal(err)
	}
	f.prepare(dir)
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	s.rec.read(t)
	before, since := readTree(t, s.brick), s.rec.last

	_, killed := killStep(t, at, "step", s.brick, dir, strings.ReplaceAll(name, " ", "+"))
	if again.step > 0 {
		_, killed = killStep(t, again, "step", s.brick, dir, "open")
	}
	f, err = openFops(s.brick)
	if err != nil {
		t.Fatalf("%s killed %v, then %v: %v", name, at, again, err)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	s.rec.read(t)
	now := readTree(t, s.brick)
	s.rec.check(t, before, now, since)
	for _, set := range []string{"nameless", "writers"} {
		if left := membersOf(t, s.brick, set); len(left) > 0 {
			t.Errorf("%d left in the set %s", len(left), set)
		}
	}
	checkBrick(t, s.brick)
	if t.Failed() {
		t.Fatalf("%s killed %v, and the start after it %v", name, at, again)
	}
	return killed
}

// Every fop, killed at each of its steps: what happened is recorded, nothing half
// made stays. Before or after the step is left to chance, but in a soak.
func TestKillAtEachStep(t *testing.T) {
	_, soak := os.LookupEnv(killsEnv)
	for _, name := range stepNames() {
		s := newStepTest(t)
		steps := 0
		for s.tryBoth(name, steps+1, soak) {
			steps++
		}
		if steps == 0 {
			t.Errorf("%s has no step", name)
		}
	}
}

func (s *stepTest) tryBoth(name string, step int, both bool) bool {
	after := s.r.IntN(2) == 0
	killed := s.try(name, stopAt{step, after}, stopAt{})
	if both && killed {
		s.try(name, stopAt{step, !after}, stopAt{})
	}
	return killed
}

// A start after a kill is killed as well, anywhere, and then another one.
func TestKillOfRecovery(t *testing.T) {
	tries := envInt(t, killsEnv, 40)
	names := slices.DeleteFunc(stepNames(), func(n string) bool { return n == "open" || n == "close" })
	var s *stepTest
	for i := range tries {
		if i%20 == 0 {
			s = newStepTest(t)
		}
		name := names[s.r.IntN(len(names))]
		at := stopAt{1 + s.r.IntN(6), s.r.IntN(2) == 0}
		s.try(name, at, stopAt{1 + s.r.IntN(60), s.r.IntN(2) == 0})
	}
}

func newStepTest(t *testing.T) *stepTest {
	t.Helper()
	seed := uint64(envInt(t, seedEnv, int(time.Now().UnixNano()&0xffffff)))
	t.Logf("seed %d", seed)
	s := &stepTest{t: t, brick: filepath.Join(memory(t), "brick"), r: rand.New(rand.NewPCG(seed, 0))}
	if err := os.Mkdir(s.brick, 0o755); err != nil {
		t.Fatal(err)
	}
	s.rec = newRecords(s.brick)
	return s
}

// memory is a directory in memory: a kill asks nothing of the disk, and each try
// syncs a dozen times.
func memory(t *testing.T) string {
	t.Helper()
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("mount of a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
	return at
}

func stepNames() []string {
	names := make([]string, 0, len(stepCases))
	for name := range stepCases {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
