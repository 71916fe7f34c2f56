package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// defaultConfig is the daemon's file of options.
const defaultConfig = "/etc/georep/georep.toml"

// daemonFile is what the file of options may say: the daemon's flags, by name.
type daemonFile struct {
	Socket   *string `toml:"socket"`
	StateDir *string `toml:"state-dir"`
	DB       *string `toml:"db"`
	MountDir *string `toml:"mount-dir"`
	Metrics  *string `toml:"metrics"`
	Webhook  *string `toml:"webhook"`
}

// readDaemonFile reads the file of options, strictly. One that is not there is
// empty unless it must be.
func readDaemonFile(path string, must bool) (*daemonFile, error) {
	f := &daemonFile{}
	meta, err := toml.DecodeFile(path, f)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return f, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &exitError{code: exitNotFound, err: fmt.Errorf("config: %w", err)}
	}
	var bad toml.ParseError
	switch {
	case errors.As(err, &bad):
		return nil, usagef("config: %s line %d: %s", path, bad.Position.Line, oneLine(bad.Message))
	case err != nil:
		return nil, usagef("config: %s: %w", path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		names := []string{}
		for name := range f.flags() {
			names = append(names, name)
		}
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("config: %s: there is no key %q", path, unknown[0].String()),
			hint: "keys are " + strings.Join(sorted(names), ", ")}
	}
	return f, nil
}

// flags are the values by the flags they stand for; nil is not given.
func (f *daemonFile) flags() map[string]*string {
	return map[string]*string{
		"socket": f.Socket, "state-dir": f.StateDir, "db": f.DB, "mount-dir": f.MountDir, "metrics": f.Metrics, "webhook": f.Webhook,
	}
}

// apply sets the flags that the file has values for and the command line does not
// give.
func (f *daemonFile) apply(flags *pflag.FlagSet) error {
	for name, value := range f.flags() {
		if value == nil || flags.Changed(name) {
			continue
		}
		if err := flags.Set(name, *value); err != nil {
			return err
		}
	}
	return nil
}

func newConfigCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check the daemon's file of options",
	}
	c.AddCommand(&cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what is wrong with the daemon's file of options",
		Long: `FILE is /etc/georep/georep.toml if none is named. It may set the daemon's options:

    socket = "/run/georep/georep.sock"
    state-dir = "/var/lib/georep"
    db = "/var/lib/georep/georep.db"
    mount-dir = "/srv/georep"
    metrics = "127.0.0.1:9877"
    webhook = "https://example.com/georep"

The command line has precedence. A key that is not known is an error.
Exit status: 0 all is well, 2 something is wrong, 3 there is no such file.`,
		Example: `    $ georep config check`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := defaultConfig
			if len(args) == 1 {
				path = args[0]
			}
			f, err := readDaemonFile(path, true)
			if err != nil {
				return err
			}
			o := &daemonOptions{}
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			o.addFlags(flags)
			if err := f.apply(flags); err != nil {
				return err
			}
			for name, value := range f.flags() {
				dir := name != "metrics" && name != "webhook"
				if dir && value != nil && !filepath.IsAbs(*value) {
					return usagef("config: %s: %s %q: want an absolute path", path, name, *value)
				}
			}
			if err := o.check(); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: all is well\n", path)
			return err
		},
	})
	return c
}
