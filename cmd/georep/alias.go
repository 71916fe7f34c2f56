package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/georep/georep/replicator/daemon"
)

// newGeoReplicationCommand speaks the words of gluster volume geo-replication, for
// hands and scripts that know them.
func newGeoReplicationCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:   "geo-replication [MASTER [SLAVE]] create|start|stop|pause|resume|status [detail]|config [KEY [VALUE]]|delete",
		Short: "Do what gluster volume geo-replication does, in its words",
		Long: `MASTER is a volume, SLAVE is DESTINATION:/DIR, DESTINATION::/DIR or /DIR. After
create: push-pem, no-verify and ssh-port are not needed (see georep destination
add); force is --force. config '!KEY' gives KEY its default again; config checkpoint
now makes a checkpoint. delete reset-sync-time forgets the stime.

Exit status: that of the georep session command which it stands for.`,
		Example: `    $ georep volume geo-replication vol0 backup:/srv/vol0 status detail`,
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return geoReplication(c, o, args) },
	}
}

func geoReplication(c *cobra.Command, o *daemonClient, args []string) error {
	verbs := []string{"create", "start", "stop", "pause", "resume", "status", "config", "delete"}
	at := slices.IndexFunc(args, func(a string) bool { return slices.Contains(verbs, a) })
	if at < 0 || at > 2 {
		return usagef("volume geo-replication: want [MASTER [SLAVE]] and one of %s", strings.Join(verbs, ", "))
	}
	names, verb, rest := args[:at], args[at], args[at+1:]
	if verb != "status" && at != 2 {
		return usagef("volume geo-replication: %s: want MASTER and SLAVE before it", verb)
	}
	var slave string
	if at == 2 {
		slave = strings.Replace(names[1], "::", ":", 1)
		if _, _, ok := cutSlave(slave); !ok {
			return usagef("volume geo-replication: slave %q: want DESTINATION:/DIR, or /DIR on this host", names[1])
		}
	}
	run := func(words ...string) error { return runSession(c, o, words) }
	switch verb {
	case "status":
		return geoReplicationStatus(c, o, names, slave, rest)
	case "create":
		words := []string{"create", names[0], slave}
		if slices.Contains(rest, "force") {
			words = append(words, "--force")
		}
		return run(words...)
	}
	name, err := findSession(c, o, names[0], slave)
	if err != nil {
		return err
	}
	words := []string{verb, name}
	switch verb {
	case "config":
		switch {
		case len(rest) == 1 && strings.HasPrefix(rest[0], "!"):
			words = append(words, "--reset", rest[0][1:])
		case len(rest) == 2 && rest[0] == "checkpoint":
			return runBelow(c, newCheckpointCommand(), o, []string{"create", name, rest[1]})
		default:
			words = append(words, rest...)
		}
		return run(words...)
	case "delete":
		if slices.Contains(rest, "reset-sync-time") {
			words = append(words, "--reset-sync-time")
		}
		return run(words...)
	}
	if slices.Contains(rest, "force") {
		words = append(words, "--force")
	}
	return run(words...)
}

// runSession runs a georep session command.
func runSession(c *cobra.Command, o *daemonClient, words []string) error {
	return runBelow(c, newSessionCommand(), o, words)
}

// runBelow runs a command of a family with c's streams and the daemon of o.
func runBelow(c, family *cobra.Command, o *daemonClient, words []string) error {
	family.SilenceErrors, family.SilenceUsage = true, true
	finish(family)
	family.SetOut(c.OutOrStdout())
	family.SetErr(c.ErrOrStderr())
	family.SetArgs(append(words, "--socket", o.socket))
	return family.ExecuteContext(c.Context())
}

// sessionsOf are the sessions of a volume, "" is all, to a slave, "" is any.
func sessionsOf(c *cobra.Command, o *daemonClient, volume, slave string) ([]daemon.SessionStatus, error) {
	var all []daemon.SessionStatus
	if err := o.do(c, "GET", "/v1/sessions", nil, &all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s daemon.SessionStatus) bool {
		return volume != "" && s.Volume != volume || slave != "" && s.Address() != slave
	}), nil
}

func findSession(c *cobra.Command, o *daemonClient, volume, slave string) (string, error) {
	all, err := sessionsOf(c, o, volume, slave)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", &exitError{code: exitNotFound, err: fmt.Errorf("there is no session of volume %s to %s", volume, slave), hint: "see: georep session list"}
	}
	return all[0].Name, nil
}

func geoReplicationStatus(c *cobra.Command, o *daemonClient, names []string, slave string, rest []string) error {
	st := &sessionStatusOptions{daemonClient: o, output: "table"}
	switch {
	case len(rest) == 1 && rest[0] == "detail":
		st.detail = true
	case len(rest) > 0:
		return usagef("volume geo-replication: status: %q: want detail or nothing", rest[0])
	}
	volume := ""
	if len(names) > 0 {
		volume = names[0]
	}
	all, err := sessionsOf(c, o, volume, slave)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return &exitError{code: exitNotFound, err: errors.New("no session matches"), hint: "see: georep session list"}
	}
	if err := st.print(c.OutOrStdout(), all); err != nil {
		return err
	}
	return faultyError(all)
}
