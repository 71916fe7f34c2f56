package slave

import (
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

func (p *pairOf) nameless(scan bool) []gfid.GFID {
	p.t.Helper()
	look := p.Nameless
	if scan {
		look = p.ScanNameless
	}
	var all []gfid.GFID
	if err := look(p.t.Context(), func(g []gfid.GFID) error { all = append(all, g...); return nil }); err != nil {
		p.t.Fatal(err)
	}
	slices.SortFunc(all, gfid.GFID.Compare)
	return all
}

func (p *pairOf) wantNameless(want ...gfid.GFID) {
	p.t.Helper()
	slices.SortFunc(want, gfid.GFID.Compare)
	for _, scan := range []bool{false, true} {
		if got := p.nameless(scan); !slices.Equal(got, want) {
			p.t.Errorf("nameless (scan %v) %v, want %v", scan, got, want)
		}
	}
}

// gone reports whether nothing is left of g.
func (p *pairOf) wantGone(gfids ...gfid.GFID) {
	p.t.Helper()
	for _, g := range gfids {
		if _, err := os.Lstat(p.path(brick.Dir, brick.HandlePath(g))); err == nil {
			p.t.Errorf("the handle of %v is there still", g)
		}
		if _, err := os.Lstat(p.path(brick.Dir, orphansDir, g.String())); err == nil {
			p.t.Errorf("%v is among the orphans", g)
		}
	}
}

// A file that loses its last name waits by its handle, until it gets another or
// is destroyed.
func TestUnlinkFile(t *testing.T) {
	p := newPair(t)
	g := p.src.Next()
	unlink := Op{Kind: Unlink, GFID: g, Name: inRoot("a")}
	p.do(file(g, inRoot("a"), "x"), Op{Kind: Link, GFID: g, Name: inRoot("b")})
	if r := p.do(unlink)[0]; !r.Displaced.IsZero() {
		t.Errorf("displaced %v with a name left, want none", r.Displaced)
	}
	p.wantNameless()
	if o := p.stat(g); !cmp.Equal(o.Names, []Name{inRoot("b")}) {
		t.Errorf("names %v, want b", o.Names)
	}
	if r := p.do(Op{Kind: Unlink, GFID: g, Name: inRoot("b")})[0]; r.Displaced != g {
		t.Errorf("displaced %v with no name left, want %v", r.Displaced, g)
	}
	p.wantNameless(g)
	p.checkSame(unlink)
	p.do(Op{Kind: Link, GFID: g, Name: inRoot("c")})
	p.wantNameless()
	if b, _ := os.ReadFile(p.path("c")); string(b) != "x" {
		t.Errorf("content %q", b)
	}
	wantErrno(t, "destroy with a name", p.try(Op{Kind: Destroy, GFID: g})[0], syscall.EBUSY)
	p.do(Op{Kind: Unlink, GFID: g, Name: inRoot("c")}, Op{Kind: Destroy, GFID: g}, Op{Kind: Destroy, GFID: g})
	p.wantNameless()
	p.wantGone(g)
}

// With Gone the last name takes the object with it.
func TestUnlinkGone(t *testing.T) {
	p := newPair(t)
	f, l, d, full, in := p.src.Next(), p.src.Next(), p.src.Next(), p.src.Next(), p.src.Next()
	p.do(file(f, inRoot("f"), "x"), Op{Kind: Link, GFID: f, Name: inRoot("f2")},
		Op{Kind: Make, GFID: l, Name: inRoot("l"), Target: "t", Meta: metaOfMode(unix.S_IFLNK | 0o777)},
		mkdir(d, inRoot("d")), mkdir(full, inRoot("full")), file(in, Name{full, "in"}, "x"))
	var ops []Op
	for base, g := range map[string]gfid.GFID{"f": f, "f2": f, "l": l, "d": d, "full": full} {
		ops = append(ops, Op{Kind: Unlink, GFID: g, Name: inRoot(base), Gone: true})
	}
	for i, r := range p.do(ops...) {
		if want := ops[i].GFID == full; (r.Displaced == full) != want {
			t.Errorf("%q: displaced %v", ops[i].Name.Base, r.Displaced)
		}
	}
	p.wantGone(f, l, d)
	p.wantNameless(full)
	p.checkSame(ops...)
	r := p.do(Op{Kind: Destroy, GFID: full})[0]
	if !slices.Equal(r.Released, []gfid.GFID{in}) {
		t.Errorf("released %v, want %v", r.Released, in)
	}
	p.wantGone(full)
	p.wantNameless(in)
}

// A name is removed only from whom it is meant to be removed from.
func TestUnlinkAnother(t *testing.T) {
	p := newPair(t)
	f, d := p.src.Next(), p.src.Next()
	p.do(file(f, inRoot("f"), "x"), mkdir(d, inRoot("d")))
	mustWrite(t, p.path("foreign"), "x")
	for _, c := range []struct {
		what string
		op   Op
		want syscall.Errno
	}{
		{"another file", Op{GFID: p.src.Next(), Name: inRoot("f")}, syscall.ESTALE},
		{"another directory", Op{GFID: f, Name: inRoot("d")}, syscall.ESTALE},
		{"no gfid for ours", Op{Name: inRoot("f")}, syscall.ESTALE},
		{"a gfid for what is foreign", Op{GFID: f, Name: inRoot("foreign")}, syscall.ESTALE},
		{"a free name", Op{GFID: f, Name: inRoot("free")}, 0},
		{"no parent", Op{GFID: f, Name: Name{p.src.Next(), "f"}}, 0},
	} {
		c.op.Kind, c.op.Gone = Unlink, true
		wantErrno(t, c.what, p.try(c.op)[0], c.want)
	}
	mustExist(t, p.path("f"), p.path("d"), p.path("foreign"))
	if r := p.do(Op{Kind: Unlink, Name: inRoot("foreign")})[0]; r.Conflict == "" {
		t.Error("what was foreign was not kept aside")
	}
	if got := p.conflicts(); !slices.Equal(got, []string{"foreign"}) {
		t.Errorf("conflicts %q, want foreign", got)
	}
}

// Destroying a directory lets go what it holds, however much, and loses nothing.
func TestDestroyDirectory(t *testing.T) {
	p := newPair(t)
	d, sub := p.src.Next(), p.src.Next()
	p.do(mkdir(d, inRoot("d")), mkdir(sub, Name{d, "sub"}))
	want := map[gfid.GFID]bool{sub: true}
	var ops []Op
	for i := range releaseMax + 10 {
		g := p.src.Next()
		want[g] = true
		ops = append(ops, file(g, Name{d, string(rune('一' + i))}, "x"))
	}
	p.do(ops...)
	mustWrite(t, p.path("d", "foreign"), "x")
	wantErrno(t, "with a name", p.try(Op{Kind: Destroy, GFID: d})[0], syscall.EBUSY)
	p.do(Op{Kind: Unlink, GFID: d, Name: inRoot("d")})
	var conflict bool
	for range 10 {
		r := p.try(Op{Kind: Destroy, GFID: d})[0]
		for _, g := range r.Released {
			if !want[g] {
				t.Errorf("released %v twice, or never held", g)
			}
			delete(want, g)
		}
		conflict = conflict || r.Conflict != ""
		if r.Errno == 0 {
			break
		}
		wantErrno(t, "in parts", r, syscall.EAGAIN)
	}
	if len(want) != 0 || !conflict {
		t.Errorf("%d not released, conflict %v", len(want), conflict)
	}
	p.wantGone(d)
	if o := p.stat(sub); !o.Orphan {
		t.Errorf("the directory below is %+v, want an orphan", o)
	}
	if got := p.conflicts(); !slices.Equal(got, []string{"foreign"}) {
		t.Errorf("conflicts %q, want foreign", got)
	}
}

// A name that others gave a file keeps the file, as theirs.
func TestDestroyForeignLink(t *testing.T) {
	p := newPair(t)
	g := p.src.Next()
	p.do(file(g, inRoot("f"), "x"))
	if err := os.Link(p.path("f"), p.path("theirs")); err != nil {
		t.Fatal(err)
	}
	p.do(Op{Kind: Unlink, GFID: g, Name: inRoot("f"), Gone: true}, Op{Kind: Destroy, GFID: g})
	p.wantGone(g)
	if e := p.lookup(gfid.Root, "theirs"); !e.Foreign {
		t.Errorf("their link is %+v, want it foreign", e)
	}
}
