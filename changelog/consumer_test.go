package changelog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newBrick is a brick, and a Log on it.
func newBrick(t *testing.T) (brick string, l *Log, clock *fakeClock) {
	t.Helper()
	brick, clock = t.TempDir(), newClock()
	l = mustOpen(t, Options{Dir: filepath.Join(brick, ".glusterfs", "changelogs"), now: clock.now})
	t.Cleanup(func() { l.release() })
	return brick, l, clock
}

// seal appends the n-th record and seals it, fifteen seconds later.
func seal(t *testing.T, l *Log, clock *fakeClock, n int) {
	t.Helper()
	mustAppend(t, l, entry(n))
	clock.advance(15 * time.Second)
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
}

func register(t *testing.T, brick, dir string, since int64) *Consumer {
	t.Helper()
	c, err := Register(brick, dir, ConsumerOptions{Since: since})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // closed by some tests
	return c
}

// scan returns what a Scan lists, and the names recorded in it.
func scan(t *testing.T, c *Consumer) (all []Published, names []string) {
	t.Helper()
	n, err := c.Scan()
	var gap *GapError
	if errors.As(err, &gap) {
		names = append(names, fmt.Sprintf("gap+%d+%d", gap.From-start, gap.To-start))
	} else if err != nil {
		t.Fatal(err)
	}
	for p, ok := c.Next(); ok; p, ok = c.Next() {
		all = append(all, p)
		names = append(names, publishedNames(t, p)...)
	}
	if len(all) != n {
		t.Errorf("Scan says %d, Next gives %d", n, len(all))
	}
	return all, names
}

func publishedNames(t *testing.T, p Published) (names []string) {
	t.Helper()
	if p.Damage != nil {
		names = append(names, "damaged")
	}
	for r, err := range p.Records() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, r.Entry.Base)
	}
	return names
}

func wantScan(t *testing.T, what string, c *Consumer, want ...string) []Published {
	t.Helper()
	all, got := scan(t, c)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
	return all
}

func done(t *testing.T, c *Consumer, p ...Published) {
	t.Helper()
	if err := c.Done(p...); err != nil {
		t.Fatal(err)
	}
}

func TestConsumer(t *testing.T) {
	brick, l, clock := newBrick(t)
	seal(t, l, clock, 1)
	work := filepath.Join(t.TempDir(), "work")
	c := register(t, brick, work, 0)
	wantScan(t, "from now on", c)
	seal(t, l, clock, 2)
	clock.advance(15 * time.Second)
	if err := l.Rollover(); err != nil { // empty slices never appear
		t.Fatal(err)
	}
	seal(t, l, clock, 3)
	seal(t, l, clock, 4)
	all := wantScan(t, "three slices", c, "f2", "f3", "f4")

	tracker := string(readFile(t, filepath.Join(work, "tracker")))
	var want strings.Builder
	for _, stamp := range []int64{start + 30, start + 60, start + 75} {
		fmt.Fprintf(&want, "%s/.processing/CHANGELOG.%d\n", work, stamp)
	}
	if diff := cmp.Diff(want.String(), tracker); diff != "" {
		t.Errorf("tracker (-want +got):\n%s", diff)
	}
	got := string(readFile(t, all[0].Path))
	if want := entry(2).String() + "\n"; got != want {
		t.Errorf("published %q, want %q", got, want)
	}

	done(t, c, all[1])
	if _, err := os.Lstat(filepath.Join(work, ".processed", filepath.Base(all[1].Path))); err != nil {
		t.Error(err)
	}
	wantScan(t, "the others come again", c, "f2", "f4")
	if err := c.Done(all[1]); err == nil {
		t.Error("done twice: no error")
	}
	if err := c.Done(Published{Path: "/etc/passwd"}); err == nil {
		t.Error("a file elsewhere: no error")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	// A restart, with and without what was processed.
	for _, clear := range []bool{false, true} {
		if clear {
			if err := os.RemoveAll(filepath.Join(work, ".processed")); err != nil {
				t.Fatal(err)
			}
		}
		c = register(t, brick, work, 0)
		wantScan(t, "after a restart", c, "f2", "f4")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c = register(t, brick, work, 0)
	done(t, c, wantScan(t, "once more", c, "f2", "f4")...)
	wantScan(t, "all done", c)
	seal(t, l, clock, 5)
	wantScan(t, "and on", c, "f5")
}

// A consumer that dies between moving a file and saving its state.
func TestConsumerDeathInDone(t *testing.T) {
	brick, l, clock := newBrick(t)
	work := t.TempDir()
	c := register(t, brick, work, 0)
	seal(t, l, clock, 1)
	seal(t, l, clock, 2)
	all := wantScan(t, "two", c, "f1", "f2")
	if err := c.work.finish(all[1:]); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = register(t, brick, work, 0)
	done(t, c, wantScan(t, "after death", c, "f1")...)
	seal(t, l, clock, 3)
	wantScan(t, "and on", c, "f3")
}

func TestSeveralConsumers(t *testing.T) {
	brick, l, clock := newBrick(t)
	a, b := register(t, brick, t.TempDir(), 0), register(t, brick, t.TempDir(), 0)
	seal(t, l, clock, 1)
	done(t, a, wantScan(t, "first", a, "f1")...)
	seal(t, l, clock, 2)
	wantScan(t, "first", a, "f2")
	wantScan(t, "second", b, "f1", "f2")
	if _, err := Register(brick, a.work.path, ConsumerOptions{}); !errors.Is(err, ErrBusy) {
		t.Errorf("same directory: %v, want ErrBusy", err)
	}
	if _, err := Register(t.TempDir(), t.TempDir(), ConsumerOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no brick: %v, want fs.ErrNotExist", err)
	}
}

// A gap is told between the slices around it, and again after a restart until
// something behind it is done.
func TestConsumerIsToldOfGaps(t *testing.T) {
	brick, l, clock := newBrick(t)
	work := t.TempDir()
	c := register(t, brick, work, 0)
	seal(t, l, clock, 1)
	if err := l.Break(errors.New("test")); err != nil {
		t.Fatal(err)
	}
	seal(t, l, clock, 2)
	done(t, c, wantScan(t, "before", c, "f1")...)
	wantScan(t, "the gap", c, "gap+15+16")
	wantScan(t, "behind", c, "f2")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = register(t, brick, work, 0)
	wantScan(t, "the gap again", c, "gap+15+16")
	done(t, c, wantScan(t, "behind", c, "f2")...)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = register(t, brick, work, 0)
	wantScan(t, "acknowledged", c)

	since := register(t, brick, t.TempDir(), start-1)
	wantScan(t, "older than the index", since, fmt.Sprintf("gap+%d+0", -start))
	wantScan(t, "then all", since, "f1")
	since = register(t, brick, t.TempDir(), start)
	wantScan(t, "since the start", since, "f1")
}

func TestConsumerAndDamage(t *testing.T) {
	brick, l, clock := newBrick(t)
	c := register(t, brick, t.TempDir(), 0)
	dir := filepath.Join(brick, ".glusterfs", "changelogs")
	for n := range 3 {
		seal(t, l, clock, n)
	}
	if err := os.Remove(filepath.Join(dir, sealedName(start+15))); err != nil {
		t.Fatal(err)
	}
	whole := readFile(t, filepath.Join(dir, sealedName(start+30)))
	if err := os.WriteFile(filepath.Join(dir, sealedName(start+30)), append(whole, "garbage"...), 0o644); err != nil {
		t.Fatal(err)
	}
	all := wantScan(t, "damaged", c, "damaged", "damaged", "f1", "f2")
	if !errors.Is(all[0].Damage, fs.ErrNotExist) || !errors.Is(all[1].Damage, ErrCorrupt) || all[2].Damage != nil {
		t.Errorf("damage %v, %v, %v; want it removed, corrupt, none", all[0].Damage, all[1].Damage, all[2].Damage)
	}
}

// The whole of a GlusterFS brick, its unindexed slice included.
func TestConsumerOfGlusterFS(t *testing.T) {
	brick := t.TempDir()
	dir := filepath.Join(brick, ".glusterfs", "changelogs")
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(goldenCopy(t, "ascii"), dir); err != nil {
		t.Fatal(err)
	}
	c := register(t, brick, t.TempDir(), 1795228773)
	var got, want []string
	gaps := 0
	for range 3 {
		_, err := c.Scan()
		if errors.Is(err, ErrGap) {
			gaps++
		} else if err != nil {
			t.Fatal(err)
		}
		var all []Published
		for p, ok := c.Next(); ok; p, ok = c.Next() {
			all = append(all, p)
			got = append(got, filepath.Base(p.Path))
			parsed, _ := parsedAndEncoded(t, filepath.Join(dir, "2026/11/21", filepath.Base(p.Path)))
			if diff := cmp.Diff(string(parsed), string(readFile(t, p.Path))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", p.Path, diff)
			}
		}
		done(t, c, all...)
	}
	for _, p := range goldenFiles(t, "ascii/changelogs/2026/11/21/CHANGELOG.*") {
		want = append(want, filepath.Base(p))
	}
	if diff := cmp.Diff(want, got); diff != "" || gaps != 1 {
		t.Errorf("%d gaps, want 1; changelogs (-want +got):\n%s", gaps, diff)
	}

	r, err := c.History(1795228785, 1795228797)
	if err != nil {
		t.Fatal(err)
	}
	n, err := r.Scan()
	if err != nil || n != 3 || r.End != 1795228798 || r.Partial {
		t.Errorf("history: %d files to %d, partial %v, %v; want 3 to 1795228798", n, r.End, r.Partial, err)
	}
	for p, ok := r.Next(); ok; p, ok = r.Next() {
		if err := r.Done(p); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := r.Scan(); n != 0 || err != nil {
		t.Errorf("history after all is done: %d, %v", n, err)
	}
	if _, err := c.History(1, 2); !errors.Is(err, ErrNotCovered) {
		t.Errorf("history before the index: %v, want ErrNotCovered", err)
	}
	if _, err := c.History(2, 1); !errors.Is(err, ErrRange) {
		t.Errorf("history backwards: %v, want ErrRange", err)
	}
}

func TestConsumerWaits(t *testing.T) {
	brick, l, clock := newBrick(t)
	c := register(t, brick, t.TempDir(), 0)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	woken := make(chan error)
	go func() { woken <- c.Wait(ctx) }()
	seal(t, l, clock, 1)
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	wantScan(t, "woken", c, "f1")
	cancel()
	if err := c.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want canceled", err)
	}
}

// More than may wait at once: published as others are done, none twice.
func TestConsumerIsBounded(t *testing.T) {
	brick, l, clock := newBrick(t)
	c := register(t, brick, t.TempDir(), 0)
	c.work.limit = 2
	for n := range 5 {
		seal(t, l, clock, n)
	}
	done(t, c, wantScan(t, "the first two", c, "f0", "f1")[0])
	done(t, c, wantScan(t, "one more", c, "f1", "f2")...)
	wantScan(t, "the rest", c, "f3", "f4")
}
