package replicator

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
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
	// loose is set when some of them were not gone. What ends them may name them
	// nowhere, such as a rename over their last name, so that the slave must be
	// asked for what has no name there.
	loose bool
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
	// hot is nil but while a changelog is followed as it grows.
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
	// Literal and Matched are rsync's own figures: bytes that went over the line,
	// and bytes that the slave had.
	Literal int64 `json:"literal"`
	Matched int64 `json:"matched"`
}

func (c *Counts) add(d Counts) {
	c.Entries += d.Entries
	c.Files += d.Files
	c.Bytes += d.Bytes
	c.Attrs += d.Attrs
	c.Conflicts += d.Conflicts
	c.Literal += d.Literal
	c.Matched += d.Matched
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
	obj   object        // what the master has there
	errno syscall.Errno // ENOENT: the name is free
	body  *file         // what was sent along; nil after that
	bulk  *bulkFile     // the large file whose end this is
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
				if l.touch.obj != nil && l.tries == 0 {
					l.obj = *l.touch.obj
				} else {
					l.obj, l.errno = p.m.lookup(l.name)
				}
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
		case 0:
			if p.b.made.has(l.obj.GFID) && p.unchanged(&l.obj) {
				delete(p.b.made, l.obj.GFID) // it was sent, and needs the name at most
			}
		case syscall.ENOENT:
		case syscall.ENODATA:
			// No GFID yet: whoever gives it one records that.
			l.errno = syscall.ENOENT
		default:
			p.fail(Failure{Name: l.name, Op: "look up", Errno: l.errno, Detail: "on the master"})
		}
	}
	return looks, nil
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
