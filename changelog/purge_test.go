package changelog

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Who has read up to the purge goes on without a gap; who has not finds one. The
// writer goes on either way, and again after a restart.
func TestPurge(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	for i := range 4 {
		mustAppend(t, l, entry(i))
		clock.advance(15 * time.Second)
		if err := l.Rollover(); err != nil {
			t.Fatal(err)
		}
	}
	before, err := DiskUsage(dir)
	if err != nil || before.Files != 4 || before.Bytes == 0 {
		t.Fatalf("usage %+v (%v), want 4 files", before, err)
	}
	removed, err := Purge(dir, start+45)
	if err != nil || removed.Files != 2 || removed.Bytes == 0 {
		t.Fatalf("removed %+v (%v), want 2 files", removed, err)
	}
	if left, err := DiskUsage(dir); err != nil || left.Files != 2 || left.Bytes != before.Bytes-removed.Bytes {
		t.Errorf("left %+v (%v), want the other 2", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, filepath.Dir(sealedName(start+45)))); err != nil {
		t.Errorf("the day of a changelog that stays: %v", err)
	}
	wantEvents(t, "who was there", poll(t, newFollower(t, dir, start+30)), "f2", "sealed+45", "f3", "sealed+60")
	wantEvents(t, "who was not", poll(t, newFollower(t, dir, start)), "gap+15", "gap+30", "f2", "sealed+45", "f3", "sealed+60")

	// All that is old: the newest stays.
	if removed, err = Purge(dir, start+1000); err != nil || removed.Files != 1 {
		t.Fatalf("removed %+v (%v), want 1 file", removed, err)
	}
	mustAppend(t, l, entry(4))
	clock.advance(15 * time.Second)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	clock.advance(15 * time.Second)
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
	h, err := OpenHistory(dir)
	if err != nil || len(h.Spans()) != 1 {
		t.Errorf("%d spans (%v), want the one", len(h.Spans()), err)
	}
}

// An index goes with the last changelog that it lists, unless it is the active one.
func TestPurgeRemovesIndexes(t *testing.T) {
	dir, clock := newDir(t), newClock()
	for i := range 2 {
		l := mustOpen(t, Options{Dir: dir, now: clock.now, NewHistory: i > 0})
		mustAppend(t, l, entry(i))
		clock.advance(15 * time.Second)
		if err := l.Rollover(); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		clock.advance(15 * time.Second)
	}
	h, err := OpenHistory(dir)
	if err != nil || len(h.Spans()) != 2 {
		t.Fatalf("%d spans (%v), want 2", len(h.Spans()), err)
	}
	end := h.Spans()[0].End
	for _, c := range []struct {
		before int64
		want   int
	}{{end, 2}, {end + 1, 1}, {end + 1000, 1}} {
		if _, err := Purge(dir, c.before); err != nil {
			t.Fatal(err)
		}
		h, err := OpenHistory(dir)
		if err != nil || len(h.Spans()) != c.want {
			t.Errorf("before %d: %d spans (%v), want %d", c.before-start, len(h.Spans()), err, c.want)
		}
	}
}

func TestPurgeOfNothing(t *testing.T) {
	if u, err := Purge(filepath.Join(t.TempDir(), "none"), 1); err != nil || u != (Usage{}) {
		t.Errorf("removed %+v (%v)", u, err)
	}
}
