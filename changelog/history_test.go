package changelog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeIndex makes an HTIME file of the given paths below dir, and the changelogs
// among them.
func writeIndex(t *testing.T, dir string, begin int64, paths ...string) {
	t.Helper()
	var b []byte
	for _, p := range paths {
		b = append(append(b, filepath.Join(dir, p)...), 0)
	}
	if err := os.MkdirAll(filepath.Join(dir, "htime"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "htime", fmt.Sprintf("HTIME.%d", begin)), b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if _, empty, ok := parseSealedBase(filepath.Base(p)); ok && !empty {
			writeChangelog(t, filepath.Join(dir, p))
		}
	}
}

func writeChangelog(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, AppendRecord(AppendHeader(nil, ASCII), entry(1), ASCII), 0o600); err != nil {
		t.Fatal(err)
	}
}

func openHistory(t *testing.T, dir string) *History {
	t.Helper()
	h, err := OpenHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// paths are those of the slices selected, below dir.
func selected(t *testing.T, h *History, dir string, from, to int64) []string {
	t.Helper()
	s, err := h.Select(from, to)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, slice := range s.Slices {
		rel, err := filepath.Rel(dir, slice.Path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(slice.Path); err != nil {
			rel += " missing"
		}
		got = append(got, rel)
	}
	return got
}

// Releases from before the day directories, and a brick that was upgraded: its
// records have two lengths.
func TestHistoryWithoutDayDirectories(t *testing.T) {
	dir := t.TempDir()
	writeIndex(t, dir, 1795255200, "CHANGELOG.1795255215", "changelog.1795255230", "2026/11/21/CHANGELOG.1795255245")
	writeChangelog(t, filepath.Join(dir, "CHANGELOG.1795255225")) // passed over by the index
	want := []string{"CHANGELOG.1795255215", "CHANGELOG.1795255225", "2026/11/21/CHANGELOG.1795255245"}
	if diff := cmp.Diff(want, selected(t, openHistory(t, dir), dir, 1795255200, 1795255300)); diff != "" {
		t.Errorf("changelogs (-want +got):\n%s", diff)
	}
}

// A brick whose changelogs are elsewhere (changelog-dir): the index knows where.
func TestHistoryFollowsRecordedPaths(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	writeIndex(t, elsewhere, 1795255200, "2026/11/21/CHANGELOG.1795255215")
	if err := os.Rename(filepath.Join(elsewhere, "htime"), filepath.Join(dir, "htime")); err != nil {
		t.Fatal(err)
	}
	want := []string{"2026/11/21/CHANGELOG.1795255215"}
	if diff := cmp.Diff(want, selected(t, openHistory(t, dir), elsewhere, 1795255200, 1795255215)); diff != "" {
		t.Errorf("changelogs (-want +got):\n%s", diff)
	}
	// A changelog of the same name here comes first: the brick was moved.
	writeChangelog(t, filepath.Join(dir, want[0]))
	if diff := cmp.Diff(want, selected(t, openHistory(t, dir), dir, 1795255200, 1795255215)); diff != "" {
		t.Errorf("changelogs (-want +got):\n%s", diff)
	}
}

func TestHistorySelect(t *testing.T) {
	dir := t.TempDir()
	day := "2026/11/21/"
	writeIndex(t, dir, 1795255200, day+"CHANGELOG.1795255215", day+"changelog.1795255230", day+"CHANGELOG.1795255245")
	writeIndex(t, dir, 1795255300, day+"CHANGELOG.1795255315")
	writeIndex(t, dir, 1795255400) // nothing sealed yet
	if err := os.Remove(filepath.Join(dir, day+"CHANGELOG.1795255245")); err != nil {
		t.Fatal(err)
	}
	// Behind the last one listed: it may be incomplete, or belong to the gap.
	writeChangelog(t, filepath.Join(dir, day+"CHANGELOG.1795255250"))
	for _, name := range []string{"HTIME", "HTIME.x", "HTIME.-1", "other"} {
		if err := os.WriteFile(filepath.Join(dir, "htime", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := openHistory(t, dir)
	for _, test := range []struct {
		from, to int64
		want     []string
		end      int64
		partial  bool
		err      error
	}{
		{1795255200, 1795255200, []string{"215"}, 1795255215, false, nil},
		{1795255200, 1795255245, []string{"215", "245 missing"}, 1795255245, false, nil},
		{1795255216, 1795255229, nil, 1795255230, false, nil},
		{1795255244, 1795255265, []string{"245 missing"}, 1795255245, false, nil},
		{1795255244, 1795255266, []string{"245 missing"}, 1795255245, true, nil},
		{1795255245, 1795255245, nil, 0, false, ErrNotCovered},
		{1795255299, 1795255400, nil, 0, false, ErrNotCovered},
		{1795255300, 1795255315, []string{"315"}, 1795255315, false, nil},
		{1795255400, 1795255500, nil, 0, false, ErrNotCovered},
		{1795255301, 1795255300, nil, 0, false, ErrRange},
	} {
		s, err := h.Select(test.from, test.to)
		if !errors.Is(err, test.err) {
			t.Errorf("%d to %d: error %v, want %v", test.from, test.to, err, test.err)
			continue
		}
		if err != nil {
			continue
		}
		for i, p := range test.want {
			test.want[i] = day + "CHANGELOG.1795255" + p
		}
		if diff := cmp.Diff(test.want, selected(t, h, dir, test.from, test.to)); diff != "" {
			t.Errorf("%d to %d (-want +got):\n%s", test.from, test.to, diff)
		}
		if s.End != test.end || s.Partial != test.partial {
			t.Errorf("%d to %d: end %d, partial %v; want %d, %v", test.from, test.to, s.End, s.Partial, test.end, test.partial)
		}
	}
	// All there is, for who wants to see it.
	all, err := h.Slices(0)
	if err != nil {
		t.Fatal(err)
	}
	want := []Sealed{
		{Stamp: 1795255215, Path: filepath.Join(dir, day, "CHANGELOG.1795255215"), Indexed: true},
		{Stamp: 1795255230, Empty: true, Indexed: true},
		{Stamp: 1795255245, Path: filepath.Join(dir, day, "CHANGELOG.1795255245"), Indexed: true},
		{Stamp: 1795255250, Path: filepath.Join(dir, day, "CHANGELOG.1795255250")},
	}
	if diff := cmp.Diff(want, slices.Collect(all)); diff != "" {
		t.Errorf("slices (-want +got):\n%s", diff)
	}
}

func TestHistoryWithoutIndex(t *testing.T) {
	h := openHistory(t, t.TempDir())
	if _, err := h.Select(1, 2); !errors.Is(err, ErrNotCovered) || len(h.Spans()) > 0 {
		t.Errorf("%d spans, error %v, want none, ErrNotCovered", len(h.Spans()), err)
	}
}
