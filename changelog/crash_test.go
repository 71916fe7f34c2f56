package changelog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var errStopped = errors.New("stopped here")

// fault makes durable steps fail, counted from 1.
type fault struct {
	n    int   // fails at this step
	dead bool  // and at all later ones: the process is gone
	err  error // default errStopped
	seen int
	at   string // the step that failed
}

func (f *fault) step(op, name string) error {
	f.seen++
	if f.seen == f.n || f.dead && f.seen > f.n && f.n > 0 {
		if f.at == "" {
			f.at = fmt.Sprintf("step %d, %s %s", f.n, op, name)
		}
		if f.err != nil {
			return f.err
		}
		return errStopped
	}
	return nil
}

// outcome is what the user of a Log was told.
type outcome struct {
	kept []string             // names of acknowledged records, in order
	at   map[string]time.Time // when a record was appended, or failed to be
	gap  error                // of the log at last
}

// use opens a Log and does a bit of everything, a second apart. With stopAtError
// it ends at the first error, as a process that died does.
func use(o Options, clock *fakeClock, stopAtError bool) (outcome, error) {
	out := outcome{at: map[string]time.Time{}}
	l, err := Open(o)
	if err != nil {
		return out, err
	}
	defer l.release()
	n := 0
	add := func() error {
		n++
		r := entry(n)
		_, err := l.Append(r)
		if err == nil {
			out.kept = append(out.kept, r.Entry.Base)
		}
		out.at[r.Entry.Base] = clock.now()
		return err
	}
	toBinary := func() error { return l.SetOptions(Binary, 0, 0) }
	var all error
	for _, do := range []func() error{
		add, add, l.Rollover, add, l.Sync, l.Rollover, l.Rollover, add, toBinary, l.Rollover,
		add, l.Rollover, l.Rollover, add, add, l.Rollover, add,
	} {
		if err := do(); err != nil {
			all = errors.Join(all, err)
			if stopAtError {
				return out, all
			}
		}
		clock.advance(time.Second)
	}
	out.gap = l.Gap()
	return out, all
}

// checkDirectory checks what holds of every directory at rest, and returns the
// names recorded in the spans, in order. Only a gap excuses a changelog on disk
// that no index lists.
func checkDirectory(t *testing.T, dir string, gap bool) (spans []Span, kept []string) {
	t.Helper()
	h, err := OpenHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	onDisk, err := sealedAfter(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	var listed []int64
	for i, s := range h.Spans() {
		all, err := h.Slices(i)
		if err != nil {
			t.Fatal(err)
		}
		last := s.Start
		for slice := range all {
			if slice.Stamp <= last {
				t.Errorf("stamp %d follows %d in %s", slice.Stamp, last, s.Name)
			}
			last = slice.Stamp
			if slice.Empty {
				continue
			}
			if !slice.Indexed {
				if !gap {
					t.Errorf("%s is not in the index", slice.Path)
				}
				continue
			}
			listed = append(listed, slice.Stamp)
			kept = append(kept, names(t, slice.Path)...)
		}
	}
	if diff := cmp.Diff(onDisk, listed); diff != "" && !gap {
		t.Errorf("changelogs on disk (-) and in the index (+):\n%s", diff)
	}
	checkIndexXattrs(t, dir, h.Spans())
	return h.Spans(), kept
}

func checkIndexXattrs(t *testing.T, dir string, spans []Span) {
	t.Helper()
	buf := make([]byte, 64)
	get := func(path, attr string) string {
		n, err := unix.Getxattr(path, attr, buf)
		if err != nil {
			t.Fatalf("%s of %s: %v", attr, path, err)
		}
		return string(buf[:n])
	}
	last := spans[len(spans)-1]
	if got := get(filepath.Join(dir, "htime"), "trusted.glusterfs.current_htime"); got != last.Name {
		t.Errorf("current_htime is %s, want %s", got, last.Name)
	}
	for _, s := range spans {
		if s.Count() == 0 {
			continue
		}
		want := fmt.Sprintf("%d:%d", s.End, s.Count())
		if got := get(filepath.Join(dir, "htime", s.Name), "trusted.glusterfs.htime"); got != want {
			t.Errorf("xattr of %s is %s, want %s", s.Name, got, want)
		}
	}
}

// recorded drops spans without slices: an Open that died left them, and they
// cover nothing.
func recorded(spans []Span) []Span {
	return slices.DeleteFunc(slices.Clone(spans), func(s Span) bool { return s.Count() == 0 })
}

// A process that dies between any two steps, and a next one that dies while it
// mends that: every acknowledged record is in the history once, in order, and the
// history has no hole.
func TestDeathAtEveryStep(t *testing.T) {
	steps := 0
	disk := smallDisk(t, "tmpfs", 64<<10) // thousands of runs: no real syncs
	for n := 1; ; n++ {
		f := &fault{n: n, dead: true}
		dir, clock := filepath.Join(disk, "first"), newClock()
		out, err := use(Options{Dir: dir, now: clock.now, step: f.step}, clock, true)
		if f.at == "" {
			if err != nil {
				t.Fatal(err)
			}
			break // the scenario has no n-th step
		}
		steps++
		for m := 1; ; m++ {
			again := &fault{n: m, dead: true}
			trial := filepath.Join(disk, "trial")
			copyTree(t, dir, trial)
			name := f.at + "; then " + again.at
			then := *clock
			then.advance(time.Second)
			if l, err := Open(Options{Dir: trial, now: then.now, step: again.step}); err == nil {
				l.release()
			}
			then.advance(time.Second)
			l, err := Open(Options{Dir: trial, now: then.now})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			then.advance(time.Second)
			if err := l.Close(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			spans, kept := checkDirectory(t, trial, false)
			// The record being written when the process died may be there.
			if len(kept) == len(out.kept)+1 {
				kept = kept[:len(out.kept)]
			}
			if diff := cmp.Diff(out.kept, kept); diff != "" {
				t.Errorf("%s: records (-want +got):\n%s", name, diff)
			}
			if got := len(recorded(spans)); got > 1 {
				t.Errorf("%s: %d HTIME files, want one: %v", name, got, indexed(t, trial))
			}
			if t.Failed() {
				t.FailNow()
			}
			removeAll(t, trial)
			if again.at == "" {
				break
			}
		}
		removeAll(t, dir)
	}
	if steps < 40 {
		t.Errorf("only %d steps", steps)
	}
}

func removeAll(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// copyTree copies a changelogs directory with the paths and xattrs of its index.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	htime := filepath.Join(from, "htime")
	all, err := filepath.Glob(filepath.Join(htime, "*"))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for _, src := range append(all, htime) {
		rel, _ := filepath.Rel(from, src)
		for _, attr := range []string{xattrHTIME, xattrCurrent} {
			n, err := unix.Getxattr(src, attr, buf)
			if errors.Is(err, unix.ENODATA) {
				continue
			}
			if err == nil {
				err = unix.Setxattr(filepath.Join(to, rel), attr, buf[:n], 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, src := range all {
		dst := filepath.Join(to, "htime", filepath.Base(src))
		moved := strings.ReplaceAll(string(readFile(t, src)), from+"/", to+"/")
		if err := os.WriteFile(dst, []byte(moved), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Any one step that fails, as on a full disk, while the process goes on: a record
// is kept, or its Append said that it is lost and no span covers that moment.
func TestFaultAtEveryStep(t *testing.T) {
	disk := smallDisk(t, "tmpfs", 64<<10)
	for _, cause := range []error{unix.ENOSPC, unix.EIO} {
		for n := 1; ; n++ {
			f := &fault{n: n, err: cause}
			dir, clock := filepath.Join(disk, fmt.Sprint(cause, n)), newClock()
			out, err := use(Options{Dir: dir, now: clock.now, step: f.step}, clock, false)
			if f.at == "" {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if err == nil && !strings.Contains(f.at, "unlink") {
				t.Errorf("%s: nobody was told", f.at)
			}
			if mark, err := os.ReadFile(filepath.Join(dir, "gap")); err == nil && len(mark) > 0 && !strings.HasSuffix(f.at, " gap") {
				if none := strings.HasPrefix(string(mark), "none "); none != (out.gap == nil) {
					t.Errorf("%s: mark %q, gap %v", f.at, mark, out.gap)
				}
			}
			clock.advance(time.Second)
			l := mustOpen(t, Options{Dir: dir, now: clock.now})
			clock.advance(time.Second)
			if err := l.Close(); err != nil {
				t.Fatalf("%s: %v", f.at, err)
			}
			told := errors.Is(err, ErrGap)
			spans, kept := checkDirectory(t, dir, told)
			if told && len(spans) == 1 || !told && len(recorded(spans)) > 1 {
				t.Errorf("%s: spans %v, told %v", f.at, spans, err)
			}
			checkLosses(t, f.at, spans, out, kept, told)
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

// checkLosses checks that the records kept are those acknowledged, in order; when
// a gap was told, some may miss if no span covers the moment they were made.
func checkLosses(t *testing.T, what string, spans []Span, out outcome, kept []string, gap bool) {
	t.Helper()
	var want []string
	for n := range len(out.at) {
		name := fmt.Sprintf("f%d", n+1)
		if slices.Contains(kept, name) {
			want = append(want, name)
			continue
		}
		if slices.Contains(out.kept, name) && !gap {
			t.Errorf("%s: record %s was acknowledged and is not there", what, name)
		}
		at := out.at[name].Unix()
		for _, s := range spans {
			if s.Start <= at && at < s.End {
				t.Errorf("%s: record %s of %d is lost, yet %s covers %d to %d", what, name, at, s.Name, s.Start, s.End)
			}
		}
	}
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Errorf("%s: records (-want +got):\n%s", what, diff)
	}
}

// Every length that a crash may leave of the last changelog.
func TestTornTail(t *testing.T) {
	for _, e := range []Encoding{ASCII, Binary} {
		whole := AppendHeader(nil, e)
		ends := []int{len(whole)}
		for n := range 3 {
			whole = AppendRecord(whole, entry(n), e)
			ends = append(ends, len(whole))
		}
		for size := 0; size <= len(whole); size += 7 {
			dir, clock := newDir(t), newClock()
			mustOpen(t, Options{Dir: dir, now: clock.now}).release()
			if err := os.WriteFile(filepath.Join(dir, "CHANGELOG"), whole[:size], 0o644); err != nil {
				t.Fatal(err)
			}
			clock.advance(time.Minute)
			mustOpen(t, Options{Dir: dir, now: clock.now}).release()
			want := 0
			for want < 3 && ends[want+1] <= size {
				want++
			}
			spans, kept := checkDirectory(t, dir, false)
			if len(spans) != 1 || len(kept) != want {
				t.Errorf("%v, %d bytes: %d HTIME files with %d records, want 1 with %d", e, size, len(spans), len(kept), want)
			}
		}
	}
}

// Bytes that are no record, as power loss may leave, are no torn tail: what
// follows them is lost, and history says so.
func TestDamagedTailIsAGap(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	mustAppend(t, l, entry(1))
	l.release()
	f, err := os.OpenFile(filepath.Join(dir, "CHANGELOG"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	mustOpen(t, Options{Dir: dir, now: clock.now}).release()
	want := map[string][]string{
		"HTIME." + strconv.Itoa(start):      nil,
		"HTIME." + strconv.Itoa(start+60+1): {sealedName(start + 60 + 2)},
	}
	if diff := cmp.Diff(want, indexed(t, dir)); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"f1"}, names(t, filepath.Join(dir, sealedName(start+62)))); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}
