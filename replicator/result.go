package replicator

import (
	"context"
	"fmt"
	"syscall"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/replicator/slave"
)

// work is a batch of operations with what each is for.
type work struct {
	ops   []slave.Op
	looks []*look
	bytes int64
}

func (w *work) add(op slave.Op, l *look) {
	w.ops = append(w.ops, op)
	w.looks = append(w.looks, l)
	if op.Content != nil {
		for _, x := range op.Content.Extents {
			w.bytes += int64(len(x.Data))
		}
	}
}

func (w *work) full() bool { return len(w.ops) >= laneOps || w.bytes >= laneBytes }

// apply sends w's operations, takes in what became of them and empties w.
func (p *pass) apply(ctx context.Context, w *work) error {
	if len(w.ops) == 0 {
		return nil
	}
	results, err := p.c.Apply(ctx, w.ops)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range results {
		if err := p.result(ctx, &w.ops[i], w.looks[i], &results[i]); err != nil {
			return err
		}
	}
	*w = work{ops: w.ops[:0], looks: w.looks[:0]}
	return nil
}

// result takes in what became of one operation on a name. The caller holds mu.
func (p *pass) result(ctx context.Context, op *slave.Op, l *look, r *slave.Result) error {
	p.conflict(op, l, r)
	if !r.Displaced.IsZero() {
		p.displaced = append(p.displaced, r.Displaced)
	}
	retry := func() { p.next = append(p.next, l.touch) }
	switch r.Errno {
	case 0:
		p.did(op, l, r)
		return nil
	case syscall.ENOENT:
		p.opt.sent.forget(op.GFID)
		switch op.Kind {
		case slave.Rename, slave.Link:
			// The slave lacks the object: it is made, with all it has.
			p.b.made.add(op.GFID)
			if l.obj.isDir() {
				p.lost = append(p.lost, op.GFID)
			}
			retry()
			return nil
		case slave.Put, slave.Setattr, slave.Begin, slave.Write:
			p.b.made.add(op.GFID)
			names, _ := p.m.names(op.GFID) // gone since, if that fails
			for _, n := range names {
				p.next = append(p.next, touch{name: n, held: op.GFID})
			}
			if l.obj.isDir() {
				p.lost = append(p.lost, op.GFID)
			}
			return nil
		case slave.Unlink:
			retry()
			return nil
		}
	case syscall.EUCLEAN:
		if p.resent.has(op.GFID) {
			break
		}
		p.resent.add(op.GFID)
		p.b.data.add(op.GFID)
		return nil
	case syscall.ESTALE:
		if op.Kind == slave.Unlink {
			retry() // the name is another's: whose, is asked for then
			return nil
		}
		p.next = append(p.next, p.missingParents(l.name.Parent)...)
		retry()
		return nil
	case syscall.EINVAL:
		if l.obj.isDir() {
			p.next = append(p.next, touch{name: l.name, tries: l.tries})
			return p.untangle(ctx, l.name.Parent)
		}
	case syscall.EEXIST:
		if op.Kind == slave.Make {
			retry()
			return p.evict(ctx, op.GFID)
		}
	}
	p.failed = append(p.failed, Failure{Name: l.name, GFID: op.GFID, Op: kindName(op.Kind), Errno: r.Errno, Detail: r.Detail})
	return nil
}

// conflict takes note of what was kept aside on the slave. The caller holds mu, or
// no lane runs.
func (p *pass) conflict(op *slave.Op, l *look, r *slave.Result) {
	if r.Conflict == "" {
		return
	}
	p.count.Conflicts++
	p.opt.log.Warn("kept aside what others wrote on the slave", "gfid", op.GFID, "name", l.name.Base, "conflict", r.Conflict)
}

// did takes in that an operation was done. The caller holds mu.
func (p *pass) did(op *slave.Op, l *look, r *slave.Result) {
	if op.Kind == slave.Unlink && op.Gone && !l.file {
		// A directory that was not empty waits among the orphans now.
		p.displaced = append(p.displaced, op.GFID)
	}
	if op.Kind == slave.Setattr {
		p.count.Attrs++
	} else if op.Kind != slave.Put {
		p.count.Entries++
	}
	if (op.Kind == slave.Make || op.Kind == slave.Put) && !l.obj.isDir() {
		p.sent.add(op.GFID)
	}
	if l.bulk != nil {
		p.arrived(l.bulk, &l.obj, r.Size)
	}
	if l.body == nil {
		return
	}
	if r.Size != op.Content.Size {
		p.failed = append(p.failed, Failure{GFID: op.GFID, Op: "write", Errno: syscall.EIO,
			Detail: fmt.Sprintf("%d bytes arrived of %d", r.Size, op.Content.Size)})
		return
	}
	p.count.Files++
	p.count.Bytes += r.Size
	p.opt.sent.put(op.GFID, l.body.mark)
	l.body = nil // it may be large, and the look lives on
}

// missingParents are the directory g and those above it, topmost first, as the
// master has them: names that make them where the slave lacks them.
func (p *pass) missingParents(g gfid.GFID) []touch {
	var up []touch
	for g != gfid.Root && len(up) < 1<<16 {
		parent, base, errno := p.m.brick.ReadDirHandle(g)
		if errno != 0 {
			return nil // gone on the master too, and its children with it
		}
		up = append(up, touch{name: changelog.Name{Parent: parent, Base: base}, held: g})
		g = parent
	}
	for i, j := 0, len(up)-1; i < j; i, j = i+1, j-1 {
		up[i], up[j] = up[j], up[i]
	}
	return up
}

// untangle takes the directory g off its name on the slave: what is above it
// there shall go below it. Its own name follows in the next round.
func (p *pass) untangle(ctx context.Context, g gfid.GFID) error {
	objs, err := p.c.Stat(ctx, []gfid.GFID{g}, slave.WantNames)
	if err != nil {
		return err
	}
	for _, n := range objs[0].Names {
		if _, err := p.c.Apply(ctx, []slave.Op{{Kind: slave.Unlink, GFID: g, Name: n}}); err != nil {
			return err
		}
	}
	// Also if it is a name of this batch: that was right before, and is not now.
	if names, errno := p.m.names(g); errno == 0 {
		for _, n := range names {
			p.next = append(p.next, touch{name: n, held: g})
		}
	}
	p.displaced = append(p.displaced, g)
	return nil
}

// evict ends the object g on the slave: the master has another type under this
// GFID.
func (p *pass) evict(ctx context.Context, g gfid.GFID) error {
	objs, err := p.c.Stat(ctx, []gfid.GFID{g}, slave.WantNames)
	if err != nil {
		return err
	}
	var ops []slave.Op
	for _, n := range objs[0].Names {
		ops = append(ops, slave.Op{Kind: slave.Unlink, GFID: g, Name: n})
	}
	ops = append(ops, slave.Op{Kind: slave.Destroy, GFID: g})
	_, err = p.c.Apply(ctx, ops)
	return err
}
