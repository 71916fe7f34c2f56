package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// cgroup holds processes and all that they start, so that their CPU time and
// memory can be told together, of those that have ended too.
type cgroup struct {
	dir string   // "" where the kernel has none that we may use
	f   *os.File // dir

	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	peak int64 // guarded by mu: bytes resident at most since resetPeak
}

// peakEvery is how often memory is looked at.
const peakEvery = 20 * time.Millisecond

// newCgroup makes a group. Without control groups of version 2 it is one that knows
// no CPU time, and why.
func newCgroup(name string) (*cgroup, error) {
	g := &cgroup{stop: make(chan struct{})}
	top, err := cgroupTop()
	if err != nil {
		return g, err
	}
	dir := filepath.Join(top, fmt.Sprintf("georep-bench-%d-%s", os.Getpid(), name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return g, fmt.Errorf("bench: control group: %w", err)
	}
	f, err := os.Open(dir)
	if err == nil {
		// Not every version 2 knows CPU times: looked at before anything relies on it.
		_, err = os.Stat(filepath.Join(dir, "cpu.stat"))
	}
	if err != nil {
		f.Close()
		_ = os.Remove(dir) // the error before counts
		return g, fmt.Errorf("bench: control group: %w", err)
	}
	g.dir, g.f = dir, f
	g.wg.Go(g.watchPeak)
	return g, nil
}

// cgroupTop is where the tree of groups is mounted.
func cgroupTop() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("bench: control group: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if head, tail, ok := strings.Cut(line, " - "); ok && strings.HasPrefix(tail, "cgroup2 ") {
			return strings.Fields(head)[4], nil
		}
	}
	return "", fmt.Errorf("bench: control groups of version 2 are not mounted")
}

// put has c start in the group.
func (g *cgroup) put(c *exec.Cmd) {
	if g.f == nil {
		return
	}
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.UseCgroupFD, c.SysProcAttr.CgroupFD = true, int(g.f.Fd())
}

// cpu is the CPU time used in the group; 0 if that can't be known.
func (g *cgroup) cpu() time.Duration {
	if g.dir == "" {
		return 0
	}
	v := strings.Fields(fileFieldRaw(filepath.Join(g.dir, "cpu.stat"), "usage_usec "))
	if len(v) == 0 {
		return 0
	}
	us, err := strconv.ParseInt(v[0], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(us) * time.Microsecond
}

// resetPeak begins to look for the most memory anew.
func (g *cgroup) resetPeak() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.peak = 0
}

// peakMemory is the most that all processes had resident together, in bytes.
func (g *cgroup) peakMemory() int64 {
	now := g.resident()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.peak = max(g.peak, now)
	return g.peak
}

func (g *cgroup) watchPeak() {
	tick := time.NewTicker(peakEvery)
	defer tick.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-tick.C:
			g.peakMemory()
		}
	}
}

// resident is what the group's processes have resident now. Pages that two of them
// share count twice.
func (g *cgroup) resident() int64 {
	if g.dir == "" {
		return 0
	}
	b, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return 0
	}
	var total int64
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		statm, err := os.ReadFile("/proc/" + sc.Text() + "/statm")
		if err != nil {
			continue // it has ended
		}
		if f := strings.Fields(string(statm)); len(f) > 1 {
			if pages, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				total += pages * int64(os.Getpagesize())
			}
		}
	}
	return total
}

// close removes the group; its processes must have ended.
func (g *cgroup) close() error {
	if g.dir == "" {
		return nil
	}
	close(g.stop)
	g.wg.Wait()
	g.f.Close()
	// A process that has just ended may hold it a moment longer.
	var err error
	for range 100 {
		if err = os.Remove(g.dir); err == nil {
			return nil
		}
		time.Sleep(pollEvery)
	}
	return fmt.Errorf("bench: control group: %w", err)
}
