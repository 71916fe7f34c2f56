package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Target is something to measure: a directory, or a way to mount one.
type Target struct {
	Name string `json:"name"`
	// What says in a few words what it is, for the report.
	What string `json:"what"`
	// Dir is a directory that is there already, for a target of the user's own.
	Dir string `json:"dir,omitempty"`
	// Mount are the options of georep mount; nil when it is not mounted by it.
	Mount []string `json:"mount,omitempty"`
	// Program mounts it, "" for the georep that measures.
	Program string `json:"program,omitempty"`

	// records says that each change leaves a record on the brick.
	records bool
	// loopback says that go-fuse's example mounts it.
	loopback bool
}

// Bare is the target that ratios are to.
const Bare = "bare"

// Loopback is the target that is there only where go can build it.
const Loopback = "gofuse-loopback"

// AllOn is the mount as users have it.
const AllOn = "changelog+marker"

// knownTargets are the ones that a name is enough for, in the order of the report.
var knownTargets = []Target{
	{Name: Bare, What: "a directory, nothing mounted"},
	{Name: "mount", What: "georep mount, recording off", Mount: []string{"--changelog=off", "--marker=off"}},
	{Name: "changelog-ascii", What: "recording, ASCII, no xtime", Mount: []string{"--changelog=on", "--encoding=ascii", "--marker=off"}, records: true},
	{Name: "changelog-binary", What: "recording, binary, no xtime", Mount: []string{"--changelog=on", "--encoding=binary", "--marker=off"}, records: true},
	{Name: AllOn, What: "all on, as georep mount comes: ASCII, xtime", Mount: []string{"--changelog=on", "--encoding=ascii", "--marker=on"}, records: true},
	{Name: "changelog-binary+marker", What: "all on, binary", Mount: []string{"--changelog=on", "--encoding=binary", "--marker=on"}, records: true},
	{Name: "root-only", What: "all on, for root alone: no permission checks", Mount: []string{"-o", "root_only,no_default_permissions"}, records: true},
	{Name: "no-passthrough", What: "all on, reads and writes come to georep", Mount: []string{"-o", "no_passthrough"}, records: true},
	{Name: Loopback, What: "go-fuse's example/loopback, nothing recorded", loopback: true},
}

// DefaultTargets are measured when none are named. Where go can build it,
// [Loopback] is one more.
var DefaultTargets = []string{Bare, "mount", "changelog-ascii", "changelog-binary", AllOn}

// TargetNames are those that [ParseTargets] knows.
func TargetNames() []string {
	var names []string
	for _, t := range knownTargets {
		names = append(names, t.Name)
	}
	return names
}

// ParseTargets turns names of known targets, and NAME=DIR for directories that
// are there, into targets, [Bare] first: ratios need it.
func ParseTargets(names, dirs []string) ([]Target, error) {
	var out []Target
	add := func(t Target) error {
		if slices.ContainsFunc(out, func(o Target) bool { return o.Name == t.Name }) {
			return fmt.Errorf("bench: target %q is named twice", t.Name)
		}
		out = append(out, t)
		return nil
	}
	if !slices.Contains(names, Bare) {
		names = append([]string{Bare}, names...)
	}
	for _, name := range names {
		i := slices.IndexFunc(knownTargets, func(t Target) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("bench: no target %q; there are %s, and NAME=DIR for others", name, strings.Join(TargetNames(), ", "))
		}
		if err := add(knownTargets[i]); err != nil {
			return nil, err
		}
	}
	for _, nd := range dirs {
		t, err := dirTarget(nd)
		if err != nil {
			return nil, err
		}
		if err := add(t); err != nil {
			return nil, err
		}
	}
	// Bare is the measure of a round, so it is first.
	slices.SortStableFunc(out, func(a, b Target) int { return isBare(b) - isBare(a) })
	return out, nil
}

func isBare(t Target) int {
	if t.Name == Bare {
		return 1
	}
	return 0
}

func dirTarget(nd string) (Target, error) {
	name, dir, ok := strings.Cut(nd, "=")
	if !ok || name == "" || dir == "" || strings.ContainsAny(name, "/ ") {
		return Target{}, fmt.Errorf("bench: target %q, want NAME=DIR", nd)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Target{}, fmt.Errorf("bench: target %s: %w", name, err)
	}
	if st, err := os.Stat(abs); err != nil {
		return Target{}, fmt.Errorf("bench: target %s: %w", name, err)
	} else if !st.IsDir() {
		return Target{}, fmt.Errorf("bench: target %s: %q is not a directory", name, abs)
	}
	return Target{Name: name, What: "the directory " + abs, Dir: abs}, nil
}

// OtherGeorep is a target that another georep mounts, all on: NAME=PROGRAM. It
// compares two builds in one run.
func OtherGeorep(np string) (Target, error) {
	name, program, ok := strings.Cut(np, "=")
	if !ok || name == "" || program == "" || strings.ContainsAny(name, "/ ") {
		return Target{}, fmt.Errorf("bench: georep %q, want NAME=PROGRAM", np)
	}
	abs, err := filepath.Abs(program)
	if err != nil {
		return Target{}, fmt.Errorf("bench: georep %s: %w", name, err)
	}
	if _, err := os.Stat(abs); err != nil {
		return Target{}, fmt.Errorf("bench: georep %s: %w", name, err)
	}
	return Target{Name: name, What: "all on, mounted by " + abs, Program: abs, Mount: []string{"--changelog=on", "--marker=on"}, records: true}, nil
}
