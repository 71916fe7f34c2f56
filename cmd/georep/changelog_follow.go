package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/georep/georep/changelog"
)

func newChangelogFollowCommand() *cobra.Command {
	var state, since string
	var asJSON bool
	c := &cobra.Command{
		Use:   "follow BRICK [--state DIR [--since TIME]] [--json]",
		Short: "Print what changes on BRICK as it is recorded, until stopped",
		Long: `Without --state, records are printed about 100 ms after they are written, from the
beginning of the current slice. A record may be printed that power loss then takes
back. With --json a slice's end is {"sealed":STAMP}.

With --state, each record of a sealed slice is printed once, over restarts of this
command and of the mount: a line is acknowledged when all of it is written to
stdout, and is not printed again; only the one line being written when the command
is killed may be. The first time, it begins with slices sealed from now on, or later
than --since. DIR is private to one such command; it holds the changelogs as text
while they are printed (.processing), and afterwards (.processed, clear it as you
like). How far it is stands in state.json and position.

When changes may have gone unrecorded, stderr says so, or {"gap":{"from":STAMP,
"to":STAMP}} with --json: compare the whole brick then. So does a changelog that is
damaged, {"damaged":STAMP,"error":TEXT}.

Exit status: 0 stopped by SIGINT or SIGTERM, 1 failed, 2 usage, 3 no such brick.`,
		Example: `    $ georep changelog follow /bricks/b --state /var/lib/backup | while read -r line; do …; done`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f := &follow{
				records: recordPrinter{w: c.OutOrStdout(), json: asJSON},
				stderr:  c.ErrOrStderr(), brick: args[0], state: state,
			}
			if since != "" {
				var err error
				if f.since, err = parseMoment(since); err != nil {
					return usageError(c, fmt.Errorf("--since %w", err))
				}
				if state == "" {
					return usageError(c, errors.New("--since needs --state"))
				}
			}
			run := f.live
			if state != "" {
				run = f.sealed
			}
			if err := run(c.Context()); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		},
	}
	c.Flags().StringVar(&state, "state", "", "directory that remembers what was printed")
	c.Flags().StringVar(&since, "since", "", "where a new --state begins, as --from of history")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object per record")
	return c
}

// follow is georep changelog follow.
type follow struct {
	records recordPrinter
	stderr  io.Writer
	brick   string
	state   string // "" for none
	since   int64  // unix seconds
}

// gap tells that changes went unrecorded. from is 0 when it is not known.
func (f *follow) gap(from, to int64) error {
	fmt.Fprintf(f.stderr, "georep: changelog: follow: changes between %d and %d may be unrecorded: compare the whole brick\n", from, to)
	return f.records.note(map[string]any{"gap": map[string]int64{"from": from, "to": to}})
}

// damage tells of a changelog that could not be read to its end.
func (f *follow) damage(stamp int64, err error) error {
	fmt.Fprintf(f.stderr, "georep: %v\n", err)
	return f.records.note(map[string]any{"damaged": stamp, "error": err.Error()})
}

// live prints records as they are written.
func (f *follow) live(ctx context.Context) error {
	dir := changelogsDir(f.brick)
	_, after, err := changelog.ActiveSpan(dir)
	if err != nil {
		return err
	}
	follower, err := changelog.NewFollower(dir, after)
	if err != nil {
		return err
	}
	defer follower.Close()
	for {
		ev, err := follower.Next(ctx)
		if err != nil {
			return err
		}
		switch ev.Kind {
		case changelog.Recorded:
			err = f.records.print(ev.Record)
		case changelog.SliceSealed:
			after = ev.Stamp
			if ev.Damage != nil {
				err = f.damage(ev.Stamp, ev.Damage)
			}
			err = errors.Join(err, f.records.note(map[string]int64{"sealed": ev.Stamp}))
		case changelog.GapFound:
			err = f.gap(after, ev.Stamp)
		}
		if err != nil {
			return err
		}
	}
}

// sealed prints the records of sealed slices, each once.
func (f *follow) sealed(ctx context.Context) error {
	c, err := changelog.Register(f.brick, f.state, changelog.ConsumerOptions{Since: f.since})
	if err != nil {
		return err
	}
	defer c.Close()
	pos, err := openPosition(filepath.Join(f.state, "position"))
	if err != nil {
		return err
	}
	defer pos.close()
	for {
		var gap *changelog.GapError
		if _, err := c.Scan(); errors.As(err, &gap) {
			err = f.gap(gap.From, gap.To)
			if err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		for p, ok := c.Next(); ok; p, ok = c.Next() {
			if err := f.published(ctx, p, pos); err != nil {
				return err
			}
			if err := c.Done(p); err != nil {
				return err
			}
		}
		if err := c.Wait(ctx); err != nil {
			return err
		}
	}
}

// published prints the lines of one changelog that were not printed before.
func (f *follow) published(ctx context.Context, p changelog.Published, pos *position) error {
	skip := int64(0)
	if pos.stamp == p.Stamp {
		skip = pos.lines
	}
	n := int64(0)
	for r, err := range p.Records() {
		if err != nil {
			return err
		}
		if n++; n <= skip {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.records.print(&r); err != nil {
			return fmt.Errorf("changelog: follow: %w", err)
		}
		if err := pos.set(p.Stamp, n); err != nil {
			return err
		}
	}
	if p.Damage != nil {
		return f.damage(p.Stamp, p.Damage)
	}
	return nil
}

// position is the file that says how many lines of the changelog being printed
// are acknowledged. It is overwritten in place after each line: it survives the
// death of this process. After power loss some lines may come again.
type position struct {
	f            *os.File
	stamp, lines int64
}

func openPosition(path string) (*position, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("changelog: follow: %w", err)
	}
	p := &position{f: f}
	if _, err := fmt.Fscanf(f, "%d %d", &p.stamp, &p.lines); err != nil && !errors.Is(err, io.EOF) {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("changelog: follow: %s: %w", path, err)
	}
	return p, nil
}

func (p *position) set(stamp, lines int64) error {
	p.stamp, p.lines = stamp, lines
	// Always the same length, so that one write replaces all of it.
	if _, err := p.f.WriteAt(fmt.Appendf(nil, "%020d %020d\n", stamp, lines), 0); err != nil {
		return fmt.Errorf("changelog: follow: %w", err)
	}
	return nil
}

func (p *position) close() { _ = p.f.Close() } // every line is in the page cache
