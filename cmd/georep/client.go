package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/georep/georep/replicator/daemon"
	"github.com/georep/georep/replicator/session"
)

// daemonClient is how a command asks the daemon.
type daemonClient struct{ socket string }

// addFlag adds the flag that names the daemon to c and all commands below it.
func (o *daemonClient) addFlag(c *cobra.Command) {
	c.PersistentFlags().StringVar(&o.socket, "socket", socketDefault(), "unix socket of the daemon")
}

// do asks the daemon; see daemon.Client.
func (o *daemonClient) do(c *cobra.Command, method, path string, in, out any) error {
	return daemonError(daemon.NewClient(o.socket).Do(c.Context(), method, path, in, out))
}

// daemonError gives an error of the daemon its exit code.
func daemonError(err error) error {
	var e *session.Error
	switch {
	case errors.As(err, &e):
		code, ok := map[session.Kind]int{
			session.Usage: exitUsage, session.NotFound: exitNotFound, session.Precondition: exitPrecondition, session.Timeout: exitTimeout,
		}[e.Kind]
		if !ok {
			code = exitFailed
		}
		return &exitError{code: code, err: e, hint: e.Hint}
	case errors.Is(err, daemon.ErrNoDaemon):
		return &exitError{code: exitFailed, err: err, hint: "start it: systemctl start georep, or georep daemon"}
	}
	return err
}

// pathOf is a path of the API with names in it.
func pathOf(parts ...string) string {
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/v1/" + strings.Join(parts, "/")
}

// newTable aligns columns, with a heading.
func newTable(w io.Writer, heading ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row(t, heading...)
	return t
}

func row(t *tabwriter.Writer, cells ...string) {
	fmt.Fprintln(t, strings.Join(cells, "\t"))
}

// timeText is t as in all tables, "N/A" if it is zero.
func timeText(t time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return t.Local().Format(time.DateTime)
}

func bytesText(n uint64) string { return humanize.IBytes(n) }

// sorted is names in order.
func sorted(names []string) []string {
	slices.Sort(names)
	return names
}
