package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/georep/georep/changelog"
)

// recordingOptions are how a mount records.
type recordingOptions struct {
	changelog bool
	marker    bool
	encoding  changelog.Encoding
	rollover  time.Duration
	fsync     time.Duration // negative: every record is synced as it is written
	delPath   bool
}

// recordingFlags are the names of those that were given.
type recordingFlags map[string]bool

func defaultRecording() recordingOptions {
	return recordingOptions{
		changelog: true, marker: true, encoding: changelog.ASCII,
		rollover: changelog.DefaultRolloverTime, fsync: changelog.DefaultFsyncInterval,
	}
}

// recordingKeys are the names of the options, as on the command line, in -o and
// in the file of options.
var recordingKeys = []struct{ key, usage string }{
	{"changelog", "record changes: on or off"},
	{"marker", "raise xtimes: on or off"},
	{"encoding", "of changelogs: ascii or binary"},
	{"rollover-time", "length of a changelog's slice, at least 1s"},
	{"fsync-interval", "how often records are made durable; 0 for each one"},
	{"capture-del-path", "record the path of what is removed"},
}

func (r *recordingOptions) addFlags(f *pflag.FlagSet) {
	for _, k := range recordingKeys {
		f.Var(recordingFlag{r, k.key}, k.key, k.usage)
		if k.key == "capture-del-path" {
			f.Lookup(k.key).NoOptDefVal = "on"
		}
	}
}

// recordingFlag is one of the options as a flag.
type recordingFlag struct {
	r   *recordingOptions
	key string
}

func (f recordingFlag) Set(v string) error { return f.r.set(f.key, v, true) }
func (f recordingFlag) String() string {
	if f.r == nil {
		return ""
	}
	return f.r.get(f.key)
}
func (f recordingFlag) Type() string {
	switch f.key {
	case "rollover-time", "fsync-interval":
		return "time"
	case "encoding":
		return "name"
	}
	return "on|off"
}

func flagsGiven(c *cobra.Command) recordingFlags {
	given := recordingFlags{}
	for _, k := range recordingKeys {
		if c.Flags().Changed(k.key) {
			given[k.key] = true
		}
	}
	return given
}

// set gives the option key a value; without one a switch is on.
func (r *recordingOptions) set(key, value string, hasValue bool) (err error) {
	if !hasValue {
		value = "on"
	}
	switch key {
	case "changelog":
		r.changelog, err = parseSwitch(value)
	case "marker":
		r.marker, err = parseSwitch(value)
	case "capture-del-path":
		r.delPath, err = parseSwitch(value)
	case "encoding":
		r.encoding, err = changelog.ParseEncoding(value)
	case "rollover-time":
		r.rollover, err = parseSeconds(value)
		if err == nil && r.rollover < time.Second {
			err = fmt.Errorf("%s, want at least 1s", value)
		}
	case "fsync-interval":
		r.fsync, err = parseSeconds(value)
		if err == nil && r.fsync <= 0 {
			r.fsync = -1
		}
	default:
		return errors.New("there is no such option")
	}
	return err
}

func (r *recordingOptions) get(key string) string {
	onOff := func(b bool) string {
		if b {
			return "on"
		}
		return "off"
	}
	switch key {
	case "changelog":
		return onOff(r.changelog)
	case "marker":
		return onOff(r.marker)
	case "capture-del-path":
		return onOff(r.delPath)
	case "encoding":
		return r.encoding.String()
	case "rollover-time":
		return r.rollover.String()
	}
	return max(r.fsync, 0).String()
}

func parseSwitch(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "on", "yes", "true", "1", "enable":
		return true, nil
	case "off", "no", "false", "0", "disable":
		return false, nil
	}
	return false, fmt.Errorf("%q, want on or off", v)
}

// parseSeconds reads a duration, or a number of seconds as GlusterFS has it.
func parseSeconds(v string) (time.Duration, error) {
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q, want a time such as 15s", v)
	}
	return d, nil
}

// effective is what counts now: the command line, then the file of options, then
// the defaults.
func (o *mountOptions) effective() (recordingOptions, error) {
	r := o.recording
	f, err := os.Open(o.optionFile)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("mount: options: %w", err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if o.fixed[key] {
			continue
		}
		if err := r.set(key, strings.TrimSpace(value), ok); err != nil {
			return o.recording, fmt.Errorf("mount: options: %s:%d: %s: %w", o.optionFile, n, key, err)
		}
	}
	return r, sc.Err()
}
