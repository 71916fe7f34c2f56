package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/georep/georep/replicator/daemon"
	"github.com/georep/georep/replicator/session"
)

func newSessionCommand() *cobra.Command {
	o := &daemonClient{}
	c := &cobra.Command{
		Use:   "session",
		Short: "Replicate volumes to slaves, many at once, supervised",
	}
	o.addFlag(c)
	c.AddCommand(newSessionCreateCommand(o), newSessionListCommand(o), newSessionStatusCommand(o), newSessionDeleteCommand(o),
		newSessionConfigCommand(o), newSessionQuarantineCommand(o))
	for _, v := range sessionVerbs {
		c.AddCommand(v.command(o))
	}
	return c
}

func newSessionCreateCommand(o *daemonClient) *cobra.Command {
	var req daemon.NewSession
	c := &cobra.Command{
		Use:   "create VOLUME DESTINATION:/DIR [--name NAME] [--start]",
		Short: "Pair a volume with a slave",
		Long: `DESTINATION is the name of one (see georep destination); /DIR alone is a directory
on this host. A volume with several bricks has a directory in DIR for each, with
the brick's name. The slave must be an empty directory, or this brick's slave
already. Its name is printed.

Exit status: 0 created, 1 failed, 2 usage, 3 no such volume or destination,
4 the slave can't be one; nothing is left of the attempt.`,
		Example: `    $ georep session create vol0 backup:/srv/vol0 --start`,
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			req.Volume = args[0]
			var ok bool
			if req.Destination, req.Dir, ok = cutSlave(args[1]); !ok {
				return usagef("session create: slave %q: want DESTINATION:/DIR, or /DIR on this host", args[1])
			}
			var st daemon.SessionStatus
			if err := o.do(c, "POST", "/v1/sessions", req, &st); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), st.Name)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&req.Name, "name", "", "name of the session (default VOLUME-DESTINATION, or VOLUME-local)")
	f.BoolVar(&req.Start, "start", false, "start it at once")
	f.BoolVar(&req.Force, "force", false, "create it though the slave has less room than the master")
	return c
}

// cutSlave cuts DESTINATION:/DIR or /DIR.
func cutSlave(s string) (destination, dir string, ok bool) {
	if strings.HasPrefix(s, "/") {
		return "", s, true
	}
	destination, dir, ok = strings.Cut(s, ":")
	return destination, dir, ok && destination != "" && strings.HasPrefix(dir, "/")
}

func newSessionListCommand(o *daemonClient) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "list",
		Short:   "List all sessions",
		Long:    `Exit status: 0 listed, 1 failed, 2 usage.`,
		Example: `    $ georep session list`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var all []daemon.SessionStatus
			if err := o.do(c, "GET", "/v1/sessions", nil, &all); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(all)
			}
			t := newTable(c.OutOrStdout(), "NAME", "MASTER VOL", "SLAVE", "STATUS", "CREATED")
			for i := range all {
				s := &all[i]
				row(t, s.Name, s.Volume, s.Address(), s.Status, timeText(s.Created))
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// sessionVerb is a command that only asks the daemon to do something to a session.
type sessionVerb struct {
	verb, short, long string
	force             string // what --force does; "" if there is none
}

var sessionVerbs = []sessionVerb{
	{"start", "Start a session", "Exit status: 0 started, 1 failed, 2 usage, 3 no such session, 4 it is started already,\nor paused.",
		"start the workers anew if it is started"},
	{"stop", "Stop a session at a safe point", "Exit status: 0 stopped, 1 failed, 2 usage, 3 no such session, 4 it is not started.",
		"stop it whatever it is"},
	{"pause", "Pause a session at a safe point", "A paused session can be resumed and not deleted, so that nobody forgets it.\nExit status: 0 paused, 1 failed, 2 usage, 3 no such session, 4 it is not started.",
		"pause it whatever it is"},
	{"resume", "Go on with a session that is paused", "Exit status: 0 resumed, 1 failed, 2 usage, 3 no such session, 4 it is not paused.",
		"start it whatever it is"},
	{"retry", "Try what waits in quarantine now", "Exit status: 0 asked for, 1 failed, 2 usage, 3 no such session, 4 it is not running.", ""},
}

func (v sessionVerb) command(o *daemonClient) *cobra.Command {
	force := false
	c := &cobra.Command{
		Use: v.verb + " NAME", Short: v.short, Long: v.long, Args: cobra.ExactArgs(1),
		Example: "    $ georep session " + v.verb + " vol0-backup",
		RunE: func(c *cobra.Command, args []string) error {
			return o.do(c, "POST", pathOf("sessions", args[0], v.verb)+forceQuery(force), nil, nil)
		},
	}
	if v.force != "" {
		c.Use += " [--force]"
		c.Flags().BoolVar(&force, "force", false, v.force)
	}
	return c
}

func newSessionDeleteCommand(o *daemonClient) *cobra.Command {
	var reset bool
	c := &cobra.Command{
		Use:   "delete NAME [--reset-sync-time]",
		Short: "Forget a session that is stopped",
		Long: `What is on the slave stays, and so does the stime on the master: a session created
again between the two goes on where this one was.
Exit status: 0 forgotten, 1 failed, 2 usage, 3 no such session, 4 it is started.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := pathOf("sessions", args[0])
			if reset {
				path += "?reset-sync-time=1"
			}
			return o.do(c, "DELETE", path, nil, nil)
		},
	}
	c.Flags().BoolVar(&reset, "reset-sync-time", false, "forget the stime too: a session created again compares all")
	return c
}

func newSessionQuarantineCommand(o *daemonClient) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "quarantine NAME",
		Short: "List what could not be replicated and is tried again",
		Long:  `Exit status: 0 nothing waits, 1 something does, 2 usage, 3 no such session.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var all []session.Quarantined
			if err := o.do(c, "GET", pathOf("sessions", args[0], "quarantine"), nil, &all); err != nil {
				return err
			}
			var err error
			if asJSON {
				err = json.NewEncoder(c.OutOrStdout()).Encode(all)
			} else {
				t := newTable(c.OutOrStdout(), "GFID", "PATH", "OPERATION", "ATTEMPTS", "SINCE", "NEXT TRY", "REASON")
				for _, x := range all {
					row(t, x.GFID, fmt.Sprintf("%q", x.Path), x.Op, fmt.Sprint(x.Attempts), timeText(x.Since), timeText(x.Next), x.Error)
				}
				err = t.Flush()
			}
			if err == nil && len(all) > 0 {
				err = &exitError{code: exitFailed}
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
