package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/replicator/slave"
)

const (
	// maxRounds is how often a name is tried within a pass. Each round makes
	// what the one before found missing, so two or three do; more means that the
	// master changes as fast as we look, or a slave that undoes what we do.
	maxRounds = 16
	// lanes is how many batches of independent operations are in flight.
	lanes = 3
	// laneOps and laneBytes bound one such batch.
	laneOps   = 128
	laneBytes = 1 << 20
)

// pass brings the slave into step with what one batch touched: names first, then
// contents, then attributes, directories' times last.
type pass struct {
	m   *master
	c   *slave.Client
	b   *batch
	opt *passOptions
	// bound is what stime may not pass until all of b is done.
	bound brick.Stamp

	mu sync.Mutex // guards what follows while lanes run

	// sent have their content and attributes on the slave already.
	sent set
	// big are new files too large for one operation: without a name until their
	// data is there. Their names are given then.
	big map[gfid.GFID][]touch
	// dirs get their attributes at the end, for what is done below changes times.
	dirs set
	// resent are files that others changed on the slave and that are sent again.
	resent set
	// displaced lost a name on the slave and may be gone on the master.
	displaced []gfid.GFID
	// lost are directories that the slave lacked though their making is not in
	// the batch: their subtrees are compared.
	lost []gfid.GFID
	// extra are names that came up on the way, besides those of the batch.
	extra map[changelog.Name]struct{}
	next  []touch
	// failed are the items that could not be done.
	failed []Failure
	count  Counts
}

// passOptions is what passes share.
type passOptions struct {
	log *slog.Logger
	// streamMax is the size in bytes up to which a file's content goes in one
	// operation.
	streamMax int64
	bulk      *bulk
	// sent and hot are nil but while a changelog is followed as it grows.
	sent *sentMarks
	hot  *hot
}

// Counts is work done.
type Counts struct {
	Entries   int64 `json:"entries"`   // names made, moved, removed
	Files     int64 `json:"files"`     // contents sent
	Bytes     int64 `json:"bytes"`     // of contents, as the files have them
	Attrs     int64 `json:"attrs"`     // objects whose attributes were set
	Conflicts int64 `json:"conflicts"` // kept aside on the slave
}

func (c *Counts) add(d Counts) {
	c.Entries += d.Entries
	c.Files += d.Files
	c.Bytes += d.Bytes
	c.Attrs += d.Attrs
	c.Conflicts += d.Conflicts
}

// Failure is an item that could not be done, and why.
type Failure struct {
	GFID   gfid.GFID
	Name   changelog.Name // zero for data and attributes
	Op     string         // what was tried
	Errno  syscall.Errno
	Detail string
}

func (f *Failure) Error() string {
	s := fmt.Sprintf("%s of %v: %v", f.Op, f.GFID, f.Errno)
	if f.Name != (changelog.Name{}) {
		s = fmt.Sprintf("%s of %q in %v: %v", f.Op, f.Name.Base, f.Name.Parent, f.Errno)
	}
	if f.Detail != "" {
		s += ": " + f.Detail
	}
	return s
}

// look is a touched name and what the master has there.
type look struct {
	touch
	obj   object
	errno syscall.Errno // ENOENT: the name is free
	body  *file         // what was sent along; nil after that
}

func newPass(m *master, c *slave.Client, b *batch, opt *passOptions, bound brick.Stamp) *pass {
	return &pass{m: m, c: c, b: b, opt: opt, bound: bound,
		sent: make(set), resent: make(set), dirs: make(set), big: make(map[gfid.GFID][]touch),
		extra: make(map[changelog.Name]struct{})}
}

// run does the whole batch. The error is that of the connection or of ctx: the
// batch is then to be run again. What failed for itself is in p.failed.
func (p *pass) run(ctx context.Context) error {
	todo := p.b.touches
	for range maxRounds {
		for _, stage := range []func(context.Context) error{
			func(ctx context.Context) error { return p.names(ctx, todo) },
			p.data, p.attributes, p.dirAttributes,
		} {
			if err := stage(ctx); err != nil {
				return err
			}
		}
		if len(p.next) == 0 && len(p.b.data) == 0 {
			return nil
		}
		// The slave lacked an object that should be there, or others changed
		// one: names first, again.
		todo = p.next
	}
	for _, t := range p.next {
		p.fail(Failure{Name: t.name, GFID: t.held, Op: "send", Errno: syscall.EAGAIN, Detail: "the slave loses it each time"})
	}
	return nil
}

// names makes the slave agree on each of the names.
func (p *pass) names(ctx context.Context, todo []touch) error {
	for len(todo) > 0 {
		looks, err := p.lookup(ctx, todo)
		if err != nil {
			return err
		}
		p.next = nil
		for _, stage := range []func(context.Context, []*look) error{p.directories, p.moves, p.makes, p.frees} {
			if err := stage(ctx, looks); err != nil {
				return err
			}
		}
		if err := p.settleDisplaced(ctx); err != nil {
			return err
		}
		todo = todo[:0:0]
		seen := make(map[changelog.Name]struct{}, len(p.next))
		for _, t := range p.next {
			if _, ok := seen[t.name]; ok {
				continue
			}
			seen[t.name] = struct{}{}
			if t.tries++; t.tries > maxRounds {
				p.fail(Failure{Name: t.name, GFID: t.held, Op: "name", Errno: syscall.EAGAIN,
					Detail: fmt.Sprintf("does not settle after %d tries", maxRounds)})
				continue
			}
			todo = append(todo, t)
		}
		p.next = nil
	}
	return nil
}

// lookup asks the master for the names.
func (p *pass) lookup(ctx context.Context, todo []touch) ([]*look, error) {
	looks := make([]*look, len(todo))
	store := make([]look, len(todo))
	g, ctx := errgroup.WithContext(ctx)
	const part = 512
	g.SetLimit(lanes)
	for from := 0; from < len(todo); from += part {
		g.Go(func() error {
			for i := from; i < min(from+part, len(todo)); i++ {
				l := &store[i]
				l.touch = todo[i]
				l.obj, l.errno = p.m.lookup(l.name)
				looks[i] = l
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, l := range looks {
		p.dirs.add(l.name.Parent)
		switch l.errno {
		case 0, syscall.ENOENT:
		case syscall.ENODATA:
			// No GFID yet: whoever gives it one records that.
			l.errno = syscall.ENOENT
		default:
			p.fail(Failure{Name: l.name, Op: "look up", Errno: l.errno, Detail: "on the master"})
		}
	}
	return looks, nil
}

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

func (p *pass) fail(f Failure) {
	p.mu.Lock()
	p.failed = append(p.failed, f)
	p.mu.Unlock()
}

func kindName(k slave.Kind) string {
	names := [...]string{"", "make", "link", "rename", "unlink", "destroy", "set attributes", "write", "begin", "write"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprint("operation ", k)
}
