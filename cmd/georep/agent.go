package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
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
	rsync    string
	confined bool // the kernel holds this process to root already
}

func newAgentCommand() *cobra.Command {
	o := &agentOptions{}
	c := &cobra.Command{
		Use:   "agent --root DIR",
		Short: "Be the slave end of a session, as sshd's child",
		Long: `Speaks with georep replicate over standard input and output, and starts the rsync
that it asks for. A key in authorized_keys that may do no more than this:

    restrict,command="georep agent --root /srv/slave" ssh-ed25519 AAAA… master

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
	f.StringVar(&o.rsync, "rsync", "rsync", "the rsync program")
	f.BoolVar(&o.confined, "confined", false, "")
	f.Lookup("confined").Hidden = true
	c.MarkFlagRequired("root")
	return c
}

// run serves, or becomes the rsync that args, or the command that a forced one
// stands in for, ask for.
func (o *agentOptions) run(ctx context.Context, args []string, original string) error {
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

// execRsync becomes the rsync server that the other side's rsync asks for.
func (o *agentOptions) execRsync(words []string) error {
	args, err := slave.CheckRsync(words, o.root)
	if errors.Is(err, slave.ErrRefused) {
		return &exitError{code: exitPrecondition, err: err}
	}
	if err != nil {
		return err
	}
	program, err := exec.LookPath(o.rsync)
	if err != nil {
		return fmt.Errorf("agent: rsync: %w", err)
	}
	runtime.LockOSThread() // for good: exec follows
	if _, err := slave.Confine(o.root); err != nil {
		return err
	}
	err = syscall.Exec(program, append([]string{"rsync"}, args...), os.Environ())
	return fmt.Errorf("agent: %s: %w", program, err)
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
