package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/georep/georep/replicator/daemon"
)

// sessionStatusOptions are the options of georep session status as given.
type sessionStatusOptions struct {
	*daemonClient
	detail bool
	watch  bool
	check  bool
	output string
}

func newSessionStatusCommand(client *daemonClient) *cobra.Command {
	o := &sessionStatusOptions{daemonClient: client}
	c := &cobra.Command{
		Use:   "status [NAME] [--detail] [--watch] [--check] [-o table|wide|json]",
		Short: "Show each worker of a session, of every session when none is named",
		Long: `STATUS is Created, Initializing, Active, Degraded (some items wait in quarantine),
Stalled (no progress though work waits), Faulty, HostKeyChanged, Paused or Stopped. LAST_SYNCED is the stime: everything
older is durable on the slave. LAG is the age of the oldest change that the slave
may lack. ENTRY, DATA and META wait to be applied; FAILURES wait in quarantine.

With --check one line is printed and the exit status is that of a Nagios plugin:
0 all well, 1 degraded, initializing, stopped, paused or behind rpo-target,
2 faulty, stalled or host key changed, 3 not known.
Else: 0 no worker faulty, 1 some faulty, 2 usage, 3 no such session.`,
		Example: `    $ georep session status vol0-backup
    MASTER NODE  MASTER VOL  MASTER BRICK  SLAVE USER  SLAVE             SLAVE NODE  STATUS  CRAWL STATUS     LAST_SYNCED
    web1         vol0        /bricks/b     root        backup:/srv/vol0  10.0.0.7    Active  Changelog Crawl  2024-05-01 10:00:15`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, args) },
	}
	f := c.Flags()
	f.BoolVar(&o.detail, "detail", false, "add what waits, checkpoints, lag, rate and reasons")
	f.BoolVar(&o.watch, "watch", false, "show it anew every second until interrupted")
	f.BoolVar(&o.check, "check", false, "speak Nagios: one line, and the exit status")
	f.StringVarP(&o.output, "output", "o", "table", "table, wide (as --detail) or json")
	return c
}

func (o *sessionStatusOptions) run(c *cobra.Command, args []string) error {
	if !slices.Contains([]string{"table", "wide", "json"}, o.output) {
		return usagef("session status: --output %q: want table, wide or json", o.output)
	}
	if o.check {
		return o.nagios(c, args)
	}
	for {
		all, err := o.get(c, args)
		if err != nil {
			return err
		}
		w := c.OutOrStdout()
		if o.watch && term.IsTerminal(int(os.Stdout.Fd())) {
			fmt.Fprint(w, "\x1b[H\x1b[2J")
		}
		if err := o.print(w, all); err != nil {
			return err
		}
		if !o.watch {
			return faultyError(all)
		}
		select {
		case <-c.Context().Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func faultyError(all []daemon.SessionStatus) error {
	for _, s := range all {
		if s.Status == "Faulty" || s.Status == "Stalled" || s.Status == "HostKeyChanged" {
			return &exitError{code: exitFailed}
		}
	}
	return nil
}

func (o *sessionStatusOptions) get(c *cobra.Command, args []string) ([]daemon.SessionStatus, error) {
	var all []daemon.SessionStatus
	if len(args) == 0 {
		return all, o.do(c, "GET", "/v1/sessions", nil, &all)
	}
	all = make([]daemon.SessionStatus, 1)
	return all, o.do(c, "GET", pathOf("sessions", args[0]), nil, &all[0])
}

func (o *sessionStatusOptions) print(w io.Writer, all []daemon.SessionStatus) error {
	if o.output == "json" {
		j := json.NewEncoder(w)
		for _, s := range all {
			for _, ws := range s.Workers {
				if err := j.Encode(ws); err != nil {
					return err
				}
			}
		}
		return nil
	}
	detail := o.detail || o.output == "wide"
	heading := statusHeading
	if detail {
		heading = append(slices.Clone(statusHeading), detailHeading...)
	}
	t := newTable(w, heading...)
	for _, s := range all {
		for i := range s.Workers {
			cells := statusCells(&s.Workers[i])
			if detail {
				cells = append(cells, detailCells(&s.Workers[i])...)
			}
			row(t, cells...)
		}
	}
	return t.Flush()
}

// The columns of gluster volume geo-replication status, in its order; then ours.
var (
	statusHeading = []string{"MASTER NODE", "MASTER VOL", "MASTER BRICK", "SLAVE USER", "SLAVE", "SLAVE NODE", "STATUS", "CRAWL STATUS", "LAST_SYNCED"}
	detailHeading = []string{"ENTRY", "DATA", "META", "FAILURES", "CHECKPOINT TIME", "CHECKPOINT COMPLETED", "CHECKPOINT COMPLETION TIME",
		"LAG", "BACKLOG", "RATE", "ETA", "SESSION", "REASON"}
)

func statusCells(w *daemon.WorkerStatus) []string {
	crawl := "N/A"
	if w.Crawl != "" {
		crawl = w.Crawl + " Crawl"
	}
	return []string{w.Node, w.Volume, w.Brick, w.SlaveUser, w.Slave, w.SlaveNode, w.Status, crawl, timeText(w.Stime)}
}

func detailCells(w *daemon.WorkerStatus) []string {
	at, done, when := "N/A", "N/A", "N/A"
	if p := w.Checkpoint; p != nil {
		at, done, when = timeText(p.Time), yesNo(!p.Completed.IsZero()), timeText(p.Completed)
	}
	lag, eta, reason := lagText(w), "N/A", w.Reason
	if w.ETA > 0 {
		eta = w.ETA.Round(time.Second).String()
	}
	if reason == "" {
		reason = "-"
	}
	return []string{
		fmt.Sprint(w.Entries), fmt.Sprint(w.Data), fmt.Sprint(w.Meta), fmt.Sprint(w.Failures), at, done, when,
		lag, fmt.Sprint(w.Backlog),
		fmt.Sprintf("%.0f/s, %s/s", w.Rate, bytesText(uint64(max(w.RateBytes, 0)))), eta, w.Session, oneLine(reason),
	}
}

// lagText is the lag in seconds, "N/A" before the first copy is complete.
func lagText(w *daemon.WorkerStatus) string {
	switch {
	case w.Stime.IsZero() && !w.Current:
		return "N/A"
	case w.LagOver:
		return fmt.Sprintf("%ds!", int64(w.Lag.Seconds()))
	}
	return fmt.Sprintf("%ds", int64(w.Lag.Seconds()))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Nagios's exit codes.
const (
	nagiosOK       = 0
	nagiosWarning  = 1
	nagiosCritical = 2
	nagiosUnknown  = 3
)

// nagios prints one line and ends with Nagios's code.
func (o *sessionStatusOptions) nagios(c *cobra.Command, args []string) error {
	ctx, cancel := context.WithTimeout(c.Context(), 30*time.Second)
	defer cancel()
	c.SetContext(ctx)
	all, err := o.get(c, args)
	w := c.OutOrStdout()
	if err != nil {
		fmt.Fprintf(w, "GEOREP UNKNOWN - %s\n", oneLine(err.Error()))
		return &exitError{code: nagiosUnknown}
	}
	code, words := nagiosOK, []string{}
	for i := range all {
		for j := range all[i].Workers {
			ws := &all[i].Workers[j]
			n := nagiosCode(ws)
			code = max(code, n)
			if n == nagiosOK {
				continue
			}
			text := fmt.Sprintf("%s %s is %s", ws.Session, ws.Brick, ws.Status)
			if ws.LagOver {
				text += fmt.Sprintf(", %s behind", ws.Lag.Round(time.Second))
			}
			if ws.Reason != "" {
				text += ": " + oneLine(ws.Reason)
			}
			words = append(words, text)
		}
	}
	if code == nagiosOK {
		words = []string{fmt.Sprintf("%d sessions in step", len(all))}
	}
	fmt.Fprintf(w, "GEOREP %s - %s | %s\n", []string{"OK", "WARNING", "CRITICAL"}[code], strings.Join(words, "; "), performance(all))
	if code == nagiosOK {
		return nil
	}
	return &exitError{code: code}
}

func nagiosCode(w *daemon.WorkerStatus) int {
	switch w.Status {
	case "Faulty", "Stalled", "HostKeyChanged":
		return nagiosCritical
	case "Active":
		if !w.LagOver {
			return nagiosOK
		}
	}
	return nagiosWarning
}

// performance is what Nagios draws graphs of.
func performance(all []daemon.SessionStatus) string {
	var parts []string
	for _, s := range all {
		for _, w := range s.Workers {
			label := strings.ReplaceAll(w.Session+" "+w.Brick, "'", "")
			parts = append(parts, fmt.Sprintf("'%s lag'=%ds '%s backlog'=%d", label, int64(w.Lag.Seconds()), label, w.Backlog))
		}
	}
	return strings.Join(parts, " ")
}
