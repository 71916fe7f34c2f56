package slave

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// With --below a key reaches what is in its directory and nothing else, whatever
// symlinks lie there.
func TestParseRequestBelow(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(top, "srv")
	for _, d := range []string{"srv/vol", "other/vol"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"srv/out": "../other", "srv/in": "vol", "srv/dangling": "../nowhere"} {
		if err := os.Symlink(to, filepath.Join(top, from)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ asked, want string }{
		{"/srv/vol", "/srv/vol"},
		{"/srv/vol/", "/srv/vol"},
		{"/srv/in", "/srv/vol"},
		{"/srv/new", "/srv/new"},
		{"/srv/new/deep/er", "/srv/new/deep/er"},
		{"/srv/in/new", "/srv/vol/new"},
		{"/srv", ""},
		{"/other/vol", ""},
		{"/srv/../other/vol", ""},
		{"/srv/out/vol", ""},
		{"/srv/out/new", ""},
		{"/srvx", ""},
	} {
		root, rest, err := ParseRequestBelow("georep agent --root "+top+c.asked+" --make", dir)
		if c.want == "" {
			if !errors.Is(err, ErrRefused) {
				t.Errorf("%s: root %q, error %v, want ErrRefused", c.asked, root, err)
			}
			continue
		}
		if err != nil || root != top+c.want || len(rest) != 1 {
			t.Errorf("%s: root %q, rest %q (%v), want %q", c.asked, root, rest, err, top+c.want)
		}
	}
	for _, line := range []string{"", "id", "georep agent --root vol", "georep agent --root " + dir + "/vol; id", "georep agent --below / --root /"} {
		if root, _, err := ParseRequestBelow(line, dir); !errors.Is(err, ErrRefused) {
			t.Errorf("%q: root %q, error %v, want ErrRefused", line, root, err)
		}
	}
}
