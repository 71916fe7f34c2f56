package fusefs

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// same are the programs that do on a mount what they do on a bare directory.
var same = map[string]program{}

// compared adds a program to those that are compared, with what it shows.
func compared(name string, p program) struct{} {
	same[name] = p
	programs[name] = p
	return struct{}{}
}

// What a program sees on a mount (errnos, stat, xattrs, ACLs, relations of times)
// is what it sees on the bare file system beneath, line by line.
func TestSameAsBare(t *testing.T) {
	testSame(t, func() string { return publicDir(t) }, slices.Sorted(maps.Keys(same)))
}

// XFS has other limits and offsets, and uses inode numbers again at once.
func TestSameAsBareXFS(t *testing.T) {
	fs := xfs(t)
	n := 0
	testSame(t, func() string {
		n++
		dir := fmt.Sprintf("%s/%d", fs, n)
		mustDo(t, os.Mkdir(dir, 0o755))
		return dir
	}, []string{"copies", "creation", "data", "directories", "fallocate", "file-flags", "links", "mappings", "statx", "xattrs"})
}

// xfs mounts a new XFS for the time of the test.
func xfs(t *testing.T) string {
	t.Helper()
	dir := publicDir(t)
	image := filepath.Join(t.TempDir(), "image")
	mustDo(t, os.WriteFile(image, nil, 0o600))
	mustDo(t, os.Truncate(image, 1<<30))
	for _, args := range [][]string{{"mkfs.xfs", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	mustDo(t, os.Chmod(dir, 0o755))
	return dir
}

func testSame(t *testing.T, newDir func() string, programs []string) {
	bare := newDir()
	mounts := map[string]*mounted{}
	for name, s := range modes {
		s.brick = newDir()
		mounts[name] = mount(t, s)
	}
	for _, name := range programs {
		t.Run("program="+name, func(t *testing.T) {
			want := transcript(t, bare, name)
			if strings.Count(want, "\n") < 2 {
				t.Fatalf("on the bare directory: %q, want more to compare", want)
			}
			for _, mode := range slices.Sorted(maps.Keys(mounts)) {
				t.Run("mode="+mode, func(t *testing.T) {
					got := transcript(t, mounts[mode].dir, name)
					if diff := differing(want, got); diff != "" {
						t.Errorf("-bare +mount:\n%s", diff)
					}
				})
			}
		})
	}
}

// differing shows the first lines in which two transcripts differ, with what led
// to them.
func differing(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	at := func(s []string, i int) string {
		if i < len(s) {
			return s[i]
		}
		return "(end)"
	}
	var b strings.Builder
	shown, last := 0, 0
	for i := 0; i < max(len(w), len(g)) && shown < 8; i++ {
		if at(w, i) == at(g, i) {
			continue
		}
		for j := max(i-3, last); j < min(i, len(w)); j++ {
			fmt.Fprintf(&b, "  %4d  %.300s\n", j+1, w[j])
		}
		fmt.Fprintf(&b, "- %4d  %.300s\n+ %4d  %.300s\n", i+1, at(w, i), i+1, at(g, i))
		last = i + 1
		shown++
	}
	return b.String()
}

// transcript runs the program in a new directory below dir.
func transcript(t *testing.T, dir, name string) string {
	t.Helper()
	sub := filepath.Join(dir, name)
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	return output(t, sub, name)
}
