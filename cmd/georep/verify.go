package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/replicator"
	"github.com/georep/georep/replicator/slave"
)

// verifyOptions are the options of georep verify as given.
type verifyOptions struct {
	brick, slave string

	repair  bool
	settle  time.Duration
	connect connectOptions
}

func newVerifyCommand() *cobra.Command {
	o := &verifyOptions{}
	c := &cobra.Command{
		Use:   "verify [options] BRICK SLAVE",
		Short: "Compare a slave with its brick, contents and all",
		Long: `Names, GFIDs, types, owners, permissions, times, sizes, holes, symlink targets,
device numbers, xattrs, ACLs and hard links are compared, and contents by the
BLAKE3 hash that each side computes of its own. It can run beside a session: what
differs is looked at again until --settle has passed.

Exit status: 0 equal, 1 different or failed, 2 usage, 3 no such directory, 4 no
brick, or a slave that is not this brick's.`,
		Example: `    $ georep verify /bricks/b backup:/srv/vol`,
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			o.brick, o.slave = args[0], args[1]
			return o.run(c.Context(), c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.BoolVar(&o.repair, "repair", false, "bring what differs into step, then compare again")
	f.DurationVar(&o.settle, "settle", 5*time.Second, "how long a difference may take to vanish")
	o.connect.addFlags(f)
	return c
}

func (o *verifyOptions) run(ctx context.Context, out io.Writer) error {
	b, err := brick.Open(o.brick)
	if err != nil {
		return err
	}
	defer b.Close()
	o.connect.readOnly = !o.repair
	c, err := connectSlave(ctx, b, o.slave, o.connect)
	if err != nil {
		return err
	}
	defer c.Close()
	found, err := o.compare(ctx, out, b, c)
	if err == nil && len(found) > 0 && o.repair {
		fmt.Fprintf(out, "repairing %d differences\n", len(found))
		_, err = replicator.Repair(ctx, replicator.Options{
			Brick: b,
			Dial:  func(context.Context) (*slave.Client, error) { return c, nil },
		}, c, found)
		if err == nil {
			found, err = o.compare(ctx, out, b, c)
		}
	}
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return &exitError{code: exitFailed, err: fmt.Errorf("verify: %d differences", len(found)), hint: o.hint()}
	}
	return nil
}

func (o *verifyOptions) hint() string {
	if o.repair {
		return ""
	}
	return "to mend: georep verify --repair " + o.brick + " " + o.slave
}

// compare compares once and prints what it finds.
func (o *verifyOptions) compare(ctx context.Context, out io.Writer, b *brick.Brick, c *slave.Client) ([]replicator.Difference, error) {
	bar := newProgress(os.Stderr, "verify", "names")
	stop := expectNames(ctx, b, bar.expect)
	found, done, err := replicator.Verify(ctx, replicator.VerifyOptions{
		Brick: b, Client: c, Settle: o.settle,
		Progress: func(d replicator.Compared) {
			bar.set(d.Names, ", "+humanize.IBytes(uint64(d.Bytes)))
		},
	})
	stop()
	bar.close()
	if err != nil {
		return nil, err
	}
	for _, d := range found {
		where := fmt.Sprintf("%q", d.Path)
		if d.Path == "" {
			where = d.GFID.String()
		}
		fmt.Fprintf(out, "%s: %s\n", where, d.What)
	}
	if len(found) == 0 {
		fmt.Fprintf(out, "equal: %d names, %d files, %s\n", done.Names, done.Files, humanize.IBytes(uint64(done.Bytes)))
	}
	return found, nil
}
