package fusefs

import (
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
	flags         []string
	changelog     changelog.Options
	noChangelog   bool
	noMarker      bool
	delPaths      bool
	// brick is an existing directory; a new one if empty.
	brick string
}

// mounted is a mount served by this process.
type mounted struct {
	t     *testing.T
	brick *brick.Brick
	dir   string // the mountpoint
	srv   *Server
	ended chan error
	over  bool
}

// mount mounts a brick for the time of the test.
func mount(t *testing.T, s setup) *mounted {
	t.Helper()
	if s.brick == "" {
		s.brick = filepath.Join(t.TempDir(), "brick")
		if err := os.Mkdir(s.brick, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := &mounted{t: t, dir: filepath.Join(t.TempDir(), "mnt"), ended: make(chan error, 1)}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
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
		Mountpoint: m.dir, FSName: m.brick.Path(), Flags: s.flags, AllowOther: true, NoPassthrough: s.noPassthrough,
	}, func(back translator.Backing, invalidate func(uint64)) (*translator.Translator, error) {
		return translator.Open(translator.Options{
			Brick: m.brick, Changelog: cl, Marker: !s.noMarker, CaptureDelPath: s.delPaths,
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
// a file that it serves itself.
func (m *mounted) refusePolls() {
	fd, err := unix.Open(m.dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer unix.Close(fd)
	name := filepath.Join(m.dir, "poll")
	f, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		if err == unix.EROFS {
			return
		}
		m.t.Fatal(err)
	}
	defer unix.Close(f)
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(f), Events: unix.POLLIN}}, 0); err != nil {
		m.t.Fatal(err)
	}
	if err := unix.Unlink(name); err != nil {
		m.t.Fatal(err)
	}
}

// unmount ends the mount and checks that it served to the end.
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
	if err := m.brick.Close(); err != nil {
		m.t.Error(err)
	}
}

func ptr[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

func sortStrings(s []string) { slices.Sort(s) }

func internal(name string) bool {
	return brick.IsInternal(name) || strings.HasPrefix(name, "security.selinux")
}
