package changelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// poll returns what a follower has to tell now, one word for each event.
func poll(t *testing.T, f *Follower) []string {
	t.Helper()
	var got []string
	for {
		ev, ok, err := f.Poll()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return got
		}
		switch ev.Kind {
		case Recorded:
			got = append(got, ev.Record.Entry.Base)
		case SliceSealed:
			got = append(got, fmt.Sprintf("sealed+%d", ev.Stamp-start))
			if ev.Damage != nil {
				got = append(got, "damaged")
			}
		case GapFound:
			got = append(got, fmt.Sprintf("gap+%d", ev.Stamp-start))
		}
	}
}

func newFollower(t *testing.T, dir string, after int64) *Follower {
	t.Helper()
	f, err := NewFollower(dir, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func wantEvents(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestFollower(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	rollover := func() {
		t.Helper()
		clock.advance(15 * time.Second)
		if err := l.Rollover(); err != nil {
			t.Fatal(err)
		}
	}
	mustAppend(t, l, entry(1))
	f := newFollower(t, dir, 0)
	wantEvents(t, "written before", poll(t, f), "f1")
	wantEvents(t, "nothing", poll(t, f))
	mustAppend(t, l, entry(2))
	wantEvents(t, "one more", poll(t, f), "f2")
	mustAppend(t, l, entry(3))
	rollover()
	mustAppend(t, l, entry(4))
	wantEvents(t, "over a rollover", poll(t, f), "f3", "sealed+15", "f4")
	rollover()
	wantEvents(t, "sealed", poll(t, f), "sealed+30")
	rollover()
	wantEvents(t, "an empty slice", poll(t, f), "sealed+45")

	mustAppend(t, l, entry(5))
	wantEvents(t, "before falling behind", poll(t, f), "f5")
	rollover()
	mustAppend(t, l, entry(6))
	rollover()
	rollover()
	if err := l.SetOptions(Binary, 0, 0); err != nil {
		t.Fatal(err)
	}
	rollover()
	mustAppend(t, l, entry(7))
	rollover()
	mustAppend(t, l, entry(8))
	wantEvents(t, "five slices later", poll(t, f), "sealed+60", "f6", "sealed+75", "sealed+90", "sealed+105", "f7", "sealed+120", "f8")

	l.release() // killed
	clock.advance(time.Minute)
	l = mustOpen(t, Options{Dir: dir, now: clock.now})
	mustAppend(t, l, entry(9))
	wantEvents(t, "after a restart", poll(t, f), "sealed+180", "f9")

	clock.advance(time.Second)
	if err := l.Break(errors.New("test")); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, entry(10))
	wantEvents(t, "after a gap", poll(t, f), "gap+182", "sealed+183", "f10")
	clock.advance(time.Second)
	if err := l.TurnOff(); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, "turned off", poll(t, f), "sealed+184")
	clock.advance(time.Minute)
	l = mustOpen(t, Options{Dir: dir, now: clock.now})
	rollover()
	wantEvents(t, "turned on", poll(t, f), "gap+243", "sealed+257")

	late := newFollower(t, dir, start+75)
	wantEvents(t, "from a later slice", poll(t, late),
		"sealed+90", "sealed+105", "f7", "sealed+120", "f8", "sealed+180", "gap+182", "f9", "sealed+183", "f10", "sealed+184", "gap+243", "sealed+257")
	l.release()
}

// A record cut off, taken back, and another one in its place: the follower sees
// only what stays.
func TestFollowerSeesNoHalfRecord(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	f := newFollower(t, dir, 0)
	half := AppendRecord(nil, entry(1), ASCII)
	if _, err := l.f.WriteAt(half[:60], l.off); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, "half a record", poll(t, f))
	if err := l.f.Truncate(l.off); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, entry(2))
	wantEvents(t, "another one", poll(t, f), "f2")
}

// What was sealed and never indexed, because it could not be made durable, is no
// sealed slice but part of a gap.
func TestFollowerAndUnlistedSlice(t *testing.T) {
	dir, clock := newDir(t), newClock()
	fail := false
	step := func(op, name string) error {
		if fail && op == "fsync" && filepath.Base(name) == "CHANGELOG.1795255215" {
			return errStopped
		}
		return nil
	}
	l := mustOpen(t, Options{Dir: dir, now: clock.now, step: step})
	defer l.release()
	f := newFollower(t, dir, 0)
	mustAppend(t, l, entry(1))
	wantEvents(t, "live", poll(t, f), "f1")
	clock.advance(15 * time.Second)
	fail = true
	if err := l.Rollover(); !errors.Is(err, ErrGap) {
		t.Fatalf("got error %v, want one that wraps ErrGap", err)
	}
	wantEvents(t, "not durable", poll(t, f))
	clock.advance(time.Second)
	mustAppend(t, l, entry(2))
	clock.advance(time.Second)
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, "after the gap", poll(t, f), "gap+17", "sealed+18", "f2", "sealed+19")
}

func TestFollowerNamesDamage(t *testing.T) {
	dir := newDir(t)
	day := filepath.Join(dir, dayDir(start))
	if err := os.MkdirAll(day, 0o700); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, Options{Dir: dir, now: newClock().now}).release()
	b := AppendRecord(AppendHeader(nil, ASCII), entry(1), ASCII)
	if err := os.WriteFile(filepath.Join(day, "CHANGELOG.1795255205"), append(b, "E123"...), 0o644); err != nil {
		t.Fatal(err)
	}
	clock := &fakeClock{t: time.Unix(start+10, 0)}
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	f := newFollower(t, dir, start)
	wantEvents(t, "torn", poll(t, f), "f1", "sealed+5", "damaged", "sealed+10")
}

// Next wakes up by itself.
func TestFollowerWaits(t *testing.T) {
	dir := newDir(t)
	l := mustOpen(t, Options{Dir: dir})
	defer l.release()
	f := newFollower(t, dir, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		time.Sleep(followPoll / 2) // so that Next finds nothing at first
		_, _ = l.Append(entry(1))  // seen below
	}()
	ev, err := f.Next(ctx)
	if err != nil || ev.Kind != Recorded || ev.Record.Entry.Base != "f1" {
		t.Errorf("got %+v, %v, want f1", ev, err)
	}
	cancel()
	if _, err := f.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want canceled", err)
	}
}

// A changelog that the index lists and somebody removed is a gap.
func TestFollowerAndRemovedChangelog(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	for n := range 3 {
		seal(t, l, clock, n)
	}
	if err := os.Remove(filepath.Join(dir, sealedName(start+30))); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, "one removed", poll(t, newFollower(t, dir, 0)), "f0", "sealed+15", "gap+30", "f2", "sealed+45")
}

// A follower beside a process that appends and rolls over as fast as it can: all
// records, once, in order.
func TestFollowerKeepsUp(t *testing.T) {
	const records = 3000
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range records {
			if _, err := l.Append(entry(n)); err != nil {
				t.Error(err)
			}
			if n%50 == 49 {
				if err := l.Rollover(); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	f := newFollower(t, dir, 0)
	var got []string
	last := ""
	for finished := false; ; {
		events := poll(t, f)
		for _, ev := range events {
			if ev[0] == 'f' {
				got = append(got, ev)
			}
			last = ev
		}
		if finished && len(events) == 0 {
			break
		}
		select {
		case <-done:
			finished = true
		default:
		}
	}
	want := make([]string, records)
	for n := range want {
		want[n] = fmt.Sprintf("f%d", n)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if want := fmt.Sprintf("sealed+%d", records/50); last != want {
		t.Errorf("last event %s, want %s", last, want)
	}
}
