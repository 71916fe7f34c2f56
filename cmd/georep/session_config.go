package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/georep/georep/replicator/session"
)

// sessionConfigOptions are the options of georep session config as given.
type sessionConfigOptions struct {
	*daemonClient
	reset    string
	resetAll bool
	list     bool
	json     bool
}

func newSessionConfigCommand(client *daemonClient) *cobra.Command {
	o := &sessionConfigOptions{daemonClient: client}
	c := &cobra.Command{
		Use:   "config NAME [KEY [VALUE]] [--reset KEY] [--reset-all] [--list]",
		Short: "Show or change how a session replicates",
		Long: `Without a KEY all values are shown, with --list what each key means too. Of those
that restart the worker a change ends it at a safe point and starts it again; the
others are heeded at once.

Keys:
` + configHelp() + `
Exit status: 0 done, 1 failed, 2 no such key or a value that is not allowed,
3 no such session.`,
		Example: `    $ georep session config vol0-backup bwlimit 10M`,
		Args:    cobra.RangeArgs(1, 3),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c, args) },
	}
	f := c.Flags()
	f.StringVar(&o.reset, "reset", "", "give this key its default again")
	f.BoolVar(&o.resetAll, "reset-all", false, "give all keys their defaults again")
	f.BoolVar(&o.list, "list", false, "show type, default, allowed values and meaning of each key")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return c
}

// configHelp is a line for each key.
func configHelp() string {
	var b strings.Builder
	for _, k := range session.Keys() {
		fmt.Fprintf(&b, "  %-16s %s (default %s)\n", k.Name, k.Description, k.Default)
	}
	return b.String()
}

func (o *sessionConfigOptions) run(c *cobra.Command, args []string) error {
	path := pathOf("sessions", args[0], "config")
	var all []session.Setting
	switch {
	case o.reset != "" || o.resetAll:
		if len(args) > 1 || o.reset != "" && o.resetAll {
			return usagef("session config: --reset KEY and --reset-all stand alone")
		}
		return o.do(c, "DELETE", path+"?key="+url.QueryEscape(o.reset), nil, nil)
	case len(args) == 3:
		return o.do(c, "PATCH", path, map[string]string{args[1]: args[2]}, nil)
	}
	if err := o.do(c, "GET", path, nil, &all); err != nil {
		return err
	}
	if len(args) == 2 {
		return o.printOne(c, all, args[1])
	}
	return o.print(c, all)
}

func (o *sessionConfigOptions) printOne(c *cobra.Command, all []session.Setting, key string) error {
	for _, x := range all {
		if x.Name != strings.ReplaceAll(key, "_", "-") {
			continue
		}
		if o.json {
			return json.NewEncoder(c.OutOrStdout()).Encode(x)
		}
		_, err := fmt.Fprintln(c.OutOrStdout(), x.Value)
		return err
	}
	return &exitError{code: exitUsage, err: fmt.Errorf("there is no key %q", key), hint: "see: georep session config NAME --list"}
}

func (o *sessionConfigOptions) print(c *cobra.Command, all []session.Setting) error {
	w := c.OutOrStdout()
	if o.json {
		return json.NewEncoder(w).Encode(all)
	}
	if !o.list {
		t := newTable(w, "KEY", "VALUE", "SET")
		for _, x := range all {
			row(t, x.Name, x.Value, yesNo(x.Set))
		}
		return t.Flush()
	}
	t := newTable(w, "KEY", "VALUE", "TYPE", "DEFAULT", "RESTARTS", "ALLOWED", "MEANING")
	for _, x := range all {
		row(t, x.Name, x.Value, x.Type, x.Default, yesNo(x.Restarts), x.Allowed, x.Description)
	}
	return t.Flush()
}
