package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// replicateKind is the Kind of a report on replication.
const replicateKind = "replicate"

// LoopbackSlave is a slave on this machine that is reached by SSH, through an sshd of
// the benchmark's own.
const LoopbackSlave = "loopback"

// ReplicateOptions say what to measure of replication.
type ReplicateOptions struct {
	// Dir is where the master is made, and the slave if it is LoopbackSlave; what is
	// made in it is removed at the end.
	Dir string
	// Image is as in Options; a LoopbackSlave is on it too.
	Image string
	// Slave is LoopbackSlave, or a directory: it is reached through a pipe, and by
	// rsync without SSH.
	Slave string
	// Rounds that count. Default 3, quick 2.
	Rounds int
	// Quick takes small trees.
	Quick bool
	// Rate, in bytes a second, and Delay of one way are those of the link to a
	// LoopbackSlave; 0 is as fast as it goes.
	Rate  int64
	Delay time.Duration
	// Georep, Version, Command and Progress are as in Options.
	Georep   string
	Version  string
	Command  []string
	Progress func(done, total int, next string)

	scale *replicateScale
}

// replicateScale is how much there is to replicate.
type replicateScale struct {
	small        int   // files of 4 KiB in the first copy
	large        int64 // bytes of each large file in the first copy
	largeFiles   int
	steady       int // files made while live
	lagRate      int // files a second
	lagFor       time.Duration
	trees        []int // files there are when 10 change
	renamed      []int // files in the directory that is renamed
	big          int64 // bytes of the file of which 1 % changes
	changed      int   // files that change among others
	idle         time.Duration
	filesPerRoot int           // in one directory
	settle       time.Duration // a quarter of how long it must be quiet
}

var (
	fullReplicate = replicateScale{
		small: 10000, large: 256 << 20, largeFiles: 4, steady: 5000, lagRate: 500, lagFor: 20 * time.Second,
		trees: []int{1000, 10000, 100000}, renamed: []int{1000, 100000}, big: 4 << 30,
		changed: 10, idle: 10 * time.Second, filesPerRoot: 100, settle: 50 * time.Millisecond,
	}
	quickReplicate = replicateScale{
		small: 2000, large: 16 << 20, largeFiles: 4, steady: 1000, lagRate: 300, lagFor: 4 * time.Second,
		trees: []int{500, 5000}, renamed: []int{1000}, big: 128 << 20,
		changed: 10, idle: 2 * time.Second, filesPerRoot: 100, settle: 25 * time.Millisecond,
	}
)

func (o *ReplicateOptions) setDefaults() error {
	if o.Rounds == 0 {
		o.Rounds = 3
		if o.Quick {
			o.Rounds = 2
		}
	}
	if o.Slave == "" {
		o.Slave = LoopbackSlave
	}
	if o.scale == nil {
		o.scale = &fullReplicate
		if o.Quick {
			o.scale = &quickReplicate
		}
	}
	if o.Progress == nil {
		o.Progress = func(int, int, string) {}
	}
	if o.Slave != LoopbackSlave {
		if o.Rate != 0 || o.Delay != 0 {
			return fmt.Errorf("bench: a slow link needs the slave %q", LoopbackSlave)
		}
		if st, err := os.Stat(o.Slave); err != nil {
			return fmt.Errorf("bench: slave: %w", err)
		} else if !st.IsDir() {
			return fmt.Errorf("bench: slave %q is not a directory", o.Slave)
		}
	}
	if o.Dir == "" || o.Rounds < 1 || o.Rate < 0 || o.Delay < 0 {
		return fmt.Errorf("bench: directory %q, %d rounds, rate %d, delay %v: want a directory, a round and nothing negative", o.Dir, o.Rounds, o.Rate, o.Delay)
	}
	if _, err := exec.LookPath("rsync"); err != nil {
		return fmt.Errorf("bench: rsync is needed, on both sides: %w", err)
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

// replication is a measurement under way.
type replication struct {
	opts  ReplicateOptions
	work  string // our own directory in Options.Dir
	base  string // where masters are: it, or the image
	slave string // our own directory for slaves
	image *image // nil without one
	host  *sshHost
	group *cgroup
	rep   *Report
	rows  map[string]*Row
	clock *machineClock
	pairs int // counted, for names

	done, total int
}

// Replicate measures georep replicate and rsync doing the same work by turns.
func Replicate(ctx context.Context, o ReplicateOptions) (rep *Report, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	m, err := newReplication(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	chains := m.chains()
	for _, c := range chains {
		m.total += len(c.steps) * 2 * o.Rounds
	}
	table := Table{Title: "Replication", Targets: []string{rsyncTarget, georepTarget}}
	m.rep.Tables = []Table{table}
	for round := 1; round <= o.Rounds; round++ {
		for i, c := range chains {
			order := []string{rsyncTarget, georepTarget}
			if (round+i)%2 == 0 {
				slices.Reverse(order)
			}
			for _, target := range order {
				if err := m.chain(ctx, c, target, round); err != nil {
					return nil, err
				}
			}
		}
	}
	o.Progress(m.total, m.total, "done")
	m.rep.Took, m.rep.Others = time.Since(m.rep.Began), m.clock.others()
	return m.rep, nil
}

func newReplication(o ReplicateOptions) (_ *replication, err error) {
	m := &replication{opts: o, rows: map[string]*Row{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if m.work, err = ownDir(o.Dir); err != nil {
		return nil, err
	}
	m.base = m.work
	if o.Image != "" {
		m.base = filepath.Join(m.work, "disk")
		// A master and a slave at a time, and room to spare.
		size := 4<<30 + 3*max(o.scale.big, int64(o.scale.largeFiles)*o.scale.large)
		if m.image, err = newImage(o.Image, size, m.base); err != nil {
			return nil, err
		}
	}
	if m.slave = filepath.Join(m.base, "slaves"); o.Slave != LoopbackSlave {
		if m.slave, err = ownDir(o.Slave); err != nil {
			return nil, err
		}
	}
	keys := filepath.Join(m.work, "ssh")
	for _, dir := range []string{m.slave, keys} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
	}
	m.rep = &Report{
		Format: reportFormat, Kind: replicateKind, Command: o.Command, Began: time.Now(), Rounds: o.Rounds,
		Machine: describeMachine(m.base, o.Version),
		Targets: []Target{
			{Name: rsyncTarget, What: "rsync -aHAX --delete --numeric-ids, from a bare directory, one pass right after the change"},
			{Name: georepTarget, What: "georep replicate, running all the time, from a mounted brick, all on"},
		},
	}
	if m.image != nil {
		m.rep.Machine.FS += imageNote
	}
	if m.group, err = newCgroup("replicate"); err != nil {
		m.rep.Notes = append(m.rep.Notes, "CPU time and memory are not known: "+err.Error())
	}
	if o.Slave == LoopbackSlave {
		if m.host, err = newSSHHost(keys, m.group, o.Rate, o.Delay); err != nil {
			return nil, err
		}
	}
	if o.Rate > 0 || o.Delay > 0 {
		m.rep.Notes = append(m.rep.Notes, fmt.Sprintf("The link has %s/s and a delay of %v each way.", formatBytes(float64(o.Rate)), o.Delay))
	}
	m.clock = startMachineClock()
	return m, nil
}

// ownDir makes a directory in dir that is nobody else's.
func ownDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	own, err := os.MkdirTemp(abs, "run-")
	if err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	return own, nil
}

// close removes everything.
func (m *replication) close() error {
	if m.host != nil {
		m.host.close()
	}
	var errs []error
	if m.group != nil {
		errs = append(errs, m.group.close())
	}
	if m.image != nil {
		errs = append(errs, m.image.close())
	}
	for _, dir := range []string{m.slave, m.work} {
		if dir != "" {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// newReplica makes a master with nothing in it and an empty slave. georep is not
// started yet.
func (m *replication) newReplica(ctx context.Context, target string) (replica, error) {
	m.pairs++
	name := fmt.Sprintf("%s-%03d", target, m.pairs)
	to := filepath.Join(m.slave, name)
	if err := os.Mkdir(to, 0o755); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if target == rsyncTarget {
		from := filepath.Join(m.base, name)
		if err := os.Mkdir(from, 0o755); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		return &rsyncReplica{from: from, to: to, host: m.host, group: m.group}, nil
	}
	allOn := knownTargets[slices.IndexFunc(knownTargets, func(t Target) bool { return t.Name == AllOn })]
	allOn.Name = name
	p, err := newPlace(ctx, allOn, m.base, programs{georep: m.opts.Georep})
	if err != nil {
		return nil, err
	}
	return &georepReplica{place: p, to: to, said: filepath.Join(m.work, name+".log")}, nil
}

// replicateChain is a series of changes to one master and its slave.
type replicateChain struct {
	title string
	steps []*replicateStep
}

// replicateStep is what one row measures.
type replicateStep struct {
	name   string
	params []Param
	// before changes what the step needs; it is replicated off the clock.
	before func(root string) (change, error)
	// change makes the change that is replicated.
	change func(root string) (change, error)
	// again says that files are changed that were written before. rsync does not see
	// a change within the second of the one before, so one is waited for.
	again bool
	// first says that the slave's first copy is measured: georep begins with it.
	first bool
	// watch measures the step in place of waiting for the change, of a target that
	// works by itself; others have no figure.
	watch func(ctx context.Context, r replica, s *Sample) error
}

// change is what was changed.
type change struct {
	// names, relative to the root, and parts tell by the slave whether it has it.
	names []string
	parts []part
	files int
	bytes int64
}

// chain runs a chain in a target.
func (m *replication) chain(ctx context.Context, c *replicateChain, target string, round int) (err error) {
	r, err := m.newReplica(ctx, target)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, r.close(), os.RemoveAll(r.slave()), os.RemoveAll(filepath.Join(m.base, filepath.Base(r.slave()))))
	}()
	var failed error
	for _, st := range c.steps {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		m.opts.Progress(m.done, m.total, c.title+": "+st.name+": "+target)
		m.done++
		cell := m.cell(st, target)
		switch {
		case failed != nil:
			if cell.Failed == "" {
				cell.Failed = "not run: " + failed.Error()
			}
			continue
		case st.watch != nil && target == rsyncTarget:
			continue // it does not work by itself
		}
		var s Sample
		if s, failed = m.measure(ctx, r, st); failed != nil {
			cell.Failed, cell.Samples = failed.Error(), nil
			failed = fmt.Errorf("%s before it failed", st.name)
		} else if cell.Failed == "" {
			s.Round = round
			cell.Samples = append(cell.Samples, s)
		}
	}
	return nil
}

// cell is that of a step in a target.
func (m *replication) cell(st *replicateStep, target string) *Cell {
	row := &Row{Step: st.name, Params: st.params}
	if known := m.rows[row.Name()]; known != nil {
		row = known
	} else {
		row.Cells = map[string]*Cell{}
		m.rows[row.Name()] = row
		m.rep.Tables[0].Rows = append(m.rep.Tables[0].Rows, row)
	}
	if row.Cells[target] == nil {
		row.Cells[target] = &Cell{}
	}
	return row.Cells[target]
}

// measure does one step.
func (m *replication) measure(ctx context.Context, r replica, st *replicateStep) (s Sample, err error) {
	if st.before != nil {
		c, err := st.before(r.root())
		if err != nil {
			return s, err
		}
		if err := r.copy(ctx); err != nil {
			return s, err
		}
		if _, err := arrived(ctx, r, &c); err != nil {
			return s, err
		}
	}
	if err := m.quiet(ctx); err != nil {
		return s, err
	}
	if st.again {
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(time.Second):
		}
	}
	m.group.resetPeak()
	cpu, wire := m.group.cpu(), m.wire()
	if st.watch != nil {
		err = st.watch(ctx, r, &s)
	} else {
		err = m.follow(ctx, r, st, &s)
	}
	if err != nil {
		return s, err
	}
	// What it does for the change after its arrival is part of its cost.
	if err := m.quiet(ctx); err != nil {
		return s, err
	}
	s.Work, s.Wire, s.Memory = m.group.cpu()-cpu, m.wire()-wire, m.group.peakMemory()
	return s, sameTree(r.root(), r.slave(), r.roughDirs())
}

// follow changes the master and waits until the slave has it.
func (m *replication) follow(ctx context.Context, r replica, st *replicateStep, s *Sample) error {
	c, err := st.change(r.root())
	if err != nil {
		return err
	}
	began := time.Now()
	if g, ok := r.(*georepReplica); ok && st.first {
		if err := g.start(m.opts.Georep, m.host, m.group); err != nil {
			return err
		}
	}
	if err := r.copy(ctx); err != nil {
		return err
	}
	at, err := arrived(ctx, r, &c)
	if err != nil {
		return err
	}
	s.Wall, s.Ops, s.Bytes = at.Sub(began), c.files, c.bytes
	return nil
}

func (m *replication) wire() int64 {
	if m.host == nil {
		return 0
	}
	return m.host.wire.Load()
}

// quiet waits until the processes have nothing more to do for the moment; those that
// always have are given up after a while.
func (m *replication) quiet(ctx context.Context) error {
	const most = 60 // windows
	window := m.opts.scale.settle
	last := m.group.cpu()
	for calm, i := 0, 0; calm < 4 && i < most; i++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(window):
		}
		now := m.group.cpu()
		if calm++; now-last > window/25 {
			calm = 0
		}
		last = now
	}
	return nil
}
