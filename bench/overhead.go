package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say what to measure and how long.
type Options struct {
	// Dir is where the bricks are made; it is made if it is missing. What is in it
	// stays, and what is made in it is removed at the end.
	Dir string
	// Image is "xfs" or "ext4" for a file system of its own, in memory; "" for
	// bricks on the file system of Dir.
	Image string
	// Targets to compare; the first must be Bare. Default DefaultTargets.
	Targets []Target
	// Workloads are the families to run. Default all.
	Workloads []string
	// Rounds that count; one more is run before them. Default 5, quick 3.
	Rounds int
	// Files is how many small files each target has. Default 4000, quick 1000.
	Files int
	// Size is that of a small file, in bytes. Default 4096.
	Size int
	// Threads are how many work at once. Default 1, 4, 16; quick 1, 4.
	Threads []int
	// Quick runs a small set.
	Quick bool
	// Georep is the program that mounts. Default: this one.
	Georep string
	// Version is that of this program, for the report.
	Version string
	// Command is the command line, for the report.
	Command []string
	// Progress is told after each step, and what comes next.
	Progress func(done, total int, next string)

	// sizes, depths and rollovers replace the defaults in tests.
	scale *scale
}

// scale is how much work the workloads other than small files are.
type scale struct {
	large                       int64 // bytes
	randomOps, appends, fsyncs  int
	sizes                       []int64
	sizesTotal                  int64 // bytes for each size
	sizesFiles                  int   // at most
	treeFiles, gitFiles         int
	depths                      []int
	depthFiles                  int
	rollovers                   []time.Duration
	rolloverFiles               int
	rolloverRun                 time.Duration
	rolloverRounds, sizesRounds int // at most
	warmUps                     int // rounds before those that count
}

var (
	fullScale = scale{
		large: 256 << 20, randomOps: 50000, appends: 20000, fsyncs: 500,
		sizes:      []int64{1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30},
		sizesTotal: 64 << 20, sizesFiles: 2000,
		treeFiles: 3000, gitFiles: 3000,
		depths: []int{1, 2, 4, 8, 16, 32}, depthFiles: 1500,
		rollovers:     []time.Duration{time.Second, 5 * time.Second, 15 * time.Second, 60 * time.Second},
		rolloverFiles: 1000, rolloverRun: 8 * time.Second, rolloverRounds: 3, sizesRounds: 5, warmUps: 1,
	}
	quickScale = scale{
		large: 64 << 20, randomOps: 10000, appends: 4000, fsyncs: 100,
		sizes:      []int64{1 << 10, 8 << 10, 64 << 10, 512 << 10, 4 << 20, 32 << 20, 256 << 20},
		sizesTotal: 16 << 20, sizesFiles: 500,
		treeFiles: 800, gitFiles: 800,
		depths: []int{1, 8, 32}, depthFiles: 400,
		rollovers:     []time.Duration{time.Second, 15 * time.Second},
		rolloverFiles: 300, rolloverRun: 2 * time.Second, rolloverRounds: 2, sizesRounds: 3, warmUps: 1,
	}
)

// Families are the workloads that Options.Workloads chooses from.
var Families = []string{"small", "large", "sizes", "tree", "git", "depth", "rollover"}

// setDefaults fills in what is zero and checks all of it.
func (o *Options) setDefaults() error {
	def := func(v *int, full, quick int) {
		if *v == 0 {
			*v = full
			if o.Quick {
				*v = quick
			}
		}
	}
	def(&o.Rounds, 5, 3)
	def(&o.Files, 4000, 1000)
	def(&o.Size, 4096, 4096)
	if len(o.Threads) == 0 {
		o.Threads = []int{1, 4, 16}
		if o.Quick {
			o.Threads = []int{1, 4}
		}
	}
	if len(o.Workloads) == 0 {
		o.Workloads = Families
	}
	if o.scale == nil {
		o.scale = &fullScale
		if o.Quick {
			o.scale = &quickScale
		}
	}
	if o.Progress == nil {
		o.Progress = func(int, int, string) {}
	}
	switch {
	case o.Dir == "":
		return errors.New("bench: no directory to work in")
	case o.Rounds < 1, o.Files < 1:
		return fmt.Errorf("bench: %d rounds of %d files, want at least 1", o.Rounds, o.Files)
	case o.Size < 1 || o.Size > contentSize:
		return fmt.Errorf("bench: files of %d bytes, want 1 to %d", o.Size, contentSize)
	case len(o.Targets) == 0 || o.Targets[0].Name != Bare:
		return fmt.Errorf("bench: the first target must be %q", Bare)
	}
	for _, n := range o.Threads {
		if n < 1 || n > 256 {
			return fmt.Errorf("bench: %d threads, want 1 to 256", n)
		}
	}
	for _, w := range o.Workloads {
		if !slices.Contains(Families, w) {
			return fmt.Errorf("bench: no workload %q; there are %s", w, strings.Join(Families, ", "))
		}
	}
	if o.Georep == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		o.Georep = exe
	}
	return nil
}

// session is a set of workloads that the same targets run.
type session struct {
	title     string
	targets   []Target
	workloads func() []*workload
	rounds    int
}

// Overhead measures what the targets cost over a bare directory. On an error there
// is no report; a step that fails is in the report, without a figure.
func Overhead(ctx context.Context, o Options) (rep *Report, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	e, err := newOverhead(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	sessions := e.sessions()
	for _, s := range sessions {
		for _, w := range s.workloads() {
			e.total += len(w.steps) * len(s.targets) * (s.rounds + o.scale.warmUps)
		}
	}
	for _, s := range sessions {
		if err := e.run(ctx, s); err != nil {
			return nil, err
		}
	}
	o.Progress(e.total, e.total, "done")
	e.rep.Took = time.Since(e.rep.Began)
	e.rep.Others = e.clock.others()
	return e.rep, nil
}

// overhead is a measurement under way.
type overhead struct {
	opts  Options
	work  string // our own directory in Options.Dir
	home  string // in it, not on a brick
	base  string // where the bricks are: in it, or in the image
	image *image // nil without one
	prog  programs
	rep   *Report
	clock *machineClock
	runs  int // counted, for names

	done, total int // steps
}

func newOverhead(o Options) (_ *overhead, err error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	e := &overhead{opts: o, prog: programs{georep: o.Georep}}
	if e.work, err = ownDir(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	e.home, e.base = filepath.Join(e.work, "home"), filepath.Join(e.work, "bricks")
	for _, d := range []string{e.home, e.base} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
	}
	if o.Image != "" {
		largest := slices.Max(o.scale.sizes)
		if e.image, err = newImage(o.Image, 3<<30+2*max(largest, o.scale.large), e.base); err != nil {
			return nil, err
		}
	}
	e.rep = &Report{
		Format: reportFormat, Kind: "overhead", Command: o.Command, Began: time.Now(), Rounds: o.Rounds,
		Machine: describeMachine(e.base, o.Version),
	}
	if e.image != nil {
		e.rep.Machine.FS += imageNote
	}
	for i, t := range o.Targets {
		if !t.loopback {
			continue
		}
		if e.prog.loopback, err = buildLoopback(e.home); err != nil {
			e.rep.Notes = append(e.rep.Notes, Loopback+" is left out, it can't be built here: "+err.Error())
			e.opts.Targets = slices.Delete(slices.Clone(o.Targets), i, i+1)
		}
		break
	}
	e.rep.Targets = e.opts.Targets
	e.clock = startMachineClock()
	return e, nil
}

// close removes everything.
func (e *overhead) close() error {
	var errs []error
	if e.image != nil {
		errs = append(errs, e.image.close())
	}
	return errors.Join(append(errs, os.RemoveAll(e.work))...)
}

// sessions are what there is to do.
func (e *overhead) sessions() []session {
	o, sc := &e.opts, e.opts.scale
	wants := func(family string) bool { return slices.Contains(o.Workloads, family) }
	var out []session
	add := func(family, title string, rounds int, ws func() []*workload) {
		if wants(family) {
			out = append(out, session{title: title, targets: o.Targets, rounds: min(o.Rounds, rounds), workloads: ws})
		}
	}
	add("small", "Small files and metadata", o.Rounds, func() (ws []*workload) {
		for _, n := range o.Threads {
			ws = append(ws, smallFiles(o.Files, o.Size, n))
		}
		return ws
	})
	add("large", "Large files", o.Rounds, func() []*workload {
		return []*workload{largeFile(sc.large, sc.randomOps, sc.appends, sc.fsyncs)}
	})
	add("tree", "Trees", o.Rounds, func() []*workload { return []*workload{untarTree(sc.treeFiles)} })
	add("git", "Git", o.Rounds, func() []*workload { return []*workload{gitTree(sc.gitFiles)} })
	add("sizes", "By size of the file", sc.sizesRounds, func() (ws []*workload) {
		for _, n := range sc.sizes {
			ws = append(ws, fileSizes(n, sc.sizesTotal, sc.sizesFiles))
		}
		return ws
	})
	add("depth", "By depth of the directory", o.Rounds, func() (ws []*workload) {
		for _, d := range sc.depths {
			ws = append(ws, deepFiles(sc.depthFiles, d))
		}
		return ws
	})
	if wants("rollover") {
		out = append(out, e.rolloverSession())
	}
	return out
}

// rolloverSession compares mounts with slices of several lengths, all on.
func (e *overhead) rolloverSession() session {
	sc := e.opts.scale
	s := session{title: "By length of the slice", targets: []Target{{Name: Bare, What: knownTargets[0].What}}, rounds: min(e.opts.Rounds, sc.rolloverRounds)}
	for _, d := range sc.rollovers {
		s.targets = append(s.targets, Target{
			Name: "rollover-" + d.String(), What: "all on, a changelog each " + d.String(),
			Mount: []string{"--changelog=on", "--marker=on", "--rollover-time=" + d.String()}, records: true,
		})
	}
	s.workloads = func() []*workload { return []*workload{steadyWork(sc.rolloverFiles, sc.rolloverRun)} }
	return s
}

// run runs a session: its targets are there for its time.
func (e *overhead) run(ctx context.Context, s session) (err error) {
	var places []*place
	defer func() {
		for _, p := range places {
			err = errors.Join(err, p.close(), os.RemoveAll(filepath.Join(e.base, p.Name)))
		}
	}()
	table := Table{Title: s.title, Memory: map[string]int64{}}
	for _, t := range s.targets {
		p, err := newPlace(ctx, t, e.base, e.prog)
		if err != nil {
			return err
		}
		places = append(places, p)
		table.Targets = append(table.Targets, t.Name)
	}
	for _, w := range s.workloads() {
		rows := make([]*Row, len(w.steps))
		for i, st := range w.steps {
			rows[i] = &Row{Step: st.name, Params: st.params, Cells: map[string]*Cell{}}
		}
		for round := 1 - e.opts.scale.warmUps; round <= s.rounds; round++ {
			// A B C, then C B A: what drifts weighs on all alike.
			order := slices.Clone(places)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, p := range order {
				if err := e.chain(ctx, p, w, rows, round); err != nil {
					return err
				}
			}
		}
		table.Rows = append(table.Rows, rows...)
	}
	for _, p := range places {
		if n := p.peakMemory(); n > 0 {
			table.Memory[p.Name] = n
		}
	}
	e.rep.Tables = append(e.rep.Tables, table)
	return nil
}
