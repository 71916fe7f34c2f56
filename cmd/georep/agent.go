package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/georep/georep/replicator/slave"
	"github.com/georep/georep/replicator/transport"
)

// agentOptions are the options of georep agent as given.
type agentOptions struct {
	root     string
	below    string // root is what is asked for, in this directory
	make     bool   // root, if it is missing
	rsync    string
	confined bool // the kernel holds this process to root already
}

func newAgentCommand() *cobra.Command {
	o := &agentOptions{}
	c := &cobra.Command{
		Use:   "agent --root DIR | --below DIR",
		Short: "Be the slave end of a session, as sshd's child",
		Long: `Speaks with georep replicate over standard input and output, and starts the rsync
that it asks for. A key in authorized_keys that may do no more than this:

    restrict,command="georep agent --root /srv/slave" ssh-ed25519 AAAA… master

With --below instead of --root the key may do so in each directory below DIR; that
is what georep destination add installs.

Where the kernel can (Linux 5.19), the agent and its rsync are held to DIR.
Exit status: 0 the other side is done, 1 failed, 4 refused.`,
		Example: `    $ georep agent --root /srv/slave`,
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c.Context(), args, os.Getenv("SSH_ORIGINAL_COMMAND"))
		},
	}
	f := c.Flags()
	// What follows are another program's arguments.
	f.SetInterspersed(false)
	f.StringVar(&o.root, "root", "", "the slave's directory")
	f.StringVar(&o.below, "below", "", "as a forced command: serve the directory that is asked for, in this one")
	f.BoolVar(&o.make, "make", false, "make the slave's directory if it is missing")
	f.StringVar(&o.rsync, "rsync", "rsync", "the rsync program")
	f.BoolVar(&o.confined, "confined", false, "")
	f.Lookup("confined").Hidden = true
	c.MarkFlagsOneRequired("root", "below")
	c.MarkFlagsMutuallyExclusive("root", "below")
	return c
}

// run serves, or becomes the rsync that args, or the command that a forced one
// stands in for, ask for.
func (o *agentOptions) run(ctx context.Context, args []string, original string) error {
	if o.below != "" {
		done, err := o.readRequest(original, &args)
		if err != nil || done {
			return err
		}
		original = ""
	}
	if !filepath.IsAbs(o.root) {
		return usagef("agent: --root %s: not an absolute path", o.root)
	}
	if original != "" && !o.confined {
		asked, err := slave.ParseRequest(original, o.root)
		if err != nil {
			return &exitError{code: exitPrecondition, err: err}
		}
		args = asked
	}
	if len(args) > 0 {
		return o.execRsync(args)
	}
	if o.make {
		if err := o.makeRoot(); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	if !o.confined {
		if err := o.execConfined(); err != nil {
			return err
		}
	}
	return slave.Serve(ctx, standardStreams{}, slave.ServerOptions{
		Root: o.root, Version: buildVersion(), Rsync: o.rsync, Confined: o.confined,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

// readRequest finds out what root is from what was asked of a forced command with
// --below. done: it was a question about this host and is answered.
func (o *agentOptions) readRequest(original string, args *[]string) (done bool, err error) {
	if !filepath.IsAbs(o.below) {
		return false, usagef("agent: --below %s: not an absolute path", o.below)
	}
	if original == reportRequest {
		return true, printReport(os.Stdout, o.below, o.rsync)
	}
	if original == "" {
		return false, usagef("agent: --below is for forced commands")
	}
	o.root, *args, err = slave.ParseRequestBelow(original, o.below)
	if err != nil {
		return false, &exitError{code: exitPrecondition, err: err}
	}
	if len(*args) == 1 && (*args)[0] == "--make" {
		o.make, *args = true, nil
	}
	return false, nil
}

// makeRoot makes the slave's directory, and with --below those on the way to it.
func (o *agentOptions) makeRoot() error {
	if o.below != "" {
		return os.MkdirAll(o.root, 0o755)
	}
	if err := os.Mkdir(o.root, 0o755); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// execRsync becomes the rsync server that the other side's rsync asks for.
func (o *agentOptions) execRsync(words []string) error {
	err := slave.ExecRsync(words, o.root, o.rsync, os.Environ())
	if errors.Is(err, slave.ErrRefused) {
		return &exitError{code: exitPrecondition, err: err}
	}
	return err
}

// execConfined starts this program over with the kernel holding it to root: all
// its threads then, which could not be said of a program that runs already. It
// returns where the kernel can't.
func (o *agentOptions) execConfined() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	confined, err := slave.Confine(o.root)
	if err != nil || !confined {
		return err
	}
	args := []string{"georep", "agent", "--confined", "--root", o.root, "--rsync", o.rsync}
	err = syscall.Exec("/proc/self/exe", args, os.Environ())
	return fmt.Errorf("agent: start over: %w", err)
}

// standardStreams are standard input and output as one stream.
type standardStreams struct{}

func (standardStreams) Read(p []byte) (int, error)  { return os.Stdin.Read(p) }
func (standardStreams) Write(p []byte) (int, error) { return os.Stdout.Write(p) }

func (standardStreams) Close() error { return errors.Join(os.Stdin.Close(), os.Stdout.Close()) }

// newRshCommand is the remote shell of our rsync: see transport.Shell.
func newRshCommand() *cobra.Command {
	c := &cobra.Command{
		Use:    "rsh SOCKET HOST COMMAND…",
		Short:  "Be the remote shell of an rsync that georep replicate runs",
		Hidden: true,
		Args:   cobra.MinimumNArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			status, err := transport.RunShell(args[0], args[1:], os.Stdin, os.Stdout, os.Stderr)
			if err != nil || status != 0 {
				return &exitError{code: status, err: err}
			}
			return nil
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}
