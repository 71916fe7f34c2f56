// Command georep mounts a brick, records what changes on it, and replicates the
// changes to a slave.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// families makes the commands right below georep, one per verb family and file.
var families = []func() *cobra.Command{
	newMountCommand,
	newReplicateCommand,
	newDaemonCommand,
	newVolumeCommand,
	newDestinationCommand,
	newSessionCommand,
	newCheckpointCommand,
	newEventsCommand,
	newConfigCommand,
	newDoctorCommand,
	newManCommand,
	newVerifyCommand,
	newAgentCommand,
	newRshCommand,
	newBrickCommand,
	newChangelogCommand,
	newBenchCommand,
	newVersionCommand,
}

// programs are the other names georep can be called by, as a link to it; each
// turns that program's arguments into georep's own.
var programs = map[string]func(args []string) []string{
	"mount.georep": mountHelperArgs,
}

func main() {
	args := os.Args[1:]
	if translate := programs[filepath.Base(os.Args[0])]; translate != nil {
		args = translate(args)
	}
	// What runs for long ends when this context does. A second signal, after the
	// first has been taken note of, kills as usual.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	root := newRootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		printError(os.Stderr, err)
	}
	os.Exit(exitCode(err))
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "georep",
		Short: "Mount a brick, record its changes, replicate them to a slave",
		Long: `Each command tells its options with --help.
Exit status of all: 0 done, 1 failed, 2 usage, 3 not found, 4 precondition, 5 timeout.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate(usageTemplate)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError(c, err) })
	for _, family := range families {
		root.AddCommand(family())
	}
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	finish(root)
	return root
}

// finish makes errors of cobra in c and all below it usage errors, and gives
// commands that only group others an error instead of silence.
func finish(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	check := c.Args
	switch {
	case !c.Runnable():
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(c, errors.New("there is no command "+strings.Join(args, " ")))
			}
			return usageError(c, errors.New("a command is missing"))
		}
		c.Args = cobra.ArbitraryArgs
	case check != nil:
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError(c, err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		finish(sub)
	}
}

// usageError is err, prefixed with the command it is about, with a hint.
func usageError(c *cobra.Command, err error) error {
	path := c.CommandPath()
	text := err.Error()
	if _, verb, ok := strings.Cut(path, " "); ok {
		text = verb + ": " + text
	}
	return &exitError{code: exitUsage, err: errors.New(text), hint: "see: " + path + " --help"}
}

// usageTemplate is the form of every help text: synopsis, one line of purpose,
// options, what else there is to know, an example.
const usageTemplate = `Usage: {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND …{{else}}{{.UseLine}}{{end}}

{{.Short}}.
{{if .HasAvailableSubCommands}}
{{range .Commands}}{{if .IsAvailableCommand}}  {{rpad .Name .NamePadding}}  {{.Short}}
{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{with .Long}}
{{. | trimTrailingWhitespaces}}
{{end}}{{with .Example}}Example:
{{. | trimTrailingWhitespaces}}
{{end}}`
