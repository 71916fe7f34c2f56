package brick

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// checked is what Check finds in b, as sorted lines "problem path repaired".
func checked(t testing.TB, b *Brick, repair bool) []string {
	t.Helper()
	var lines []string
	counts, err := b.Check(context.Background(), CheckOptions{Repair: repair, Found: func(f Finding) {
		if f.Err != nil {
			t.Errorf("%s %q: %v", f.Problem, f.Path, f.Err)
		}
		state := "left"
		if f.Repaired {
			state = "repaired"
		}
		lines = append(lines, fmt.Sprintf("%s %s %s", f.Problem, f.Path, state))
	}})
	check(t, err)
	if int(counts.Findings) != len(lines) || counts.Parts != 256 {
		t.Errorf("counts %+v, told of %d", counts, len(lines))
	}
	slices.Sort(lines)
	return lines
}

// wantChecked fails unless Check finds want, mends all of it but what is said to
// be left, and then finds only that.
func wantChecked(t testing.TB, b *Brick, want ...string) {
	t.Helper()
	var reported, repaired, remain []string
	for _, w := range want {
		w, left := strings.CutSuffix(w, " (left)")
		reported = append(reported, w+" left")
		if left {
			repaired = append(repaired, w+" left")
			remain = append(remain, w+" left")
		} else {
			repaired = append(repaired, w+" repaired")
		}
	}
	for _, l := range [][]string{reported, repaired, remain} {
		slices.Sort(l)
	}
	if diff := cmp.Diff(reported, checked(t, b, false)); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(repaired, checked(t, b, true)); diff != "" {
		t.Errorf("found with repair (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(remain, checked(t, b, false)); diff != "" {
		t.Errorf("found after repair (-want +got):\n%s", diff)
	}
}

func gfidAt(t testing.TB, b *Brick, path string) gfid.GFID {
	t.Helper()
	raw, err := ReadXattr(filepath.Join(b.Path(), path), XattrGFID)
	check(t, err)
	g, err := gfid.FromBytes(raw)
	check(t, err)
	return g
}

func handleAt(t testing.TB, b *Brick, path string) string {
	t.Helper()
	return Dir + "/" + HandlePath(gfidAt(t, b, path))
}

func TestCheckSound(t *testing.T) {
	b := newBrick(t)
	depth := plantDeep(t, b)
	plant(t, b)
	adopt(t, b)
	wantChecked(t, b)
	got, err := b.Check(t.Context(), CheckOptions{})
	check(t, err)
	// Three of the names are one object's; the root has a handle too.
	want := Checked{Names: 620 + 2*int64(depth), Handles: 618 + 2*int64(depth) + 1, Parts: 256}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// Before adoption everything is without a GFID; repair is adoption then.
func TestCheckUnadopted(t *testing.T) {
	b := newBrick(t)
	mkdir(t, b, "d/e")
	write(t, b, "d/e/f", "")
	wantChecked(t, b, "no-gfid d", "no-gfid d/e", "no-gfid d/e/f")
	wantSound(t, b)
}

// Each kind of damage is found by its name, mended, and then gone; what had
// content still has it.
func TestCheckDamage(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, b *Brick, p func(string) string) (want []string)
		after  func(t *testing.T, b *Brick)
	}{{
		name: "gfid removed",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			h := handleAt(t, b, "d/f")
			must(t, Removexattr(b.Root(), "d/f", XattrGFID))
			return []string{"no-gfid d/f", "other-gfid " + h}
		},
	}, {
		name: "gfids that no object has",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			write(t, b, "short", "")
			must(t, Setxattr(b.Root(), "short", XattrGFID, []byte("short"), 0))
			write(t, b, "long", "")
			must(t, Setxattr(b.Root(), "long", XattrGFID, make([]byte, 200), 0))
			write(t, b, "zero", "")
			must(t, Setxattr(b.Root(), "zero", XattrGFID, make([]byte, 16), 0))
			mkdir(t, b, "root")
			must(t, Setxattr(b.Root(), "root", XattrGFID, gfid.Root[:], 0))
			return []string{"bad-gfid long", "bad-gfid root", "bad-gfid short", "bad-gfid zero"}
		},
	}, {
		name: "handle of a file removed",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			check(t, os.Remove(p(handleAt(t, b, "d/f"))))
			return []string{"no-handle d/f"}
		},
	}, {
		name: "handle of a directory removed",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			check(t, os.Remove(p(handleAt(t, b, "d"))))
			return []string{"no-handle d"}
		},
	}, {
		name: "handle of the root removed",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			check(t, os.Remove(p(Dir+"/"+HandlePath(gfid.Root))))
			return []string{"no-handle ."}
		},
	}, {
		name: "handle of the root leads elsewhere",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			h := p(Dir + "/" + HandlePath(gfid.Root))
			check(t, os.Remove(h))
			check(t, os.Symlink("../../../..", h))
			return []string{"wrong-handle ."}
		},
	}, {
		name: "directory moved behind the mount",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			check(t, os.Rename(p("d"), p("moved")))
			return []string{"wrong-handle moved"}
		},
	}, {
		name: "handle of a directory leads nowhere",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			h := p(handleAt(t, b, "d/e"))
			check(t, os.Remove(h))
			check(t, os.Symlink("somewhere", h))
			return []string{"wrong-handle d/e"}
		},
	}, {
		name: "directory gone",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			h := handleAt(t, b, "d/e")
			check(t, os.RemoveAll(p("d/e")))
			return []string{"stale-handle " + h}
		},
	}, {
		name: "directory gone, another in its place",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			h := handleAt(t, b, "d/e")
			check(t, os.Remove(p("d/e")))
			mkdir(t, b, "d/e")
			return []string{"no-gfid d/e", "stale-handle " + h}
		},
	}, {
		name: "copies with GFIDs",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			run(t, "cp", "-a", "--preserve=all", p("d"), p("copy"))
			return []string{"shared-gfid copy", "shared-gfid copy/e", "shared-gfid copy/f", "shared-gfid copy/l1"}
		},
	}, {
		name: "file with the GFID of a directory",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			g := gfidAt(t, b, "d")
			write(t, b, "g", "")
			must(t, Setxattr(b.Root(), "g", XattrGFID, g[:], 0))
			return []string{"shared-gfid g"}
		},
	}, {
		name: "directory with the GFID of a file",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			g := gfidAt(t, b, "d/f")
			mkdir(t, b, "g")
			must(t, Setxattr(b.Root(), "g", XattrGFID, g[:], 0))
			return []string{"shared-gfid g"}
		},
	}, {
		name: "file replaced behind the mount",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			h := handleAt(t, b, "d/f")
			run(t, "cp", "-a", "--preserve=all", p("d/f"), p("d/new"))
			check(t, os.Rename(p("d/new"), p("d/f")))
			return []string{"shared-gfid d/f", "no-name " + h}
		},
	}, {
		name: "gfid2path removed",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			key, _ := GFID2Path(gfidAt(t, b, "d"), "f")
			must(t, Removexattr(b.Root(), "d/f", key))
			return []string{"no-gfid2path d/f"}
		},
	}, {
		name: "gfid2path of a name removed behind the mount",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			check(t, os.Remove(p("l2")))
			return []string{"stale-gfid2path d/l1"}
		},
		after: func(t *testing.T, b *Brick) {
			wantNames(t, b, "d/l1", gfidAt(t, b, "d").String()+"/l1", rootName("l3"))
		},
	}, {
		name: "gfid2path that is none",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			must(t, Setxattr(b.Root(), "d/f", gfid2pathPrefix+"0123456789abcdef", []byte("x"), 0))
			_, val := GFID2Path(gfid.Root, "d")
			must(t, Setxattr(b.Root(), "d/f", gfid2pathPrefix+"fedcba9876543210", val, 0))
			return []string{"stale-gfid2path d/f", "stale-gfid2path d/f"}
		},
	}, {
		name: "names removed behind the mount",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			write(t, b, "empty", "")
			check(t, os.Symlink("target", p("link")))
			check(t, unix.Mkfifo(p("fifo"), 0o600))
			check(t, unix.Mknod(p("dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
			adopt(t, b)
			var want []string
			for _, name := range []string{"d/f", "empty", "link", "fifo", "dev"} {
				want = append(want, "no-name "+handleAt(t, b, name))
				check(t, os.Remove(p(name)))
			}
			return want
		},
		after: func(t *testing.T, b *Brick) {
			lost, err := os.ReadDir(filepath.Join(b.Path(), Dir, Lost))
			check(t, err)
			var kinds []string
			for _, l := range lost {
				kinds = append(kinds, l.Type().String()[:1])
			}
			slices.Sort(kinds)
			// A file with content, a symlink, a device: the rest had nothing to lose.
			if diff := cmp.Diff([]string{"-", "D", "L"}, kinds); diff != "" {
				t.Errorf("lost (-want +got):\n%s", diff)
			}
		},
	}, {
		name: "handle under another's GFID",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			g := gfid.GFID{0: 1, 1: 2, 6: 0x40, 8: 0x80, 15: 9}
			must(t, b.LinkHandle(b.Root(), "d/f", g))
			return []string{"other-gfid " + Dir + "/" + HandlePath(g)}
		},
	}, {
		name: "two handles under others' GFIDs are all there is",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			write(t, b, "x", "precious")
			g := gfid.GFID{0: 1, 1: 2, 6: 0x40, 8: 0x80, 15: 9}
			h := gfid.GFID{0: 9, 1: 2, 6: 0x40, 8: 0x80, 15: 9}
			must(t, b.LinkHandle(b.Root(), "x", g))
			must(t, b.LinkHandle(b.Root(), "x", h))
			check(t, os.Remove(p("x")))
			return []string{"other-gfid " + Dir + "/" + HandlePath(g), "other-gfid " + Dir + "/" + HandlePath(h)}
		},
		after: func(t *testing.T, b *Brick) {
			lost, err := filepath.Glob(filepath.Join(b.Path(), Dir, Lost, "*"))
			if err != nil || len(lost) != 1 {
				t.Fatalf("lost: %q, %v", lost, err)
			}
			if text, err := os.ReadFile(lost[0]); err != nil || string(text) != "precious" {
				t.Errorf("lost has %q, %v", text, err)
			}
		},
	}, {
		name: "what is no handle",
		damage: func(t *testing.T, b *Brick, p func(string) string) []string {
			write(t, b, Dir+"/aa/file", "")
			mkdir(t, b, Dir+"/aa/bb/dir")
			write(t, b, Dir+"/aa/bb/00000000-0000-4000-8000-000000000000", "")
			mkdir(t, b, Dir+"/aa/bb/aabb0000-0000-4000-8000-000000000000")
			return []string{
				"foreign .glusterfs/aa/bb/00000000-0000-4000-8000-000000000000 (left)",
				"foreign .glusterfs/aa/bb/aabb0000-0000-4000-8000-000000000000 (left)",
				"foreign .glusterfs/aa/bb/dir (left)",
				"foreign .glusterfs/aa/file (left)",
			}
		},
	}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBrick(t)
			p := func(path string) string { return filepath.Join(b.Path(), path) }
			mkdir(t, b, "d/e")
			write(t, b, "d/f", "content")
			write(t, b, "d/l1", "links")
			check(t, os.Link(p("d/l1"), p("l2")))
			check(t, os.Link(p("d/l1"), p("l3")))
			adopt(t, b)
			want := c.damage(t, b, p)
			wantChecked(t, b, want...)
			if c.after != nil {
				c.after(t, b)
			}
			wantSound(t, b)
		})
	}
}

// A directory with a large tree in it, moved behind the mount, is one damage.
func TestCheckMovedTree(t *testing.T) {
	b := newBrick(t)
	plant(t, b)
	adopt(t, b)
	check(t, os.Rename(filepath.Join(b.Path(), "a"), filepath.Join(b.Path(), "elsewhere")))
	// Which of the three names of one file tells of the others depends on hashes;
	// none may be called stale, for they are there.
	wantChecked(t, b, "wrong-handle elsewhere")
	wantSound(t, b)
}

// A directory that a slave has set aside keeps its handle, and what is in it its
// own; once it is gone the handle is stale.
func TestCheckOrphan(t *testing.T) {
	b := newBrick(t)
	mkdir(t, b, "d/e")
	write(t, b, "d/e/f", "x")
	adopt(t, b)
	g, e := gfidAt(t, b, "d"), handleAt(t, b, "d/e")
	handle := filepath.Join(b.Path(), Dir, HandlePath(g))
	at := filepath.Join(b.Path(), Dir, orphans, g.String())
	mkdir(t, b, Dir+"/"+orphans)
	check(t, os.Rename(filepath.Join(b.Path(), "d"), at))
	check(t, os.Remove(handle))
	check(t, os.Symlink("../../"+orphans+g.String(), handle))
	wantChecked(t, b)
	check(t, os.RemoveAll(at))
	got := checked(t, b, false)
	if want := "stale-handle " + Dir + "/" + HandlePath(g) + " left"; !slices.Contains(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	checked(t, b, true)
	wantChecked(t, b)
	if _, err := os.Lstat(filepath.Join(b.Path(), e)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the handle of what was in it: %v", err)
	}
}

// What an earlier repair moved away is not overwritten by a later one.
func TestCheckLostTwice(t *testing.T) {
	b := newBrick(t)
	write(t, b, "f", "first")
	adopt(t, b)
	g := gfidAt(t, b, "f")
	for _, content := range []string{"first", "second", "third"} {
		write(t, b, "f", content)
		must(t, Setxattr(b.Root(), "f", XattrGFID, g[:], 0))
		adopt(t, b)
		check(t, os.Remove(filepath.Join(b.Path(), "f")))
		wantChecked(t, b, "no-name "+Dir+"/"+HandlePath(g))
	}
	for name, want := range map[string]string{"": "first", "+1": "second", "+2": "third"} {
		got, err := os.ReadFile(filepath.Join(b.Path(), Dir, Lost, g.String()+name))
		if err != nil || string(got) != want {
			t.Errorf("%s%s has %q, %v, want %q", Lost, name, got, err, want)
		}
	}
}

// Objects with more names than their xattrs have room for are in order.
func TestCheckManyLinks(t *testing.T) {
	b := newBrick(t)
	write(t, b, "f", "")
	for i := range 200 {
		check(t, os.Link(filepath.Join(b.Path(), "f"), filepath.Join(b.Path(), fmt.Sprintf("%0100d", i))))
	}
	adopt(t, b)
	wantChecked(t, b)
	run(t, "sh", "-c", "rm -f '"+b.Path()+"'/00*")
	lines := checked(t, b, true)
	if len(lines) < 5 {
		t.Errorf("found %q, want the names that were removed", lines)
	}
	wantChecked(t, b)
	wantNames(t, b, "f", rootName("f"))
}

// A details line tells what an operator needs to find the owner.
func TestCheckDetail(t *testing.T) {
	b := newBrick(t)
	mkdir(t, b, "d")
	write(t, b, "d/f", "12345")
	adopt(t, b)
	g := gfidAt(t, b, "d/f")
	check(t, os.Remove(filepath.Join(b.Path(), "d/f")))
	var got []Finding
	_, err := b.Check(t.Context(), CheckOptions{Found: func(f Finding) { got = append(got, f) }})
	check(t, err)
	want := []Finding{{Problem: NoName, GFID: g, Path: Dir + "/" + HandlePath(g), Detail: `file of 5 bytes, was "d/f"`}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
}

func TestCheckStopped(t *testing.T) {
	b := newBrick(t)
	plant(t, b)
	stopped := errors.New("stopped by the test")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := b.Check(ctx, CheckOptions{Found: func(Finding) { cancel(stopped) }})
	if !errors.Is(err, stopped) {
		t.Errorf("stopped: %v", err)
	}
}
