package replicator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/changelog"
)

func (p *pair) content(path string) string {
	b, err := os.ReadFile(filepath.Join(p.slave, path))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// A change is on the slave long before its changelog is sealed.
func TestLiveTailIsSentBeforeTheSeal(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.create("before", "1")
	w, stop := p.live()
	p.inStep(w)

	stime := w.Status().Stime
	p.create("f", "hello")
	p.mkdir("d")
	p.rename("f", "d/f")
	until(t, "d/f on the slave", func() bool { return p.content("d/f") == "hello" })
	if got := w.Status().Stime; got != stime {
		t.Errorf("stime moved from %v to %v though nothing was sealed", stime, got)
	}
	p.inStep(w)
	wantSame(t, p.b.Path(), p.slave)

	// Data is recorded once per slice: what is written after that is found too.
	p.write("d/f", "one")
	until(t, "one", func() bool { return p.content("d/f") == "one" })
	if err := os.WriteFile(p.abs("d/f"), []byte("not recorded"), 0); err != nil {
		t.Fatal(err)
	}
	until(t, "the later write", func() bool { return p.content("d/f") == "not recorded" })

	// The seal moves stime.
	p.roll()
	until(t, "stime", func() bool { return w.Status().Stime.Compare(stime) > 0 })
	stop()
	wantSame(t, p.b.Path(), p.slave)
}

// At the seal a file is sent again only if it changed since it was sent, though
// its xtime was written meanwhile and changed its ctime.
func TestSealSendsOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.mkdir("d")
	w, _ := p.live()
	p.inStep(w)
	stime := w.Status().Stime
	for _, f := range []string{"a", "b", "c"} {
		p.create("d/"+f, strings.Repeat(f, 100))
	}
	p.inStep(w)
	before := w.Status().Done
	time.Sleep(1100 * time.Millisecond) // the next stamp is later, and ctimes are apart from the time of sending
	for _, f := range []string{"a", "b", "c"} {
		p.touch("d/" + f)
	}
	// The same size and, after utimes, the same mtime.
	st := p.lstat("d/b")
	p.write("d/b", strings.Repeat("B", 100))
	p.utimes("d/b", time.Unix(st.Mtim.Sec, st.Mtim.Nsec))
	p.roll()
	until(t, "stime", func() bool { return w.Status().Stime.Compare(stime) > 0 })
	p.inStep(w)
	wantSame(t, p.b.Path(), p.slave)
	if n := w.Status().Done.Files - before.Files; n != 1 {
		t.Errorf("%d files sent at the seal, want 1: only d/b changed", n)
	}
}

// Attributes that change after they were sent arrive though no xtime tells, as
// when the mount is killed before it writes that: by their record, and at the seal.
func TestChangeWithoutXtimeArrives(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.create("f", "1")
	p.create("large", noise(3<<20))
	w, _ := p.live()
	p.inStep(w)
	time.Sleep(2 * clockStep) // the change is seen to be later than the sending
	chmod := func(mode uint32) {
		for _, path := range []string{"f", "large"} {
			p.check("chmod", path, unix.Chmod(p.abs(path), mode))
			r := changelog.Record{Type: changelog.Meta, GFID: p.gfidOf(path), Fop: changelog.FopSetattr}
			if _, err := p.log.Append(&r); err != nil {
				t.Fatal(err)
			}
		}
	}
	chmod(0o600)
	p.inStep(w)
	wantSame(t, p.b.Path(), p.slave)

	for _, path := range []string{"f", "large"} {
		p.check("chmod", path, unix.Chmod(p.abs(path), 0o640)) // recorded once in the slice
	}
	stime := w.Status().Stime
	p.roll()
	until(t, "stime", func() bool { return w.Status().Stime.Compare(stime) > 0 })
	wantSame(t, p.b.Path(), p.slave)
}
