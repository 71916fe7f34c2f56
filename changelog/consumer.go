package changelog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// stateName is where a consumer keeps how far it is.
const stateName = "state.json"

// ConsumerOptions say where a consumer begins.
type ConsumerOptions struct {
	// Since makes a new consumer begin with the first slice sealed later than
	// this, unix seconds; 0 means slices sealed from now on. A consumer that has
	// state goes on where it was.
	Since int64
}

// Consumer gives a program every sealed changelog of a brick once, as a file of
// PARSED lines in a working directory of its own: what libgfchangelog is to
// GlusterFS. Any number of consumers may read one brick, each with a directory
// of its own; they learn of changelogs by looking, not from the process that
// records. A changelog is acknowledged by Done, and what is not comes again after
// a restart. It is for one goroutine.
//
//	WORKDIR/.current/     being decoded
//	WORKDIR/.processing/  decoded, waiting for Done
//	WORKDIR/.processed/   after Done; the owner may clear it
//	WORKDIR/tracker       what the last Scan listed, one path per line
//	WORKDIR/.history/     the same for History
//	WORKDIR/state.json    what is acknowledged
//
// It differs from libgfchangelog on purpose: it reads binary changelogs; a
// damaged one is published as far as it can be read, and says so; changelogs
// come in order; gaps are told; nothing is lost over a restart.
//
// Source: glusterfs gf-changelog-api.c and gf-changelog-journal-handler.c.
type Consumer struct {
	dir  string   // the brick's changelogs directory
	work *workdir // .processing holds part of due
	lock *os.File // owned; the working directory

	index indexCursor
	// due are those read from the index and not yet published, in order.
	due   []Sealed
	state consumerState
}

// consumerState is what outlives the process.
type consumerState struct {
	Changelogs string `json:"changelogs"` // the brick's changelogs directory
	// Span is the HTIME file of the last slice acknowledged.
	Span int64 `json:"span"`
	// Done is the stamp up to which all is acknowledged.
	Done int64 `json:"done"`
	// Ahead are later ones that are acknowledged too.
	Ahead []int64 `json:"ahead,omitempty"`
}

// Register opens the working directory of a consumer of a brick, making it when
// missing. What was published and not done is published again. The error wraps
// ErrBusy when another process uses the directory.
func Register(brick, dir string, o ConsumerOptions) (*Consumer, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("changelog: register: %w", err)
	}
	c := &Consumer{dir: filepath.Join(brick, ".glusterfs", "changelogs")}
	if err := c.register(dir, o); err != nil {
		_ = c.Close() // the first error counts
		return nil, fmt.Errorf("changelog: register: %w", err)
	}
	return c, nil
}

func (c *Consumer) register(dir string, o ConsumerOptions) error {
	if _, err := os.Stat(c.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var err error
	if c.lock, err = os.Open(dir); err != nil {
		return err
	}
	if err := unix.Flock(int(c.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return fmt.Errorf("%s: %w", dir, err)
	}
	if c.work, err = openWorkdir(dir); err != nil {
		return err
	}
	if err := c.load(o); err != nil {
		return err
	}
	c.index = indexCursor{dir: c.dir, span: c.state.Span, stamp: c.state.Done}
	// A crash may have come between a Done and its state.
	processed, err := c.work.processed()
	if err != nil {
		return err
	}
	for _, stamp := range processed {
		if stamp > c.state.Done && !slices.Contains(c.state.Ahead, stamp) {
			c.state.Ahead = append(c.state.Ahead, stamp)
		}
	}
	return nil
}

// load reads the state, or makes that of a new consumer.
func (c *Consumer) load(o ConsumerOptions) error {
	path := filepath.Join(c.work.path, stateName)
	b, err := os.ReadFile(path)
	if err == nil {
		if err := json.Unmarshal(b, &c.state); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if c.state.Changelogs != c.dir {
			return fmt.Errorf("%s is of a consumer of %q, want %q", c.work.path, c.state.Changelogs, c.dir)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.state.Changelogs = c.dir
	if o.Since == 0 {
		c.state.Span, c.state.Done, err = ActiveSpan(c.dir)
	} else {
		c.state.Done = o.Since
		c.state.Span, err = spanOf(c.dir, o.Since)
	}
	if err != nil {
		return err
	}
	return c.save()
}

func (c *Consumer) save() error {
	b, err := json.Marshal(c.state)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(c.work.path, stateName), append(b, '\n'), 0o600); err != nil {
		return err
	}
	return syncPath(c.work.path)
}

// Close lets another process use the working directory.
func (c *Consumer) Close() error {
	if c.lock == nil {
		return nil
	}
	return c.lock.Close()
}

// Wait returns when Scan may find something new, or with the error of ctx.
func (c *Consumer) Wait(ctx context.Context) error {
	for {
		start, end, err := ActiveSpan(c.dir)
		if err != nil {
			return err
		}
		if len(c.due) > 0 && !c.work.full() || end > c.index.stamp || start > c.index.span {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followPoll):
		}
	}
}

// Scan publishes what was sealed since the last one, and lists all that wait for
// Done, in order, for Next. It returns how many those are; at most 1,024 wait,
// more are published when some are done.
//
// A *GapError, which wraps ErrGap, is returned once when changes went unrecorded
// behind what was published before; the next Scan goes on behind the gap. After a
// restart it is returned again, until something behind it is done.
func (c *Consumer) Scan() (int, error) {
	gap, err := c.look()
	if err != nil {
		return 0, fmt.Errorf("changelog: scan: %w", err)
	}
	for len(c.due) > 0 && !c.work.full() {
		if err := c.work.publish(c.due[0]); err != nil {
			return 0, fmt.Errorf("changelog: scan: %w", err)
		}
		c.due = c.due[1:]
	}
	n, err := c.work.list()
	switch {
	case err != nil:
		return n, fmt.Errorf("changelog: scan: %w", err)
	case gap != nil:
		return n, gap
	}
	return n, nil
}

// look makes due what the index has more.
func (c *Consumer) look() (*GapError, error) {
	if len(c.due) > 0 {
		return nil, nil
	}
	ended, gap, err := c.index.more()
	if err != nil {
		return nil, err
	}
	for _, s := range ended {
		if !s.Empty && !slices.Contains(c.state.Ahead, s.Stamp) {
			c.due = append(c.due, s)
		}
	}
	return gap, nil
}

// Next returns the next of what the last Scan listed, the oldest first; false
// after the last.
func (c *Consumer) Next() (Published, bool) { return c.work.take() }

// Done acknowledges changelogs: they do not come again. Their files move to
// .processed. It is durable when Done returns nil. Many in one call cost no more
// than one; in any order.
func (c *Consumer) Done(done ...Published) error {
	if err := c.work.finish(done); err != nil {
		return fmt.Errorf("changelog: done: %w", err)
	}
	for _, p := range done {
		c.state.Ahead = append(c.state.Ahead, p.Stamp)
		span, err := spanOf(c.dir, p.Stamp)
		if err != nil {
			return err
		}
		c.state.Span = max(c.state.Span, span)
	}
	c.state.Done = max(c.state.Done, c.allDone())
	c.state.Ahead = slices.DeleteFunc(c.state.Ahead, func(stamp int64) bool { return stamp <= c.state.Done })
	if err := c.save(); err != nil {
		return fmt.Errorf("changelog: done: %w", err)
	}
	return nil
}

// allDone is the stamp up to which nothing waits.
func (c *Consumer) allDone() int64 {
	switch {
	case len(c.work.waiting) > 0:
		return c.work.waiting[0].Stamp - 1
	case len(c.due) > 0:
		return c.due[0].Stamp - 1
	}
	return c.index.stamp
}
