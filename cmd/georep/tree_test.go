package main

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
)

// wantSameTrees fails unless a brick and its slave agree in all that is promised,
// by a comparison that shares no code with georep.
func wantSameTrees(t *testing.T, master, slave string) {
	t.Helper()
	a, b := readTree(t, master), readTree(t, slave)
	var diff []string
	for p, d := range a {
		// Zeros that were written may be a hole on the slave.
		if b[p] != d && b[p] != strings.Replace(d, "sparse false", "sparse true", 1) {
			diff = append(diff, fmt.Sprintf("%q:\n  master %s\n  slave  %s", p, d, b[p]))
		}
		delete(b, p)
	}
	for p, d := range b {
		diff = append(diff, fmt.Sprintf("%q:\n  master \n  slave  %s", p, d))
	}
	diff = append(diff, garbage(t, slave)...)
	slices.Sort(diff)
	if n := len(diff); n > 0 {
		t.Errorf("trees differ in %d:\n%s", n, strings.Join(diff[:min(n, 20)], "\n"))
	}
}

// readTree tells of each path what is replicated of it.
func readTree(t *testing.T, root string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	links := make(map[uint64][]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path) // path is below root
		if rel == ".glusterfs" {
			return fs.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if out[rel], err = describe(path, &st); err != nil {
			return fmt.Errorf("%q: %w", rel, err)
		}
		if !d.IsDir() {
			links[st.Ino] = append(links[st.Ino], rel)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read %s: %v", root, err)
	}
	for _, names := range links {
		slices.Sort(names)
		for _, n := range names {
			out[n] += fmt.Sprintf(" names %q", names)
		}
	}
	return out
}

func describe(path string, st *unix.Stat_t) (string, error) {
	s := fmt.Sprintf("mode %o owner %d:%d mtime %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		s += fmt.Sprintf(" to %q", target)
	case unix.S_IFBLK, unix.S_IFCHR:
		s += fmt.Sprintf(" device %d", st.Rdev)
	case unix.S_IFREG:
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return "", err
		}
		s += fmt.Sprintf(" size %d content %x", st.Size, h.Sum(nil)[:6])
		if st.Size > 4<<20 { // roughly
			s += fmt.Sprintf(" sparse %v", st.Blocks*512 < st.Size/2)
		}
	}
	attrs, err := xattrs(path)
	return s + " " + strings.Join(attrs, " "), err
}

// xattrs are those of path that are the same on both sides, with their values.
func xattrs(path string) ([]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range bytes.Split(buf[:n], []byte{0}) {
		a := string(name)
		if a == "" || a != "trusted.gfid" && hasAnyPrefix(a, "trusted.gfid", "trusted.glusterfs.", "trusted.georep.") {
			continue
		}
		val := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, a, val)
		if err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprintf("%s=%x", a, val[:n]))
	}
	slices.Sort(out)
	return out, nil
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// garbage tells of handles that lead to nothing in the tree.
func garbage(t *testing.T, root string) []string {
	t.Helper()
	known := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".glusterfs" && filepath.Dir(path) == root {
			return fs.SkipDir
		}
		var g [16]byte
		if _, err := unix.Lgetxattr(path, "trusted.gfid", g[:]); err != nil {
			return fmt.Errorf("gfid of %q: %w", path, err)
		}
		known[fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	handles, err := filepath.Glob(filepath.Join(root, ".glusterfs", "[0-9a-f][0-9a-f]", "[0-9a-f][0-9a-f]", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, h := range handles {
		if !known[filepath.Base(h)] {
			var st unix.Stat_t
			if err := unix.Lstat(h, &st); err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("handle of nothing: %s, mode %o, %d links", h, st.Mode, st.Nlink))
		}
	}
	return out
}
