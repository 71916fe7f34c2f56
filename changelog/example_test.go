package changelog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// backup saves what changes on a brick until ctx is done. It can be killed at any
// time: a changelog that was not done comes again.
func backup(ctx context.Context, c *changelog.Consumer, save func(changelog.Record)) error {
	for {
		if _, err := c.Scan(); errors.Is(err, changelog.ErrGap) {
			fmt.Println(err) // and compare every file
		} else if err != nil {
			return err
		}
		for p, ok := c.Next(); ok; p, ok = c.Next() {
			for r := range p.Records() {
				save(r)
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

func ExampleConsumer() {
	brick, recording := exampleBrick()
	defer os.RemoveAll(brick)

	c, err := changelog.Register(brick, filepath.Join(brick, "backup"), changelog.ConsumerOptions{})
	must(err)
	defer c.Close()
	recording() // beside us, the mount records two changes and seals them
	ctx, stop := context.WithCancel(context.Background())
	err = backup(ctx, c, func(r changelog.Record) {
		fmt.Printf("%s %s\n", r.Type, r.GFID)
		if r.Type == changelog.Data {
			stop()
		}
	})
	fmt.Println(err)
	// Output:
	// E 8ed8b4a4-0000-4000-8000-000000000001
	// D 8ed8b4a4-0000-4000-8000-000000000001
	// context canceled
}

// exampleBrick is a brick, and a mount that makes a file on it.
func exampleBrick() (brick string, recording func()) {
	brick, err := os.MkdirTemp("", "brick")
	must(err)
	l, err := changelog.Open(changelog.Options{Dir: filepath.Join(brick, ".glusterfs", "changelogs")})
	must(err)
	return brick, func() {
		g, err := gfid.Parse("8ed8b4a4-0000-4000-8000-000000000001")
		must(err)
		for _, r := range []changelog.Record{
			{
				Type: changelog.Entry, Fop: changelog.FopCreate, GFID: g, Mode: 0o100644,
				Entry: changelog.Name{Parent: gfid.Root, Base: "report"},
			},
			{Type: changelog.Data, GFID: g},
		} {
			_, err := l.Append(&r)
			must(err)
		}
		must(l.Close())
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
