package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/georep/georep/replicator/daemon"
	"github.com/georep/georep/replicator/session"
)

func newEventsCommand() *cobra.Command {
	o := &daemonClient{}
	var follow, asJSON bool
	var after int64
	c := &cobra.Command{
		Use:   "events [--follow] [--after ID] [--json]",
		Short: "Print what happened to volumes, destinations and sessions",
		Long: `Each event has a number, which grows; --after goes on behind one.
Exit status: 0 printed, 1 failed, 2 usage.`,
		Example: `    $ georep events --follow --json`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			w := c.OutOrStdout()
			return daemonError(daemon.NewClient(o.socket).Events(c.Context(), after, follow, func(e *session.Event) error {
				if asJSON {
					return json.NewEncoder(w).Encode(e)
				}
				_, err := fmt.Fprintf(w, "%d %s %s %s\n", e.ID, timeText(e.Time), e.Kind, oneLine(e.Text))
				return err
			}))
		},
	}
	o.addFlag(c)
	f := c.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with those to come")
	f.BoolVar(&asJSON, "json", false, "print a JSON object a line")
	f.Int64Var(&after, "after", 0, "only those with a higher number")
	return c
}
