package fusefs

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/translator"
)

// setup is how a test wants its mount.
type setup struct {
	noPassthrough bool
	classic       bool // no io_uring
	flags         []string
	changelog     changelog.Options
	noChangelog   bool
	noMarker      bool
	delPaths      bool
	maxDirs       int
	// brick is an existing directory; a new one if empty.
	brick string
	// unseen says that names will be left on it that nobody looked up.
	unseen bool
}

// mounted is a mount served by this process.
type mounted struct {
	t     *testing.T
	brick *brick.Brick
	dir   string // the mountpoint
	srv   *Server
	ended chan error
	over  bool
	seen  bool // the brick can be checked
}

// mount mounts a brick for the time of the test.
func mount(t *testing.T, s setup) *mounted {
	t.Helper()
	if s.brick == "" {
		s.brick = publicDir(t)
	}
	return mountAt(t, s, publicDir(t))
}

// publicDir is a new directory that every user can reach.
func publicDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// mountAt mounts the brick s.brick over dir.
func mountAt(t *testing.T, s setup, dir string) *mounted {
	t.Helper()
	m := &mounted{t: t, dir: dir, ended: make(chan error, 1), seen: !s.unseen}
	var err error
	if m.brick, err = brick.Create(s.brick); err != nil {
		t.Fatal(err)
	}
	if err := m.brick.Lock(); err != nil {
		t.Fatal(err)
	}
	cl := &s.changelog
	if s.noChangelog {
		cl = nil
	} else if cl.RolloverTime == 0 {
		cl.RolloverTime = time.Hour // tests roll over themselves
	}
	m.srv, err = Mount(Options{
		Mountpoint: m.dir, FSName: m.brick.Path(), Flags: s.flags, AllowOther: true, NoPassthrough: s.noPassthrough, NoIOURing: s.classic,
	}, func(back translator.Backing, invalidate func(uint64)) (*translator.Translator, error) {
		return translator.Open(translator.Options{
			NoAtime: slices.Contains(s.flags, "noatime"),
			Brick:   m.brick, Changelog: cl, Marker: !s.noMarker, CaptureDelPath: s.delPaths, MaxDirs: s.maxDirs,
			Backing: back, Invalidate: invalidate,
		})
	})
	if err != nil {
		m.brick.Close()
		t.Fatal(err)
	}
	go func() { m.ended <- m.srv.Serve() }()
	t.Cleanup(m.unmount)
	if err := m.srv.WaitMount(); err != nil {
		t.Fatal(err)
	}
	m.refusePolls()
	return m
}

// refusePolls has the kernel learn that polls are not answered. Go's runtime
// would ask for one, in a way that keeps a processor, whenever this process opens
// a file that it serves itself. go-fuse serves a file for this that no brick has.
func (m *mounted) refusePolls() {
	fd, err := unix.Open(filepath.Join(m.dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil {
		m.t.Fatal(err)
	}
}

// unmount ends the mount and checks that it served to the end, and what it left.
func (m *mounted) unmount() {
	m.t.Helper()
	if m.over {
		return
	}
	m.over = true
	if err := m.srv.Unmount(); err != nil {
		m.t.Error(err)
		unix.Unmount(m.dir, unix.MNT_DETACH)
	}
	if err := <-m.ended; err != nil {
		m.t.Error(err)
	}
	if m.seen {
		m.checkBrick()
	}
	if err := m.brick.Close(); err != nil {
		m.t.Error(err)
	}
}

// checkBrick checks that each name has its GFID, handle and gfid2path and each
// handle its name, and that no directory has an older xtime than what is in it.
func (m *mounted) checkBrick() {
	m.t.Helper()
	_, err := m.brick.Check(context.Background(), brick.CheckOptions{Found: func(f brick.Finding) {
		m.t.Errorf("brick check: %s %v %q %s %v", f.Problem, f.GFID, f.Path, f.Detail, f.Err)
	}})
	if err != nil {
		m.t.Error(err)
	}
	if m.srv.Translator().Marker() != nil {
		key := brick.XtimeKey(m.brick.Volume())
		m.checkXtime(key, m.brick.Root(), ".")
	}
}

// checkXtime returns the latest xtime at and below the directory name in at, which
// is its own. Paths may be longer than a path can be.
func (m *mounted) checkXtime(key string, at int, name string) (latest brick.Stamp) {
	m.t.Helper()
	fd, errno := brick.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		m.t.Fatalf("%q: %v", name, errno)
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range entries {
		if name == "." && e.Name() == brick.Dir {
			continue
		}
		x := m.xtime(key, fd, e.Name())
		if e.IsDir() {
			x = m.checkXtime(key, fd, e.Name())
		}
		if x.Compare(latest) > 0 {
			latest = x
		}
	}
	own := m.xtime(key, fd, "")
	if own.Compare(latest) < 0 {
		m.t.Errorf("%q: xtime %v is before %v, that of something below it", name, own, latest)
	}
	return own
}

// xtime is the zero stamp for an object that was never touched.
func (m *mounted) xtime(key string, at int, name string) (s brick.Stamp) {
	buf := make([]byte, 9)
	n, errno := brick.Getxattr(at, name, key, buf)
	if errno == unix.ENODATA {
		return s
	}
	if errno != 0 {
		m.t.Errorf("xtime of %q: %v", name, errno)
		return s
	}
	s, err := brick.ParseStamp(buf[:n])
	if err != nil {
		m.t.Errorf("xtime of %q: %v", name, err)
	}
	return s
}

func ptr[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

func sortStrings(s []string) { slices.Sort(s) }

func internal(name string) bool {
	return brick.IsInternal(name) || strings.HasPrefix(name, "security.selinux")
}
