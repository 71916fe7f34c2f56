package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/georep/georep/replicator/daemon"
	"github.com/georep/georep/replicator/session"
)

// Where the daemon keeps things unless told otherwise.
const (
	defaultSocket = "/run/georep/georep.sock"
	defaultState  = "/var/lib/georep"
	defaultMounts = "/srv/georep"
)

// daemonOptions are the options of georep daemon as given.
type daemonOptions struct {
	config string
	socket string
	state  string
	store  string
	mounts string

	metrics string
	webhook string
	debug   bool
}

func newDaemonCommand() *cobra.Command {
	o := &daemonOptions{}
	c := &cobra.Command{
		Use:   "daemon [options]",
		Short: "Keep volumes mounted and sessions running, and answer the other commands",
		Long: `What georep volume, destination, session and checkpoint ask for is kept in a
database before it is answered, and is made so again whenever the daemon starts.
Mounts are processes of their own and outlive the daemon; workers end with it and
go on where they were. It logs to stderr.

Exit status: 0 ended by a signal, 1 failed, 2 usage, 4 another daemon runs.`,
		Example: `    $ georep daemon &
    $ georep session list`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := readDaemonFile(o.config, c.Flags().Changed("config"))
			if err == nil {
				err = f.apply(c.Flags())
			}
			if err != nil {
				return err
			}
			return o.run(c.Context())
		},
	}
	c.Flags().StringVar(&o.config, "config", defaultConfig, "file of options; those of the command line have precedence")
	o.addFlags(c.Flags())
	return c
}

func (o *daemonOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.socket, "socket", socketDefault(), "unix socket of the API")
	f.StringVar(&o.state, "state-dir", defaultState, "directory of keys and logs")
	f.StringVar(&o.store, "db", "", "database (default STATE-DIR/georep.db)")
	f.StringVar(&o.mounts, "mount-dir", defaultMounts, "directory in which volumes are mounted that name no mountpoint")
	f.StringVar(&o.metrics, "metrics", "", "address on the loopback at which Prometheus is answered, such as 127.0.0.1:9877 (default none)")
	f.StringVar(&o.webhook, "webhook", "", "http or https URL that each event is posted to as JSON (default none)")
	f.BoolVar(&o.debug, "debug", false, "log more")
}

// check refuses options that make no sense.
func (o *daemonOptions) check() error {
	if o.metrics != "" {
		if err := daemon.CheckMetricsAddress(o.metrics); err != nil {
			return daemonError(err)
		}
	}
	if u, err := url.Parse(o.webhook); o.webhook != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return usagef("daemon: webhook %q: want an http or https URL", o.webhook)
	}
	return nil
}

// socketEnv names another socket than the default one for all commands.
const socketEnv = "GEOREP_SOCKET"

func socketDefault() string {
	if s := os.Getenv(socketEnv); s != "" {
		return s
	}
	return defaultSocket
}

func (o *daemonOptions) run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return &exitError{code: exitPrecondition, err: errors.New("daemon: only root can mount bricks and read them"), hint: "run it with sudo"}
	}
	if err := o.check(); err != nil {
		return err
	}
	if o.store == "" {
		o.store = filepath.Join(o.state, "georep.db")
	}
	for _, p := range []*string{&o.socket, &o.state, &o.store, &o.mounts} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("daemon: %w", err)
		}
		*p = abs
	}
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	store, err := session.Open(o.store)
	if errors.Is(err, session.ErrBusy) {
		return &exitError{code: exitPrecondition, err: err, hint: "another georep daemon runs; it answers at the socket it was given"}
	}
	if err != nil {
		return err
	}
	defer store.Close()
	node, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	d, err := daemon.New(daemon.Options{
		Store: store, Host: &daemonHost{log: log}, Socket: o.socket, State: o.state, Mounts: o.mounts,
		Georep: self, Node: node, Env: childEnv(), Version: buildVersion(), Metrics: o.metrics, Webhook: o.webhook, Notify: notifySystemd(), Logger: log,
	})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

// notifySystemd tells systemd what the daemon says of itself. Its watchdog is fed
// only as often as the daemon says it is alive.
func notifySystemd() func(string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	var warned time.Time
	return func(state string) {
		if _, err := sd.SdNotify(false, state); err != nil && time.Since(warned) > time.Hour {
			warned = time.Now()
			slog.Default().Warn("systemd not told", "err", err)
		}
	}
}

// childEnv is our environment without what systemd meant for us alone.
func childEnv() []string {
	for _, name := range []string{"WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	env := []string{}
	for _, e := range os.Environ() {
		if len(e) < len("NOTIFY_SOCKET=") || e[:len("NOTIFY_SOCKET=")] != "NOTIFY_SOCKET=" {
			env = append(env, e)
		}
	}
	return env
}
