package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

func newChangelogCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "changelog",
		Short: "Read what a brick has recorded",
		Long: `Records are printed as lines, fields separated by one space, as GlusterFS's tools
print them; in names a space is %20, a line feed %0A and a percent sign %25:

  D GFID                                      contents changed
  M GFID FOP                                  attributes or xattrs changed
  E GFID CREATE|MKNOD|MKDIR MODE UID GID NAME made; MODE is decimal, with the type
  E GFID SYMLINK|LINK NAME                    made
  E GFID RENAME OLDNAME NEWNAME               moved
  E GFID UNLINK|RMDIR NAME [PATH]             removed; PATH when it was captured

NAME is the directory's GFID, a slash, and the name in it. With --json each record
is an object; there a byte of a name that is no UTF-8, and %, is %XX.`,
	}
	c.AddCommand(newChangelogDumpCommand(), newChangelogListCommand(), newChangelogHistoryCommand(), newChangelogFollowCommand())
	return c
}

// changelogsDir is where a brick keeps its changelogs.
func changelogsDir(brick string) string {
	return filepath.Join(brick, ".glusterfs", "changelogs")
}

// recordPrinter writes records in the form that was asked for, one line each.
type recordPrinter struct {
	w    io.Writer
	json bool
	buf  []byte
}

func (p *recordPrinter) print(r *changelog.Record) error {
	p.buf = p.buf[:0]
	if p.json {
		p.buf = appendRecordJSON(p.buf, r)
	} else {
		p.buf = r.AppendParsed(p.buf)
	}
	_, err := p.w.Write(p.buf)
	return err
}

// note writes an object that is no record: only programs want it on stdout.
func (p *recordPrinter) note(v any) error {
	if !p.json {
		return nil
	}
	return json.NewEncoder(p.w).Encode(v)
}

// recordJSON is a record as --json prints it.
type recordJSON struct {
	Type string    `json:"type"`
	GFID gfid.GFID `json:"gfid"`
	Fop  string    `json:"fop,omitempty"`
	// Mode, UID and GID are there when something is made that has them.
	Mode *uint32   `json:"mode,omitempty"`
	UID  *uint32   `json:"uid,omitempty"`
	GID  *uint32   `json:"gid,omitempty"`
	Name *nameJSON `json:"name,omitempty"`
	New  *nameJSON `json:"new_name,omitempty"`
	Path string    `json:"path,omitempty"`
}

type nameJSON struct {
	Parent gfid.GFID `json:"parent"`
	Base   string    `json:"base"`
}

func appendRecordJSON(dst []byte, r *changelog.Record) []byte {
	o := recordJSON{Type: r.Type.String(), GFID: r.GFID, Path: percentPath(r.DelPath)}
	if r.Type != changelog.Data {
		o.Fop = r.Fop.String()
	}
	if r.Type == changelog.Entry {
		o.Name = &nameJSON{r.Entry.Parent, percentPath(r.Entry.Base)}
		switch r.Fop {
		case changelog.FopRename:
			o.New = &nameJSON{r.NewEntry.Parent, percentPath(r.NewEntry.Base)}
		case changelog.FopCreate, changelog.FopMknod, changelog.FopMkdir:
			o.Mode, o.UID, o.GID = &r.Mode, &r.UID, &r.GID
		}
	}
	line, err := json.Marshal(o)
	if err != nil {
		panic(err) // a struct of strings and numbers has a JSON form
	}
	return append(append(dst, line...), '\n')
}

func newChangelogDumpCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "dump FILE... [--json]",
		Short: "Print the records of changelogs",
		Long: `FILE is a CHANGELOG, sealed or still being written, in either encoding, written by
georep or by GlusterFS. What a crash cut off at the end, or damage, is named with
its byte offset after the records before it.

Exit status: 0 all read, 1 damaged, 2 usage, 3 no such file.`,
		Example: `    $ georep changelog dump /bricks/b/.glusterfs/changelogs/CHANGELOG
    E 0a76a6e9-6ef5-4ecf-a5d1-5fed063cad6d MKDIR 16877 0 0 00000000-0000-0000-0000-000000000001/d`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, files []string) error {
			return dumpChangelogs(&recordPrinter{w: c.OutOrStdout(), json: asJSON}, files)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object per record")
	return c
}

// dumpChangelogs prints all it can and returns the errors of all files; one that
// is damaged counts more than one that is missing.
func dumpChangelogs(p *recordPrinter, files []string) error {
	var all error
	code := exitOK
	for _, file := range files {
		err := changelog.ParseFile(file, p.print)
		if err == nil {
			continue
		}
		all = errors.Join(all, err)
		if c := exitCode(err); code == exitOK || c == exitFailed {
			code = c
		}
	}
	if all == nil {
		return nil
	}
	return &exitError{code: code, err: all}
}

func newChangelogListCommand() *cobra.Command {
	var asJSON, empties bool
	c := &cobra.Command{
		Use:   "list BRICK [--empty] [--json]",
		Short: "List the changelogs of BRICK",
		Long: `Changelogs are listed by the HTIME file that indexes them. Between two HTIME files
changes may have gone unrecorded.

  sealed     complete
  empty      a slice without records; there is no file (only with --empty)
  unindexed  on disk, and not in the HTIME file: GlusterFS's last slices
  missing    in the HTIME file, and not on disk
  live       being written

The time of a changelog is when it was sealed.
Exit status: 0 listed, 1 failed, 2 usage, 3 no changelogs there.`,
		Example: `    $ georep changelog list /bricks/b
    HTIME             STAMP       TIME                  STATE   BYTES  CHANGELOG
    HTIME.1795255200  1795255215  2026-11-21T10:00:15Z  sealed    141  2026/11/21/CHANGELOG.1795255215`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return listChangelogs(c.OutOrStdout(), args[0], empties, asJSON)
		},
	}
	c.Flags().BoolVar(&empties, "empty", false, "list slices without records too")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object per changelog")
	return c
}

// listedSlice is a changelog as list prints it.
type listedSlice struct {
	HTIME string `json:"htime,omitempty"`
	Stamp int64  `json:"stamp,omitempty"` // unix seconds
	State string `json:"state"`
	Bytes int64  `json:"bytes"`
	Path  string `json:"path,omitempty"` // below the changelogs directory, if it is there
}

func listChangelogs(stdout io.Writer, brick string, empties, asJSON bool) error {
	dir := changelogsDir(brick)
	w := bufio.NewWriter(stdout)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("changelog: list: %w", err)
	}
	h, err := changelog.OpenHistory(dir)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	show := func(s listedSlice) error {
		if asJSON {
			return json.NewEncoder(w).Encode(s)
		}
		stamp, at := "-", "-"
		if s.Stamp > 0 {
			stamp, at = fmt.Sprint(s.Stamp), time.Unix(s.Stamp, 0).UTC().Format(time.RFC3339)
		}
		_, err := fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%d\t%s\n", orDash(s.HTIME), stamp, at, s.State, s.Bytes, orDash(s.Path))
		return err
	}
	if !asJSON {
		fmt.Fprintln(out, "HTIME\tSTAMP\tTIME\tSTATE\tBYTES\tCHANGELOG")
	}
	for i, span := range h.Spans() {
		all, err := h.Slices(i)
		if err != nil {
			return err
		}
		for s := range all {
			if s.Empty && !empties {
				continue
			}
			if err := show(describeSlice(dir, span.Name, s)); err != nil {
				return err
			}
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "CHANGELOG")); err == nil {
		if err := show(listedSlice{State: "live", Bytes: st.Size(), Path: "CHANGELOG"}); err != nil {
			return err
		}
	}
	return errors.Join(out.Flush(), w.Flush())
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func describeSlice(dir, htime string, s changelog.Sealed) listedSlice {
	out := listedSlice{HTIME: htime, Stamp: s.Stamp, State: "sealed"}
	if s.Empty {
		out.State = "empty"
		return out
	}
	if !s.Indexed {
		out.State = "unindexed"
	}
	st, err := os.Stat(s.Path)
	if err != nil {
		out.State = "missing"
		return out
	}
	out.Bytes = st.Size()
	out.Path = s.Path
	if rel, err := filepath.Rel(dir, s.Path); err == nil {
		out.Path = rel
	}
	return out
}
