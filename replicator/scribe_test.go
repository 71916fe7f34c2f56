package replicator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// scribe changes a brick and records what it does, as a mount would. Paths are
// relative to the brick's root.
type scribe struct {
	tb  fataler
	b   *brick.Brick
	log *changelog.Log
	src gfid.Source
	// bare makes changes without recording them.
	bare bool
	// seen is called with each record, if not nil.
	seen func(changelog.Record)
}

// fataler is what *testing.T and *rapid.T have in common.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

// newScribe makes a brick in a new directory and records on it.
func newScribe(tb testing.TB) *scribe {
	tb.Helper()
	b, err := brick.Create(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	s := &scribe{tb: tb, b: b}
	s.open()
	tb.Cleanup(func() {
		if s.log != nil {
			s.log.Close()
		}
		b.Close()
	})
	return s
}

// open begins to record.
func (s *scribe) open() {
	s.tb.Helper()
	log, err := changelog.Open(changelog.Options{Dir: filepath.Join(s.b.Path(), brick.Dir, "changelogs"), FsyncInterval: time.Hour})
	if err != nil {
		s.tb.Fatal(err)
	}
	s.log = log
}

func (s *scribe) close() {
	s.tb.Helper()
	if err := s.log.Close(); err != nil {
		s.tb.Fatal(err)
	}
	s.log = nil
}

// roll seals the changelog.
func (s *scribe) roll() {
	s.tb.Helper()
	if err := s.log.Rollover(); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *scribe) abs(path string) string { return filepath.Join(s.b.Path(), path) }

func (s *scribe) gfidOf(path string) gfid.GFID {
	s.tb.Helper()
	val, err := brick.ReadXattr(s.abs(path), brick.XattrGFID)
	if err != nil {
		s.tb.Fatalf("gfid of %q: %v", path, err)
	}
	return gfid.GFID(val)
}

func (s *scribe) name(path string) changelog.Name {
	s.tb.Helper()
	return changelog.Name{Parent: s.gfidOf(filepath.Dir(path)), Base: filepath.Base(path)}
}

func (s *scribe) check(what, path string, err error) {
	s.tb.Helper()
	if err != nil && err != unix.Errno(0) {
		s.tb.Fatalf("%s %q: %v", what, path, err)
	}
}

// record appends r and touches the xtime of path and all above it.
func (s *scribe) record(r changelog.Record, paths ...string) {
	s.tb.Helper()
	if s.bare {
		return
	}
	if s.seen != nil {
		s.seen(r)
	}
	if s.log != nil {
		if _, err := s.log.Append(&r); err != nil {
			s.tb.Fatal(err)
		}
	}
	now := brick.StampOf(time.Now())
	for _, p := range paths {
		for {
			errno := brick.Setxattr(unix.AT_FDCWD, s.abs(p), brick.XtimeKey(s.b.Volume()), now.Bytes(), 0)
			if errno != unix.ENOENT {
				s.check("touch", p, errno)
			}
			if p == "." {
				break
			}
			p = filepath.Dir(p)
		}
	}
}

// touch writes path's xtime, unchanged, as a flush of marks does after the
// change: its ctime moves.
func (s *scribe) touch(path string) {
	s.tb.Helper()
	key := brick.XtimeKey(s.b.Volume())
	val, err := brick.ReadXattr(s.abs(path), key)
	s.check("xtime of", path, err)
	s.check("touch", path, brick.Setxattr(unix.AT_FDCWD, s.abs(path), key, val, 0))
}

// adopt gives the new object at path an identity.
func (s *scribe) adopt(path string) gfid.GFID {
	s.tb.Helper()
	g, n := s.src.Next(), s.name(path)
	s.check("gfid of", path, brick.Setxattr(unix.AT_FDCWD, s.abs(path), brick.XattrGFID, g[:], unix.XATTR_CREATE))
	if st := s.lstat(path); st.Mode&unix.S_IFMT == unix.S_IFDIR {
		s.check("handle of", path, s.b.SymlinkHandle(g, n.Parent, n.Base))
	} else {
		s.check("handle of", path, s.b.LinkHandle(unix.AT_FDCWD, s.abs(path), g))
		s.addPath(path, n)
	}
	return g
}

func (s *scribe) addPath(path string, n changelog.Name) {
	s.tb.Helper()
	key, val := brick.GFID2Path(n.Parent, n.Base)
	s.check("gfid2path of", path, brick.Setxattr(unix.AT_FDCWD, s.abs(path), key, val, 0))
}

func (s *scribe) lstat(path string) unix.Stat_t {
	s.tb.Helper()
	var st unix.Stat_t
	s.check("stat", path, unix.Lstat(s.abs(path), &st))
	return st
}

func (s *scribe) create(path, content string) gfid.GFID {
	s.tb.Helper()
	s.check("create", path, os.WriteFile(s.abs(path), nil, 0o644))
	g := s.adopt(path)
	s.record(changelog.Record{Type: changelog.Entry, GFID: g, Fop: changelog.FopCreate, Mode: 0o100644, Entry: s.name(path)}, path)
	if content != "" {
		s.write(path, content)
	}
	return g
}

// write replaces the content of path in place.
func (s *scribe) write(path, content string) {
	s.tb.Helper()
	s.check("write", path, os.WriteFile(s.abs(path), []byte(content), 0o644))
	s.record(changelog.Record{Type: changelog.Data, GFID: s.gfidOf(path)}, path)
}

func (s *scribe) mkdir(path string) gfid.GFID {
	s.tb.Helper()
	s.check("mkdir", path, os.Mkdir(s.abs(path), 0o755))
	g := s.adopt(path)
	s.record(changelog.Record{Type: changelog.Entry, GFID: g, Fop: changelog.FopMkdir, Mode: 0o40755, Entry: s.name(path)}, path)
	return g
}

func (s *scribe) symlink(target, path string) {
	s.tb.Helper()
	s.check("symlink", path, os.Symlink(target, s.abs(path)))
	g := s.adopt(path)
	s.record(changelog.Record{Type: changelog.Entry, GFID: g, Fop: changelog.FopSymlink, Entry: s.name(path)}, path)
}

func (s *scribe) mknod(path string, mode uint32, dev uint64) {
	s.tb.Helper()
	s.check("mknod", path, unix.Mknod(s.abs(path), mode, int(dev)))
	g := s.adopt(path)
	s.record(changelog.Record{Type: changelog.Entry, GFID: g, Fop: changelog.FopMknod, Mode: mode, Entry: s.name(path)}, path)
}

func (s *scribe) link(old, path string) {
	s.tb.Helper()
	s.check("link", path, os.Link(s.abs(old), s.abs(path)))
	s.addPath(path, s.name(path))
	s.record(changelog.Record{Type: changelog.Entry, GFID: s.gfidOf(path), Fop: changelog.FopLink, Entry: s.name(path)}, path)
}

// forget takes the handle of g away when it has lost its last name.
func (s *scribe) forget(g gfid.GFID) {
	s.tb.Helper()
	var st unix.Statx_t
	if errno := s.b.StatHandle(g, &st); errno == 0 && st.Nlink == 1 {
		s.check("handle of", g.String(), s.b.UnlinkHandle(g))
	}
}

func (s *scribe) unlink(path string) {
	s.tb.Helper()
	g, n := s.gfidOf(path), s.name(path)
	key, _ := brick.GFID2Path(n.Parent, n.Base)
	s.check("gfid2path of", path, brick.Removexattr(unix.AT_FDCWD, s.abs(path), key))
	s.check("unlink", path, unix.Unlink(s.abs(path)))
	s.forget(g)
	s.record(changelog.Record{Type: changelog.Entry, GFID: g, Fop: changelog.FopUnlink, Entry: n}, filepath.Dir(path))
}

func (s *scribe) rmdir(path string) {
	s.tb.Helper()
	g, n := s.gfidOf(path), s.name(path)
	s.check("rmdir", path, unix.Rmdir(s.abs(path)))
	s.check("handle of", path, s.b.UnlinkHandle(g))
	s.record(changelog.Record{Type: changelog.Entry, GFID: g, Fop: changelog.FopRmdir, Entry: n}, filepath.Dir(path))
}

func (s *scribe) rename(old, path string) {
	s.tb.Helper()
	g, from, to := s.gfidOf(old), s.name(old), s.name(path)
	var victim gfid.GFID
	var victimDir bool
	if val, err := brick.ReadXattr(s.abs(path), brick.XattrGFID); err == nil {
		victim = gfid.GFID(val)
		vst := s.lstat(path)
		if victim == g {
			return // two names of one file: rename(2) does nothing
		}
		if victimDir = vst.Mode&unix.S_IFMT == unix.S_IFDIR; !victimDir {
			key, _ := brick.GFID2Path(to.Parent, to.Base)
			s.check("gfid2path of", path, brick.Removexattr(unix.AT_FDCWD, s.abs(path), key))
		}
	}
	s.check("rename", old, unix.Rename(s.abs(old), s.abs(path)))
	if st := s.lstat(path); st.Mode&unix.S_IFMT == unix.S_IFDIR {
		s.check("handle of", path, s.b.SymlinkHandle(g, to.Parent, to.Base))
	} else {
		key, _ := brick.GFID2Path(from.Parent, from.Base)
		s.check("gfid2path of", path, brick.Removexattr(unix.AT_FDCWD, s.abs(path), key))
		s.addPath(path, to)
	}
	switch {
	case victim.IsZero():
	case victimDir:
		s.check("handle of", path, s.b.UnlinkHandle(victim))
	default:
		s.forget(victim)
	}
	s.record(changelog.Record{Type: changelog.Entry, GFID: g, Fop: changelog.FopRename, Entry: from, NewEntry: to}, path, filepath.Dir(old))
}

func (s *scribe) meta(path string, fop changelog.Fop) {
	s.tb.Helper()
	s.record(changelog.Record{Type: changelog.Meta, GFID: s.gfidOf(path), Fop: fop}, path)
}

func (s *scribe) chmod(path string, mode uint32) {
	s.tb.Helper()
	s.check("chmod", path, unix.Chmod(s.abs(path), mode))
	s.meta(path, changelog.FopSetattr)
}

func (s *scribe) chown(path string, uid, gid int) {
	s.tb.Helper()
	s.check("chown", path, unix.Lchown(s.abs(path), uid, gid))
	s.meta(path, changelog.FopSetattr)
}

func (s *scribe) utimes(path string, mtime time.Time) {
	s.tb.Helper()
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime.UnixNano())}
	s.check("utimes", path, unix.UtimesNanoAt(unix.AT_FDCWD, s.abs(path), ts, unix.AT_SYMLINK_NOFOLLOW))
	s.meta(path, changelog.FopSetattr)
}

func (s *scribe) setxattr(path, attr, val string) {
	s.tb.Helper()
	s.check("setxattr", path, brick.Setxattr(unix.AT_FDCWD, s.abs(path), attr, []byte(val), 0))
	s.meta(path, changelog.FopSetxattr)
}

func (s *scribe) removexattr(path, attr string) {
	s.tb.Helper()
	s.check("removexattr", path, brick.Removexattr(unix.AT_FDCWD, s.abs(path), attr))
	s.meta(path, changelog.FopRemovexattr)
}

// pathsIn lists what is on the brick: directories, the root first, and others.
func pathsIn(s *scribe) (dirs, files []string) {
	dirs = []string{"."}
	filepath.WalkDir(s.b.Path(), func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(s.b.Path(), path)
		switch {
		case rel == ".":
		case rel == brick.Dir:
			return filepath.SkipDir
		case d.IsDir():
			dirs = append(dirs, rel)
		default:
			files = append(files, rel)
		}
		return nil
	})
	return dirs, files
}

func (s *scribe) isEmpty(dir string) bool {
	names, err := os.ReadDir(s.abs(dir))
	return err == nil && len(names) == 0
}

// tryRename renames if rename(2) would.
func (s *scribe) tryRename(old, path string) {
	if strings.HasPrefix(path+"/", old+"/") || strings.HasPrefix(old+"/", path+"/") {
		return
	}
	isDir := func(p string) bool { return s.lstat(p).Mode&unix.S_IFMT == unix.S_IFDIR }
	if _, err := os.Lstat(s.abs(path)); err == nil {
		if isDir(old) != isDir(path) || isDir(path) && !s.isEmpty(path) {
			return
		}
	}
	s.rename(old, path)
}
