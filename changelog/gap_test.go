package changelog

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of the given size in KiB and returns where.
func smallDisk(t *testing.T, fsType string, size int64) string {
	t.Helper()
	at := t.TempDir()
	var cmd *exec.Cmd
	switch fsType {
	case "tmpfs":
		cmd = exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dk", size), "tmpfs", at)
	case "ext4":
		image := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, size<<10); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", image).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4 (Debian package e2fsprogs): %v: %s", err, out)
		}
		cmd = exec.Command("mount", "-o", "loop", image, at)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
	return at
}

// fill takes all space there is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A disk that is really full: the gap is told once, seen on disk, and over when
// there is space again, with a new HTIME file that begins after the last record lost.
func TestFullDisk(t *testing.T) {
	for fsType, size := range map[string]int64{"tmpfs": 256, "ext4": 8 << 10} {
		t.Run(fsType, func(t *testing.T) {
			disk := smallDisk(t, fsType, size)
			dir, clock := filepath.Join(disk, "changelogs"), newClock()
			told := 0
			l := mustOpen(t, Options{Dir: dir, now: clock.now, OnGap: func(error) { told++ }})
			defer l.release()
			fill(t, filepath.Join(disk, "full"))

			kept := 0
			var err error
			for {
				clock.advance(100 * time.Millisecond)
				if _, err = l.Append(entry(kept)); err != nil {
					break
				}
				kept++
			}
			if !errors.Is(err, ErrGap) || !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("got error %v, want one that wraps ErrGap and ENOSPC", err)
			}
			for range 30 { // tries again at 1 s, 2 s and 3 s, in vain
				clock.advance(100 * time.Millisecond)
				if _, err := l.Append(entry(-1)); !errors.Is(err, ErrGap) {
					t.Fatalf("got error %v, want one that wraps ErrGap", err)
				}
			}
			if err := l.Rollover(); !errors.Is(err, ErrGap) {
				t.Errorf("rollover: got error %v, want one that wraps ErrGap", err)
			}
			if told != 1 {
				t.Errorf("told %d times of the gap, want once", told)
			}
			if err := l.Gap(); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("Gap is %v, want ENOSPC", err)
			}
			if mark := string(readFile(t, filepath.Join(dir, "gap"))); !strings.Contains(mark, "no space left") || len(mark) != gapLen {
				t.Errorf("mark of the gap is %q", mark)
			}
			lost := clock.now()

			if err := os.Remove(filepath.Join(disk, "full")); err != nil {
				t.Fatal(err)
			}
			clock.advance(retryGap)
			mustAppend(t, l, entry(kept))
			if err := l.Gap(); err != nil {
				t.Errorf("Gap is %v, want none", err)
			}
			if mark := strings.TrimSpace(string(readFile(t, filepath.Join(dir, "gap")))); mark != "none" {
				t.Errorf("mark of the gap is %q, want none", mark)
			}
			clock.advance(15 * time.Second)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			spans, got := checkDirectory(t, dir, false)
			if len(spans) != 2 || spans[1].Start <= lost.Unix() || spans[0].End > start+1 {
				t.Errorf("spans %v; records were lost until %v", spans, lost.Unix())
			}
			want := make([]string, kept+1)
			for n := range want {
				want[n] = fmt.Sprintf("f%d", n)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

// A log that could not end its gap before it was killed: the next Open ends it.
func TestGapOutlivesTheProcess(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	mustAppend(t, l, entry(1))
	clock.advance(time.Second)
	if err := l.Lost(errors.New("two\nlines")); !errors.Is(err, ErrGap) {
		t.Fatal(err)
	}
	l.release()
	clock.advance(time.Second)
	l = mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	if err := l.Gap(); err != nil {
		t.Errorf("Gap is %v, want none", err)
	}
	want := map[string][]string{"HTIME.1795255200": nil, "HTIME.1795255203": {sealedName(start + 4)}}
	if diff := cmp.Diff(want, indexed(t, dir)); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
}

func TestBreakBeginsANewIndex(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	mustAppend(t, l, entry(1))
	clock.advance(15 * time.Second)
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, entry(2))
	clock.advance(5 * time.Second)
	if err := l.Break(errors.New("changes behind our back")); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"HTIME.1795255200": {sealedName(start + 15)},
		"HTIME.1795255221": {sealedName(start + 22)},
	}
	if diff := cmp.Diff(want, indexed(t, dir)); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
}

// Somebody removes the live changelog: what was in it is lost, and history says so.
func TestRemovedChangelogIsAGap(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	defer l.release()
	mustAppend(t, l, entry(1))
	if err := os.Remove(filepath.Join(dir, "CHANGELOG")); err != nil {
		t.Fatal(err)
	}
	clock.advance(15 * time.Second)
	if err := l.Rollover(); !errors.Is(err, ErrGap) {
		t.Fatalf("got error %v, want one that wraps ErrGap", err)
	}
	clock.advance(retryGap)
	mustAppend(t, l, entry(2))
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
	spans, got := checkDirectory(t, dir, false)
	if diff := cmp.Diff([]string{"f2"}, got); diff != "" || len(spans) != 2 {
		t.Errorf("%d spans, records (-want +got):\n%s", len(spans), diff)
	}
}

// Appends that come while a gap is being ended wait for that instead of being
// lost behind the start of the new index.
func TestAppendsWaitForTheEndOfAGap(t *testing.T) {
	dir, clock := newDir(t), newClock()
	var l *Log
	waited := make(chan error, 1)
	var once atomic.Bool
	step := func(op, name string) error {
		if l == nil || !strings.HasPrefix(name, "htime/HTIME.") || l.Gap() == nil || once.Swap(true) {
			return nil
		}
		go func() {
			_, err := l.Append(entry(2))
			waited <- err
		}()
		// It must not be refused while the new index is being made.
		select {
		case err := <-waited:
			t.Errorf("append during the end of a gap: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		return nil
	}
	l = mustOpen(t, Options{Dir: dir, now: clock.now, step: step})
	defer l.release()
	_ = l.Lost(errors.New("test"))
	clock.advance(retryGap)
	mustAppend(t, l, entry(1))
	if err := <-waited; err != nil {
		t.Error(err)
	}
	clock.advance(time.Second)
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
	if _, got := checkDirectory(t, dir, false); len(got) != 2 {
		t.Errorf("records %v, want two", got)
	}
}

// A gap that begins while the last one is being ended is marked on disk.
func TestGapBehindGapIsMarked(t *testing.T) {
	dir, clock := newDir(t), newClock()
	fail := false
	step := func(op, name string) error {
		if fail && op == "fsync" && strings.Contains(name, "/CHANGELOG.") {
			return unix.EIO
		}
		return nil
	}
	l := mustOpen(t, Options{Dir: dir, now: clock.now, step: step})
	defer l.release()
	mustAppend(t, l, entry(1))
	_ = l.Lost(errors.New("first"))
	clock.advance(retryGap)
	fail = true
	if err := l.Rollover(); !errors.Is(err, ErrGap) {
		t.Errorf("got error %v, want one that wraps ErrGap", err)
	}
	mark := string(readFile(t, filepath.Join(dir, "gap")))
	if err := l.Gap(); !errors.Is(err, unix.EIO) || !strings.Contains(mark, "input/output error") {
		t.Errorf("gap %v, mark %q, want EIO in both", err, mark)
	}
	fail = false
	clock.advance(retryGap)
	mustAppend(t, l, entry(2))
	if mark := string(readFile(t, filepath.Join(dir, "gap"))); !strings.HasPrefix(mark, "none ") {
		t.Errorf("mark %q, want none", mark)
	}
}
