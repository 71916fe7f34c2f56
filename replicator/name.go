package replicator

import (
	"context"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/replicator/slave"
)

// directories gives directories their names, in the order they were touched: a
// parent was, as a rule, made before its children.
func (p *pass) directories(ctx context.Context, looks []*look) error {
	var w work
	for _, l := range looks {
		if l.errno != 0 || !l.obj.isDir() {
			continue
		}
		op := slave.Op{Kind: slave.Rename, GFID: l.obj.GFID, Name: slave.Name(l.name)}
		if p.b.made.has(l.obj.GFID) {
			meta, errno := p.m.meta(&l.obj)
			if errno == syscall.ENOENT {
				continue
			}
			if errno != 0 {
				p.fail(Failure{Name: l.name, GFID: l.obj.GFID, Op: "read attributes", Errno: errno})
				continue
			}
			op.Kind, op.Meta = slave.Make, meta
			p.dirs.add(l.obj.GFID)
		}
		w.add(op, l)
	}
	return p.apply(ctx, &w)
}

// moves gives names to objects that the slave most likely has under others. In
// one batch and in order: such operations can name the same objects.
func (p *pass) moves(ctx context.Context, looks []*look) error {
	at := make(map[changelog.Name]*look)
	for _, l := range looks {
		if l.errno == 0 && !l.obj.isDir() && !p.b.made.has(l.obj.GFID) {
			at[l.name] = l
		}
	}
	var w work
	for _, l := range looks {
		if at[l.name] != l {
			continue
		}
		op := slave.Op{Kind: slave.Link, GFID: l.obj.GFID, Name: slave.Name(l.name)}
		if l.old != (changelog.Name{}) && l.old != l.name {
			if o, errno := p.m.lookup(l.old); errno == syscall.ENOENT || errno == 0 && o.GFID != l.obj.GFID {
				op.Kind, op.Old = slave.Rename, slave.Name(l.old)
			}
		}
		w.add(op, l)
	}
	return p.apply(ctx, &w)
}

// makes sends new objects whole, several lanes at once. A second name of the
// same object waits until the first is made.
func (p *pass) makes(ctx context.Context, looks []*look) error {
	first := make(set)
	var now, again []*look
	for _, l := range looks {
		if l.errno != 0 || l.obj.isDir() || !p.b.made.has(l.obj.GFID) {
			continue
		}
		if first.has(l.obj.GFID) {
			again = append(again, l)
			continue
		}
		first.add(l.obj.GFID)
		now = append(now, l)
	}
	if err := p.lanes(ctx, len(now), func(w *work, i int) { p.makeOp(w, now[i]) }); err != nil {
		return err
	}
	var w work
	for _, l := range again {
		if names, ok := p.big[l.obj.GFID]; ok {
			p.big[l.obj.GFID] = append(names, l.touch)
			continue
		}
		w.add(slave.Op{Kind: slave.Link, GFID: l.obj.GFID, Name: slave.Name(l.name)}, l)
	}
	return p.apply(ctx, &w)
}

// lanes calls build for 0 to n-1, several at once and each range in order, and
// applies what that adds to w. No two operations may concern the same object.
func (p *pass) lanes(ctx context.Context, n int, build func(w *work, i int)) error {
	const part = 32
	var from atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(lanes, (n+part-1)/part) {
		g.Go(func() error {
			var w work
			for {
				i := int(from.Add(part)) - part
				if i >= n {
					return p.apply(ctx, &w)
				}
				for end := min(i+part, n); i < end; i++ {
					build(&w, i)
					if w.full() {
						if err := p.apply(ctx, &w); err != nil {
							return err
						}
					}
				}
			}
		})
	}
	return g.Wait()
}

// makeOp adds to w the operation that makes l's object with all it has.
func (p *pass) makeOp(w *work, l *look) {
	op := slave.Op{Kind: slave.Make, GFID: l.obj.GFID, Name: slave.Name(l.name)}
	var errno syscall.Errno
	if l.obj.isRegular() {
		if l.obj.bytes() <= p.opt.streamMax {
			var f *file
			f, errno = p.m.read(&l.obj, p.opt.streamMax)
			if errno == 0 {
				op.Content, op.Meta = f.content, f.meta
				l.body = f
			}
		}
		if l.obj.bytes() > p.opt.streamMax || errno == syscall.EFBIG {
			p.mu.Lock()
			p.big[l.obj.GFID] = append(p.big[l.obj.GFID], l.touch)
			p.mu.Unlock()
			return
		}
	} else {
		op.Target, op.Rdev, op.Meta, errno = p.m.special(&l.obj)
	}
	switch errno {
	case 0:
		w.add(op, l)
	case syscall.ENOENT: // gone since, which is in a later record
	default:
		p.fail(Failure{Name: l.name, GFID: l.obj.GFID, Op: "read", Errno: errno, Detail: "on the master"})
	}
}

// frees removes names that the master has free.
func (p *pass) frees(ctx context.Context, looks []*look) error {
	var w work
	var ask []*look
	gone := make(map[gfid.GFID]bool)
	for _, l := range looks {
		switch {
		case l.errno != syscall.ENOENT:
		case l.held.IsZero() || l.tries > 0:
			ask = append(ask, l)
		default:
			w.add(p.unlink(l, l.held, gone), l)
		}
	}
	if len(ask) > 0 {
		names := make([]slave.Name, len(ask))
		for i, l := range ask {
			names[i] = slave.Name(l.name)
		}
		entries, err := p.c.Lookup(ctx, names)
		if err != nil {
			return err
		}
		for i, e := range entries {
			switch {
			case e.Errno == syscall.ESTALE: // the slave lacks the parent
			case e.Errno != 0:
				p.fail(Failure{Name: ask[i].name, Op: "look up", Errno: e.Errno, Detail: "on the slave"})
			case !e.Free():
				w.add(p.unlink(ask[i], e.GFID, gone), ask[i])
			}
		}
	}
	return p.apply(ctx, &w)
}

func (p *pass) unlink(l *look, held gfid.GFID, gone map[gfid.GFID]bool) slave.Op {
	op := slave.Op{Kind: slave.Unlink, GFID: held, Name: slave.Name(l.name)}
	if !held.IsZero() {
		g, ok := gone[held]
		if !ok {
			g = p.m.gone(held)
			gone[held] = g
		}
		op.Gone = g
		l.held = held
		if !g {
			// It lives on elsewhere on the master. If this was its last name on
			// the slave, the others are not far.
			p.mu.Lock()
			p.displaced = append(p.displaced, held)
			p.mu.Unlock()
		}
	}
	return op
}
