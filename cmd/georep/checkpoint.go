package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/georep/georep/replicator/daemon"
	"github.com/georep/georep/replicator/session"
)

func newCheckpointCommand() *cobra.Command {
	o := &daemonClient{}
	c := &cobra.Command{
		Use:   "checkpoint",
		Short: "Mark a moment, and see when all before it is on the slave",
	}
	o.addFlag(c)
	c.AddCommand(newCheckpointCreateCommand(o), newCheckpointListCommand(o), newCheckpointWaitCommand(o))
	return c
}

func newCheckpointCreateCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:   "create SESSION [now|TIME]",
		Short: "Make a checkpoint, of now if no time is given",
		Long: `TIME is as in 2024-05-01T10:00:15Z, 2024-05-01 10:00:15 in local time, or unix
seconds. Its number is printed. It is reached when stime has passed it: then all
that was changed before it is durable on the slave.

Exit status: 0 made, 1 failed, 2 usage, 3 no such session.`,
		Example: `    $ georep checkpoint create vol0-backup && georep checkpoint wait vol0-backup --timeout 1h`,
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			var req daemon.NewCheckpoint
			if len(args) == 2 && args[1] != "now" {
				var err error
				if req.Time, err = parseCheckpointTime(args[1]); err != nil {
					return err
				}
			}
			var made session.Checkpoint
			if err := o.do(c, "POST", pathOf("sessions", args[0], "checkpoints"), req, &made); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), made.ID)
			return err
		},
	}
}

// parseCheckpointTime reads a time in any of the forms that people write.
func parseCheckpointTime(s string) (time.Time, error) {
	for _, form := range []string{time.RFC3339Nano, time.DateTime, "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return t, nil
		}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 {
		return time.Unix(n, 0), nil
	}
	return time.Time{}, usagef("time %q: want now, 2024-05-01T10:00:15Z, 2024-05-01 10:00:15 or unix seconds", s)
}

func newCheckpointListCommand(o *daemonClient) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list [SESSION]",
		Short: "List the checkpoints of a session, or of all",
		Long:  `Exit status: 0 listed, 1 failed, 2 usage, 3 no such session.`,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/checkpoints"
			if len(args) == 1 {
				path = pathOf("sessions", args[0], "checkpoints")
			}
			var all []session.Checkpoint
			if err := o.do(c, "GET", path, nil, &all); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(all)
			}
			t := newTable(c.OutOrStdout(), "ID", "SESSION", "CHECKPOINT TIME", "COMPLETED", "COMPLETION TIME")
			for _, p := range all {
				row(t, fmt.Sprint(p.ID), p.Session, timeText(p.Time), yesNo(!p.Completed.IsZero()), timeText(p.Completed))
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func yesNo(b bool) string {
	if b {
		return "Yes"
	}
	return "No"
}

func newCheckpointWaitCommand(o *daemonClient) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "wait SESSION [ID] [--timeout TIME]",
		Short: "Wait until a checkpoint is reached, the latest if no number is given",
		Long:  `Exit status: 0 reached, 1 failed, 2 usage, 3 no such session or checkpoint, 5 not in time.`,
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			q := url.Values{}
			if len(args) == 2 {
				q.Set("id", args[1])
			}
			if timeout < 0 {
				return usagef("checkpoint wait: --timeout %v: want a time above 0", timeout)
			}
			if timeout > 0 {
				q.Set("timeout", strconv.FormatInt(max(timeout.Milliseconds(), 1), 10))
			}
			var p session.Checkpoint
			if err := o.do(c, "GET", pathOf("sessions", args[0], "wait")+"?"+q.Encode(), nil, &p); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "checkpoint %d of %s is reached since %s\n", p.ID, timeText(p.Time), timeText(p.Completed))
			return err
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 0, "how long to wait, such as 90s or 1h (default for ever)")
	return c
}
