package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/replicator/daemon"
	"github.com/georep/georep/replicator/session"
)

func newDoctorCommand() *cobra.Command {
	o := &daemonClient{}
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look at everything, and tell what to do about what is wrong",
		Long: `Looks at this host (kernel, FUSE, rsync, limits), the daemon, each volume's bricks
and mounts, each destination, each session. Changes nothing but the time of the last
test of destinations.
Exit status: 0 all is well, 1 something is not, 2 usage.`,
		Example: `    $ georep doctor`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d := &doctor{c: c, client: o}
			d.host()
			d.daemon()
			return d.tell()
		},
	}
	o.addFlag(c)
	return c
}

// doctor gathers findings.
type doctor struct {
	c      *cobra.Command
	client *daemonClient
	steps  []session.Step
}

func (d *doctor) add(name string, ok bool, detail, mend string) {
	d.steps = append(d.steps, session.Step{Name: name, OK: ok, Detail: oneLine(detail), Mend: mend})
}

// failed adds err as what is wrong with name; without err all is well.
func (d *doctor) failed(name string, err error, well, mend string) bool {
	if err == nil {
		d.add(name, true, well, "")
		return false
	}
	var e *exitError
	if errors.As(err, &e) && e.hint != "" {
		mend = e.hint
	}
	d.add(name, false, err.Error(), mend)
	return true
}

func (d *doctor) tell() error {
	t := newTable(d.c.OutOrStdout(), "CHECK", "RESULT", "DETAIL")
	bad := 0
	for _, s := range d.steps {
		result := "ok"
		if !s.OK {
			result = "failed"
			bad++
		}
		row(t, s.Name, result, s.Detail)
	}
	if err := t.Flush(); err != nil || bad == 0 {
		return err
	}
	for _, s := range d.steps {
		if !s.OK && s.Mend != "" {
			fmt.Fprintf(d.c.ErrOrStderr(), "georep: %s: %s\n", s.Name, s.Mend)
		}
	}
	return &exitError{code: exitFailed, err: fmt.Errorf("%d of %d checks failed", bad, len(d.steps))}
}

// host looks at what georep needs of this host.
func (d *doctor) host() {
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		d.add("kernel", true, unix.ByteSliceToString(u.Sysname[:])+" "+unix.ByteSliceToString(u.Release[:]), "")
	}
	_, err := os.Stat("/dev/fuse")
	d.failed("fuse", err, "/dev/fuse is there", "load the module: modprobe fuse")
	out, err := exec.Command("rsync", "--version").Output()
	first, _, _ := strings.Cut(string(out), "\n")
	d.failed("rsync", err, first, "install rsync 3.1.3 or newer")
	var root error
	if os.Geteuid() != 0 {
		root = fmt.Errorf("the user id is %d", os.Geteuid())
	}
	d.failed("root", root, "the user id is 0", "run it with sudo: else bricks can't be looked at")
}

// daemon looks at the daemon and at all it knows.
func (d *doctor) daemon() {
	var info daemon.Info
	if d.failed("daemon", d.client.do(d.c, "GET", "/v1/daemon", nil, &info), "it answers at "+d.client.socket, "") {
		return
	}
	if own := buildVersion(); info.Version != own {
		d.add("daemon version", false, "it is "+info.Version+", this is "+own, "restart it: systemctl restart georep")
	}
	var volumes []daemon.VolumeStatus
	if err := d.client.do(d.c, "GET", "/v1/volumes", nil, &volumes); err != nil {
		d.failed("volumes", err, "", "")
	}
	for i := range volumes {
		d.volume(&volumes[i])
	}
	var destinations []session.Destination
	if err := d.client.do(d.c, "GET", "/v1/destinations", nil, &destinations); err != nil {
		d.failed("destinations", err, "", "")
	}
	for _, x := range destinations {
		if err := d.client.do(d.c, "POST", pathOf("destinations", x.Name, "test"), nil, &x); err != nil {
			d.failed("destination "+x.Name, err, "", "")
			continue
		}
		mend := ""
		for _, s := range x.Steps {
			mend = orText(mend, s.Mend)
		}
		d.add("destination "+x.Name, x.State == session.Reachable, orText(x.Reason, string(x.State)), mend)
	}
	var sessions []daemon.SessionStatus
	if err := d.client.do(d.c, "GET", "/v1/sessions", nil, &sessions); err != nil {
		d.failed("sessions", err, "", "")
	}
	for i := range sessions {
		d.session(&sessions[i])
	}
}

func (d *doctor) volume(v *daemon.VolumeStatus) {
	for _, b := range v.Status {
		name := "volume " + v.Name + " " + b.Path
		open, err := brick.Open(b.Path)
		if d.failed(name, err, "it is a brick", "mount the file system that it is on, or give the brick back from a backup") {
			continue
		}
		if open.Volume() != v.ID {
			d.add(name+" id", false, fmt.Sprintf("it has volume id %v, the volume has %v", open.Volume(), v.ID), "another brick has taken its place: find the right one")
		}
		open.Close()
		if v.Started {
			d.add(name+" mount", b.Mounted, orText(b.Reason, "it is mounted at "+b.Mountpoint), "see "+b.Path+"/.glusterfs/georep/mount.log")
		}
		h, err := changelog.OpenHistory(changelogsDir(b.Path))
		if err != nil {
			d.failed(name+" changelogs", err, "", "georep changelog list "+b.Path+" tells more")
			continue
		}
		d.add(name+" changelogs", true, fmt.Sprintf("%d spans of recording", len(h.Spans())), "")
	}
}

func (d *doctor) session(s *daemon.SessionStatus) {
	for _, w := range s.Workers {
		well := slices.Contains([]string{"Active", "Created", "Stopped", "Paused", "Initializing"}, w.Status) && !w.LagOver
		detail := w.Status
		if w.LagOver {
			detail += ", " + lagText(&w) + " behind rpo-target"
		}
		if w.Reason != "" {
			detail += ": " + w.Reason
		}
		mend := ""
		switch w.Status {
		case "Degraded":
			mend = "georep session quarantine " + s.Name + " lists what waits, and why"
		case "HostKeyChanged":
			mend = "georep destination test " + s.Destination
		default:
			mend = "georep session status " + s.Name + " --detail, and the worker's log"
		}
		d.add("session "+s.Name+" "+w.Brick, well, detail, mend)
	}
}
