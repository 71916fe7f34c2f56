package fusefs

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// modes are the two ways in which reads and writes are served, each over another
// transport.
var modes = map[string]setup{
	"passthrough": {},
	"cached":      {noPassthrough: true, classic: true},
}

// eachMode runs a test in both.
func eachMode(t *testing.T, f func(t *testing.T, s setup)) {
	for _, name := range slices.Sorted(maps.Keys(modes)) {
		t.Run("mode="+name, func(t *testing.T) { f(t, modes[name]) })
	}
}

// go-fuse's own suite: what a bare directory passes, a mount passes too. Two cases
// say nothing here: FcntlFlockLocksFile, which fails everywhere, wants two POSIX
// locks of one process to exclude one another, and OpenSymlinkRace can't tell an
// attack from a symlink that was followed where both are on one file system.
func TestPosix(t *testing.T) {
	without := func(skip ...string) []string {
		return slices.DeleteFunc(slices.Sorted(maps.Keys(posixtest.All)), func(n string) bool { return slices.Contains(skip, n) })
	}
	all := func(t *testing.T, dir string, names []string) {
		if len(names) < 28 {
			t.Fatalf("the suite has %d cases, want at least 28", len(names))
		}
		for _, name := range names {
			t.Run(name, func(t *testing.T) {
				sub := filepath.Join(dir, name)
				if err := os.Mkdir(sub, 0o755); err != nil {
					t.Fatal(err)
				}
				posixtest.All[name](t, sub)
			})
		}
	}
	t.Run("bare", func(t *testing.T) { all(t, t.TempDir(), without("FcntlFlockLocksFile", "OpenSymlinkRace")) })
	eachMode(t, func(t *testing.T, s setup) { all(t, mount(t, s).dir, without("FcntlFlockLocksFile")) })
	// And each the other way round.
	eachMode(t, func(t *testing.T, s setup) {
		s.classic = !s.classic
		all(t, mount(t, s).dir, without("FcntlFlockLocksFile"))
	})
}

// Where the kernel can, requests come by io_uring, and its switch is left as it was.
func TestTransport(t *testing.T) {
	before, err := os.ReadFile(uringSwitch)
	if err != nil {
		t.Logf("this kernel has no FUSE over io_uring: %v", err)
	}
	_, got := mount(t, setup{}).srv.tr.(*uring)
	if want := err == nil; got != want {
		t.Errorf("io_uring %v, want %v", got, want)
	}
	if _, got := mount(t, setup{classic: true}).srv.tr.(*uring); got {
		t.Error("io_uring though it was not wanted")
	}
	if after, _ := os.ReadFile(uringSwitch); string(after) != string(before) {
		t.Errorf("%s is %q, want %q as before", uringSwitch, after, before)
	}
}

// The kernel is told mount options as bits, not as text.
func TestMountFlags(t *testing.T) {
	m := mount(t, setup{flags: []string{"ro", "noatime", "nodev", "nosuid", "noexec", "nodiratime", "sync", "dirsync"}})
	if err := os.Mkdir(filepath.Join(m.dir, "d"), 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("mkdir on a mount that is read-only: %v, want EROFS", err)
	}
	got := mountLine(t, m.dir)
	for _, want := range []string{"ro", "noatime", "nodev", "nosuid", "noexec", "nodiratime", "sync", "dirsync"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s: not among the options %v", want, got)
		}
	}
}

func TestMountFlagUnknown(t *testing.T) {
	b := t.TempDir()
	_, err := mountClassic(fuse.NewDefaultRawFileSystem(), &Options{Mountpoint: b, FSName: "x", Flags: []string{"nonsense"}, Logger: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("mount with an option that does not exist: %v, want EINVAL", err)
	}
}

// mountLine is the options of the mount at dir and of its file system.
func mountLine(t *testing.T, dir string) []string {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); f[4] == dir {
			return strings.Split(f[5]+","+f[len(f)-1], ",")
		}
	}
	t.Fatalf("%s is not mounted", dir)
	return nil
}

// A child must not inherit the connection: it would keep a dead mount alive.
func TestChildrenInheritNothing(t *testing.T) {
	m := mount(t, setup{})
	c := child(m.dir, "descriptors")
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	// Others are those that whoever runs the tests left us.
	for link := range strings.Lines(string(out)) {
		if strings.HasPrefix(link, "/dev/fuse") || strings.HasPrefix(link, m.brick.Path()) {
			t.Errorf("a child inherits %s", link)
		}
	}
}

func init() {
	programs["descriptors"] = func(w *world) {
		fds, err := os.ReadDir("/proc/self/fd")
		w.must("descriptors", err)
		for _, fd := range fds {
			if link, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
				w.logf("%s", link)
			}
		}
	}
}
