package changelog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/georep/georep/brick/gfid"
	"github.com/google/go-cmp/cmp"
)

// fakeClock is a clock that stands still until told.
type fakeClock struct{ t time.Time }

func (c *fakeClock) now() time.Time          { return c.t }
func (c *fakeClock) advance(d time.Duration) { c.t = c.t.Add(d) }

// start is 2026-11-21 10:00:00 UTC.
const start = 1795255200

func newClock() *fakeClock { return &fakeClock{t: time.Unix(start, 0)} }

// newDir is a changelogs directory in a brick of its own, on a real disk.
func newDir(t testing.TB) string {
	return filepath.Join(t.TempDir(), ".glusterfs", "changelogs")
}

func mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// entry is the n-th record of a test: a file made in the root.
func entry(n int) *Record {
	return &Record{
		Type: Entry, Fop: FopCreate, GFID: gfid.GFID{0: 0xaa, 14: byte(n >> 8), 15: byte(n)}, Mode: 0o100644,
		Entry: Name{Parent: gfid.Root, Base: fmt.Sprintf("f%d", n)},
	}
}

func mustAppend(t testing.TB, l *Log, r *Record) Slice {
	t.Helper()
	s, err := l.Append(r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// indexed lists HTIME files with their records, each by its path below dir.
func indexed(t testing.TB, dir string) map[string][]string {
	t.Helper()
	got := map[string][]string{}
	names, err := filepath.Glob(filepath.Join(dir, "htime", "HTIME.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var recs []string
		for rec := range strings.SplitSeq(strings.TrimSuffix(string(b), "\x00"), "\x00") {
			if rec != "" {
				recs = append(recs, strings.TrimPrefix(rec, dir+"/"))
			}
		}
		got[filepath.Base(name)] = recs
	}
	return got
}

// names lists the base names of the entries made by a changelog's records.
func names(t testing.TB, path string) []string {
	t.Helper()
	var got []string
	if err := ParseFile(path, func(r *Record) error {
		got = append(got, r.Entry.Base)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRolloverSealsAndIndexes(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	if got := mustAppend(t, l, entry(1)); got != 1 {
		t.Errorf("first record in slice %d, want 1", got)
	}
	live, err := os.ReadFile(filepath.Join(dir, "CHANGELOG"))
	if err != nil {
		t.Fatal(err)
	}
	if want := AppendRecord(AppendHeader(nil, ASCII), entry(1), ASCII); !bytes.Equal(live, want) {
		t.Errorf("CHANGELOG holds %q, want %q", live, want)
	}
	clock.advance(15 * time.Second)
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
	clock.advance(15 * time.Second)
	if err := l.Rollover(); err != nil { // empty
		t.Fatal(err)
	}
	if got := mustAppend(t, l, entry(2)); got != 3 {
		t.Errorf("second record in slice %d, want 3", got)
	}
	if err := l.Rollover(); err != nil { // in the same second as the last
		t.Fatal(err)
	}
	want := map[string][]string{"HTIME.1795255200": {
		"2026/11/21/CHANGELOG.1795255215",
		"2026/11/21/changelog.1795255230",
		"2026/11/21/CHANGELOG.1795255231",
	}}
	if diff := cmp.Diff(want, indexed(t, dir)); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	for stamp, want := range map[int64][]string{start + 15: {"f1"}, start + 31: {"f2"}} {
		if diff := cmp.Diff(want, names(t, filepath.Join(dir, sealedName(stamp)))); diff != "" {
			t.Errorf("records of %d (-want +got):\n%s", stamp, diff)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRestartGoesOnInTheSameIndex(t *testing.T) {
	dir, clock := newDir(t), newClock()
	l := mustOpen(t, Options{Dir: dir, now: clock.now})
	mustAppend(t, l, entry(1))
	mustAppend(t, l, entry(2))
	l.release() // as a killed process would leave it
	torn := AppendRecord(nil, entry(3), ASCII)
	f, err := os.OpenFile(filepath.Join(dir, "CHANGELOG"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(torn[:len(torn)-5]); err != nil {
		t.Fatal(err)
	}
	f.Close()

	clock.advance(time.Minute)
	var tail []string
	l = mustOpen(t, Options{Dir: dir, now: clock.now, OnTail: func(r *Record) { tail = append(tail, r.Entry.Base) }})
	defer l.Close()
	if diff := cmp.Diff([]string{"f1", "f2"}, tail); diff != "" {
		t.Errorf("tail (-want +got):\n%s", diff)
	}
	want := map[string][]string{"HTIME.1795255200": {"2026/11/21/CHANGELOG.1795255260"}}
	if diff := cmp.Diff(want, indexed(t, dir)); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"f1", "f2"}, names(t, filepath.Join(dir, sealedName(start+60)))); diff != "" {
		t.Errorf("sealed tail (-want +got):\n%s", diff)
	}
}
