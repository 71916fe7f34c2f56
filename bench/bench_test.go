package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// georep is the program that mounts, built for the tests.
var georep string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "georep-bench-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		georep = filepath.Join(dir, "georep")
		if out, err := exec.Command("go", "build", "-o", georep, "../cmd/georep").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: build georep: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// tiny is as little work as shows that it is done.
var tiny = scale{
	large: 1 << 20, randomOps: 50, appends: 20, fsyncs: 5,
	sizes: []int64{1000, 300 << 10}, sizesTotal: 400 << 10, sizesFiles: 5,
	treeFiles: 50, gitFiles: 30,
	depths: []int{1, 5}, depthFiles: 5,
	rollovers: []time.Duration{time.Second}, rolloverFiles: 10, rolloverRun: 50 * time.Millisecond, rolloverRounds: 1, sizesRounds: 1,
}

func tinyOptions(t *testing.T, targets ...string) Options {
	t.Helper()
	ts, err := ParseTargets(targets, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Dir: t.TempDir(), Targets: ts, Rounds: 1, Files: 8, Threads: []int{2}, Georep: georep, Version: "test", scale: &tiny,
	}
}

// leavesNothing fails if dir has anything in it, or a mount below it, in the end.
func leavesNothing(t *testing.T, dir string) {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil || len(names) > 0 {
		t.Errorf("%s is left with %v (%v)", dir, names, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left below %s (%v)", dir, err)
	}
}

// Every workload runs in every target, does its work and leaves its records.
func TestOverheadRunsEverything(t *testing.T) {
	o := tinyOptions(t, "mount", "changelog-binary", AllOn, "no-passthrough", Loopback)
	other := t.TempDir()
	dir, err := ParseTargets(nil, []string{"other=" + other})
	if err != nil {
		t.Fatal(err)
	}
	before, err := OtherGeorep("before=" + georep)
	if err != nil {
		t.Fatal(err)
	}
	o.Targets = append(o.Targets, dir[1], before)
	o.Image = "xfs" // in memory: sealing a changelog waits for the disk
	steps := 0
	o.Progress = func(done, total int, next string) { steps = total - done }
	rep, err := Overhead(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if fails := rep.Failures(); len(fails) > 0 {
		t.Errorf("failed:\n%s", strings.Join(fails, "\n"))
	}
	if len(rep.Notes) > 0 {
		t.Errorf("notes: %q", rep.Notes)
	}
	if steps != 0 {
		t.Errorf("%d steps left in the end", steps)
	}
	families := 0
	for _, table := range rep.Tables {
		families++
		for _, row := range table.Rows {
			for _, name := range table.Targets {
				c := row.Cells[name]
				if c == nil || len(c.Samples) != 1 || c.Samples[0].Wall <= 0 || c.Samples[0].Ops <= 0 {
					t.Errorf("%s, %s: %+v, want one sample", row.Name(), name, c)
				}
			}
		}
	}
	if families != len(Families) {
		t.Errorf("%d tables, want %d", families, len(Families))
	}
	leavesNothing(t, o.Dir)
	leavesNothing(t, other)
}

// newTestPlace is one target ready to work in.
func newTestPlace(t *testing.T, name string) (*overhead, *place) {
	t.Helper()
	o := tinyOptions(t, name)
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	e, err := newOverhead(o)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(e.opts.Targets, func(t Target) bool { return t.Name == name })
	p, err := newPlace(t.Context(), e.opts.Targets[i], e.base, e.prog)
	if err != nil {
		t.Fatal(errors.Join(err, e.close()))
	}
	t.Cleanup(func() {
		if err := errors.Join(p.close(), e.close()); err != nil {
			t.Error(err)
		}
	})
	return e, p
}

// allWorkloads are one of each family, small.
func allWorkloads() []*workload {
	return []*workload{
		smallFiles(8, 4096, 2), largeFile(tiny.large, tiny.randomOps, tiny.appends, tiny.fsyncs),
		fileSizes(300<<10, 1<<20, 3), untarTree(50), gitTree(30), deepFiles(5, 3), steadyWork(5, 10*time.Millisecond),
	}
}

// runOne runs w, whose step i works as told, and returns the cells of its steps.
func runOne(t *testing.T, e *overhead, p *place, w *workload, i int, work func(*run, int) (int, error)) []*Cell {
	t.Helper()
	rows := make([]*Row, len(w.steps))
	for j, st := range w.steps {
		rows[j] = &Row{Step: st.name, Params: st.params, Cells: map[string]*Cell{}}
	}
	w.steps[i].work = work
	if err := e.chain(t.Context(), p, w, rows, 1); err != nil {
		t.Fatal(err)
	}
	var cells []*Cell
	for _, r := range rows {
		cells = append(cells, r.Cells[p.Name])
	}
	return cells
}

// wantFailed checks that steps before i have figures, i failed for this reason,
// and those after it were not run.
func wantFailed(t *testing.T, w *workload, cells []*Cell, i int, reason string) {
	t.Helper()
	for j, c := range cells {
		switch {
		case j < i && (c.Failed != "" || len(c.Samples) != 1):
			t.Errorf("%s before it: %+v", w.steps[j].key(), c)
		case j == i && (!strings.Contains(c.Failed, reason) || c.Samples != nil):
			t.Errorf("%s: %+v, want no sample and a failure with %q", w.steps[j].key(), c, reason)
		case j > i && (!strings.HasPrefix(c.Failed, "not run: ") || c.Samples != nil):
			t.Errorf("%s after it: %+v, want not run", w.steps[j].key(), c)
		}
	}
}

// A step that does nothing has no figure, whatever it is.
func TestWorkNotDoneIsFailed(t *testing.T) {
	e, p := newTestPlace(t, Bare)
	for k, some := range allWorkloads() {
		for i := range some.steps {
			w := allWorkloads()[k]
			t.Run(w.steps[i].key(), func(t *testing.T) {
				// It says that it has done all of it, where that can be looked at.
				ops := w.steps[i].ops / max(1, w.steps[i].threads)
				if w.steps[i].check == nil {
					ops--
				}
				cells := runOne(t, e, p, w, i, func(*run, int) (int, error) { return ops, nil })
				wantFailed(t, w, cells, i, "the work was not done")
			})
		}
	}
}

// Work on the brick beneath the mount is done, and not recorded.
func TestRecordsMissingIsFailed(t *testing.T) {
	e, p := newTestPlace(t, AllOn)
	for i, name := range []string{0: "create", 4: "overwrite", 5: "chmod", 7: "rename"} {
		if name == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := smallFiles(8, 4096, 1)
			if w.steps[i].name != name {
				t.Fatalf("step %d is %s", i, w.steps[i].name)
			}
			work := w.steps[i].work
			cells := runOne(t, e, p, w, i, func(r *run, thread int) (int, error) {
				beneath := *r
				last := len(r.files[0]) - 1
				beneath.files = [][]cpath{{newCPath(r.below(r.files[0][last]))}}
				beneath.to = [][]cpath{{newCPath(r.below(r.to[0][last]))}}
				through := *r
				through.files, through.to = [][]cpath{r.files[0][:last]}, [][]cpath{r.to[0][:last]}
				s := &small{per: 8, size: 4096, threads: 1}
				if name == "create" || name == "overwrite" {
					// Its number must be that of the last file.
					c, number := newContent(s.size), s.number(0, last)
					if name == "overwrite" {
						number |= overwritten
					}
					_, err := work(&through, thread)
					return last + 1, errors.Join(err, os.WriteFile(beneath.files[0][0].String(), c.block(number), 0o644))
				}
				_, err := work(&through, thread)
				_, berr := work(&beneath, thread)
				return last + 1, errors.Join(err, berr)
			})
			wantFailed(t, w, cells, i, "records: ")
		})
	}
}

// Records that the work did not ask for are as wrong as missing ones.
func TestRecordsTooManyIsFailed(t *testing.T) {
	e, p := newTestPlace(t, "changelog-binary")
	w := smallFiles(4, 100, 1)
	work := w.steps[0].work
	cells := runOne(t, e, p, w, 0, func(r *run, thread int) (int, error) {
		n, err := work(r, thread)
		return n, errors.Join(err, os.Chmod(r.files[0][0].String(), 0o600))
	})
	wantFailed(t, w, cells, 0, "1 files with an M record, want 0")
}

// When a mount dies its run ends with an error, and nothing is left behind.
func TestMountThatDies(t *testing.T) {
	e, p := newTestPlace(t, "mount")
	w := smallFiles(4, 100, 1)
	rows := make([]*Row, len(w.steps))
	for j := range rows {
		rows[j] = &Row{Cells: map[string]*Cell{}}
	}
	w.steps[1].work = func(*run, int) (int, error) {
		err := p.proc.Process.Kill()
		<-p.gone
		return 0, err
	}
	if err := e.chain(t.Context(), p, w, rows, 1); err == nil || !strings.Contains(err.Error(), "its mount has ended") {
		t.Errorf("%v, want that its mount has ended", err)
	}
	p.proc = nil // it ended as badly as it was told to
}

// Interrupted it unmounts and removes everything.
func TestOverheadInterrupted(t *testing.T) {
	o := tinyOptions(t, "mount", AllOn)
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(done, _ int, _ string) {
		if done == 20 {
			cancel()
		}
	}
	if _, err := Overhead(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	leavesNothing(t, o.Dir)
}

// A target that can't be mounted ends the run, saying what its mount said.
func TestTargetThatDoesNotMount(t *testing.T) {
	o := tinyOptions(t, "mount")
	o.Targets[1].Mount = []string{"--encoding=morse"}
	_, err := Overhead(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "target mount") || !strings.Contains(err.Error(), "morse") {
		t.Errorf("%v, want what the mount said of morse", err)
	}
	leavesNothing(t, o.Dir)
}

func TestImage(t *testing.T) {
	for kind := range imageKinds {
		t.Run(kind, func(t *testing.T) {
			o := tinyOptions(t, AllOn)
			o.Image, o.Workloads = kind, []string{"tree"}
			rep, err := Overhead(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if fails := rep.Failures(); len(fails) > 0 || !strings.HasPrefix(rep.Machine.FS, kind) {
				t.Errorf("failures %q on %q, want none on %s", fails, rep.Machine.FS, kind)
			}
			leavesNothing(t, o.Dir)
		})
	}
}
