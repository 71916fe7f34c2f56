package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/replicator/session"
)

// BrickStatus is a brick of a volume as it is now.
type BrickStatus struct {
	session.Brick
	Mounted bool   `json:"mounted"`
	Reason  string `json:"reason,omitempty"` // why it is not, though it is to be
}

// VolumeStatus is a volume as it is now.
type VolumeStatus struct {
	*session.Volume
	Status []BrickStatus `json:"status"`
}

// mount keeps one brick mounted.
type mount struct {
	d      *Daemon
	volume string
	brick  session.Brick
	cancel context.CancelFunc
	done   chan struct{} // closed when nothing is done any more

	mu     sync.Mutex
	reason string        // why it is not mounted; guarded by mu
	first  chan struct{} // closed after the first try
}

// keepMounted mounts the bricks of v from now on, unless that is done already.
func (d *Daemon) keepMounted(v *session.Volume) []*mount {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*mount
	for _, b := range v.Bricks {
		m := d.mounts[b.Path]
		if m == nil {
			ctx, cancel := context.WithCancel(context.Background())
			m = &mount{d: d, volume: v.Name, brick: b, cancel: cancel, done: make(chan struct{}), first: make(chan struct{})}
			d.mounts[b.Path] = m
			d.wait.Go(func() { m.run(ctx) })
		}
		all = append(all, m)
	}
	return all
}

// release stops keeping the bricks of v mounted. They stay as they are.
func (d *Daemon) release(v *session.Volume) {
	for _, b := range v.Bricks {
		d.mu.Lock()
		m := d.mounts[b.Path]
		delete(d.mounts, b.Path)
		d.mu.Unlock()
		if m != nil {
			m.cancel()
			<-m.done
		}
	}
}

// mountEvery is how often a mount is looked at.
const mountEvery = time.Second

func (m *mount) run(ctx context.Context) {
	defer close(m.done)
	tick := time.NewTicker(mountEvery)
	defer tick.Stop()
	wait, next := time.Duration(0), time.Time{}
	up := false
	for tries := 0; ; {
		switch mounted, err := isMounted(m.brick.Mountpoint); {
		case err == nil && mounted:
			up, wait = true, 0
			m.note("")
		case time.Now().Before(next):
		default:
			if up {
				m.d.tell(session.Event{Kind: "mount.lost", Brick: m.brick.Path, Text: fmt.Sprintf("volume %s: %s is not mounted any more at %s", m.volume, m.brick.Path, m.brick.Mountpoint)})
				up = false
			}
			err := m.mount(ctx)
			if err == nil {
				m.d.tell(session.Event{Kind: "mount.mounted", Brick: m.brick.Path, Text: fmt.Sprintf("volume %s: %s is mounted at %s", m.volume, m.brick.Path, m.brick.Mountpoint)})
				up, wait = true, 0
				m.note("")
				break
			}
			if ctx.Err() != nil {
				break
			}
			m.d.log.Error("brick not mounted", "brick", m.brick.Path, "err", err)
			m.note(err.Error())
			wait = min(max(2*wait, time.Second), 30*time.Second)
			next = time.Now().Add(wait)
		}
		if tries++; tries == 1 {
			close(m.first)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *mount) note(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reason = reason
}

func (m *mount) why() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reason
}

// mount mounts the brick. What a mount that was killed left at the mountpoint is
// taken away first.
func (m *mount) mount(ctx context.Context) error {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(m.brick.Mountpoint, &st)
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
			if err := unix.Unmount(m.brick.Mountpoint, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("daemon: unmount %q: %w", m.brick.Mountpoint, err)
			}
			continue
		}
		if errors.Is(err, unix.ENOENT) {
			err = os.MkdirAll(m.brick.Mountpoint, 0o755)
		}
		if err != nil {
			return fmt.Errorf("daemon: mountpoint %q: %w", m.brick.Mountpoint, err)
		}
		break
	}
	c := exec.CommandContext(ctx, m.d.opt.Georep, "mount", "--volume", m.volume, "--", m.brick.Path, m.brick.Mountpoint)
	c.Env = m.d.opt.Env
	c.Dir = "/"
	var errs bytes.Buffer
	c.Stderr = &errs
	// A mount that was begun is waited for, whatever happens: it is a process of
	// its own from then on.
	c.Cancel = func() error { return nil }
	if err := c.Run(); err != nil {
		if said := lastLine(errs.String()); said != "" {
			return errors.New(said)
		}
		return fmt.Errorf("daemon: georep mount: %w", err)
	}
	return nil
}

// lastLine is the first line that a georep command said, without its prefix.
func lastLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimPrefix(s, "georep: ")
}

// isMounted reports whether a living FUSE mount is at path.
func isMounted(path string) (bool, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("daemon: %w", err)
	}
	defer f.Close()
	found := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 || unescape(fields[4]) != path {
			continue
		}
		_, fs, ok := strings.Cut(lines.Text(), " - ")
		found = ok && strings.HasPrefix(fs, "fuse") // the last one is on top
	}
	if err := lines.Err(); err != nil || !found {
		return false, err
	}
	// Attributes the kernel may have cached; this it asks of who serves the mount.
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, fmt.Errorf("daemon: mountpoint %q: %w", path, err)
	}
	return true, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// volumeStatus is v with what is mounted of it.
func (d *Daemon) volumeStatus(v *session.Volume) *VolumeStatus {
	vs := &VolumeStatus{Volume: v}
	for _, b := range v.Bricks {
		s := BrickStatus{Brick: b}
		var err error
		if s.Mounted, err = isMounted(b.Mountpoint); err != nil {
			s.Reason = err.Error()
		}
		d.mu.Lock()
		m := d.mounts[b.Path]
		d.mu.Unlock()
		if m != nil && !s.Mounted {
			s.Reason = m.why()
		}
		vs.Status = append(vs.Status, s)
	}
	return vs
}

// startVolume mounts the bricks of a volume and keeps them mounted. If one can't
// be mounted at once none of those that were not before stays so.
func (d *Daemon) startVolume(ctx context.Context, name string) error {
	d.ops.Lock()
	defer d.ops.Unlock()
	v, err := d.store.Volume(name)
	if err != nil {
		return err
	}
	if v.Started {
		return session.Errorf(session.Precondition, "volume %s is started already", name)
	}
	var failed error
	for _, m := range d.keepMounted(v) {
		select {
		case <-m.first:
		case <-ctx.Done():
			failed = ctx.Err()
		}
		if why := m.why(); why != "" && failed == nil {
			failed = session.Errorf(session.Failed, "%s", why)
		}
	}
	if failed == nil {
		failed = d.store.SetVolumeStarted(name, true)
	}
	if failed != nil {
		d.release(v)
		_ = d.unmountAll(v, false) // those that are in use stay, and are seen in status
		return failed
	}
	d.tell(session.Event{Kind: "volume.started", Text: "volume " + name + " is started"})
	return nil
}

// stopVolume unmounts the bricks of a volume. With force those in use are
// detached.
func (d *Daemon) stopVolume(name string, force bool) error {
	d.ops.Lock()
	defer d.ops.Unlock()
	v, err := d.store.Volume(name)
	if err != nil {
		return err
	}
	if !v.Started && !force {
		return session.Errorf(session.Precondition, "volume %s is not started", name)
	}
	d.release(v)
	if err := d.unmountAll(v, force); err != nil {
		d.keepMounted(v)
		return err
	}
	if err := d.store.SetVolumeStarted(name, false); err != nil {
		return err
	}
	d.tell(session.Event{Kind: "volume.stopped", Text: "volume " + name + " is stopped"})
	return nil
}

func (d *Daemon) unmountAll(v *session.Volume, force bool) error {
	for _, b := range v.Bricks {
		mounted, err := isMounted(b.Mountpoint)
		if err == nil && !mounted {
			continue
		}
		flags := 0
		if force || err != nil { // a dead mount is in use by nobody who could use it
			flags = unix.MNT_DETACH
		}
		err = unix.Unmount(b.Mountpoint, flags)
		if errors.Is(err, unix.EBUSY) {
			return session.Errorf(session.Precondition, "volume %s: %s is in use", v.Name, b.Mountpoint).
				WithHint("fuser -vm %s shows by whom; --force detaches it all the same", b.Mountpoint)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("daemon: unmount %q: %w", b.Mountpoint, err)
		}
	}
	return nil
}
