package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/replicator/daemon"
	"github.com/georep/georep/replicator/session"
)

func newDestinationCommand() *cobra.Command {
	o := &daemonClient{}
	c := &cobra.Command{
		Use:   "destination",
		Short: "Name hosts for slaves, and set up SSH to them",
	}
	o.addFlag(c)
	c.AddCommand(newDestinationAddCommand(o), newDestinationListCommand(o), newDestinationShowCommand(o), newDestinationTestCommand(o),
		newDestinationReestablishCommand(o), newDestinationRotateCommand(o), newDestinationRemoveCommand(o))
	return c
}

// newSetup is a destinationSetup that tells its steps on c's standard error.
func newSetup(c *cobra.Command) *destinationSetup {
	return &destinationSetup{say: func(format string, args ...any) {
		fmt.Fprintf(c.ErrOrStderr(), "georep: "+format+"\n", args...)
	}}
}

func newDestinationAddCommand(o *daemonClient) *cobra.Command {
	d := &session.Destination{}
	var s *destinationSetup
	c := &cobra.Command{
		Use:   "add HOST [--name NAME] [--user USER] [--port PORT]",
		Short: "Set up passwordless SSH to a host for slaves",
		Long: `Shows the fingerprint of the host's key to be confirmed, logs in with a key that
works already, an ssh-agent's, or a password, makes a key of its own and installs
it so that it may run georep agent below --dir, and nothing else. georep is copied
there if it is missing; rsync must be there. Run it as root on the daemon's host.

Exit status: 0 added, 1 failed, 2 usage, 4 not confirmed, or there already; nothing
is left of the attempt here, and no key there.`,
		Example: `    $ georep destination add backup.example.com --name backup`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d.Host = args[0]
			if d.Name == "" {
				d.Name = d.Host
			}
			return addDestination(c, o, d, s)
		},
	}
	s = newSetup(c)
	f := c.Flags()
	f.StringVar(&d.Name, "name", "", "what sessions call it (default HOST)")
	f.StringVar(&d.User, "user", "root", "user there")
	f.IntVar(&d.Port, "port", 22, "port of sshd there")
	f.StringVar(&d.Dir, "dir", "/srv", "directory there in which slaves may be; it is made if it is missing")
	s.addFlags(f)
	return c
}

func addDestination(c *cobra.Command, o *daemonClient, d *session.Destination, s *destinationSetup) error {
	d.Dir = filepath.Clean(d.Dir)
	if err := d.Check(); err != nil {
		return daemonError(err)
	}
	var info daemon.Info
	if err := o.do(c, "GET", "/v1/daemon", nil, &info); err != nil {
		return err
	}
	switch err := o.do(c, "GET", pathOf("destinations", d.Name), nil, nil); {
	case err == nil:
		return &exitError{code: exitPrecondition, err: fmt.Errorf("destination %s is there already", d.Name), hint: "another name can be given with --name"}
	case exitCode(err) != exitNotFound:
		return err
	}
	undo, err := s.establish(c.Context(), d, info.State)
	if err != nil {
		return err
	}
	if err := o.do(c, "POST", "/v1/destinations", d, nil); err != nil {
		undo()
		return err
	}
	return testDestination(c, o, d.Name, c.OutOrStdout())
}

// testDestination has the daemon test a destination, and prints each step.
func testDestination(c *cobra.Command, o *daemonClient, name string, w io.Writer) error {
	var d session.Destination
	if err := o.do(c, "POST", pathOf("destinations", name, "test"), nil, &d); err != nil {
		return err
	}
	t := newTable(w, "STEP", "RESULT", "DETAIL")
	mend := ""
	for _, s := range d.Steps {
		result := "ok"
		if !s.OK {
			result, mend = "failed", orText(mend, s.Mend)
		}
		row(t, s.Name, result, s.Detail)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if d.State != session.Reachable {
		return &exitError{code: exitFailed, err: fmt.Errorf("destination %s is %s: %s", name, d.State, d.Reason), hint: mend}
	}
	return nil
}

func newDestinationListCommand(o *daemonClient) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "list",
		Short:   "List all destinations, as they were found when last looked at",
		Long:    `Exit status: 0 listed, 1 failed, 2 usage.`,
		Example: `    $ georep destination list`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var all []session.Destination
			if err := o.do(c, "GET", "/v1/destinations", nil, &all); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(all)
			}
			t := newTable(c.OutOrStdout(), "NAME", "HOST", "USER", "PORT", "STATUS", "SINCE", "LAST TEST")
			for _, d := range all {
				row(t, d.Name, d.Host, d.User, fmt.Sprint(d.Port), string(d.State), timeText(d.Since), timeText(d.Tested))
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newDestinationShowCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show a destination",
		Long:  `Exit status: 0 shown, 1 failed, 2 usage, 3 no such destination.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var d session.Destination
			if err := o.do(c, "GET", pathOf("destinations", args[0]), nil, &d); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(),
				"Name:         %s\nId:           %s\nHost:         %s\nUser:         %s\nPort:         %d\nDirectory:    %s\nFingerprint:  %s\nIdentity:     %s\nStatus:       %s since %s\nLast test:    %s\nReason:       %s\n",
				d.Name, d.ID, d.Host, d.User, d.Port, d.Dir, d.Fingerprint, d.Identity, d.State, timeText(d.Since), timeText(d.Tested), orText(d.Reason, "-"))
			return err
		},
	}
}

func newDestinationTestCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:   "test NAME",
		Short: "Look at each thing that replication to a destination needs",
		Long:  `Exit status: 0 all is well, 1 something is not, 2 usage, 3 no such destination.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return testDestination(c, o, args[0], c.OutOrStdout())
		},
	}
}

func newDestinationReestablishCommand(o *daemonClient) *cobra.Command {
	var s *destinationSetup
	c := &cobra.Command{
		Use:   "reestablish NAME [--fingerprint SHA256:…]",
		Short: "Mend the link to a destination that was set up anew",
		Long: `Pins the host's present key in place of the one before, after it was confirmed, and
installs our key again, as add does. Workers that go there are started anew.
Exit status: 0 mended, 1 failed, 2 usage, 3 no such destination, 4 not confirmed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return reestablish(c, o, args[0], s) },
	}
	s = newSetup(c)
	s.addFlags(c.Flags())
	return c
}

func reestablish(c *cobra.Command, o *daemonClient, name string, s *destinationSetup) error {
	var d session.Destination
	if err := o.do(c, "GET", pathOf("destinations", name), nil, &d); err != nil {
		return err
	}
	// The old key counts until the new one works.
	pinned := d.KnownHosts
	d.KnownHosts = pinned + ".new"
	if err := os.Remove(d.KnownHosts); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	defer os.Remove(d.KnownHosts) // gone already if all went well
	conn, fingerprint, err := s.login(c.Context(), destinationAddress(&d), d.KnownHosts)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := s.installKey(c.Context(), conn, &d); err != nil {
		return err
	}
	if err := os.Rename(d.KnownHosts, pinned); err != nil {
		return err
	}
	keys := daemon.Keys{Fingerprint: fingerprint, Identity: d.Identity}
	if err := o.do(c, "PUT", pathOf("destinations", name, "keys"), keys, nil); err != nil {
		return err
	}
	return testDestination(c, o, name, c.OutOrStdout())
}

func newDestinationRotateCommand(o *daemonClient) *cobra.Command {
	var s *destinationSetup
	c := &cobra.Command{
		Use:   "rotate-key NAME",
		Short: "Give a destination a new key, and take the old one's rights away",
		Long: `Logs in as add does. Workers that go there are started anew.
Exit status: 0 done, 1 failed, 2 usage, 3 no such destination.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return rotateKey(c, o, args[0], s) },
	}
	s = newSetup(c)
	s.addFlags(c.Flags())
	return c
}

func rotateKey(c *cobra.Command, o *daemonClient, name string, s *destinationSetup) error {
	var d session.Destination
	if err := o.do(c, "GET", pathOf("destinations", name), nil, &d); err != nil {
		return err
	}
	conn, fingerprint, err := s.login(c.Context(), destinationAddress(&d), d.KnownHosts)
	if err != nil {
		return err
	}
	defer conn.Close()
	before := d.Identity
	dir, err := os.MkdirTemp(filepath.Dir(before), "key-")
	if err != nil {
		return err
	}
	d.Identity = filepath.Join(dir, "id_ed25519")
	// Installing takes the line of the key before away: workers that are connected
	// stay so until they are started anew below.
	if err := s.installKey(c.Context(), conn, &d); err != nil {
		_ = os.RemoveAll(dir)
		return err
	}
	if err := o.do(c, "PUT", pathOf("destinations", name, "keys"), daemon.Keys{Fingerprint: orText(fingerprint, d.Fingerprint), Identity: d.Identity}, nil); err != nil {
		return err
	}
	for _, f := range []string{before, before + ".pub"} {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return testDestination(c, o, name, c.OutOrStdout())
}

func newDestinationRemoveCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Forget a destination that no session goes to, and its key here",
		Long: `The line in authorized_keys there stays: its key is gone with this.
Exit status: 0 forgotten, 1 failed, 2 usage, 3 no such destination, 4 a session goes there.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var info daemon.Info
			if err := o.do(c, "GET", "/v1/daemon", nil, &info); err != nil {
				return err
			}
			if err := o.do(c, "DELETE", pathOf("destinations", args[0]), nil, nil); err != nil {
				return err
			}
			return os.RemoveAll(keysDir(info.State, args[0]))
		},
	}
}

// uname is this host's system and machine, as uname -s -m prints them.
func uname() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Machine[:]), nil
}
