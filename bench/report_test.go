package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sampleReport has a row for each of sizes, in which bare takes a microsecond and
// the mount as many as told in each round, and a step that failed.
func sampleReport(sizes []int64, micros ...float64) *Report {
	ts, err := ParseTargets([]string{"mount"}, nil)
	if err != nil {
		panic(err) // it is known
	}
	r := &Report{
		Format: reportFormat, Kind: "overhead", Command: []string{"georep", "bench", "overhead", "--dir", "<x>"},
		Began: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC), Took: time.Minute, Rounds: len(micros),
		Machine: Machine{CPU: "a CPU", CPUs: 2, Memory: 1 << 30, Kernel: "Linux", Versions: map[string]string{"go": "go1.26"}},
		Targets: ts,
	}
	t := Table{Title: "By size of the file", Targets: []string{Bare, "mount"}, Memory: map[string]int64{"mount": 20 << 20}}
	for _, size := range sizes {
		row := &Row{Step: "write-files", Params: []Param{{"size", size}}, Cells: map[string]*Cell{Bare: {}, "mount": {}}}
		for i, us := range micros {
			for name, wall := range map[string]float64{Bare: 1, "mount": us} {
				d := time.Duration(wall * float64(time.Microsecond))
				c := row.Cells[name]
				c.Samples = append(c.Samples, Sample{Round: i + 1, Wall: 100 * d, Work: d, Serve: d, Ops: 100, Bytes: 100 * size, RecordBytes: 200})
			}
		}
		t.Rows = append(t.Rows, row)
	}
	t.Rows = append(t.Rows, &Row{Step: "create", Params: []Param{{"threads", 1}}, Cells: map[string]*Cell{
		Bare: {Samples: []Sample{{Round: 1, Wall: time.Second, Ops: 10}}}, "mount": {Failed: "records: 0 E <CREATE> records, want 10"},
	}})
	r.Tables = []Table{t}
	return r
}

func TestReportForms(t *testing.T) {
	r := sampleReport([]int64{1 << 10, 1 << 20}, 8, 10, 12)
	path := filepath.Join(t.TempDir(), "r.json")
	if err := r.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadReport(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, got, cmp.FilterPath(func(p cmp.Path) bool {
		f, ok := p.Last().(cmp.StructField)
		return ok && (f.Name() == "records" || f.Name() == "loopback") // of no use any more
	}, cmp.Ignore())); d != "" {
		t.Errorf("read back (-written +read):\n%s", d)
	}

	var text, html strings.Builder
	if err := errors.Join(got.WriteTable(&text), got.WriteHTML(&html)); err != nil {
		t.Fatal(err)
	}
	md := filepath.Join(filepath.Dir(path), "R.md")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "overhead-old.svg"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteMarkdown(md, "How.", got); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(md)
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range map[string]string{"table": text.String(), "page": html.String(), "Markdown": string(b)} {
		for _, want := range []string{"0.10 (0.083–0.12)", "FAILED", "20 MiB", "write-files size=1MiB"} {
			if !strings.Contains(form, want) {
				t.Errorf("the %s has no %q:\n%s", name, want, form)
			}
		}
	}
	if strings.Contains(html.String(), "<CREATE>") || strings.Contains(html.String(), "<x>") {
		t.Error("the page takes text for tags")
	}
	svgs, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.svg"))
	if err != nil || len(svgs) != len(got.pictures()) {
		t.Errorf("pictures %q (%v), want %d and none of before", svgs, err, len(got.pictures()))
	}
}

// Each picture is well-formed and has no number that is none.
func TestPicturesAreXML(t *testing.T) {
	pics := sampleReport([]int64{1 << 10, 1 << 20}, 8, 10, 12).pictures()
	if len(pics) == 0 {
		t.Fatal("no pictures")
	}
	for _, p := range pics {
		d := xml.NewDecoder(strings.NewReader(p.svg))
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", p.name, err, p.svg)
			}
			if e, ok := tok.(xml.StartElement); ok {
				for _, a := range e.Attr {
					if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
						t.Errorf("%s: <%s %s=%q>", p.name, e.Name.Local, a.Name.Local, a.Value)
					}
				}
			}
		}
	}
}

func TestReadReportOfAnotherFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	for content, want := range map[string]string{`{"format":9}`: "has format 9, want 1", `[`: "unexpected end"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadReport(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", content, err, want)
		}
	}
}

func TestCompare(t *testing.T) {
	sizes := []int64{4096}
	before := sampleReport(sizes, 10, 10.5, 11, 10.2, 9.9)
	for _, c := range []struct {
		name  string
		after *Report
		real  bool
		says  string
	}{
		{"twice as fast", sampleReport(sizes, 5, 5.2, 5.1, 4.9, 5), true, "faster"},
		{"half as fast", sampleReport(sizes, 20, 22, 21, 20.5, 20), true, "slower"},
		{"noise", sampleReport(sizes, 9, 12, 10.1, 10.7, 9.8), false, "0 of 3 figures changed"},
		{"too few rounds", sampleReport(sizes, 5, 5), false, "it never does"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got *Change
			for _, ch := range Compare(before, c.after) {
				if ch.Target == "mount" && ch.Row == "write-files size=4KiB" {
					got = &ch
				}
			}
			if got == nil || got.Real() != c.real {
				t.Fatalf("%+v, want real %v", got, c.real)
			}
			if f := got.After.Median / got.Before.Median; math.Abs(f-got.Factor) > 1e-9 {
				t.Errorf("factor %v, want %v", got.Factor, f)
			}
			var b strings.Builder
			if err := WriteComparison(&b, before, c.after); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(b.String(), c.says) {
				t.Errorf("it does not say %q:\n%s", c.says, b.String())
			}
		})
	}
}

func TestParseTargets(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		names, dirs []string
		want        string // the names, or part of the error
	}{
		{nil, nil, "bare"},
		{[]string{"mount", "bare"}, []string{"gluster=" + dir}, "bare mount gluster"},
		{[]string{"nfs"}, nil, `no target "nfs"`},
		{[]string{"mount", "mount"}, nil, "named twice"},
		{nil, []string{dir}, "want NAME=DIR"},
		{nil, []string{"x=" + dir + "/none"}, "no such file"},
	} {
		ts, err := ParseTargets(c.names, c.dirs)
		var names []string
		for _, t := range ts {
			names = append(names, t.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != c.want || !strings.Contains(got, c.want) {
			t.Errorf("%q %q: %s, want %s", c.names, c.dirs, got, c.want)
		}
	}
}
