package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

func newBrickCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "brick",
		Short: "Give GFIDs to what was there before, find and mend damage",
	}
	c.AddCommand(newBrickAdoptCommand(), newBrickCheckCommand())
	return c
}

func newBrickAdoptCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "adopt BRICK",
		Short: "Give a GFID and a handle to every file and directory in BRICK",
		Long: `The directory BRICK becomes a brick if it is none; what is in it stays where and
as it is. A mount does the same with each file at its first lookup, so adopting is
needed only where all files must be known at once, as for a first replication. It
can be stopped at any point and started again. A file that was copied in together
with another's GFID gets a fresh one and is named.

The brick must not be mounted. Exit status: 0 all adopted, 1 some could not be,
2 usage, 3 no such directory, 4 mounted.`,
		Example: `    $ georep brick adopt /bricks/b
    adopted /bricks/b: 18 directories, 1204 files; 1222 were given a GFID, 0 mended, 0 were copies, 0 failed`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return adoptBrick(c, args[0]) },
	}
}

func adoptBrick(c *cobra.Command, path string) error {
	b, err := brick.Create(path)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := lockBrick(c.Context(), b, "lookups through the mount adopt too; to adopt all at once, unmount it first"); err != nil {
		return err
	}
	p := newProgress(os.Stderr, "adopt", "names")
	stopCounting := expectNames(c.Context(), b, p.expect)
	a, err := b.Adopt(c.Context(), brick.AdoptOptions{
		Progress: func(a brick.Adoption) {
			p.set(a.Names(), fmt.Sprintf(", %d given a GFID, %d failed", a.Given, a.Failed))
		},
		Notice: func(path string, g gfid.GFID, err error) {
			if err != nil {
				p.print(c.ErrOrStderr(), "georep: adopt: %q: %v\n", path, err)
			} else {
				p.print(c.ErrOrStderr(), "georep: adopt: %q bore the GFID of another, its own is now %v\n", path, g)
			}
		},
	})
	stopCounting()
	p.close()
	if err != nil {
		return &exitError{code: exitCode(err), err: err, hint: "what is adopted stays so: run it again to go on"}
	}
	fmt.Fprintf(c.OutOrStdout(), "adopted %s: %d directories, %d files; %d were given a GFID, %d mended, %d were copies, %d failed\n",
		b.Path(), a.Dirs, a.Files, a.Given, a.Mended, a.Copies, a.Failed)
	if a.Failed > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// lockWait is how long a brick's lock is waited for: umount returns before the
// process that served the mount has written its last and ended.
const lockWait = 3 * time.Second

// lockBrick takes b for this process, or says what to do when it is mounted.
func lockBrick(ctx context.Context, b *brick.Brick, hint string) error {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err := b.Lock()
		if !errors.Is(err, brick.ErrMounted) {
			return err
		}
		select {
		case <-ctx.Done():
			return &exitError{code: exitPrecondition, err: err, hint: hint}
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// expectNames counts b's names, beside whatever is done to them, and tells expect
// how many there are. The function it returns stops that.
func expectNames(ctx context.Context, b *brick.Brick, expect func(int64)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if n, err := b.CountNames(ctx, nil); err == nil {
			expect(n)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func newBrickCheckCommand() *cobra.Command {
	var repair, asJSON bool
	c := &cobra.Command{
		Use:   "check BRICK [--repair] [--json]",
		Short: "Find damage in what BRICK keeps about its files, and mend it",
		Long: `Each finding is one line: what is wrong, the GFID, the path below BRICK, details.

  no-gfid          the object of a name has no GFID           it gets one
  bad-gfid         a GFID that no object may have             it gets a fresh one
  shared-gfid      a GFID that belongs to another object      it gets a fresh one
  no-handle        a name whose object has no handle          it is made
  wrong-handle     a directory's handle leads elsewhere       it is changed
  no-gfid2path     a name that its object does not know of    it is added
  stale-gfid2path  a name that its object has no longer       it is taken off
  no-name          a handle without a name                    see below
  other-gfid       a handle whose object has another GFID     it is removed
  stale-handle     a directory's handle, the directory gone   it is removed
  foreign          among the handles, but none                left alone
  unreadable       could not be looked at                     left alone

With --repair the right column is done. No content is destroyed: what has no name
and is not empty moves to BRICK/.glusterfs/georep/lost/<gfid>, for you to look at.
A slave keeps files without a name until its master has none either: check it when
its session has drained.

With --json each finding is an object, and last come the counts; a byte of a path
that is no UTF-8, and %, is %XX there.

The brick must not be mounted. Exit status: 0 nothing (left) to mend, 1 something
remains, 2 usage, 3 no such directory, 4 mounted or no brick.`,
		Example: `    $ georep brick check /bricks/b
    no-handle d777fbee-47a0-4e3e-9992-d6b23f7ce618 "docs/a.txt": has no handle
    checked /bricks/b: 1222 names, 1223 handles; 1 found, 0 repaired, 1 remaining`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return checkBrick(c, args[0], repair, asJSON) },
	}
	c.Flags().BoolVar(&repair, "repair", false, "mend what can be mended without destroying content")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object per finding")
	return c
}

func checkBrick(c *cobra.Command, path string, repair, asJSON bool) error {
	b, err := brick.Open(path)
	if errors.Is(err, brick.ErrNotBrick) {
		return &exitError{code: exitPrecondition, err: err, hint: "to make it one: georep brick adopt " + path}
	}
	if err != nil {
		return err
	}
	defer b.Close()
	if err := lockBrick(c.Context(), b, "unmount it first: a mount changes names and handles one after the other"); err != nil {
		return err
	}
	p := newProgress(os.Stderr, "check", "entries")
	// Each name but hard links has a handle.
	stopCounting := expectNames(c.Context(), b, func(names int64) { p.expect(2 * names) })
	out := c.OutOrStdout()
	n, err := b.Check(c.Context(), brick.CheckOptions{
		Repair: repair,
		Progress: func(n brick.Checked) {
			p.set(n.Names+n.Handles, fmt.Sprintf(", %d found", n.Findings))
		},
		Found: func(f brick.Finding) {
			if asJSON {
				p.print(out, "%s", findingJSON(f))
			} else {
				p.print(out, "%s", findingLine(f))
			}
		},
	})
	stopCounting()
	p.close()
	if err != nil {
		return err
	}
	if asJSON {
		err = json.NewEncoder(out).Encode(map[string]int64{"names": n.Names, "handles": n.Handles,
			"found": n.Findings, "repaired": n.Repaired, "remaining": n.Remaining()})
	} else {
		_, err = fmt.Fprintf(out, "checked %s: %d names, %d handles; %d found, %d repaired, %d remaining\n",
			b.Path(), n.Names, n.Handles, n.Findings, n.Repaired, n.Remaining())
	}
	if err == nil && n.Remaining() > 0 {
		err = &exitError{code: exitFailed}
	}
	return err
}

func findingLine(f brick.Finding) string {
	g := "-"
	if !f.GFID.IsZero() {
		g = f.GFID.String()
	}
	line := fmt.Sprintf("%s %s %q: %s", f.Problem, g, f.Path, f.Detail)
	switch {
	case f.Repaired:
		line += "; repaired"
	case f.Err != nil:
		line += "; not repaired: " + f.Err.Error()
	}
	return line + "\n"
}

func findingJSON(f brick.Finding) []byte {
	o := struct {
		Problem  brick.Problem `json:"problem"`
		GFID     *gfid.GFID    `json:"gfid,omitempty"`
		Path     string        `json:"path"`
		Detail   string        `json:"detail"`
		Repaired bool          `json:"repaired"`
		Error    string        `json:"error,omitempty"`
	}{Problem: f.Problem, Path: percentPath(f.Path), Detail: f.Detail, Repaired: f.Repaired}
	if !f.GFID.IsZero() {
		o.GFID = &f.GFID
	}
	if f.Err != nil {
		o.Error = f.Err.Error()
	}
	line, err := json.Marshal(o)
	if err != nil {
		panic(err) // a struct of strings has a JSON form
	}
	return append(line, '\n')
}

// percentPath is path as text that JSON can hold without loss: a byte that is no
// UTF-8, and %, become %XX.
func percentPath(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); {
		r, size := utf8.DecodeRuneInString(path[i:])
		if r == utf8.RuneError && size == 1 || r == '%' {
			fmt.Fprintf(&b, "%%%02X", path[i])
		} else {
			b.WriteString(path[i : i+size])
		}
		i += size
	}
	return b.String()
}
