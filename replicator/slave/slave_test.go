package slave

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// pairOf is a master brick, its slave, and a client between them.
type pairOf struct {
	*Client
	t    *testing.T
	m    *brick.Brick
	root string // the slave's
	src  gfid.Source
}

// oneMaster serves all tests that only need some master: nothing here changes it.
var oneMaster *brick.Brick

func TestMain(m *testing.M) {
	if root := os.Getenv(crashRoot); root != "" {
		crashChild(root, os.Getenv(crashMaster))
	}
	if root := os.Getenv(confineRoot); root != "" {
		confineChild(root)
	}
	err := mountInMemory()
	if err == nil {
		var dir string
		if dir, err = os.MkdirTemp("", "georep-master-"); err == nil {
			oneMaster, err = brick.Create(dir)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// inNamespace in the environment says that we have a mount namespace of our own.
const inNamespace = "GEOREP_TEST_IN_NAMESPACE"

// mountInMemory makes the directory for temporary files an ext4 in memory, so
// that tests do not wait for a disk. It starts the test over in a mount namespace
// of its own, and so nothing is left however the test ends.
func mountInMemory() error {
	if os.Getenv(inNamespace) == "" {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		args := append([]string{"unshare", "--mount", exe}, os.Args[1:]...)
		return syscall.Exec("/usr/bin/unshare", args, append(os.Environ(), inNamespace+"=1"))
	}
	image, err := os.CreateTemp("/dev/shm", "georep-slave-")
	if err != nil {
		return err
	}
	defer os.Remove(image.Name()) // the mount has it still
	defer image.Close()
	if err := image.Truncate(1 << 30); err != nil {
		return err
	}
	const point = "/mnt" // of this namespace alone
	for _, c := range [][]string{{"mkfs.ext4", "-q", "-I", "512", image.Name()}, {"mount", "-o", "loop", image.Name(), point}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%q (Debian packages e2fsprogs, mount): %w: %s", c, err, out)
		}
	}
	return os.Setenv("TMPDIR", point)
}

// newMaster is one that a test may change.
func newMaster(t *testing.T) *brick.Brick {
	t.Helper()
	m, err := brick.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func newPair(t *testing.T) *pairOf { return newPairAt(t, t.TempDir()) }

// newPairAt has its slave in the directory root.
func newPairAt(t *testing.T, root string) *pairOf {
	t.Helper()
	p := &pairOf{t: t, m: oneMaster, root: root}
	p.open()
	t.Cleanup(func() { p.Client.Close() })
	t.Cleanup(func() { p.t = t })
	return p
}

func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (p *pairOf) open() {
	p.t.Helper()
	c, err := Local(p.t.Context(), p.root, p.m, Options{Create: true, Version: "test", Logger: testLogger(p.t)})
	if err != nil {
		p.t.Fatal(err)
	}
	p.Client = c
}

// reopen ends the connection and makes a new one, as after a restart.
func (p *pairOf) reopen() {
	p.t.Helper()
	p.Client.Close()
	p.open()
}

// try applies ops and returns their results.
func (p *pairOf) try(ops ...Op) []Result {
	p.t.Helper()
	res, err := p.Apply(p.t.Context(), ops)
	if err != nil {
		p.t.Fatal(err)
	}
	return res
}

// do applies ops, all of which must succeed.
func (p *pairOf) do(ops ...Op) []Result {
	p.t.Helper()
	res := p.try(ops...)
	for i, r := range res {
		if r.Errno != 0 {
			p.t.Fatalf("op %d: kind %d %q: %v: %s", i, ops[i].Kind, ops[i].Name.Base, r.Errno, r.Detail)
		}
	}
	return res
}

func (p *pairOf) stat(g gfid.GFID) Object {
	p.t.Helper()
	o, err := p.Stat(p.t.Context(), []gfid.GFID{g}, WantXattrs|WantNames)
	if err != nil {
		p.t.Fatal(err)
	}
	return o[0]
}

func (p *pairOf) lookup(parent gfid.GFID, base string) Entry {
	p.t.Helper()
	e, err := p.Lookup(p.t.Context(), []Name{{parent, base}})
	if err != nil {
		p.t.Fatal(err)
	}
	return e[0]
}

func (p *pairOf) path(rel ...string) string {
	return filepath.Join(append([]string{p.root}, rel...)...)
}

func (p *pairOf) conflicts() []string {
	p.t.Helper()
	all, err := p.Conflicts(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	for _, c := range all {
		_, base, _ := strings.Cut(c.Name, "-")
		names = append(names, base)
	}
	return names
}

func metaOfMode(mode uint32) *Meta {
	return &Meta{Mode: mode, UID: 7, GID: 8, Mtime: Time{1_500_000_000, 123_456_789}}
}

func inRoot(base string) Name { return Name{gfid.Root, base} }

// mkdir, file and data are operations most tests need.
func mkdir(g gfid.GFID, n Name) Op {
	return Op{Kind: Make, GFID: g, Name: n, Meta: metaOfMode(unix.S_IFDIR | 0o751)}
}

func file(g gfid.GFID, n Name, data string) Op {
	return Op{Kind: Make, GFID: g, Name: n, Meta: metaOfMode(unix.S_IFREG | 0o640), Content: text(data)}
}

func put(g gfid.GFID, data string) Op {
	return Op{Kind: Put, GFID: g, Meta: metaOfMode(unix.S_IFREG | 0o600), Content: text(data)}
}

func text(data string) *Content {
	c := &Content{Size: int64(len(data))}
	if data != "" {
		c.Extents = []Extent{{0, []byte(data)}}
	}
	return c
}

// dump tells of everything below the slave's root, one line each: what must be
// the same after a replay. Times of directories are the planner's duty.
func dump(t testing.TB, root string) string {
	t.Helper()
	var b strings.Builder
	var order []string
	lines := map[string]string{}
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() && strings.HasPrefix(rel, brick.Dir+"/") && len(rel) <= len(brick.Dir)+6 && !strings.Contains(rel, keptDir) {
			return nil // handle directories come and stay
		}
		if rel == filepath.Join(brick.Dir, tmpDir) || rel == filepath.Join(brick.Dir, keptDir, "lock") || rel == filepath.Join(brick.Dir, receiversFile) {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%q %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			first, ok := inodes[st.Ino]
			if !ok {
				inodes[st.Ino], first = rel, rel
			}
			line += fmt.Sprintf(" =%q n%d size %d rdev %d", first, st.Nlink, st.Size, st.Rdev)
			if st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Nlink > 1 { // not a directory's handle
				line += fmt.Sprintf(" mtime %d.%d", st.Mtim.Sec, st.Mtim.Nsec)
			}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			target, _ := os.Readlink(path)
			line += fmt.Sprintf(" -> %q", target)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			h := hashPath(t, path)
			line += fmt.Sprintf(" %x", h.Sum[:6])
		}
		names, errno := listXattrs(inode{unix.AT_FDCWD, path})
		if errno != 0 {
			return errno
		}
		slices.Sort(names)
		for _, n := range names {
			v, errno := readXattr(inode{unix.AT_FDCWD, path}, n)
			if errno != 0 {
				return errno
			}
			line += fmt.Sprintf(" %s=%x", n, v)
		}
		order = append(order, rel)
		lines[rel] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, rel := range order {
		b.WriteString(lines[rel] + "\n")
	}
	return b.String()
}

func hashPath(t testing.TB, path string) Hash {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := HashFile(int(f.Fd()))
	if h.Errno != 0 {
		t.Fatalf("hash %q: %v", path, h.Errno)
	}
	return h
}

// checkSame applies ops again, and after a restart again: nothing may change.
func (p *pairOf) checkSame(ops ...Op) {
	p.t.Helper()
	want := dump(p.t, p.root)
	for _, what := range []string{"replay", "replay after a restart"} {
		p.try(ops...)
		if got := dump(p.t, p.root); got != want {
			p.t.Errorf("%s changed the slave, -was +is:\n%s", what, diffLines(want, got))
		}
		p.reopen()
	}
}

// acl is an access ACL with one named user, u::rw-,u:uid:r--,g::r--,m::r--,o::---.
func acl(uid uint32) []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 4, uid}, {4, 4, ^uint32(0)}, {16, 4, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// diffLines are the lines that only one of a and b has.
func diffLines(a, b string) string {
	var d strings.Builder
	for _, s := range []struct{ sign, in, other string }{{"- ", a, b}, {"+ ", b, a}} {
		for line := range strings.Lines(s.in) {
			if !strings.Contains(s.other, line) {
				d.WriteString(s.sign + line)
			}
		}
	}
	return d.String()
}

func wantErrno(t *testing.T, what string, r Result, want syscall.Errno) {
	t.Helper()
	if r.Errno != want {
		t.Errorf("%s: %v (%s), want %v", what, r.Errno, r.Detail, want)
	}
}

const patience = 10 * time.Second

func contextFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
