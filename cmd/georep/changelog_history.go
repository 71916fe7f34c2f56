package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/georep/georep/changelog"
)

func newChangelogHistoryCommand() *cobra.Command {
	var from, to string
	var asJSON bool
	c := &cobra.Command{
		Use:   "history BRICK --from TIME [--to TIME] [--json]",
		Short: "Print what changed on BRICK in a span of time",
		Long: `TIME is unix seconds, or local time such as 2026-11-21T10:00:00 or 2026-11-21; with
a zone (2026-11-21T10:00:00Z) it is that zone's. Changes are known by the slice they
are in, some seconds long: all slices are printed that the span of time touches.

With --json the last object is {"end":TIME,"partial":BOOL}: up to where all is told.

Exit status: 0 all told, 1 recording ended earlier (the rest may be in another HTIME
file, see georep changelog list) or a changelog is damaged or missing, 2 usage,
3 nothing was recorded at --from, or no such brick.`,
		Example: `    $ georep changelog history /bricks/b --from 1795255200
    E 0a76a6e9-6ef5-4ecf-a5d1-5fed063cad6d MKDIR 16877 0 0 00000000-0000-0000-0000-000000000001/d`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if from == "" {
				return usageError(c, errors.New("--from is missing"))
			}
			start, err := parseMoment(from)
			if err != nil {
				return usageError(c, fmt.Errorf("--from %w", err))
			}
			// The last stamp may be ahead of the clock, by forced rollovers.
			_, end, err := changelog.ActiveSpan(changelogsDir(args[0]))
			if err != nil {
				return err
			}
			end = max(end, time.Now().Unix())
			if to != "" {
				if end, err = parseMoment(to); err != nil {
					return usageError(c, fmt.Errorf("--to %w", err))
				}
			}
			if start > end {
				return usageError(c, errors.New("--from is later than --to"))
			}
			return printHistory(&recordPrinter{w: c.OutOrStdout(), json: asJSON}, args[0], start, end)
		},
	}
	c.Flags().StringVar(&from, "from", "", "where to begin")
	c.Flags().StringVar(&to, "to", "", "where to end (default now)")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object per record")
	return c
}

// parseMoment reads a time of the command line as unix seconds.
func parseMoment(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t.Unix(), nil
		}
	}
	return 0, fmt.Errorf("%q: want unix seconds or a time such as 2026-11-21T10:00:00", s)
}

func printHistory(p *recordPrinter, brick string, start, end int64) error {
	h, err := changelog.OpenHistory(changelogsDir(brick))
	if err != nil {
		return err
	}
	s, err := h.Select(start, end)
	if errors.Is(err, changelog.ErrNotCovered) {
		return &exitError{code: exitNotFound, err: err, hint: "what is recorded: georep changelog list " + brick}
	}
	if err != nil {
		return err
	}
	var damage error
	for _, slice := range s.Slices {
		damage = errors.Join(damage, changelog.ParseFile(slice.Path, p.print))
	}
	if err := p.note(map[string]any{"end": s.End, "partial": s.Partial}); err != nil {
		return err
	}
	if s.Partial {
		damage = errors.Join(damage, fmt.Errorf("changelog: history: %s ends at %d, before %d", s.Span, s.End, end))
	}
	if damage != nil {
		return &exitError{code: exitFailed, err: damage}
	}
	return nil
}
