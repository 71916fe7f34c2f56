package replicator

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/replicator/slave"
)

// Method is how the contents of files go to the slave.
type Method string

const (
	// Auto sends new and small files inside the session's connection, and large
	// files that changed by rsync, which finds what is new in them.
	Auto Method = "auto"
	// Rsync sends all but small files by rsync.
	Rsync Method = "rsync"
	// Stream sends all files inside the connection, whole.
	Stream Method = "stream"
)

// ParseMethod reads a Method, as given on a command line.
func ParseMethod(s string) (Method, error) {
	switch m := Method(s); m {
	case Auto, Rsync, Stream:
		return m, nil
	}
	return "", fmt.Errorf("replicator: sync method %q, want auto, rsync or stream", s)
}

// writeSize is how much of a large file goes in one operation.
const writeSize = 1 << 20

// bulk sends the contents of large files.
type bulk struct {
	method Method
	rsync  string // path of the program
	// jobs bounds how many files go by stream, or runs of rsync, at once.
	jobs int
	slot *semaphore.Weighted
	// kbps is the bandwidth limit in KiB/s; 0 is none. line keeps to it.
	kbps int64
	line *rate.Limiter
}

func newBulk(o *Options) *bulk {
	b := &bulk{method: o.Method, rsync: o.Rsync, jobs: o.Jobs, slot: semaphore.NewWeighted(int64(o.Jobs)), kbps: o.BWLimit}
	b.line = rate.NewLimiter(rate.Inf, writeSize)
	if b.kbps > 0 {
		b.line.SetLimit(rate.Limit(b.kbps << 10))
	}
	return b
}

// bulkFile is a large file to be sent.
type bulkFile struct {
	obj   object
	names []touch // it is new, and gets these when it is complete
	fresh bool    // the slave has none of its content yet
	sent  bool    // all of it went over; checked in finish
}

// large sends large files: a new one is made without a name, filled, and named
// when it is complete; one that the slave has is changed in place, and bears a
// mark on the slave until it is done.
func (p *pass) large(ctx context.Context, files []bulkFile) error {
	if len(files) == 0 {
		return nil
	}
	if err := p.prepare(ctx, files); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	var deltas []*bulkFile
	for i := range files {
		f := &files[i]
		switch {
		case f.obj.GFID.IsZero(): // could not be prepared
		case p.opt.bulk.method == Stream, p.opt.bulk.method == Auto && f.fresh:
			g.Go(func() error {
				return p.opt.bulk.held(gctx, func() error { return p.stream(gctx, f) })
			})
		default:
			deltas = append(deltas, f)
		}
	}
	for _, part := range split(deltas, p.opt.bulk.jobs) {
		g.Go(func() error {
			return p.opt.bulk.held(gctx, func() error { return p.rsync(gctx, part) })
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := p.finish(ctx, files); err != nil {
		return err
	}
	return p.settleDisplaced(ctx)
}

// held runs fn while one of the jobs' slots is held.
func (b *bulk) held(ctx context.Context, fn func() error) error {
	if err := b.slot.Acquire(ctx, 1); err != nil {
		return err
	}
	defer b.slot.Release(1)
	return fn()
}

// prepare makes what is new, and marks all as being written. A file it can't
// prepare gets a zero GFID.
func (p *pass) prepare(ctx context.Context, files []bulkFile) error {
	for i := range files {
		f := &files[i]
		var ops []slave.Op
		if f.names != nil {
			meta, errno := p.m.meta(&f.obj)
			if errno != 0 {
				if errno != syscall.ENOENT {
					p.fail(Failure{GFID: f.obj.GFID, Op: "read attributes", Errno: errno, Detail: "on the master"})
				}
				f.obj.GFID = [16]byte{}
				continue
			}
			ops = append(ops, slave.Op{Kind: slave.Make, GFID: f.obj.GFID, Meta: meta})
		}
		ops = append(ops, slave.Op{Kind: slave.Begin, GFID: f.obj.GFID})
		results, err := p.c.Apply(ctx, ops)
		if err != nil {
			return err
		}
		for j := range results {
			if results[j].Errno == 0 {
				p.conflict(&ops[j], &look{}, &results[j])
				continue
			}
			p.mu.Lock()
			err := p.result(ctx, &ops[j], &look{obj: f.obj}, &results[j])
			p.mu.Unlock()
			if err != nil {
				return err
			}
			f.obj.GFID = [16]byte{}
			break
		}
		f.fresh = f.names != nil && results[0].Size == 0
	}
	return nil
}

// finish sets the attributes of what was sent, checks its size, and names what
// is new. A file that changed on the master while it was sent is in a later
// record. One that was not sent keeps its mark on the slave, or has no name.
func (p *pass) finish(ctx context.Context, files []bulkFile) error {
	for i := range files {
		f := &files[i]
		if !f.sent {
			continue
		}
		now, errno := p.m.stat(f.obj.GFID)
		if errno != 0 {
			continue // gone since
		}
		meta, errno := p.m.meta(&f.obj)
		if errno != 0 {
			if errno != syscall.ENOENT {
				p.fail(Failure{GFID: f.obj.GFID, Op: "read attributes", Errno: errno, Detail: "on the master"})
			}
			continue
		}
		end := work{}
		end.add(slave.Op{Kind: slave.Setattr, GFID: f.obj.GFID, Meta: meta, End: true}, &look{obj: now, bulk: f})
		if err := p.apply(ctx, &end); err != nil {
			return err
		}
		if p.sent.has(f.obj.GFID) {
			if err := p.name(ctx, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// arrived checks the large file f, of which the slave has size bytes, when its
// attributes were set; now is what the master has. The caller holds mu.
func (p *pass) arrived(f *bulkFile, now *object, size int64) {
	same := f.obj.Size() == now.Size() && f.obj.Stat.Mtime == now.Stat.Mtime
	if same && size != now.Size() {
		p.failed = append(p.failed, Failure{GFID: f.obj.GFID, Op: "write", Errno: syscall.EIO,
			Detail: fmt.Sprintf("the slave has %d bytes of %d", size, now.Size())})
		return
	}
	p.count.Files++
	p.count.Bytes += size
	p.sent.add(f.obj.GFID)
	p.opt.hot.sent(f.obj.GFID, time.Since(f.obj.at), time.Now())
	if same {
		p.opt.sent.put(f.obj.GFID, f.mark())
	}
}

// name gives a new large file the names that the master still has for it.
func (p *pass) name(ctx context.Context, f *bulkFile) error {
	var w work
	for _, t := range f.names {
		if o, errno := p.m.lookup(t.name); errno == 0 && o.GFID == f.obj.GFID {
			w.add(slave.Op{Kind: slave.Link, GFID: f.obj.GFID, Name: slave.Name(t.name)}, &look{touch: t, obj: o})
		}
	}
	return p.apply(ctx, &w)
}

// mark is what f was when it was first looked at, before it was sent.
func (f *bulkFile) mark() sentMark {
	return sentMark{at: f.obj.at, size: f.obj.Size(), mtime: timeOf(f.obj.Stat.Mtime), ctime: timeOf(f.obj.Stat.Ctime)}
}

// stream sends f whole inside the connection, but for its holes.
func (p *pass) stream(ctx context.Context, f *bulkFile) error {
	fd, errno := p.m.open(&f.obj)
	if errno == syscall.ENOENT {
		return nil
	}
	if errno != 0 {
		p.fail(Failure{GFID: f.obj.GFID, Op: "read", Errno: errno, Detail: "on the master"})
		return nil
	}
	defer brick.Close(fd)
	if !f.fresh {
		// Old bytes must not shine through where the new file has holes.
		if ok, err := p.write(ctx, f, &slave.Content{Size: 0}); !ok {
			return err
		}
	}
	size := f.obj.Size()
	parts := make(chan slave.Extent, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(parts)
		return p.extents(ctx, fd, f, parts)
	})
	g.Go(func() error {
		// The size first: a file that ends in a hole has no extent there.
		ok, err := p.write(ctx, f, &slave.Content{Size: size})
		for x := range parts {
			if ok && err == nil {
				ok, err = p.write(ctx, f, &slave.Content{Size: -1, Extents: []slave.Extent{x}})
			}
			if !ok && err == nil {
				err = errStop
			}
			if err != nil {
				break
			}
		}
		return err
	})
	err := g.Wait()
	if err == errStop {
		return nil // the failure is noted
	}
	f.sent = err == nil
	return err
}

// errStop ends the reading of a file that can't be written.
var errStop = fmt.Errorf("replicator: stop")

// extents reads f's data, without its holes, into parts.
func (p *pass) extents(ctx context.Context, fd int, f *bulkFile, parts chan<- slave.Extent) error {
	size := f.obj.Size()
	for at := int64(0); at < size; {
		start, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil
		}
		end := size
		if err == nil {
			if end, err = unix.Seek(fd, start, unix.SEEK_HOLE); err != nil {
				end = size
			}
		} else {
			start = at
		}
		for at = start; at < min(end, size); {
			buf := make([]byte, min(writeSize, end-at, size-at))
			n, err := unix.Pread(fd, buf, at)
			if err != nil {
				p.fail(Failure{GFID: f.obj.GFID, Op: "read", Errno: err.(syscall.Errno), Detail: "on the master"})
				return errStop
			}
			if n == 0 {
				return nil // cut off meanwhile, which is in a later record
			}
			if err := p.opt.bulk.line.WaitN(ctx, n); err != nil {
				return err
			}
			select {
			case parts <- slave.Extent{Offset: at, Data: buf[:n]}:
			case <-ctx.Done():
				return ctx.Err()
			}
			at += int64(n)
		}
	}
	return nil
}

// write sends one part of f. False: the slave could not write it, which is noted.
func (p *pass) write(ctx context.Context, f *bulkFile, c *slave.Content) (bool, error) {
	r, err := p.c.Apply(ctx, []slave.Op{{Kind: slave.Write, GFID: f.obj.GFID, Content: c}})
	if err != nil {
		return false, err
	}
	if r[0].Errno != 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		return false, p.result(ctx, &slave.Op{Kind: slave.Write, GFID: f.obj.GFID}, &look{obj: f.obj}, &r[0])
	}
	return true, nil
}

// split deals files out to at most n runs of about the same number of bytes.
func split(files []*bulkFile, n int) [][]*bulkFile {
	runs := make([][]*bulkFile, min(n, len(files)))
	bytes := make([]int64, len(runs))
	for _, f := range files {
		least := 0
		for i := range bytes {
			if bytes[i] < bytes[least] {
				least = i
			}
		}
		runs[least] = append(runs[least], f)
		bytes[least] += f.obj.Size() + 1
	}
	return runs
}
