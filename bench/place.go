package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// How long a mount may take to come and to go.
const (
	mountTimeout   = 20 * time.Second
	unmountTimeout = 20 * time.Second
	pollEvery      = 2 * time.Millisecond
)

// place is a target made ready: a directory to work in.
type place struct {
	Target
	// dir is where the work is done, below the mountpoint if there is one.
	dir string
	// truth is the same directory beneath the mount, where the work is checked.
	truth string
	// mountpoint is "" if nothing was mounted.
	mountpoint string
	proc       *exec.Cmd     // serves the mount; nil without one
	gone       chan struct{} // closed when proc has ended; its ProcessState is set then
	said       string        // the file that proc's output goes to
	log        *recordLog    // nil if there are no records
}

// programs are those that mount targets.
type programs struct {
	georep   string // georep itself
	loopback string // go-fuse's example; "" if it could not be built
}

// newPlace makes a directory of its own for t below base, and mounts it.
func newPlace(ctx context.Context, t Target, base string, prog programs) (p *place, err error) {
	p = &place{Target: t}
	if t.Dir != "" {
		if p.dir, err = os.MkdirTemp(t.Dir, "georep-bench-"); err != nil {
			return nil, fmt.Errorf("bench: target %s: %w", t.Name, err)
		}
		p.truth = p.dir
		return p, nil
	}
	p.truth = filepath.Join(base, t.Name, "brick")
	if err := os.MkdirAll(p.truth, 0o755); err != nil {
		return nil, fmt.Errorf("bench: target %s: %w", t.Name, err)
	}
	if t.Mount == nil && !t.loopback {
		p.dir = p.truth
		return p, nil
	}
	p.dir = filepath.Join(base, t.Name, "mnt")
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return nil, fmt.Errorf("bench: target %s: %w", t.Name, err)
	}
	p.said = filepath.Join(base, t.Name, "mount.log")
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
			p = nil
		}
	}()
	if err := p.mount(ctx, prog); err != nil {
		return p, err
	}
	if t.records {
		if p.log, err = openRecordLog(filepath.Join(p.truth, brick.Dir, "changelogs")); err != nil {
			return p, err
		}
	}
	return p, nil
}

// mount starts the process that serves the place and waits until it can be used.
func (p *place) mount(ctx context.Context, prog programs) error {
	var c *exec.Cmd
	switch {
	case p.loopback:
		c = exec.Command(prog.loopback, "-q", "-allow-other", "-directmount", p.dir, p.truth)
	case p.Program != "":
		c = exec.Command(p.Program, p.mountArgs()...)
	default:
		c = exec.Command(prog.georep, p.mountArgs()...)
		c.Args[0] = "georep"
	}
	out, err := os.Create(p.said)
	if err != nil {
		return fmt.Errorf("bench: target %s: %w", p.Name, err)
	}
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	c.Dir = "/"
	// A process group of its own: Ctrl-C is for us, who unmount in order.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	before, err := deviceOf(p.dir)
	if err != nil {
		return fmt.Errorf("bench: target %s: %w", p.Name, err)
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("bench: target %s: %w", p.Name, err)
	}
	p.proc, p.gone = c, make(chan struct{})
	go func() {
		_ = c.Wait() // how it ended is in its ProcessState
		close(p.gone)
	}()
	for end := time.Now().Add(mountTimeout); ; {
		if now, err := deviceOf(p.dir); err == nil && now != before {
			p.mountpoint = p.dir
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.gone:
			return fmt.Errorf("bench: target %s: its mount ended: %v: %s", p.Name, c.ProcessState, p.lastWords())
		case <-time.After(pollEvery):
		}
		if time.Now().After(end) {
			return fmt.Errorf("bench: target %s: not mounted after %v: %s", p.Name, mountTimeout, p.lastWords())
		}
	}
}

func (p *place) mountArgs() []string {
	args := append([]string{"mount", "--foreground"}, p.Target.Mount...)
	return append(args, "--", p.truth, p.dir)
}

// lastWords is the end of what the mount's process printed, in one line.
func (p *place) lastWords() string {
	b, err := os.ReadFile(p.said)
	if err != nil {
		return err.Error()
	}
	const most = 400
	b = bytes.TrimSpace(b[max(0, len(b)-most):])
	return string(bytes.ReplaceAll(b, []byte("\n"), []byte("; ")))
}

func deviceOf(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, err
	}
	return st.Dev, nil
}

// cpu is the CPU time that the mount's process has used; 0 without one.
func (p *place) cpu() (time.Duration, error) {
	if p.proc == nil {
		return 0, nil
	}
	d, err := processCPU(p.proc.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("bench: target %s: its mount has ended: %s", p.Name, p.lastWords())
	}
	return d, nil
}

// peakMemory is the most memory that the mount's process had resident, in bytes; 0
// if that can't be known.
func (p *place) peakMemory() int64 {
	if p.proc == nil {
		return 0
	}
	return statusField(p.proc.Process.Pid, "VmHWM")
}

// quiet waits until the mount has done what the work left to it: closing files,
// forgetting inodes. A mount that is never idle is given up after a while.
func (p *place) quiet(ctx context.Context) error {
	if p.proc == nil {
		return nil
	}
	const (
		window = 10 * time.Millisecond
		most   = 40 // windows
	)
	last, err := p.cpu()
	for calm, i := 0, 0; err == nil && calm < 2 && i < most; i++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(window):
		}
		var now time.Duration
		now, err = p.cpu()
		if now-last < window/20 {
			calm++
		} else {
			calm = 0
		}
		last = now
	}
	return err
}

// rollover asks the mount to seal its changelog now.
func (p *place) rollover() error {
	if err := p.proc.Process.Signal(syscall.SIGUSR1); err != nil {
		return fmt.Errorf("bench: target %s: its mount has ended: %s", p.Name, p.lastWords())
	}
	return nil
}

// seal seals the changelog and waits for it, so that what comes next is recorded
// afresh, and what was before is flushed.
func (p *place) seal(ctx context.Context) error {
	if p.log == nil {
		return nil
	}
	if err := p.rollover(); err != nil {
		return err
	}
	return p.log.untilSealed(ctx)
}

// close unmounts, ends the process and removes what was made.
func (p *place) close() error {
	var errs []error
	if p.log != nil {
		p.log.close()
	}
	if p.mountpoint != "" {
		errs = append(errs, unmount(p.mountpoint))
	}
	if p.proc != nil {
		errs = append(errs, p.wait())
	}
	if p.Dir != "" {
		errs = append(errs, os.RemoveAll(p.dir))
	}
	return errors.Join(errs...)
}

// wait waits for the mount's process, which ends by itself once it is unmounted.
func (p *place) wait() error {
	if p.mountpoint == "" {
		// It may be about to mount: SIGTERM has it undo that.
		_ = p.proc.Process.Signal(syscall.SIGTERM) // it may be gone
	}
	select {
	case <-p.gone:
	case <-time.After(unmountTimeout):
		_ = p.proc.Process.Kill() // it may be gone
		<-p.gone
		return fmt.Errorf("bench: target %s: its mount did not end within %v of being unmounted: %s", p.Name, unmountTimeout, p.lastWords())
	}
	if p.mountpoint != "" && !p.proc.ProcessState.Success() {
		return fmt.Errorf("bench: target %s: its mount ended badly: %v: %s", p.Name, p.proc.ProcessState, p.lastWords())
	}
	return nil
}

// unmount unmounts dir, waiting a little for whoever still uses it.
func unmount(dir string) error {
	for end := time.Now().Add(unmountTimeout); ; time.Sleep(pollEvery) {
		err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil, errors.Is(err, unix.EINVAL), errors.Is(err, fs.ErrNotExist):
			return nil // EINVAL: it is no mountpoint, its server undid it
		case !errors.Is(err, unix.EBUSY) || time.Now().After(end):
			// Detached it lives on for whoever uses it, and is out of the way.
			return errors.Join(fmt.Errorf("bench: unmount %q: %w", dir, err), unix.Unmount(dir, unix.MNT_DETACH))
		}
	}
}
