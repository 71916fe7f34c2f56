package replicator

import (
	"context"

	"github.com/georep/georep/changelog"
	"github.com/georep/georep/replicator/slave"
)

// Repair brings what differs into step with the master. The client may not be
// read-only. It returns what could not be repaired; Verify tells whether all is
// well after that.
func Repair(ctx context.Context, o Options, c *slave.Client, found []Difference) ([]Failure, error) {
	w, err := New(o)
	if err != nil {
		return nil, err
	}
	defer w.m.close()
	w.c = c
	b := newBatch()
	for _, d := range found {
		if d.Name != (changelog.Name{}) {
			b.touch(d.Name, d.GFID, changelog.Name{})
		}
		if d.GFID.IsZero() {
			continue
		}
		b.data.add(d.GFID)
		b.meta.add(d.GFID)
	}
	failed, err := w.try(ctx, b)
	if err != nil {
		return failed, err
	}
	return failed, w.c.Sync(ctx)
}
