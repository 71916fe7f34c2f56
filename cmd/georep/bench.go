package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/georep/georep/bench"
)

func newBenchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure what recording and replication cost",
	}
	c.AddCommand(newBenchOverheadCommand(), newBenchReplicateCommand(), newBenchCompareCommand(), newBenchReportCommand())
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
	o.Size, o.Version = int(size), buildVersion()
	o.Command = append([]string{"georep"}, os.Args[1:]...)
	p := newProgress(os.Stderr, "bench", "steps")
	o.Options.Progress = benchProgress(p)
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
	if err := writePage(rep, htmlPath); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s\n%s\n", jsonPath, htmlPath)
	if n := len(rep.Failures()); n > 0 {
		return &exitError{code: exitFailed, err: fmt.Errorf("bench: %d figures are missing, their steps failed", n)}
	}
	return nil
}

func writePage(rep *bench.Report, path string) error {
	var b bytes.Buffer
	if err := rep.WriteHTML(&b); err != nil {
		return err
	}
	return renameio.WriteFile(path, b.Bytes(), 0o644)
}

// benchReplicateOptions are those of georep bench replicate as given.
type benchReplicateOptions struct {
	bench.ReplicateOptions
	rate      string
	out, html string
}

func newBenchReplicateCommand() *cobra.Command {
	o := &benchReplicateOptions{}
	c := &cobra.Command{
		Use:   "replicate --dir DIR [options]",
		Short: "Measure replication beside rsync doing the same work",
		Long: `Makes a mounted brick and a bare directory below DIR, changes both in the same way, and
measures until the slave has it: of georep replicate, which runs all the time, and of
rsync -aHAX --delete --numeric-ids, started right after the change. After each step
master and slave are compared, contents and all: where they differ the step is
reported as failed, without a figure.

The slave is this machine, reached by SSH through an sshd of the benchmark's own; or
a directory, DIR/run-* below it, through a pipe. What is made is removed, but for
DIR/replicate.json and DIR/replicate.html.

Exit status: 0 measured, 1 a step failed, 2 usage, 3 no such directory, 4 not root.`,
		Example: `    $ georep bench replicate --dir /tmp/x --quick`,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), c.OutOrStdout()) },
	}
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", "", "directory to make bricks in")
	f.StringVar(&o.Image, "image", "", "put bricks, and a loopback slave, on a file system in memory: xfs or ext4")
	f.StringVar(&o.Slave, "slave", bench.LoopbackSlave, "loopback, by SSH, or a directory")
	f.BoolVar(&o.Quick, "quick", false, "small trees, in a minute or two")
	f.IntVar(&o.Rounds, "rounds", 0, "rounds that count (default 3, quick 2)")
	f.StringVar(&o.rate, "rate", "0", "bytes a second of the link to loopback, such as 10MiB (default no limit)")
	f.DurationVar(&o.Delay, "delay", 0, "delay of the link to loopback, one way (default none)")
	f.StringVar(&o.out, "out", "", "where to write the report as JSON (default DIR/replicate.json)")
	f.StringVar(&o.html, "html", "", "where to write the page (default DIR/replicate.html)")
	_ = c.MarkFlagRequired("dir") // it is there
	return c
}

func (o *benchReplicateOptions) run(ctx context.Context, out io.Writer) error {
	if err := needRoot("bench"); err != nil {
		return err
	}
	var err error
	if o.Rate, err = bench.ParseSize(o.rate); err != nil {
		return usagef("bench: --rate: %w", err)
	}
	o.Version, o.Command = buildVersion(), append([]string{"georep"}, os.Args[1:]...)
	p := newProgress(os.Stderr, "bench", "steps")
	o.Progress = benchProgress(p)
	rep, err := bench.Replicate(ctx, o.ReplicateOptions)
	p.close()
	if err != nil {
		return err
	}
	return writeBench(rep, out, or(o.out, filepath.Join(o.Dir, "replicate.json")), or(o.html, filepath.Join(o.Dir, "replicate.html")))
}

// benchProgress shows the steps of a benchmark.
func benchProgress(p *progress) func(done, total int, next string) {
	return func(done, total int, next string) {
		p.expect(int64(total))
		p.set(int64(done), ", "+next)
	}
}

func newBenchCompareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "compare A.json B.json",
		Short: "Show what changed between two reports, and what is only noise",
		Long: `Compares ratios to the bare directory, for they hold on a slower day too. A change is
shown when the rounds of both reports hardly overlap: when chance alone gives such a
difference in less than 5 of 100 cases (Mann-Whitney test). It takes 4 rounds each.

Exit status: 0 compared, 1 failed, 2 usage, 3 no such file.`,
		Example: `    $ georep bench compare before.json after.json`,
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := bench.ReadReport(args[0])
			if err != nil {
				return err
			}
			b, err := bench.ReadReport(args[1])
			if err != nil {
				return err
			}
			return bench.WriteComparison(c.OutOrStdout(), a, b)
		},
	}
}

func newBenchReportCommand() *cobra.Command {
	var html, markdown, how string
	c := &cobra.Command{
		Use:     "report [options] FILE.json…",
		Short:   "Show reports again, as a table, a page or Markdown",
		Long:    `Exit status: 0 shown, 1 failed, 2 usage, 3 no such file.`,
		Example: `    $ georep bench report --html overhead.html overhead.json`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var reports []*bench.Report
			for _, path := range args {
				r, err := bench.ReadReport(path)
				if err != nil {
					return err
				}
				reports = append(reports, r)
			}
			if html != "" && len(reports) != 1 {
				return usagef("bench: report: --html shows one report, not %d", len(reports))
			}
			switch {
			case html != "":
				return writePage(reports[0], html)
			case markdown != "":
				return bench.WriteMarkdown(markdown, how, reports...)
			}
			for _, r := range reports {
				if err := r.WriteTable(c.OutOrStdout()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&html, "html", "", "write a page to this file")
	c.Flags().StringVar(&markdown, "markdown", "", "write Markdown to this file, and pictures beside it")
	c.Flags().StringVar(&how, "how", "", "what to say first in the Markdown")
	return c
}
