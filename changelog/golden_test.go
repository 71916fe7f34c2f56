package changelog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// goldenDir holds what GlusterFS 10.3 wrote; see its README.
const goldenDir = "../testdata/golden"

// goldenFiles are the files that match below goldenDir, at least one.
func goldenFiles(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(goldenDir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data for %s: %v", pattern, err)
	}
	return files
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parsedAndEncoded reads a changelog and returns it as PARSED lines, and
// written again by our encoder.
func parsedAndEncoded(t testing.TB, path string) (parsed, encoded []byte) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(readFile(t, path)), path)
	if err != nil {
		t.Fatal(err)
	}
	encoded = AppendHeader(nil, r.Encoding())
	for rec, err := r.Next(); err == nil; rec, err = r.Next() {
		parsed = rec.AppendParsed(parsed)
		encoded = AppendRecord(encoded, rec, r.Encoding())
	}
	return parsed, encoded
}

func TestGoldenEncodedAgainIsTheSame(t *testing.T) {
	for _, pattern := range []string{"*/changelogs/2026/*/*/CHANGELOG.*", "*/changelogs/CHANGELOG"} {
		for _, path := range goldenFiles(t, pattern) {
			if _, got := parsedAndEncoded(t, path); !bytes.Equal(got, readFile(t, path)) {
				t.Errorf("%s: encoded again it differs:\n%q\nwant\n%q", path, got, readFile(t, path))
			}
		}
	}
}

// libgfchangelog's own output, live and from history.
func TestGoldenParsed(t *testing.T) {
	for _, dir := range []string{"ascii/parsed", "ascii/parsed-history.*", "binary/parsed"} {
		for _, want := range goldenFiles(t, dir+"/CHANGELOG.*") {
			encoding, _, _ := strings.Cut(dir, "/")
			got, _ := parsedAndEncoded(t, filepath.Join(goldenDir, encoding, "changelogs/2026/11/21", filepath.Base(want)))
			if diff := cmp.Diff(string(readFile(t, want)), string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", want, diff)
			}
			for line := range bytes.Lines(readFile(t, want)) {
				r, err := ParseParsed(line)
				if err != nil {
					t.Fatalf("%s: %q: %v", want, line, err)
				}
				if again := r.AppendParsed(nil); !bytes.Equal(again, line) {
					t.Errorf("%s: line %q is read as %q", want, line, again)
				}
			}
		}
	}
}

// Both encodings tell the same, once GFIDs are numbered by appearance.
func TestGoldenNormalized(t *testing.T) {
	uuid := regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	for _, encoding := range []string{"ascii", "binary"} {
		numbers := map[string]string{"00000000-0000-0000-0000-000000000001": "ROOT"}
		var got strings.Builder
		for _, path := range goldenFiles(t, encoding+"/changelogs/2026/11/21/CHANGELOG.*") {
			parsed, _ := parsedAndEncoded(t, path)
			got.WriteString(uuid.ReplaceAllStringFunc(string(parsed), func(g string) string {
				if numbers[g] == "" {
					numbers[g] = fmt.Sprintf("G%d", len(numbers))
				}
				return numbers[g]
			}))
		}
		want := string(readFile(t, filepath.Join(goldenDir, encoding, "normalized.txt")))
		if diff := cmp.Diff(want, got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", encoding, diff)
		}
	}
}

// goldenCopy is a brick's changelogs directory as GlusterFS left it, with its xattrs.
func goldenCopy(t testing.TB, encoding string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(goldenDir, encoding, "changelogs"))); err != nil {
		t.Fatal(err)
	}
	file, n := "", 0
	for line := range strings.Lines(string(readFile(t, filepath.Join(goldenDir, encoding, "htime-xattrs.txt")))) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "# file: "); ok {
			file = filepath.Join(dir, "htime", name)
		}
		key, value, ok := strings.Cut(line, `="`)
		if !ok {
			continue
		}
		if err := unix.Setxattr(file, key, []byte(strings.TrimSuffix(value, `"`)), 0); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3 {
		t.Fatalf("%d xattrs set, want 3", n)
	}
	return dir
}

// The xattr of the first index counts 34 and 35: GlusterFS's mistake after a restart.
func TestGoldenIndexCounts(t *testing.T) {
	for encoding, want := range map[string]map[string]int{
		"ascii":  {"HTIME.1795228773": 30, "HTIME.1795228912": 30},
		"binary": {"HTIME.1795228773": 31, "HTIME.1795228918": 30},
	} {
		h, err := OpenHistory(goldenCopy(t, encoding))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, s := range h.Spans() {
			got[s.Name] = s.Count()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", encoding, diff)
		}
	}
}

// historyQuery is one call of gf_history_changelog and its answer.
type historyQuery struct {
	htime              string
	start, end         int64
	ret                int
	actualEnd          int64
	published, records int // records: how many the index had at least
}

func historyQueries(t *testing.T, encoding string) []historyQuery {
	t.Helper()
	var all []historyQuery
	var q historyQuery
	sc := bufio.NewScanner(bytes.NewReader(readFile(t, filepath.Join(goldenDir, encoding, "history.txt"))))
	for sc.Scan() {
		line := sc.Text()
		var x string
		if _, err := fmt.Sscanf(line, "== %s xattr %s records %d", &q.htime, &x, &q.records); err == nil {
			continue
		}
		if n, _ := fmt.Sscanf(line, "register+history(%d,%d) -> ret %d actual_end %d", &q.start, &q.end, &q.ret, &q.actualEnd); n == 4 {
			continue
		}
		if n, _ := fmt.Sscanf(line, "published %d", &q.published); n == 1 {
			all = append(all, q)
		}
	}
	if len(all) != 16 {
		t.Fatalf("%d queries in history.txt, want 16", len(all))
	}
	return all
}

// cutIndex leaves of an index what it had when GlusterFS was asked.
func cutIndex(t *testing.T, dir string, q historyQuery) {
	t.Helper()
	path := filepath.Join(dir, "htime", q.htime)
	recs := bytes.SplitAfter(readFile(t, path), []byte{0})
	keep := bytes.Join(recs[:q.records], nil)
	for _, rec := range recs[q.records:] {
		stamp, _, _ := parseSealedBase(filepath.Base(strings.TrimSuffix(string(rec), "\x00")))
		if stamp <= q.actualEnd {
			keep = append(keep, rec...)
		}
	}
	if err := os.WriteFile(path, keep, 0o644); err != nil {
		t.Fatal(err)
	}
}

// What is published of binary changelogs is not compared: 10.3's library cannot
// decode them and answers -1, or publishes nonsense.
func TestGoldenHistory(t *testing.T) {
	for _, encoding := range []string{"ascii", "binary"} {
		for _, q := range historyQueries(t, encoding) {
			name := fmt.Sprintf("%s/%s/%d-%d", encoding, q.htime, q.start, q.end)
			dir := goldenCopy(t, encoding)
			cutIndex(t, dir, q)
			h, err := OpenHistory(dir)
			if err != nil {
				t.Fatal(err)
			}
			got := q
			s, err := h.SelectIndexed(q.start, q.end)
			switch {
			case errors.Is(err, ErrNotCovered):
				got.ret, got.actualEnd, got.published = -2, 0, 0
			case err != nil:
				t.Errorf("%s: %v", name, err)
				continue
			default:
				got.ret, got.actualEnd, got.published = 0, s.End, len(s.Slices)
				if s.Partial {
					got.ret = 1
				}
			}
			if encoding == "binary" {
				got.published = q.published
			}
			if got != q {
				t.Errorf("%s: got %+v, want %+v", name, got, q)
			}
		}
	}
}

// Beyond GlusterFS: the slice that its kill -9 left on disk and not in the index.
func TestGoldenUnindexedSliceIsFound(t *testing.T) {
	for encoding, want := range map[string]int64{"ascii": 1795228899, "binary": 1795228905} {
		h, err := OpenHistory(goldenCopy(t, encoding))
		if err != nil {
			t.Fatal(err)
		}
		spans := h.Spans()
		s, err := h.Select(spans[0].Start, spans[0].End)
		if err != nil {
			t.Fatal(err)
		}
		var got int64
		for _, slice := range s.Slices {
			if !slice.Indexed {
				got = slice.Stamp
			}
		}
		if got != want {
			t.Errorf("%s: unindexed slice %d, want %d", encoding, got, want)
		}
	}
}
