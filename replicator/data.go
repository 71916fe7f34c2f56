package replicator

import (
	"context"
	"syscall"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/replicator/slave"
)

// data sends the contents of what the batch says has new ones, small files in
// one operation each, large ones through bulk.
func (p *pass) data(ctx context.Context) error {
	var small []*look
	var large []bulkFile
	for g, names := range p.big {
		o, errno := p.m.stat(g)
		if errno == syscall.ENOENT {
			continue
		}
		if errno != 0 {
			p.fail(Failure{GFID: g, Op: "read", Errno: errno, Detail: "on the master"})
			continue
		}
		large = append(large, bulkFile{obj: o, names: names})
	}
	for g := range p.b.data {
		if p.sent.has(g) || p.big[g] != nil {
			continue
		}
		o, errno := p.m.stat(g)
		switch {
		case errno == syscall.ENOENT: // gone since
		case errno != 0:
			p.fail(Failure{GFID: g, Op: "read", Errno: errno, Detail: "on the master"})
		case p.unchanged(&o):
		case !o.isRegular():
			p.b.meta.add(g)
		case o.bytes() <= p.opt.streamMax:
			small = append(small, &look{obj: o})
		case p.opt.hot.admit(g, p.bound, time.Now()):
			large = append(large, bulkFile{obj: o})
		default:
			// Its times come with the contents that they are of.
			delete(p.b.meta, g)
		}
	}
	clear(p.big)
	clear(p.b.data)
	err := p.lanes(ctx, len(small), func(w *work, i int) { p.putOp(w, small[i]) })
	if err != nil {
		return err
	}
	return p.large(ctx, large)
}

// putOp adds to w the operation that sends the content and the attributes of l's
// object.
func (p *pass) putOp(w *work, l *look) {
	f, errno := p.m.read(&l.obj, p.opt.streamMax)
	switch errno {
	case 0:
		l.body = f
		p.touchParents(l.obj.GFID)
		w.add(slave.Op{Kind: slave.Put, GFID: l.obj.GFID, Content: f.content, Meta: f.meta}, l)
	case syscall.ENOENT: // gone since
	case syscall.EFBIG: // it has grown
		p.mu.Lock()
		p.big[l.obj.GFID] = nil
		p.mu.Unlock()
	default:
		p.fail(Failure{GFID: l.obj.GFID, Op: "read", Errno: errno, Detail: "on the master"})
	}
}

// touchParents has the attributes of the directories that g is in set at the end:
// the slave replaces its names, which changes their times.
func (p *pass) touchParents(g gfid.GFID) {
	names, _ := p.m.names(g) // none if it is gone
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range names {
		p.dirs.add(n.Parent)
	}
}

// unchanged reports whether o is on the slave as it is now. Its xtime is no
// proof: it is written up to a second after the change, or, if the mount is
// killed, after the changelog is sealed.
func (p *pass) unchanged(o *object) bool {
	mark, ok := p.opt.sent.get(o.GFID)
	if !ok {
		return false
	}
	slice, recorded := p.b.recorded[o.GFID]
	switch {
	case recorded && mark.at.Before(slice):
		// Stores to mapped pages need not show in times, but are recorded again.
		return false
	case mark.sameAs(&o.Stat):
		return true
	case recorded, mark.size != o.Size(), mark.mtime != timeOf(o.Stat.Mtime), !time.Unix(mark.mtime.Sec, int64(mark.mtime.Nsec)).Before(mark.at.Add(-clockStep)):
		return false
	}
	// Only the ctime has moved, as it does when the xtime is written. To change
	// the content and not the mtime takes a setattr, which is recorded too.
	if p.b.meta.has(o.GFID) && !p.equal(o, &mark) {
		return false
	}
	mark.ctime = timeOf(o.Stat.Ctime)
	p.opt.sent.put(o.GFID, mark)
	return true
}

// equal reports whether o's content and attributes are those of the mark.
func (p *pass) equal(o *object, mark *sentMark) bool {
	if mark.sum == 0 || o.bytes() > p.opt.streamMax {
		return false
	}
	f, errno := p.m.read(o, p.opt.streamMax)
	return errno == 0 && f.mark.sum == mark.sum && f.mark.ctime == timeOf(o.Stat.Ctime)
}

// attributes sets owner, permissions, times and xattrs of what is not a
// directory.
func (p *pass) attributes(ctx context.Context) error {
	var looks []*look
	for g := range p.b.meta {
		if p.sent.has(g) {
			continue
		}
		o, errno := p.m.stat(g)
		switch {
		case errno == syscall.ENOENT: // gone since
		case errno != 0:
			p.fail(Failure{GFID: g, Op: "read attributes", Errno: errno, Detail: "on the master"})
		case o.isDir():
			p.dirs.add(g)
		case !p.unchanged(&o):
			looks = append(looks, &look{obj: o})
		}
	}
	clear(p.b.meta)
	return p.lanes(ctx, len(looks), func(w *work, i int) { p.setattrOp(w, looks[i]) })
}

// dirAttributes sets those of directories, last: whatever is done in a directory
// changes its time.
func (p *pass) dirAttributes(ctx context.Context) error {
	if len(p.next) > 0 {
		return nil // more is to be done below them
	}
	var looks []*look
	for g := range p.dirs {
		if o, errno := p.m.stat(g); errno == 0 && o.isDir() {
			looks = append(looks, &look{obj: o})
		} else if errno != 0 && errno != syscall.ENOENT {
			p.fail(Failure{GFID: g, Op: "read attributes", Errno: errno, Detail: "on the master"})
		}
	}
	return p.lanes(ctx, len(looks), func(w *work, i int) { p.setattrOp(w, looks[i]) })
}

func (p *pass) setattrOp(w *work, l *look) {
	meta, errno := p.m.meta(&l.obj)
	switch errno {
	case 0:
		w.add(slave.Op{Kind: slave.Setattr, GFID: l.obj.GFID, Meta: meta}, l)
	case syscall.ENOENT: // gone since
	default:
		p.fail(Failure{GFID: l.obj.GFID, Op: "read attributes", Errno: errno, Detail: "on the master"})
	}
}

// xtimeAt is the xtime of name in the directory fd, or of fd itself. False: it
// has none, so nothing was recorded of it ever.
func (m *master) xtimeAt(fd int, name string) (brick.Stamp, bool) {
	var buf [8]byte
	n, errno := brick.Getxattr(fd, name, m.xtimeKey, buf[:])
	if errno != 0 {
		return brick.Stamp{}, false
	}
	s, err := brick.ParseStamp(buf[:n])
	return s, err == nil
}
