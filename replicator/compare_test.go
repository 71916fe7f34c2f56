package replicator

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/replicator/slave"
)

// wantSame fails unless the trees agree in everything that P3 promises, by a
// comparison that shares nothing with verify.
func wantSame(tb fataler, master, slaveDir string) {
	tb.Helper()
	a, b := describe(tb, master), describe(tb, slaveDir)
	var diff []string
	for p, d := range a {
		if b[p] != d {
			diff = append(diff, fmt.Sprintf("%q:\n  master %s\n  slave  %s", p, d, b[p]))
		}
	}
	for p, d := range b {
		if _, ok := a[p]; !ok {
			diff = append(diff, fmt.Sprintf("%q:\n  master \n  slave  %s", p, d))
		}
	}
	slices.Sort(diff)
	if len(diff) > 20 {
		diff = append(diff[:20], fmt.Sprintf("and %d more", len(diff)-20))
	}
	if len(diff) > 0 {
		tb.Errorf("trees differ:\n%s", strings.Join(diff, "\n"))
	}
}

// describe says of each path in the tree all that is replicated, and of the root
// what the handles are.
func describe(tb fataler, root string) map[string]string {
	tb.Helper()
	out := make(map[string]string)
	links := make(map[uint64][]string)
	objects := make(map[gfid.GFID]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if rel == brick.Dir {
			return fs.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		val, err := brick.ReadXattr(path, brick.XattrGFID)
		if err != nil {
			return fmt.Errorf("gfid of %q: %w", rel, err)
		}
		objects[gfid.GFID(val)] = true
		s := fmt.Sprintf("%x mode %o owner %d:%d mtime %d.%09d", val, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" target %q", target)
		case unix.S_IFBLK, unix.S_IFCHR:
			s += fmt.Sprintf(" device %d", st.Rdev)
		case unix.S_IFREG:
			sum, err := checksum(path, st.Size)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" size %d content %s", st.Size, sum)
			if st.Size > 1<<20 {
				s += fmt.Sprintf(" sparse %v", st.Blocks*512 < st.Size/2)
			}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			links[st.Ino] = append(links[st.Ino], rel)
		}
		attrs, errno := brick.ListAll(unix.AT_FDCWD, path)
		if errno != 0 {
			return errno
		}
		slices.Sort(attrs)
		for _, a := range attrs {
			if slave.IsReplicated(a) {
				val, err := brick.ReadXattr(path, a)
				if err != nil {
					return err
				}
				s += fmt.Sprintf(" %s=%q", a, val)
			}
		}
		out[rel] = s
		return nil
	})
	if err != nil {
		tb.Fatalf("describe %s: %v", root, err)
	}
	for _, names := range links {
		if len(names) > 1 {
			slices.Sort(names)
			for _, n := range names {
				out[n] += fmt.Sprintf(" links %q", names)
			}
		}
	}
	// Handles without a name are garbage, on the master too once all is closed.
	handles, err := filepath.Glob(filepath.Join(root, brick.Dir, "[0-9a-f][0-9a-f]", "[0-9a-f][0-9a-f]", "*"))
	if err != nil {
		tb.Fatal(err)
	}
	for _, h := range handles {
		g, err := gfid.Parse(filepath.Base(h))
		if err != nil || !objects[g] {
			out["handle "+filepath.Base(h)] = "leads to nothing " + root
		}
		delete(objects, g)
	}
	for g := range objects {
		out["object "+g.String()] = "has no handle " + root
	}
	return out
}

// checksum is the content of path, shortened when it is long.
func checksum(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if size <= 64 {
		b, err := io.ReadAll(f)
		return fmt.Sprintf("%q", b), err
	}
	h := sha256.New()
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); off < size; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err != nil {
			return "", err
		}
		off = start &^ (int64(len(buf)) - 1)
		n, err := f.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return "", err
		}
		// Zeros written and zeros in a hole are the same content.
		if !bytes.Equal(buf[:n], zero[:n]) {
			fmt.Fprintf(h, "%d:", off)
			h.Write(buf[:n])
		}
		off += int64(len(buf))
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// equalFiles reports whether two files have the same bytes.
func equalFiles(tb testing.TB, a, b string) bool {
	tb.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		tb.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		tb.Fatal(err)
	}
	return bytes.Equal(x, y)
}
