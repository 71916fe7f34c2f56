package fusefs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/georep/georep/changelog"
)

const goldenDir = "../testdata/golden"

// goldenPhase is what GlusterFS recorded of one phase of the operations.
type goldenPhase struct {
	Phase   string
	Records []string
}

// The operations that GlusterFS 10.3 carried out when the golden files were made,
// carried out through a mount, leave the records that GlusterFS made.
//
// Compared per phase: E records in order; D and M records as a set, since the end
// of a file that was written past us is told to us after its close(2) returned,
// and GlusterFS's write-behind moved its D records too. Within one changelog no
// D or M record of a class is there twice, in the order of neither.
func TestGolden(t *testing.T) {
	for _, e := range []changelog.Encoding{changelog.ASCII, changelog.Binary} {
		t.Run("encoding="+e.String(), func(t *testing.T) {
			eachMode(t, func(t *testing.T, s setup) {
				s.changelog.Encoding = e
				testGolden(t, s)
			})
		})
	}
}

// beyond is what we record and GlusterFS does not, by phase, on purpose.
var beyond = map[string]map[string]string{
	"03-data": {
		"D G16": "fallocate changes what a file holds",
	},
	"04b-data-nolog": {
		"D G53": "fallocate changes what a file holds",
		// G54, whose hole GlusterFS did not record, was written in the same phase.
	},
	"07-unlink": {
		"M G66 SETATTR": "fchmod of a file without a name is an error on GlusterFS, and none on a directory",
	},
}

// refused are the operations that fail, by number, and how: on GlusterFS too,
// where besides 171, fchmod of a file without a name, is refused.
var refused = map[int]string{
	116: "ENODATA", 151: "ENOENT", 152: "EISDIR", 173: "ENOTEMPTY", 175: "ENOENT", 176: "EEXIST",
	177: "EEXIST", 178: "EEXIST", 179: "EEXIST", 180: "ENOTDIR", 206: "EACCES",
}

// notOurs says why a golden record has no counterpart here, "" if it has one.
func notOurs(phase, record string) string {
	switch {
	case phase == "00-before":
		return "made by GlusterFS's client when it first sees a volume"
	case strings.Contains(record, ".ready") || record == "M G102 SETATTR":
		return "made by GlusterFS when a brick starts"
	case phase == "16-aux" && regexp.MustCompile(`G10[89]|G110|aux`).MatchString(record):
		return "made through GlusterFS's aux-gfid mount, which is not a mount of ours"
	}
	return ""
}

func testGolden(t *testing.T, s setup) {
	ops := readJSON[golden](t, filepath.Join(goldenDir, "ops.jsonl"))
	want := map[string][]string{}
	var order []string
	for _, p := range readJSON[goldenPhase](t, filepath.Join(goldenDir, "ascii/phases.jsonl")) {
		order = append(order, p.Phase)
		for _, r := range p.Records {
			if notOurs(p.Phase, r) == "" {
				want[p.Phase] = append(want[p.Phase], r)
			}
		}
		for r := range beyond[p.Phase] {
			want[p.Phase] = append(want[p.Phase], r)
		}
	}
	got := newRun(t, s, ops).run()
	wantRun := number(order, want)
	gotRun := number(order, got)
	for _, phase := range order {
		for _, class := range []string{"E", "D M"} {
			if diff := cmp.Diff(wantRun.only(phase, class), gotRun.only(phase, class)); diff != "" {
				t.Errorf("phase %s, records %s (-golden +ours):\n%s", phase, class, diff)
			}
		}
	}
}

// run carries out the operations and collects the records per phase.
type run struct {
	t    *testing.T
	s    setup
	ops  []golden
	m    *mounted
	seen map[string]bool // sealed changelogs that were read
	got  map[string][]string
}

func newRun(t *testing.T, s setup, ops []golden) *run {
	m := mount(t, s)
	s.brick = m.brick.Path()
	return &run{t: t, s: s, ops: ops, m: m, seen: map[string]bool{}, got: map[string][]string{}}
}

func (r *run) run() map[string][]string {
	t := r.t
	abs, err := filepath.Abs(filepath.Join(goldenDir, "ops.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	c := child("/", "golden", r.m.dir, abs)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	phase := r.ops[0].Phase
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var n, open int
		var how string
		if c, _ := fmt.Sscanf(lines.Text(), "= %d %s", &n, &how); c == 2 {
			want := "ok"
			if e := refused[n]; e != "" {
				want = e
			}
			if how != want {
				t.Errorf("operation %d: %s, want %s: %+v", n, how, want, r.ops[n-1])
			}
			continue
		}
		if c, _ := fmt.Sscanf(lines.Text(), "%d %d", &n, &open); c != 2 {
			t.Fatalf("the program said %q", lines.Text())
		}
		o := &r.ops[n-1]
		r.m.waitOpen(open)
		r.serve(o, &phase)
		if _, err := fmt.Fprintln(in, "go on"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	r.roll(phase)
	r.m.unmount()
	r.collect(phase)
	return r.got
}

// serve is what happens to the brick in between operations.
func (r *run) serve(o *golden, phase *string) {
	switch {
	case o.Op == "sync":
		r.roll(*phase)
		*phase = o.Phase
	case o.Op == "sleep" && o.Phase == "11-long-writer":
		before := len(r.got[*phase])
		r.roll(*phase)
		if len(r.got[*phase]) == before {
			r.t.Errorf("operation %d: no record of a file that is kept open, in a slice in which it was written", o.N-1)
		}
	case o.Cmd == "set changelog.capture-del-path on", o.Cmd == "set changelog.capture-del-path off":
		r.m.srv.Translator().SetCaptureDelPath(strings.HasSuffix(o.Cmd, "on"))
	case o.Cmd == "killbrick", o.Cmd == "set changelog.changelog off", o.Cmd == "set changelog.changelog on":
		// The end of a mount that seals nothing is tested elsewhere.
		r.m.unmount()
		r.s.noChangelog = strings.HasSuffix(o.Cmd, "off")
		r.m = mountAt(r.t, r.s, r.m.dir)
		r.collect(*phase)
	}
}

// roll seals the changelog and adds its records to those of the phase.
func (r *run) roll(phase string) {
	if l := r.m.srv.Translator().Log(); l != nil {
		if err := l.Rollover(); err != nil {
			r.t.Fatal(err)
		}
	}
	r.collect(phase)
}

func (r *run) collect(phase string) {
	dir := filepath.Join(r.m.brick.Path(), ".glusterfs/changelogs")
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), "CHANGELOG.") && !r.seen[path] {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Sort(paths)
	for _, path := range paths {
		r.seen[path] = true
		once := map[string]bool{}
		err := changelog.ParseFile(path, func(rec *changelog.Record) error {
			line := visible(strings.TrimSuffix(string(rec.AppendParsed(nil)), "\n"))
			r.got[phase] = append(r.got[phase], line)
			if rec.Type != changelog.Entry {
				class := line
				if rec.Fop == changelog.FopRemovexattr {
					class = strings.Replace(line, "REMOVEXATTR", "SETXATTR", 1)
				}
				if once[class] {
					r.t.Errorf("%s: %q is there twice", path, line)
				}
				once[class] = true
			}
			return nil
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// waitOpen waits until the kernel has told of all closes but n: it does so after
// close(2) has returned.
func (m *mounted) waitOpen(n int) {
	m.t.Helper()
	m.until(fmt.Sprintf("%d files open", n), func() bool { return m.openFiles() == n && m.writers() <= n })
}

// writers counts the files that are open for writing, or watched for a mapping
// that is left of one, in what the mount keeps of them on the brick.
func (m *mounted) writers() (n int) {
	set, err := os.ReadFile(filepath.Join(m.brick.Path(), ".glusterfs/georep/writers"))
	if err != nil {
		m.t.Fatal(err)
	}
	for g := range slices.Chunk(set, 16) {
		if !bytes.Equal(g, make([]byte, 16)) {
			n++
		}
	}
	return n
}

// until waits for what must become true soon.
func (m *mounted) until(what string, is func() bool) {
	m.t.Helper()
	for end := time.Now().Add(within); !is(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			m.t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func (m *mounted) openFiles() int {
	f := &m.srv.fs.files
	f.mu.RLock()
	defer f.mu.RUnlock()
	n := 0
	for _, h := range f.open {
		if h != nil {
			n++
		}
	}
	return n
}

// numbered is records per phase with GFIDs numbered in order of their first E
// record, one numbering for all phases.
type numbered map[string][]string

var anyGFID = regexp.MustCompile(`\bG[0-9]+\b|[0-9a-f]{8}-[0-9a-f-]{27}`)

func number(order []string, records map[string][]string) numbered {
	names := map[string]string{"00000000-0000-0000-0000-000000000001": "ROOT"}
	rename := func(g string) string {
		if names[g] == "" {
			names[g] = fmt.Sprintf("#%d", len(names))
		}
		return names[g]
	}
	for _, p := range order {
		for _, r := range records[p] {
			if r[0] == 'E' {
				anyGFID.ReplaceAllStringFunc(r, rename)
			}
		}
	}
	n := numbered{}
	for _, p := range order {
		for _, r := range records[p] {
			n[p] = append(n[p], anyGFID.ReplaceAllStringFunc(r, rename))
		}
	}
	return n
}

// only is the records of one phase: "E" in order, others as a set.
func (n numbered) only(phase, class string) []string {
	var out []string
	for _, r := range n[phase] {
		if strings.ContainsRune(class, rune(r[0])) {
			out = append(out, r)
		}
	}
	if class != "E" {
		slices.Sort(out)
		out = slices.Compact(out)
	}
	return out
}

// visible is s with each byte that is no text as the golden files have it.
func visible(s string) string {
	var b strings.Builder
	for i, c := range s {
		if c == utf8.RuneError && s[i] != "\uFFFD"[0] {
			fmt.Fprintf(&b, `\udc%02x`, s[i])
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}

func readJSON[T any](t *testing.T, path string) []T {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Bytes that are no text stand there as half surrogates, which Go would make
	// all the same: they stay escaped, as visible makes ours.
	text = bytes.ReplaceAll(text, []byte(`\udc`), []byte(`\\udc`))
	var all []T
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var v T
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, v)
	}
	return all
}
