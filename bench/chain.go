package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/changelog"
)

// chain runs a workload in a place, for the round; those before 1 do not count. What a
// step does wrong goes to its cell, and the steps after it, which build on it, are
// not run. An error is of the benchmark itself.
func (e *overhead) chain(ctx context.Context, p *place, w *workload, rows []*Row, round int) error {
	e.runs++
	name := fmt.Sprintf("run-%05d", e.runs)
	r := &run{place: p, dir: filepath.Join(p.dir, name), truth: filepath.Join(p.truth, name), home: e.home}
	err := os.Mkdir(r.dir, 0o755)
	if err == nil && w.setup != nil {
		err = w.setup(r)
	}
	for i, st := range w.steps {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e.opts.Progress(e.done, e.total, w.title+": "+st.name+": "+p.Name)
		e.done++
		cell := rows[i].Cells[p.Name]
		if cell == nil {
			cell = &Cell{}
			rows[i].Cells[p.Name] = cell
		}
		if err != nil {
			if cell.Failed == "" {
				cell.Failed = "not run: " + err.Error()
			}
			continue
		}
		var s Sample
		if s, err = e.measure(ctx, r, st); err != nil {
			if cell.Failed == "" {
				cell.Failed = err.Error()
			}
			cell.Samples = nil
			err = fmt.Errorf("%s before it failed", st.name)
			continue
		}
		if round > 0 && cell.Failed == "" {
			s.Round = round
			cell.Samples = append(cell.Samples, s)
		}
	}
	if p.proc != nil {
		if _, err := p.cpu(); err != nil {
			return err // nothing more can be measured there
		}
	}
	return removeRun(r)
}

// removeRun removes what a run made, its marks too.
func removeRun(r *run) error {
	if err := os.RemoveAll(r.dir); err != nil {
		return fmt.Errorf("bench: target %s: %w", r.place.Name, err)
	}
	marks, err := filepath.Glob(filepath.Join(r.place.dir, markPrefix+"*"))
	for _, m := range marks {
		err = errors.Join(err, os.Remove(m))
	}
	if err != nil {
		return fmt.Errorf("bench: target %s: %w", r.place.Name, err)
	}
	return nil
}

// measure does one step: prepare, work on the clock, check.
func (e *overhead) measure(ctx context.Context, r *run, st *step) (s Sample, err error) {
	p := r.place
	if err := e.prepare(ctx, r, st); err != nil {
		return s, err
	}
	e.runs++
	begin, end := fmt.Sprintf("%s%05d-a", markPrefix, e.runs), fmt.Sprintf("%s%05d-b", markPrefix, e.runs)
	if err := p.begin(ctx, begin); err != nil {
		return s, err
	}
	served, err := p.cpu()
	if err != nil {
		return s, err
	}
	if s, err = runThreads(max(1, st.threads), func(t int) (int, error) { return st.work(r, t) }); err != nil {
		return s, err
	}
	// What the work leaves to do is part of its cost: closing, xtimes, sealing.
	t, err := p.end(ctx, end)
	if err != nil {
		return s, err
	}
	if err := p.quiet(ctx); err != nil {
		return s, err
	}
	now, err := p.cpu()
	if err != nil {
		return s, err
	}
	s.Serve, s.Bytes = now-served, st.bytes
	return s, check(r, st, t, &s)
}

// prepare gets the step's place ready.
func (e *overhead) prepare(ctx context.Context, r *run, st *step) error {
	if st.before != nil {
		if err := st.before(r); err != nil {
			return err
		}
	}
	if err := r.place.seal(ctx); err != nil {
		return err
	}
	if st.cold {
		if err := dropNames(r.place.truth); err != nil {
			return err
		}
	}
	return r.place.quiet(ctx)
}

// check tells whether the step did its work and left its records; t is nil where
// there are none.
func check(r *run, st *step, t *tally, s *Sample) error {
	if s.Ops == 0 || st.ops > 0 && s.Ops != st.ops {
		return fmt.Errorf("the work was not done: %d operations, want %d", s.Ops, st.ops)
	}
	if st.check != nil {
		if err := st.check(r); err != nil {
			return fmt.Errorf("the work was not done: %w", err)
		}
	}
	if t == nil {
		return nil
	}
	s.Records, s.RecordBytes = t.count, t.bytes
	want := records{}
	if st.leaves != nil {
		want = st.leaves(r)
	}
	return want.check(t)
}

// begin cuts the stream of records: what comes after is the step's.
func (p *place) begin(ctx context.Context, mark string) error {
	if err := os.Mkdir(filepath.Join(p.dir, mark), 0o755); err != nil || p.log == nil {
		return err
	}
	return p.log.from(ctx, mark)
}

// end seals the step's records and returns them; nil where there are none.
func (p *place) end(ctx context.Context, mark string) (*tally, error) {
	if err := os.Mkdir(filepath.Join(p.dir, mark), 0o755); err != nil || p.log == nil {
		return nil, err
	}
	if err := p.rollover(); err != nil {
		return nil, err
	}
	return p.log.upTo(ctx, mark, p.encoding())
}

// encoding of the records that the place leaves.
func (p *place) encoding() changelog.Encoding {
	if slices.Contains(p.Target.Mount, "--encoding=binary") {
		return changelog.Binary
	}
	return changelog.ASCII
}

// dropNames has the kernel forget all names and attributes that it can, on the
// whole machine: there is no way to ask for less.
func dropNames(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	// Inodes not yet written can't be forgotten.
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("syncfs %q: %w", dir, err)
	}
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0)
}
