package replicator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/replicator/slave"
)

// hybrid finds what changed by walking the master: it enters directories whose
// xtime is at or after since, and compares each with the slave's, both ways. So
// it finds what was made, changed, renamed and removed, whatever was recorded.
type hybrid struct {
	m *master
	c *slave.Client
	// since is the stime: what was touched before is on the slave. Zero compares
	// everything, and sends every file.
	since brick.Stamp
	// resumed says that an earlier crawl from since did part: a file that is on
	// the slave with the same size and mtime was sent by that. Changes since it
	// began are in changelogs that are read after this crawl.
	resumed bool
	// blank says that the slave has nothing yet, so that it is not asked.
	blank  bool
	source gfid.Source // for what has no GFID yet
	// linked are the files with several names that were found already: one name
	// brings the content, the others are links to it.
	linked set
	found  func(dirs, names int64)
}

// run walks from the directories in queue and calls emit with batches, each of
// at most about maxBatch names. A directory's batch may be emitted before that
// which makes its parent is done.
func (h *hybrid) run(ctx context.Context, queue []gfid.GFID, emit func(*batch) error) error {
	b := newBatch()
	flush := func() error {
		if b.empty() {
			return nil
		}
		full := b
		b = newBatch()
		return emit(full)
	}
	for len(queue) > 0 {
		g := queue[0]
		queue = queue[1:]
		more, err := h.directory(ctx, g, &b, flush)
		if err != nil {
			return err
		}
		queue = append(queue, more...)
		if h.found != nil {
			h.found(1, 0)
		}
	}
	return flush()
}

// directory compares one directory and returns those below it to be entered.
func (h *hybrid) directory(ctx context.Context, g gfid.GFID, b **batch, flush func() error) ([]gfid.GFID, error) {
	fd, errno := h.m.openDir(g)
	if errno == syscall.ENOENT {
		return nil, nil // gone since
	}
	if errno != 0 {
		return nil, fmt.Errorf("replicator: crawl: directory %v: %w", g, errno)
	}
	dir := os.NewFile(uintptr(fd), g.String())
	defer dir.Close()
	there, err := h.there(ctx, g)
	if err != nil {
		return nil, err
	}
	(*b).meta.add(g)
	var queue []gfid.GFID
	for {
		names, err := dir.Readdirnames(1024)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("replicator: crawl: directory %v: %w", g, err)
		}
		more, e := h.names(ctx, g, fd, names, there, *b)
		if e != nil {
			return nil, e
		}
		queue = append(queue, more...)
		if (*b).full() {
			if e := flush(); e != nil {
				return nil, e
			}
		}
		if err == io.EOF {
			break
		}
	}
	// What the slave has and the master has not. A name made on the master since
	// it was listed is looked up again before it is removed here.
	for base, e := range there {
		(*b).touch(changelog.Name{Parent: g, Base: base}, e.GFID, changelog.Name{})
		(*b).records++
	}
	return queue, nil
}

// there is what the slave has in the directory g.
func (h *hybrid) there(ctx context.Context, g gfid.GFID) (map[string]slave.Entry, error) {
	if h.blank {
		return nil, nil
	}
	there := make(map[string]slave.Entry)
	err := h.c.List(ctx, g, true, func(entries []slave.Entry) error {
		for _, e := range entries {
			there[e.Base] = e
		}
		return nil
	})
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return there, err
}

// names compares some names of the directory g, open as fd, with what the slave
// has there, and takes them out of there.
func (h *hybrid) names(ctx context.Context, g gfid.GFID, fd int, bases []string, there map[string]slave.Entry, b *batch) ([]gfid.GFID, error) {
	var queue, unknown []gfid.GFID
	n := int64(0)
	for _, base := range bases {
		if g == gfid.Root && base == brick.Dir {
			continue
		}
		o, errno := h.identify(g, fd, base)
		if errno == syscall.ENOENT {
			continue
		}
		if errno != 0 {
			return nil, fmt.Errorf("replicator: crawl: %q in %v: %w", base, g, errno)
		}
		n++
		e, ok := there[base]
		delete(there, base)
		same := ok && e.GFID == o.GFID && e.Attr.Type() == o.mode()&unix.S_IFMT
		if !same {
			b.touch(changelog.Name{Parent: g, Base: base}, o.GFID, changelog.Name{})
			if h.blank {
				b.seen(o)
			}
			b.records++
		}
		if !o.isDir() && o.Stat.Nlink > 2 {
			if h.linked.has(o.GFID) {
				continue
			}
			h.linked.add(o.GFID)
		}
		if !same && h.blank {
			b.made.add(o.GFID)
		} else if !same {
			unknown = append(unknown, o.GFID)
		}
		if !h.touched(fd, base) {
			continue
		}
		switch {
		case o.isDir():
			queue = append(queue, o.GFID)
		case !same && h.blank: // all of it goes along with the name
		case same && h.resumed && h.equal(&o, &e):
			b.meta.add(o.GFID)
			b.records++
		default:
			b.data.add(o.GFID)
			b.meta.add(o.GFID)
			b.records++
		}
	}
	if h.found != nil {
		h.found(0, n)
	}
	return queue, h.unknown(ctx, unknown, b)
}

// unknown finds out which GFIDs the slave lacks, or has only half of.
func (h *hybrid) unknown(ctx context.Context, gfids []gfid.GFID, b *batch) error {
	if len(gfids) == 0 {
		return nil
	}
	objs, err := h.c.Stat(ctx, gfids, 0)
	if err != nil {
		return err
	}
	for i, o := range objs {
		// A file without a name may be one that was cut short.
		if o.Errno == syscall.ENOENT || o.Busy || !o.Attr.IsDir() && o.Attr.Nlink == 0 {
			b.made.add(gfids[i])
		}
	}
	return nil
}

// touched reports whether base in fd, or something below it, may have changed.
func (h *hybrid) touched(fd int, base string) bool {
	if h.since == (brick.Stamp{}) {
		return true
	}
	x, ok := h.m.xtimeAt(fd, base)
	return ok && x.Compare(h.since) >= 0
}

// equal reports whether the slave's file has o's size and mtime.
func (h *hybrid) equal(o *object, e *slave.Entry) bool {
	return o.isRegular() && e.Attr.Size == o.Size() && e.Attr.Mtime == timeOf(o.Stat.Mtime)
}

// identify looks a name up, and gives the object there a GFID and a handle if it
// lacks them: files from before the brick was one.
func (h *hybrid) identify(g gfid.GFID, fd int, base string) (object, syscall.Errno) {
	if h.since != (brick.Stamp{}) {
		o, errno := h.m.lookupAt(fd, base)
		if errno != syscall.ENODATA {
			return o, errno
		}
	}
	var st unix.Statx_t
	if errno := brick.Statx(fd, base, &st); errno != 0 {
		return object{}, errno
	}
	id, _, errno := h.m.brick.Identify(fd, base, g, &st, &h.source)
	if errno != 0 {
		return object{}, errno
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Nlink < 2 {
		return h.m.lookupAt(fd, base)
	}
	// Identify has compared st with the handle, so it is that of id.
	return object{GFID: id, Stat: st, at: time.Now()}, 0
}

// pipe runs crawl beside do: batches are found while the one before is sent.
func pipe(ctx context.Context, crawl func(ctx context.Context, emit func(*batch) error) error, do func(context.Context, *batch) error) error {
	batches := make(chan *batch)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(batches)
		return crawl(ctx, func(b *batch) error {
			select {
			case batches <- b:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	g.Go(func() error {
		for b := range batches {
			if err := do(ctx, b); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	return g.Wait()
}
