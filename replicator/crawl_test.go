package replicator

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
)

// nextSecond waits until the clock shows a new second: stamps count in those.
func nextSecond() {
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1001 * time.Millisecond)))
}

// churn changes the tree in all ways.
func churn(s *scribe, tag string) {
	s.mkdir("dir" + tag)
	s.create("dir"+tag+"/file", "content "+tag)
	s.create("gone"+tag, "x")
	s.unlink("gone" + tag)
	s.symlink("anywhere", "dir"+tag+"/symlink")
	s.link("dir"+tag+"/file", "hard"+tag)
}

func TestHybridCrawlFindsWhatNoRecordTells(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	churn(p.scribe, "1")
	p.mkdir("d")
	p.mkdir("d/e")
	p.create("d/e/f", "1")
	p.create("d/removed", "1")
	p.create("d/typed", "file")
	p.create("d/a", "a")
	p.create("d/b", "b")
	p.mkdir("d/full")
	p.create("d/full/x", "1")
	p.same()

	// Changes while nothing is recorded, but xtimes are touched.
	nextSecond()
	p.close()
	churn(p.scribe, "2")
	p.rename("d/e", "moved")
	p.unlink("d/removed")
	p.unlink("d/typed")
	p.mkdir("d/typed")
	p.rename("d/a", "d/t")
	p.rename("d/b", "d/a")
	p.rename("d/t", "d/b")
	p.link("moved/f", "d/link")
	p.unlink("d/full/x")
	p.rmdir("d/full")
	p.write("moved/f", "other")
	if err := os.Remove(filepath.Join(p.b.Path(), brick.Dir, "changelogs", "CHANGELOG")); err != nil {
		t.Fatal(err)
	}
	p.open() // a new HTIME file: the gap is known
	s := p.once()
	wantSame(t, p.b.Path(), p.slave)
	if s.Found.Names == 0 {
		t.Error("no hybrid crawl, or it found nothing")
	}
	p.same()
}

// A crawl looks only into directories that were touched since stime.
func TestHybridCrawlLooksOnlyWhereSomethingChanged(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for i := range 20 {
		d := fmt.Sprintf("d%d", i)
		p.mkdir(d)
		for j := range 5 {
			p.create(fmt.Sprintf("%s/f%d", d, j), "x")
		}
	}
	nextSecond()
	nextSecond()
	p.same()
	p.write("d7/f3", "changed")
	w := p.worker(p.opt)
	h := &hybrid{m: w.m, since: stimeNow(t, p), linked: make(set)}
	p.connected(w, func() {
		h.c = w.c
		dirs := int64(0)
		h.found = func(d, _ int64) { dirs += d }
		var data set
		err := h.run(t.Context(), rootQueue, func(b *batch) error { data = b.data; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if dirs != 2 || len(data) != 1 {
			t.Errorf("looked into %d directories and found %d files, want 2 and 1", dirs, len(data))
		}
	})
}

func stimeNow(t *testing.T, p *pair) brick.Stamp {
	t.Helper()
	w := p.worker(p.opt)
	var s brick.Stamp
	p.connected(w, func() {
		prog, err := openProgress(p.b, w.c.Info().Slave)
		if err != nil {
			t.Fatal(err)
		}
		s = prog.stime
	})
	return s
}

// Changes while a crawl runs are not lost: the crawl's stime is from before it
// began, and changelogs from then on are read.
func TestChangesDuringHybridCrawlAreNotLost(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for i := range 50 {
		p.mkdir(fmt.Sprintf("d%d", i))
		p.create(fmt.Sprintf("d%d/f", i), "1")
	}
	w, _ := p.live()
	for i := range 50 {
		if i%2 == 0 {
			p.rename(fmt.Sprintf("d%d/f", i), fmt.Sprintf("d%d/f", 49-i)+"x")
		} else {
			p.write(fmt.Sprintf("d%d/f", i), "2")
		}
	}
	p.inStep(w)
	until(t, "equal", func() bool { return p.content("d1/f") == "2" })
	p.inStep(w)
	wantSame(t, p.b.Path(), p.slave)
}

// A copy that was cut short goes on without sending again what is there.
func TestFirstCopyResumes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for i := range 30 {
		p.create(fmt.Sprintf("f%d", i), strings.Repeat("x", 100+i))
	}
	p.roll()
	nextSecond()
	nextSecond()
	w := p.worker(p.opt)
	p.connected(w, func() {
		var err error
		if w.prog, err = openProgress(p.b, w.c.Info().Slave); err != nil {
			t.Fatal(err)
		}
		if err := w.prog.beginCrawl(brick.StampOf(time.Now())); err != nil {
			t.Fatal(err)
		}
		h := &hybrid{m: w.m, c: w.c, linked: make(set)}
		if err := h.run(t.Context(), rootQueue, func(b *batch) error { return w.do(t.Context(), b) }); err != nil {
			t.Fatal(err)
		}
		// stime and the mark of the crawl are as in the middle of it.
	})
	p.create("late", "x")
	p.unlink("f3")
	p.write("f4", "other")
	s := p.same()
	if s.Done.Files > 5 {
		t.Errorf("%d files sent, want only what changed since the crawl began", s.Done.Files)
	}
}

// After a restart work goes on from stime, by changelogs.
func TestRestartGoesOnFromStime(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for i := range 20 {
		p.create(fmt.Sprintf("f%d", i), "x")
	}
	p.roll()
	nextSecond()
	nextSecond()
	p.same()
	for range 2 {
		nextSecond()
		p.create(fmt.Sprint("new", time.Now().UnixNano()), "x")
		p.roll()
		s := p.same()
		if s.Crawl != HistoryCrawl || s.Done.Files > 2 {
			t.Errorf("%s crawl, %d files sent, want %s and at most 2", s.Crawl, s.Done.Files, HistoryCrawl)
		}
	}
	// What the last process left unsealed is read too.
	p.create("unsealed", "x")
	p.same()
}

// Sealed changelogs that the index lacks, as GlusterFS leaves them, are read.
func TestUnindexedChangelogIsRead(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.same()
	p.create("f", "x")
	p.roll()
	htimes, err := filepath.Glob(filepath.Join(p.b.Path(), brick.Dir, "changelogs/htime/HTIME.*"))
	if err != nil || len(htimes) != 1 {
		t.Fatal(htimes, err)
	}
	if err := os.Truncate(htimes[0], 0); err != nil {
		t.Fatal(err)
	}
	if h, err := changelog.OpenHistory(filepath.Join(p.b.Path(), brick.Dir, "changelogs")); err != nil || h.Spans()[0].Count() != 0 {
		t.Fatal("index is not empty")
	}
	p.once()
	if got := p.content("f"); got != "x" {
		t.Errorf("f on the slave: %q", got)
	}
}
