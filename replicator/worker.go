package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/replicator/slave"
)

// Options of a Worker. A zero field means its default.
type Options struct {
	// Brick is the master brick. The caller closes it.
	Brick *brick.Brick
	// Dial connects with the slave. Its error is tried again unless it is a
	// *PermanentError.
	Dial func(context.Context) (*slave.Client, error)
	// Once ends Run when all that was recorded before it began is on the slave.
	Once bool
	// Jobs is how many files go by stream, or runs of rsync, at once; default 3.
	Jobs int
	// Method of sending contents; default Auto.
	Method Method
	// Rsync is the rsync program; default "rsync".
	Rsync string
	// BWLimit is in KiB/s; 0 is none.
	BWLimit int64
	// Logger; nil discards.
	Logger *slog.Logger

	streamMax int64 // tests; default streamMax
}

// streamMax is the size in bytes up to which a file goes in one operation.
const streamMax = 1 << 20

// PermanentError is an error that trying again does not mend.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap is the cause.
func (e *PermanentError) Unwrap() error { return e.Err }

// ErrIncomplete is wrapped by Run's error when it ended with items that could not
// be brought to the slave.
var ErrIncomplete = errors.New("not all could be replicated")

// Worker replicates one brick to one slave.
type Worker struct {
	opt   Options
	log   *slog.Logger
	m     *master
	pass  passOptions
	items *quarantine
	retry chan struct{} // Retry was called. Capacity 1.

	// Of the current connection; used by Run alone.
	c    *slave.Client
	prog *progress
	// done is what stime would be without quarantine: all before it was sent.
	done brick.Stamp
	// torn says that the slave may have objects without a name that are gone on
	// the master: earlier work was cut short, or was late.
	torn bool
	// busy is set while a batch is being done.
	busy bool

	mu     sync.Mutex
	status Status // guarded by mu
	// oldest is when the oldest change that is not done was recorded; guarded by mu.
	oldest time.Time
}

// New makes a Worker. It changes nothing yet.
func New(o Options) (*Worker, error) {
	if o.Brick == nil || o.Dial == nil {
		return nil, errors.New("replicator: options: Brick and Dial are needed")
	}
	if o.Jobs == 0 {
		o.Jobs = 3
	}
	if o.Jobs < 1 || o.Jobs > 100 {
		return nil, fmt.Errorf("replicator: options: %d jobs, want 1 to 100", o.Jobs)
	}
	if o.Method == "" {
		o.Method = Auto
	}
	if _, err := ParseMethod(string(o.Method)); err != nil {
		return nil, err
	}
	if o.Rsync == "" {
		o.Rsync = "rsync"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.streamMax == 0 {
		o.streamMax = streamMax
	}
	w := &Worker{opt: o, log: o.Logger, m: newMaster(o.Brick), items: newQuarantine(), retry: make(chan struct{}, 1)}
	w.pass = passOptions{log: o.Logger, streamMax: o.streamMax, bulk: newBulk(&o)}
	w.status.State = Initializing
	return w, nil
}

// Run replicates until ctx is done, or with Once until all is on the slave. A
// lost connection is made again. The error is nil when ctx ended it.
func (w *Worker) Run(ctx context.Context) error {
	defer w.m.close()
	const most = 30 * time.Second
	wait := 500 * time.Millisecond
	for try := 1; ; try++ {
		began := time.Now()
		err := w.session(ctx)
		if ctx.Err() != nil {
			w.setState(Stopped, "")
			if w.opt.Once {
				return fmt.Errorf("replicator: %w", context.Cause(ctx))
			}
			return nil
		}
		var permanent *PermanentError
		if err == nil || errors.As(err, &permanent) || errors.Is(err, ErrIncomplete) {
			return err
		}
		if time.Since(began) > time.Minute {
			wait, try = 500*time.Millisecond, 1
		}
		if w.opt.Once && try == 5 {
			return err
		}
		w.log.Warn("session ended, tried again", "err", err, "in", wait)
		w.setState(Faulty, err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(wait*2, most)
	}
}

// session is one connection with the slave.
func (w *Worker) session(ctx context.Context) error {
	w.setState(Initializing, "")
	c, err := w.opt.Dial(ctx)
	if err != nil {
		for _, fatal := range []error{slave.ErrOtherMaster, slave.ErrNotSlave, slave.ErrOverlap, slave.ErrProtocol, brick.ErrMounted} {
			if errors.Is(err, fatal) {
				return &PermanentError{err}
			}
		}
		return err
	}
	defer c.Close()
	w.c = c
	if w.prog, err = openProgress(w.opt.Brick, c.Info().Slave); err != nil {
		return &PermanentError{err}
	}
	w.done = w.prog.stime
	w.pass.sent, w.pass.hot = newSentMarks(), nil
	w.items = newQuarantine() // all of it is below stime, and comes again
	w.setStime()
	if w.torn, err = w.prog.open(); err != nil {
		return err
	}
	w.busy = false
	w.setPending(nil) // what was, is read again
	if err := w.probe(ctx); err != nil {
		return err
	}
	w.setState(Active, "")
	err = w.crawl(ctx)
	if !w.torn && !w.busy {
		return errors.Join(err, w.prog.close())
	}
	return err
}

// do brings to the slave what b touched. What fails goes into quarantine, with
// what was done before b as the bound of stime.
func (w *Worker) do(ctx context.Context, b *batch) error {
	bound := w.bound()
	failed, err := w.try(ctx, b)
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		w.items.add(failed, bound, time.Now())
		for i, f := range failed {
			if i == 5 {
				w.log.Error("more items failed", "count", len(failed)-i)
				break
			}
			w.log.Error("item failed, kept in quarantine", "gfid", f.GFID, "name", f.Name.Base, "op", f.Op, "err", f.Errno, "detail", f.Detail)
		}
		w.setItems()
	}
	// With that many failures it is the slave that is at fault, not the items:
	// new work would only add to them.
	for w.items.len() > maxItems {
		if err := w.idle(ctx, time.Second); err != nil {
			return err
		}
		if err := w.retryItems(ctx, false); err != nil {
			return err
		}
	}
	return nil
}

// bound is what stime may be raised to: what was sent, less what waits.
func (w *Worker) bound() brick.Stamp {
	to := w.done
	if bound, ok := w.items.bound(); ok && bound.Compare(to) < 0 {
		to = bound
	}
	if bound, ok := w.pass.hot.bound(); ok && bound.Compare(to) < 0 {
		to = bound
	}
	return to
}

// try runs b, and compares subtrees that the slave turns out to have lost.
func (w *Worker) try(ctx context.Context, b *batch) ([]Failure, error) {
	w.busy = true
	w.setPending(b)
	p := newPass(w.m, w.c, b, &w.pass, w.bound())
	err := p.run(ctx)
	w.addCounts(p.count)
	w.torn = w.torn || p.loose
	failed := p.failed
	if err != nil {
		return failed, err
	}
	w.busy = false
	w.setPending(nil)
	if len(p.lost) == 0 {
		return failed, nil
	}
	w.log.Warn("slave had lost directories, compared", "count", len(p.lost))
	h := &hybrid{m: w.m, c: w.c, linked: make(set)}
	err = h.run(ctx, p.lost, func(b *batch) error {
		p := newPass(w.m, w.c, b, &w.pass, w.bound())
		err := p.run(ctx)
		w.addCounts(p.count)
		w.torn = w.torn || p.loose
		failed = append(failed, p.failed...)
		return err
	})
	return failed, err
}

// advance makes what was sent up to s durable and raises stime, as far as
// quarantine lets it.
func (w *Worker) advance(ctx context.Context, s brick.Stamp) error {
	if s.Compare(w.done) > 0 {
		w.done = s
	}
	to := w.bound()
	if to.Compare(w.prog.stime) <= 0 {
		return nil
	}
	if err := w.c.Sync(ctx); err != nil {
		return err
	}
	if err := w.prog.advance(to, to); err != nil {
		return err
	}
	w.setStime()
	return nil
}

// retryItems tries quarantined items again: those that are due, or all.
func (w *Worker) retryItems(ctx context.Context, all bool) error {
	b, keys := w.items.due(time.Now(), all, w.m)
	if len(keys) == 0 {
		return nil
	}
	failed, err := w.try(ctx, b)
	if err != nil {
		return err
	}
	w.items.add(failed, w.bound(), time.Now())
	w.items.settle(keys, failed)
	w.setItems()
	return w.advance(ctx, w.done)
}

// Retry makes the Worker try all items in quarantine now.
func (w *Worker) Retry() {
	select {
	case w.retry <- struct{}{}:
	default: // it is about to
	}
}

// changelogs is the directory of the brick's changelogs.
func (w *Worker) changelogs() string {
	return filepath.Join(w.opt.Brick.Path(), brick.Dir, "changelogs")
}

var rootQueue = []gfid.GFID{gfid.Root}
