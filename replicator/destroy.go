package replicator

import (
	"context"
	"errors"
	"syscall"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/replicator/slave"
)

// settleDisplaced looks after what lost a name: what the master has no longer is
// destroyed, the rest gets the names the master has for it.
func (p *pass) settleDisplaced(ctx context.Context) error {
	seen := make(set)
	for len(p.displaced) > 0 {
		check := p.displaced
		p.displaced = nil
		var gone []gfid.GFID
		for _, g := range check {
			if seen.has(g) {
				continue
			}
			seen.add(g)
			if p.m.gone(g) {
				gone = append(gone, g)
				continue
			}
			p.loose = true
			names, _ := p.m.names(g) // gone since, if that fails
			for _, n := range names {
				if _, ok := p.b.index[n]; ok {
					continue
				}
				if _, ok := p.extra[n]; !ok {
					p.extra[n] = struct{}{}
					p.next = append(p.next, touch{name: n, held: g})
				}
			}
		}
		if err := p.destroy(ctx, gone); err != nil {
			return err
		}
	}
	return nil
}

// destroy ends objects that the master has no longer. What directories held is
// released and comes to be looked after in turn.
func (p *pass) destroy(ctx context.Context, gone []gfid.GFID) error {
	for range 1 << 20 {
		if len(gone) == 0 {
			return nil
		}
		ops := make([]slave.Op, len(gone))
		for i, g := range gone {
			ops[i] = slave.Op{Kind: slave.Destroy, GFID: g}
		}
		results, err := p.c.Apply(ctx, ops)
		if err != nil {
			return err
		}
		gone = gone[:0]
		for i, r := range results {
			p.displaced = append(p.displaced, r.Released...)
			switch r.Errno {
			case 0, syscall.ENOENT:
				p.count.Entries++
			case syscall.EBUSY: // it has a name still, which is to be freed on its own
			case syscall.EAGAIN:
				gone = append(gone, ops[i].GFID)
			default:
				p.fail(Failure{GFID: ops[i].GFID, Op: "destroy", Errno: r.Errno, Detail: r.Detail})
			}
		}
	}
	return errors.New("replicator: destroy: the slave asks without end")
}
