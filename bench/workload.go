package bench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Param is what distinguishes the rows of one step: size=4096, threads=4.
type Param struct {
	Key   string `json:"key"`
	Value int64  `json:"value"`
}

// String is the parameter as a person writes it: "size=4KiB", "rollover=15s".
func (p Param) String() string {
	switch p.Key {
	case "size", "block":
		return p.Key + "=" + formatBytes(float64(p.Value))
	case "rollover":
		return p.Key + "=" + (time.Duration(p.Value) * time.Second).String()
	}
	return p.Key + "=" + strconv.FormatInt(p.Value, 10)
}

// formatBytes writes n with the largest binary unit that leaves it at least 1.
func formatBytes(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; n >= 1024 && i < len(units)-1; i++ {
		n /= 1024
	}
	return strconv.FormatFloat(n, 'g', 4, 64) + units[i]
}

// workload is a chain of steps on one tree, which is made anew for each run.
type workload struct {
	family string // of those that Options.Workloads chooses from
	title  string // what progress shows
	// setup makes the tree before the first step, through the mount.
	setup func(*run) error
	steps []*step
}

// step is what one row of a table measures.
type step struct {
	name    string
	params  []Param
	threads int // 0 is 1
	// ops is how many operations all threads do together; 0 if only work can tell.
	ops int
	// bytes is what all of them read or write together, for throughput; 0 if that
	// says nothing.
	bytes int64
	// cold has the kernel forget names and attributes before.
	cold bool
	// before prepares the step, off the clock.
	before func(*run) error
	// work is done by each thread at the same time, on the clock. It returns how many
	// operations it did.
	work func(r *run, thread int) (ops int, err error)
	// check looks beneath the mount whether the work was done, off the clock.
	check func(*run) error
	// leaves says which records the work must leave; nil for none.
	leaves func(*run) records
}

// key names the step and its parameters: the row.
func (s *step) key() string {
	k := s.name
	for _, p := range s.params {
		k += " " + p.String()
	}
	return k
}

// run is one chain being run in one place.
type run struct {
	place *place
	// dir is the run's own directory, and truth the same one beneath the mount.
	dir, truth string
	// home is a directory outside of any mount, for what programs need besides.
	home string
	// files are the paths each thread works on; to are where it renames them.
	files, to [][]cpath
}

// below turns a path in dir into the same beneath the mount.
func (r *run) below(p cpath) string { return r.truth + p.String()[len(r.dir):] }

// name makes n paths for each of threads threads, each thread in a directory of its
// own, which it makes.
func (r *run) name(threads, n int) error {
	r.files, r.to = make([][]cpath, threads), make([][]cpath, threads)
	for t := range threads {
		dir := filepath.Join(r.dir, fmt.Sprintf("t%02d", t))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		for i := range n {
			r.files[t] = append(r.files[t], newCPath(fmt.Sprintf("%s/f%06d", dir, i)))
			r.to[t] = append(r.to[t], newCPath(fmt.Sprintf("%s/g%06d", dir, i)))
		}
	}
	return nil
}

// perThread is n operations shared among threads, at least one each.
func perThread(n, threads int) int { return max(1, n/threads) }

// runThreads runs work in n threads at once. The sample has how long it took from
// letting the first go until the last was done, the CPU time that the threads and
// the programs they ran used, and how many operations they did.
func runThreads(n int, work func(thread int) (int, error)) (s Sample, err error) {
	// A P for each thread, for it keeps it while it sleeps in the kernel, and some
	// for the rest of this process.
	old := runtime.GOMAXPROCS(n + 2)
	defer runtime.GOMAXPROCS(old)
	// No collection on the clock: it would wait for threads that sleep.
	runtime.GC()

	errs, used, ops := make([]error, n), make([]time.Duration, n), make([]int, n)
	start := make(chan struct{})
	var ready, done sync.WaitGroup
	for t := range n {
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready.Done()
			<-start
			before := threadCPU()
			ops[t], errs[t] = work(t)
			used[t] = threadCPU() - before
		})
	}
	ready.Wait()
	children := usedCPU(unix.RUSAGE_CHILDREN)
	began := time.Now()
	close(start)
	done.Wait()
	s.Wall = time.Since(began)
	s.Work = usedCPU(unix.RUSAGE_CHILDREN) - children
	for t, err := range errs {
		if err != nil {
			return s, fmt.Errorf("thread %d: %w", t, err)
		}
		s.Work += used[t]
		s.Ops += ops[t]
	}
	return s, nil
}

// ParseSize reads a size such as 4096, 4k, 4KiB, 1M or 1GiB: units are binary.
func ParseSize(s string) (int64, error) {
	num, shift := s, 0
	upper := strings.ToUpper(s)
	for i, unit := range []string{"K", "M", "G", "T"} {
		for _, suffix := range []string{unit + "IB", unit} {
			if rest, ok := strings.CutSuffix(upper, suffix); ok {
				num, shift = rest, 10*(i+1)
				break
			}
		}
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q, want a size such as 4096 or 4KiB", s)
	}
	return n << shift, nil
}
