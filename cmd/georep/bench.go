package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/georep/georep/bench"
)

func newBenchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure what recording and replication cost",
	}
	c.AddCommand(newBenchOverheadCommand())
	return c
}

// benchOverheadOptions are those of georep bench overhead as given.
type benchOverheadOptions struct {
	bench.Options
	size      string
	targets   []string
	dirs      []string // NAME=DIR
	programs  []string // NAME=PROGRAM
	out, html string
}

func newBenchOverheadCommand() *cobra.Command {
	o := &benchOverheadOptions{}
	c := &cobra.Command{
		Use:   "overhead --dir DIR [options]",
		Short: "Measure what a mount costs over a bare directory, for small and for large files",
		Long: `Makes bricks below DIR, mounts each target in a process of its own, and runs the same
work in all of them by turns, several rounds after one to warm up. A figure is the
speed in proportion to the bare directory's in the same round. After each step the
brick and its changelogs are looked at: a step that did not do its work, or did not
leave its records, is reported as failed, without a figure.

What is made in DIR is removed, but for the report: DIR/overhead.json and a page
to look at, DIR/overhead.html. stat-cold has the whole machine forget cached names.

Exit status: 0 measured, 1 a step failed, 2 usage, 4 not root.`,
		Example: `    $ georep bench overhead --dir /tmp/x --quick`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.run(c.Context(), c.OutOrStdout(), c.Flags().Changed("targets"))
		},
	}
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", "", "directory to make bricks in")
	f.StringVar(&o.Image, "image", "", "put the bricks on a file system in memory: xfs or ext4")
	f.BoolVar(&o.Quick, "quick", false, "a small set, in a few minutes")
	f.IntVar(&o.Files, "files", 0, "number of small files (default 4000, quick 1000)")
	f.StringVar(&o.size, "size", "4KiB", "size of a small file")
	f.IntSliceVar(&o.Threads, "threads", nil, "how many work at once, comma-separated (default 1,4,16, quick 1,4)")
	f.IntVar(&o.Rounds, "rounds", 0, "rounds that count (default 5, quick 3)")
	f.StringSliceVar(&o.targets, "targets", bench.DefaultTargets, "what to compare; "+bench.Loopback+" too where go is installed")
	f.StringArrayVar(&o.dirs, "target", nil, "one more: NAME=DIR, any directory, mounted or not")
	f.StringArrayVar(&o.programs, "georep", nil, "one more: NAME=PROGRAM, mounted by another georep")
	f.StringSliceVar(&o.Workloads, "workloads", bench.Families, "what to run")
	f.StringVar(&o.out, "out", "", "where to write the report as JSON (default DIR/overhead.json)")
	f.StringVar(&o.html, "html", "", "where to write the page (default DIR/overhead.html)")
	_ = c.MarkFlagRequired("dir") // it is there
	return c
}

// needRoot says so where there is no root.
func needRoot(verb string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return &exitError{code: exitPrecondition, err: errors.New(verb + ": only root can mount bricks"), hint: "run it with sudo"}
}

func (o *benchOverheadOptions) run(ctx context.Context, out io.Writer, chosen bool) error {
	if err := needRoot("bench"); err != nil {
		return err
	}
	if !chosen {
		o.targets = append(slices.Clone(o.targets), bench.Loopback)
	}
	var err error
	if o.Targets, err = bench.ParseTargets(o.targets, o.dirs); err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	for _, np := range o.programs {
		t, err := bench.OtherGeorep(np)
		if err != nil {
			return &exitError{code: exitUsage, err: err}
		}
		o.Targets = append(o.Targets, t)
	}
	size, err := bench.ParseSize(o.size)
	if err != nil {
		return usagef("bench: --size: %w", err)
	}
	o.Size, o.Version = int(size), version
	o.Command = append([]string{"georep"}, os.Args[1:]...)
	p := newProgress(os.Stderr, "bench", "steps")
	o.Options.Progress = func(done, total int, next string) {
		p.expect(int64(total))
		p.set(int64(done), ", "+next)
	}
	rep, err := bench.Overhead(ctx, o.Options)
	p.close()
	if err != nil {
		return err
	}
	return writeBench(rep, out, or(o.out, filepath.Join(o.Dir, "overhead.json")), or(o.html, filepath.Join(o.Dir, "overhead.html")))
}

// or is s, or what stands for an empty one.
func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// writeBench writes a report in all its forms.
func writeBench(rep *bench.Report, out io.Writer, jsonPath, htmlPath string) error {
	if err := rep.Write(jsonPath); err != nil {
		return err
	}
	if err := rep.WriteTable(out); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s\n", jsonPath)
	if n := len(rep.Failures()); n > 0 {
		return &exitError{code: exitFailed, err: fmt.Errorf("bench: %d figures are missing, their steps failed", n)}
	}
	return nil
}
