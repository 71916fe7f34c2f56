package changelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Closing seals: a reader has all there is at once, and the next run goes on in
// the same index.
func TestCloseSeals(t *testing.T) {
	dir, clock := newDir(t), newClock()
	for n := range 2 {
		l := mustOpen(t, Options{Dir: dir, now: clock.now})
		mustAppend(t, l, entry(n))
		clock.advance(5 * time.Second)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(entry(9)); !errors.Is(err, ErrClosed) {
			t.Errorf("append after close: %v, want ErrClosed", err)
		}
		if err := l.Close(); !errors.Is(err, ErrClosed) {
			t.Errorf("second close: %v, want ErrClosed", err)
		}
		clock.advance(5 * time.Second)
	}
	want := map[string][]string{"HTIME.1795255200": {
		"2026/11/21/CHANGELOG.1795255205",
		"2026/11/21/changelog.1795255210", // the empty one that Close left
		"2026/11/21/CHANGELOG.1795255215",
	}}
	if diff := cmp.Diff(want, indexed(t, dir)); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
}

func TestOffAndOnBeginsANewIndex(t *testing.T) {
	for _, how := range []string{"by the log", "by TurnOff"} {
		t.Run(how, func(t *testing.T) {
			dir, clock := newDir(t), newClock()
			o := Options{Dir: dir, now: clock.now}
			l := mustOpen(t, o)
			mustAppend(t, l, entry(1))
			clock.advance(5 * time.Second)
			var err error
			if how == "by the log" {
				err = l.TurnOff()
			} else {
				l.release() // killed
				err = TurnOff(o)
			}
			if err == nil {
				err = TurnOff(o) // already off
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "CHANGELOG")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("CHANGELOG after turning off: %v, want none", err)
			}
			clock.advance(time.Minute)
			l = mustOpen(t, o)
			mustAppend(t, l, entry(2))
			clock.advance(5 * time.Second)
			if err := l.Rollover(); err != nil {
				t.Fatal(err)
			}
			l.release()
			spans, kept := checkDirectory(t, dir, false)
			if diff := cmp.Diff([]string{"f1", "f2"}, kept); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			if len(spans) != 2 || spans[1].Start != start+66 {
				t.Errorf("spans %v, want two, the second from %d", spans, start+66)
			}
		})
	}
}

func TestEncodingChangesAtTheNextRollover(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	encodingOf := func(name string) Encoding {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := NewReader(f, name)
		if err != nil {
			t.Fatal(err)
		}
		return r.Encoding()
	}
	mustAppend(t, l, entry(1))
	if err := l.SetOptions(Binary, 0, 0); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, entry(2))
	clock.advance(time.Second)
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
	if got := encodingOf(sealedName(start + 1)); got != ASCII {
		t.Errorf("the slice of the change is %v, want ascii", got)
	}
	if got := encodingOf("CHANGELOG"); got != Binary {
		t.Errorf("the slice after the change is %v, want binary", got)
	}
	for _, fsync := range []time.Duration{0, -1} { // empty: the file is replaced all the same
		if err := l.SetOptions(ASCII, 0, fsync); err != nil {
			t.Fatal(err)
		}
		clock.advance(time.Second)
		if err := l.Rollover(); err != nil {
			t.Fatal(err)
		}
		if got := encodingOf("CHANGELOG"); got != ASCII {
			t.Errorf("after an empty slice: %v, want ascii", got)
		}
	}
	flags, err := unix.FcntlInt(l.f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_SYNC != unix.O_SYNC {
		t.Errorf("flags %#x, %v, want O_SYNC", flags, err)
	}
	mustAppend(t, l, entry(3))
	clock.advance(time.Second)
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
	_, kept := checkDirectory(t, dir, false)
	if diff := cmp.Diff([]string{"f1", "f2", "f3"}, kept); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// Records that BeforeSeal appends are in the slice being sealed.
func TestBeforeSealAppendsToItsSlice(t *testing.T) {
	dir, clock := newDir(t), newClock()
	var l *Log
	var landed []Slice
	l = mustOpen(t, Options{Dir: dir, now: clock.now, BeforeSeal: func(s Slice) {
		landed = append(landed, s, mustAppend(t, l, entry(int(s))))
	}})
	defer l.release()
	for range 2 {
		clock.advance(time.Second)
		if err := l.Rollover(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]Slice{1, 1, 2, 2}, landed); diff != "" {
		t.Errorf("slices sealed and landed in (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"f2"}, names(t, filepath.Join(dir, sealedName(start+2)))); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// Appends from many goroutines while slices are sealed: none lost, none twice,
// and each in the slice that Append said.
func TestConcurrentAppendsAndRollovers(t *testing.T) {
	const writers, each = 4, 500
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	var wg sync.WaitGroup
	told := make([]map[string]Slice, writers)
	for w := range writers {
		told[w] = map[string]Slice{}
		wg.Go(func() {
			for i := range each {
				r := entry(w*each + i)
				s, err := l.Append(r)
				if err != nil {
					t.Error(err)
					return
				}
				told[w][r.Entry.Base] = s
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if err := l.Rollover(); err != nil {
			t.Fatal(err)
		}
	}
	// The n-th entry of the only index is the n-th slice.
	h, err := OpenHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := h.Slices(0)
	if err != nil {
		t.Fatal(err)
	}
	found, slice := map[string]Slice{}, Slice(0)
	for s := range all {
		slice++
		if s.Empty {
			continue
		}
		for _, name := range names(t, s.Path) {
			if _, twice := found[name]; twice {
				t.Errorf("%s is recorded twice", name)
			}
			found[name] = slice
		}
	}
	want := map[string]Slice{}
	for _, m := range told {
		for name, s := range m {
			want[name] = s
		}
	}
	if len(want) != writers*each {
		t.Errorf("%d records, want %d", len(want), writers*each)
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("slices told (-) and found (+):\n%s", diff)
	}
}

func TestRunRollsAndSyncs(t *testing.T) {
	dir := newDir(t)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var steps []string
		began := time.Now()
		step := func(op, name string) error {
			mu.Lock()
			defer mu.Unlock()
			if op == "fsync" && name == "CHANGELOG" {
				steps = append(steps, fmt.Sprintf("sync at %v", time.Since(began)))
			}
			if op == "rename" && strings.HasPrefix(name, "CHANGELOG to ") {
				steps = append(steps, fmt.Sprintf("seal at %v", time.Since(began)))
			}
			return nil
		}
		l := mustOpen(t, Options{Dir: dir, step: step})
		mustAppend(t, l, entry(1))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		time.Sleep(16 * time.Second)
		mustAppend(t, l, entry(2))
		if err := l.SetOptions(0, 30*time.Second, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.release()
		want := []string{"sync at 5s", "seal at 15s", "sync at 26s", "seal at 46s"}
		// Timers of one instant may come in either order.
		if diff := cmp.Diff(want, slices.Compact(steps)); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
	})
}

func TestSecondLogIsRefused(t *testing.T) {
	dir := newDir(t)
	l := mustOpen(t, Options{Dir: dir})
	defer l.release()
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrBusy) {
		t.Errorf("got error %v, want ErrBusy", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Dir: "relative"},
		{Dir: "/x", Encoding: 3},
		{Dir: "/x", RolloverTime: time.Millisecond},
	} {
		if l, err := Open(o); err == nil {
			l.release()
			t.Errorf("%+v was taken", o)
		}
	}
}

// A brick moved to a path of another length: the old index keeps its stride, a
// new one begins, and readers find the old changelogs.
func TestMovedBrick(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	mustAppend(t, l, entry(1))
	clock.advance(time.Second)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	l = mustOpen(t, Options{Dir: moved, now: clock.now})
	mustAppend(t, l, entry(2))
	clock.advance(time.Second)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	spans, kept := checkDirectory(t, moved, false)
	if diff := cmp.Diff([]string{"f1", "f2"}, kept); diff != "" || len(spans) != 2 {
		t.Errorf("%d spans; records (-want +got):\n%s", len(spans), diff)
	}
}

// A brick of GlusterFS's becomes ours: its live changelog is sealed and indexed.
func TestGlusterFSBrickGoesOn(t *testing.T) {
	dir := goldenCopy(t, "ascii")
	live := AppendRecord(AppendHeader(nil, ASCII), entry(1), ASCII)
	if err := os.WriteFile(filepath.Join(dir, "CHANGELOG"), live, 0o644); err != nil {
		t.Fatal(err)
	}
	// As if the brick had always been here.
	for _, path := range []string{"HTIME.1795228773", "HTIME.1795228912"} {
		path = filepath.Join(dir, "htime", path)
		b := strings.ReplaceAll(string(readFile(t, path)), "/mnt/bricks/ascii/.glusterfs/changelogs", dir)
		if err := os.WriteFile(path, []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := mustOpen(t, Options{Dir: dir, now: newClock().now})
	l.release()
	got := indexed(t, dir)
	last := got["HTIME.1795228912"]
	if len(got) != 2 || len(last) != 31 || last[30] != sealedName(start) {
		t.Errorf("index %v, want two files, the second ending in %s", got, sealedName(start))
	}
	buf := make([]byte, 64)
	n, err := unix.Getxattr(filepath.Join(dir, "htime", "HTIME.1795228912"), xattrHTIME, buf)
	if want := fmt.Sprintf("%d:31", start); err != nil || string(buf[:n]) != want {
		t.Errorf("xattr %q, %v, want %s", buf[:n], err, want)
	}
}

// Without current_htime the last index by name is the active one.
func TestIndexWithoutXattr(t *testing.T) {
	dir, clock := newDir(t), newClock()
	mustOpen(t, Options{Dir: dir, now: clock.now}).release()
	if err := unix.Removexattr(filepath.Join(dir, "htime"), xattrCurrent); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	mustOpen(t, Options{Dir: dir, now: clock.now}).release()
	want := map[string][]string{"HTIME.1795255200": {"2026/11/21/changelog.1795255260"}}
	if diff := cmp.Diff(want, indexed(t, dir)); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
}

// A stamp that is taken is passed over: nothing is overwritten.
func TestTakenStamp(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	mustAppend(t, l, entry(1))
	clock.advance(15 * time.Second)
	if err := os.MkdirAll(filepath.Join(dir, dayDir(start)), 0o700); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, sealedName(start+15))
	if err := os.WriteFile(foreign, []byte("foreign"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
	if got := string(readFile(t, foreign)); got != "foreign" {
		t.Errorf("the file in the way holds %q", got)
	}
	want := map[string][]string{"HTIME.1795255200": {sealedName(start + 16)}}
	if diff := cmp.Diff(want, indexed(t, dir)); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
}
