package replicator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// verify compares p's trees and returns "path: what" of each difference.
func (p *pair) verify(repair bool) []string {
	p.tb.Helper()
	c, err := p.opt.Dial(p.tb.Context())
	if err != nil {
		p.tb.Fatal(err)
	}
	defer c.Close()
	found, _, err := Verify(p.tb.Context(), VerifyOptions{Brick: p.b, Client: c})
	if err != nil {
		p.tb.Fatal(err)
	}
	if repair {
		if failed, err := Repair(p.tb.Context(), p.opt, c, found); err != nil || len(failed) > 0 {
			p.tb.Fatal(failed, err)
		}
	}
	var out []string
	for _, d := range found {
		out = append(out, d.Path+": "+d.What)
	}
	return out
}

func TestVerifyFindsEveryDifferenceAndRepairs(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.mkdir("d")
	for _, f := range []string{"removed", "content", "mode", "owner", "xattr", "linked", "time"} {
		p.create("d/"+f, "hello")
	}
	p.link("d/linked", "d/link2")
	p.symlink("target", "d/symlink")
	nextSecond()
	p.same()
	if got := p.verify(false); len(got) != 0 {
		t.Fatalf("equal trees differ: %q", got)
	}

	at := func(f string) string { return filepath.Join(p.slave, "d", f) }
	st := p.lstat("d/content")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Remove(at("removed")))
	must(os.WriteFile(at("content"), []byte("HELLO"), 0))
	must(os.Chtimes(at("content"), time.Time{}, time.Unix(st.Mtim.Sec, st.Mtim.Nsec)))
	must(os.Chmod(at("mode"), 0o600))
	must(os.Chown(at("owner"), 7, 8))
	must(unix.Setxattr(at("xattr"), "user.theirs", []byte("x"), 0))
	must(os.Remove(at("link2")))
	must(os.Chtimes(at("time"), time.Time{}, time.Unix(1, 0)))
	must(os.WriteFile(at("extra"), nil, 0o644))

	got := strings.Join(p.verify(true), "\n")
	for _, want := range []string{"d/removed: ", "d/content: content", "d/mode: mode", "d/owner: owner", "d/owner: group", "d/xattr: xattrs",
		"d/link2: ", "d/time: mtime", "d/extra: should not be there"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if got := p.verify(false); len(got) != 0 {
		t.Errorf("after repair: %q", got)
	}
	wantSame(t, p.b.Path(), p.slave)
}
