package fusefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// What the brick keeps for itself is not in the mount, by whatever way.
func TestGlusterfsHidden(t *testing.T) {
	m := mount(t, setup{})
	hidden := filepath.Join(m.dir, brick.Dir)
	mustDo(t, os.WriteFile(m.dir+"/f", []byte("x"), 0o644))
	names, err := os.ReadDir(m.dir)
	if err != nil || len(names) != 1 {
		t.Errorf("the root holds %v, %v; want f alone", names, err)
	}
	mustDo(t, os.Mkdir(m.dir+"/d", 0o755))
	var st unix.Stat_t
	for what, err := range map[string]error{
		"stat":             unix.Lstat(hidden, &st),
		"stat below":       unix.Lstat(hidden+"/00", &st),
		"stat by a way":    unix.Lstat(m.dir+"/d/../.glusterfs/changelogs", &st),
		"chmod":            unix.Chmod(hidden, 0o777),
		"rmdir":            unix.Rmdir(hidden),
		"unlink":           unix.Unlink(hidden),
		"rename":           unix.Rename(hidden, m.dir+"/mine"),
		"exchange":         unix.Renameat2(unix.AT_FDCWD, m.dir+"/f", unix.AT_FDCWD, hidden, unix.RENAME_EXCHANGE),
		"link":             unix.Link(hidden, m.dir+"/mine"),
		"open by handle":   openHandle(m, hidden),
		"readlink of root": readlink(hidden + "/00/00/00000000-0000-0000-0000-000000000001"),
	} {
		if !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s of .glusterfs: %v, want ENOENT", what, err)
		}
	}
	for what, err := range map[string]error{
		"mkdir":       unix.Mkdir(hidden, 0o755),
		"symlink":     unix.Symlink("x", hidden),
		"mknod":       unix.Mknod(hidden, unix.S_IFREG|0o644, 0),
		"create":      os.WriteFile(hidden, nil, 0o644),
		"rename onto": unix.Rename(m.dir+"/f", hidden),
		"link onto":   unix.Link(m.dir+"/f", hidden),
	} {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s .glusterfs: %v, want EPERM", what, err)
		}
	}
	// The name is nothing special elsewhere.
	mustDo(t, os.Mkdir(m.dir+"/d/.glusterfs", 0o755))
	mustDo(t, os.Rename(m.dir+"/d/.glusterfs", m.dir+"/d/e"))
}

func openHandle(m *mounted, path string) error {
	_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	return err
}

func readlink(path string) error {
	_, err := os.Readlink(path)
	return err
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Our xattrs are neither listed nor set by users, but a copy that carries them
// along is not an error of the rest.
func TestInternalXattrs(t *testing.T) {
	m := mount(t, setup{})
	mustDo(t, os.WriteFile(m.dir+"/f", []byte("x"), 0o644))
	mustDo(t, os.Mkdir(m.dir+"/d", 0o755))
	mustDo(t, m.srv.Translator().Marker().Flush())
	for _, path := range []string{m.dir, m.dir + "/f", m.dir + "/d"} {
		if got := listxattr(t, path); len(got) != 0 {
			t.Errorf("xattrs of %s: %q, want none", path, got)
		}
		mustDo(t, unix.Setxattr(path, "user.mine", []byte("v"), 0))
		if got, want := listxattr(t, path), []string{"user.mine"}; !slices.Equal(got, want) {
			t.Errorf("xattrs of %s: %q, want %q", path, got, want)
		}
		mustDo(t, unix.Removexattr(path, "user.mine"))
		for _, attr := range []string{
			"trusted.gfid", "trusted.gfid2path.0123456789abcdef", brick.XtimeKey(m.brick.Volume()), "trusted.glusterfs.volume-id",
			"trusted.glusterfs.anything", "trusted.afr.x", "glusterfs.gfid",
		} {
			if err := unix.Setxattr(path, attr, make([]byte, 16), 0); !errors.Is(err, unix.EPERM) {
				t.Errorf("setxattr of %s: %v, want EPERM", attr, err)
			}
			if err := unix.Removexattr(path, attr); !errors.Is(err, unix.EPERM) {
				t.Errorf("removexattr of %s: %v, want EPERM", attr, err)
			}
		}
	}
}

func listxattr(t *testing.T, path string) (names []string) {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Listxattr(path, buf)
	mustDo(t, err)
	for len(buf[:n]) > 0 {
		i := slices.Index(buf[:n], 0)
		names = append(names, string(buf[:i]))
		buf, n = buf[i+1:], n-i-1
	}
	return names
}

// The xtimes that a flush writes, and the GFIDs that a first lookup gives, do not
// show as changes, nor hide those of users that come after.
func TestCtimeIsOfUsers(t *testing.T) {
	b := publicDir(t)
	mustDo(t, os.MkdirAll(b+"/old/sub", 0o755))
	mustDo(t, os.WriteFile(b+"/old/f", []byte("from before"), 0o644))
	mustDo(t, os.Symlink("f", b+"/old/l"))
	want := map[string]time.Time{}
	paths := []string{"old", "old/sub", "old/f", "old/l"}
	for _, p := range paths {
		want[p] = ctime(t, filepath.Join(b, p))
	}
	m := mount(t, setup{brick: b})
	look := func(what string) {
		t.Helper()
		for _, p := range paths {
			if got := ctime(t, filepath.Join(m.dir, p)); !got.Equal(want[p]) {
				t.Errorf("%s: ctime of %s is %v, want %v", what, p, got, want[p])
			}
		}
	}
	flush := func() {
		t.Helper()
		mustDo(t, m.srv.Translator().Marker().Flush())
		m.forgetAttributes()
	}
	look("first lookup")
	m.forgetAttributes()
	look("second lookup")
	change := func(what, path string, f func(path string) error) {
		t.Helper()
		time.Sleep(12 * time.Millisecond) // the tick of a coarse clock
		mustDo(t, f(filepath.Join(m.dir, path)))
		got := ctime(t, filepath.Join(m.dir, path))
		if !got.After(want[path]) {
			t.Errorf("%s: ctime of %s did not move", what, path)
		}
		want[path] = got
		look(what)
		flush()
		look(what + " and flush")
		flush()
		look(what + " and second flush")
	}
	change("chmod", "old/f", func(p string) error { return os.Chmod(p, 0o600) })
	change("write", "old/f", func(p string) error { return os.WriteFile(p, []byte("new"), 0) })
	change("xattr", "old/f", func(p string) error { return unix.Setxattr(p, "user.x", []byte("y"), 0) })
	change("chmod of a directory", "old/sub", func(p string) error { return os.Chmod(p, 0o700) })
	change("lchown", "old/l", func(p string) error { return os.Lchown(p, 1, 1) })
	change("create", "old/sub", func(p string) error { return os.WriteFile(p+"/new", nil, 0o644) })
}

func ctime(t *testing.T, path string) time.Time {
	t.Helper()
	var st unix.Stat_t
	mustDo(t, unix.Lstat(path, &st))
	return time.Unix(st.Ctim.Unix())
}

// forgetAttributes has the kernel ask for all attributes again.
func (m *mounted) forgetAttributes() {
	for id := uint64(1); id < 1000; id++ {
		m.srv.invalidate(id)
	}
}

// However many files the kernel knows, few descriptors are open.
func TestDescriptorsAreBounded(t *testing.T) {
	before := openDescriptors(t)
	const max, dirs = 32, 300
	m := mount(t, setup{maxDirs: max})
	for i := range dirs {
		d := fmt.Sprintf("%s/%d", m.dir, i)
		mustDo(t, os.Mkdir(d, 0o755))
		for j := range 3 {
			mustDo(t, os.WriteFile(fmt.Sprintf("%s/%d", d, j), nil, 0o644))
		}
	}
	m.waitOpen(0)
	for i := range dirs {
		var st unix.Stat_t
		mustDo(t, unix.Lstat(fmt.Sprintf("%s/%d/0", m.dir, i), &st))
	}
	if got, most := openDescriptors(t)-before, max+50; got > most {
		t.Errorf("%d directories and as many files thrice are known: %d descriptors are open, want at most %d", dirs, got, most)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	mustDo(t, err)
	return len(fds)
}

// 100,000 entries, with some coming and going while they are read: those that
// stay are read exactly once, with readdir and with readdirplus.
func TestReaddirOfManyWhileTheyChange(t *testing.T) {
	b := publicDir(t)
	const n = 100_000
	big := b + "/big"
	mustDo(t, os.Mkdir(big, 0o755))
	for i := range n {
		// A hundred files by a thousand names each: from before there was a mount.
		name := fmt.Sprintf("%s/%06d", big, i)
		if i%1000 == 0 {
			mustDo(t, os.WriteFile(name, nil, 0o644))
		} else {
			mustDo(t, os.Link(fmt.Sprintf("%s/%06d", big, i-i%1000), name))
		}
	}
	m := mount(t, setup{brick: b, unseen: true})
	for _, plus := range []bool{false, true} {
		out := output(t, m.dir+"/big", "many-entries", fmt.Sprint(n), fmt.Sprint(plus))
		if out != "ok\n" {
			t.Errorf("plus %v: %s", plus, out)
		}
	}
}

func init() {
	programs["many-entries"] = func(w *world) {
		var n int
		fmt.Sscan(w.args[0], &n)
		plus := w.args[1] == "true"
		wrong := 0
		w.must("with", with(".", unix.O_RDONLY|unix.O_DIRECTORY, 0, func(fd int) error {
			seen := make(map[string]int, n)
			step := 0
			w.dirents(fd, 32<<10, func(name string, _ byte, _ uint64, _ int64) {
				seen[name]++
				step++
				if plus && step%100 == 0 { // the kernel asks for attributes too once somebody wants them
					var st unix.Stat_t
					unix.Lstat(name, &st)
				}
				if step%500 == 0 {
					w.must("create", os.WriteFile(fmt.Sprintf("new-%v-%d", plus, step), nil, 0o644))
					unix.Unlink(fmt.Sprintf("new-%v-%d", plus, step-5000))
				}
			})
			for i := range n {
				if seen[fmt.Sprintf("%06d", i)] != 1 {
					wrong++
				}
			}
			return nil
		}))
		if wrong == 0 {
			w.logf("ok")
		} else {
			w.logf("%d of %d entries were not read exactly once", wrong, n)
		}
	}
}

// The mount's noatime holds for what the kernel reads past us, too.
func TestNoatime(t *testing.T) {
	eachMode(t, func(t *testing.T, s setup) {
		s.flags = []string{"noatime", "nodiratime"}
		m := mount(t, s)
		mustDo(t, os.Mkdir(m.dir+"/d", 0o755))
		mustDo(t, os.WriteFile(m.dir+"/d/f", []byte("x"), 0o644))
		mustDo(t, os.Symlink("f", m.dir+"/d/l"))
		old := []unix.Timespec{{Sec: 1}, {Sec: 2}}
		paths := []string{"d/f", "d/l", "d"}
		for _, p := range paths {
			mustDo(t, unix.UtimesNanoAt(unix.AT_FDCWD, m.dir+"/"+p, old, unix.AT_SYMLINK_NOFOLLOW))
		}
		for range 2 {
			_, err := os.ReadFile(m.dir + "/d/f")
			mustDo(t, err)
			mustDo(t, readlink(m.dir+"/d/l"))
			_, err = os.ReadDir(m.dir + "/d")
			mustDo(t, err)
		}
		m.waitOpen(0)
		for _, p := range paths {
			var st unix.Stat_t
			mustDo(t, unix.Lstat(m.brick.Path()+"/"+p, &st))
			if st.Atim.Sec != 1 {
				t.Errorf("atime of %s on the brick moved to %d", p, st.Atim.Sec)
			}
		}
	})
}

// Files that chattr(1) protects from their users get what we keep on them all the
// same: those from before a GFID, all an xtime, and those without a name their end.
// They stay protected.
func TestProtectedFiles(t *testing.T) {
	b := publicDir(t)
	mustDo(t, os.MkdirAll(b+"/dir/sub", 0o755))
	mustDo(t, os.WriteFile(b+"/dir/log", []byte("one\n"), 0o644))
	mustDo(t, os.WriteFile(b+"/dir/fixed", []byte("x"), 0o644))
	protect := func(dir string, on bool) {
		t.Helper()
		for name, flags := range map[string]int{"dir/log": 0x20, "dir/fixed": 0x10, "dir": 0x10} {
			if !on {
				flags = 0
			}
			mustDo(t, with(dir+"/"+name, unix.O_RDONLY, 0, func(fd int) error { return setFlags(fd, flags) }))
		}
	}
	protect(b, true)
	t.Cleanup(func() { protect(b, false) })
	m := mount(t, setup{brick: b})
	before := m.xtime(brick.XtimeKey(m.brick.Volume()), m.brick.Root(), "")
	for _, name := range []string{"dir/log", "dir/fixed", "dir/sub"} {
		var st unix.Stat_t
		mustDo(t, unix.Lstat(m.dir+"/"+name, &st))
	}
	appendTo := func(path string) error {
		return with(path, unix.O_WRONLY|unix.O_APPEND, 0, func(fd int) error { return write(fd, "two\n") })
	}
	mustDo(t, appendTo(m.dir+"/dir/log"))
	mustDo(t, os.WriteFile(m.dir+"/dir/sub/new", nil, 0o644))
	m.waitOpen(0)
	mustDo(t, m.srv.Translator().Marker().Flush())
	for _, name := range []string{"", "dir", "dir/log", "dir/sub", "dir/sub/new"} {
		if got := m.xtime(brick.XtimeKey(m.brick.Volume()), m.brick.Root(), name); got.Compare(before) <= 0 {
			t.Errorf("xtime of %q is %v, want one after %v", name, got, before)
		}
	}
	for name, want := range map[string]error{"dir/log": unix.EPERM, "dir/fixed": unix.EPERM, "dir/new": unix.EPERM} {
		if err := os.WriteFile(m.dir+"/"+name, nil, 0o644); !errors.Is(err, want) {
			t.Errorf("write of %s: %v, want %v", name, err, want)
		}
	}
	// One that is protected after its name is gone.
	fd, err := unix.Open(m.dir+"/gone", unix.O_RDWR|unix.O_CREAT, 0o644)
	mustDo(t, err)
	mustDo(t, unix.Unlink(m.dir+"/gone"))
	mustDo(t, setFlags(fd, 0x10))
	mustDo(t, unix.Close(fd))
}
