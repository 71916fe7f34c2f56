package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is where a report was made.
type Machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Memory int64  `json:"memory_bytes"`
	Kernel string `json:"kernel"`
	System string `json:"system"`
	// FS is what the bricks lie on.
	FS string `json:"fs"`
	// Load is the load average when the run began.
	Load string `json:"load"`
	// Versions of the programs that took part.
	Versions map[string]string `json:"versions"`
}

// describeMachine fills in all that can be known; what can't is left empty.
func describeMachine(dir, version string) Machine {
	m := Machine{CPUs: runtime.NumCPU(), Versions: map[string]string{"georep": version, "go": runtime.Version()}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	m.CPU = fileField("/proc/cpuinfo", "model name")
	m.System = strings.Trim(fileField("/etc/os-release", "PRETTY_NAME"), `"`)
	if kb, err := strconv.ParseInt(strings.TrimSuffix(fileField("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.Memory = kb << 10
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	m.FS = fsOf(dir)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == goFuseModule {
				m.Versions["go-fuse"] = d.Version
			}
		}
	}
	for _, c := range [][]string{{"git", "--version"}, {"rsync", "--version"}} {
		if out, err := exec.Command(c[0], c[1:]...).Output(); err == nil {
			line, _, _ := bytes.Cut(out, []byte("\n"))
			m.Versions[c[0]] = strings.Join(strings.Fields(strings.TrimPrefix(string(line), c[0])), " ")
		}
	}
	return m
}

// fileField is the value of the first line "name: value" or "name=value" of a file.
func fileField(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if i := strings.IndexAny(sc.Text(), ":="); i > 0 && strings.TrimSpace(sc.Text()[:i]) == name {
			return strings.TrimSpace(sc.Text()[i+1:])
		}
	}
	return ""
}

// statusField is a size in /proc/PID/status, in bytes; 0 if it is not there.
func statusField(pid int, name string) int64 {
	v := fileField(fmt.Sprintf("/proc/%d/status", pid), name)
	kb, err := strconv.ParseInt(strings.TrimSuffix(v, " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}

// fsOf is the type, source and options of the file system that dir is on.
func fsOf(dir string) string {
	var st unix.Stat_t
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil || unix.Stat(dir, &st) != nil {
		return ""
	}
	defer f.Close()
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// id parent major:minor root mountpoint options optional… - type source options
		head, tail, ok := strings.Cut(sc.Text(), " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if ok && len(h) >= 6 && len(t) >= 3 && h[2] == dev {
			return fmt.Sprintf("%s (%s)", t[0], h[5])
		}
	}
	return ""
}

// machineClock tells how much CPU time others used while we worked.
type machineClock struct {
	began time.Time
	busy  time.Duration // of the whole machine at began
	own   time.Duration // of this process at began
}

func startMachineClock() *machineClock {
	return &machineClock{began: time.Now(), busy: machineBusy(), own: ownCPU()}
}

// others is the part of the machine's CPU time since began that neither this
// process nor a child that has ended used: other processes, the hypervisor, and
// the kernel's own threads, which write to disk for us too.
func (c *machineClock) others() float64 {
	all := time.Since(c.began).Seconds() * float64(runtime.NumCPU())
	other := (machineBusy() - c.busy - (ownCPU() - c.own)).Seconds()
	return min(1, max(0, other/all))
}

// machineBusy is the CPU time used by all since the machine started, interrupts
// and what the hypervisor took away included.
func machineBusy() time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on all machines
	var busy time.Duration
	for i, f := range strings.Fields(fileFieldRaw("/proc/stat", "cpu ")) {
		// user nice system idle iowait irq softirq steal; guest is in user already.
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && i < 8 && i != 3 && i != 4 {
			busy += time.Duration(n) * tick
		}
	}
	return busy
}

// fileFieldRaw is what follows prefix in the first line of a file that has it.
func fileFieldRaw(path, prefix string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return rest
		}
	}
	return ""
}
