package slave

import (
	"fmt"
	"iter"
	"syscall"

	"github.com/georep/georep/brick/gfid"
)

const (
	maxBatch      = 1024    // items in one message
	maxBatchBytes = 1 << 20 // bytes after which a message is sent, about
)

// chunks yields parts of s, at most n long.
func chunks[T any](s []T, n int) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for len(s) > 0 {
			k := min(n, len(s))
			if !yield(s[:k]) {
				return
			}
			s = s[k:]
		}
	}
}

// batches yields parts of ops that each fit into a message.
func batches(ops []Op) iter.Seq[[]Op] {
	return func(yield func([]Op) bool) {
		for len(ops) > 0 {
			n, size := 0, 0
			for n < len(ops) && n < maxBatch && size < maxBatchBytes {
				size += ops[n].size()
				n++
			}
			if n > 1 && size > 2*maxBatchBytes {
				n-- // a big one last: it goes in a message of its own
			}
			if !yield(ops[:n]) {
				return
			}
			ops = ops[n:]
		}
	}
}

// size is about how many bytes op takes on the wire.
func (op *Op) size() int {
	n := 100 + len(op.Name.Base) + len(op.Old.Base) + len(op.Target)
	if op.Meta != nil {
		for _, x := range op.Meta.Xattrs {
			n += len(x.Name) + len(x.Value)
		}
	}
	if op.Content != nil {
		for _, e := range op.Content.Extents {
			n += len(e.Data) + 16
		}
	}
	return n
}

func wireGFID(g gfid.GFID) []byte {
	if g.IsZero() {
		return nil
	}
	return g[:]
}

func wireGFIDs(gfids []gfid.GFID) [][]byte {
	w := make([][]byte, len(gfids))
	for i := range gfids {
		w[i] = gfids[i][:]
	}
	return w
}

// gfidOf reads a GFID; an empty one is zero.
func gfidOf(b []byte) (gfid.GFID, error) {
	if len(b) == 0 {
		return gfid.GFID{}, nil
	}
	return gfid.FromBytes(b)
}

func gfidsOf(w [][]byte) ([]gfid.GFID, error) {
	gfids := make([]gfid.GFID, len(w))
	for i, b := range w {
		g, err := gfid.FromBytes(b)
		if err != nil {
			return nil, err
		}
		gfids[i] = g
	}
	return gfids, nil
}

func wireTime(t Time) *WireTime { return &WireTime{Sec: t.Sec, Nsec: t.Nsec} }

func timeOf(w *WireTime) Time { return Time{Sec: w.GetSec(), Nsec: w.GetNsec()} }

func wireName(n Name) *WireName {
	if n.IsZero() {
		return nil
	}
	return &WireName{Parent: n.Parent[:], Base: []byte(n.Base)}
}

func wireNames(names []Name) []*WireName {
	w := make([]*WireName, len(names))
	all := make([]WireName, len(names))
	for i := range names {
		all[i].Parent, all[i].Base = names[i].Parent[:], []byte(names[i].Base)
		w[i] = &all[i]
	}
	return w
}

func nameOf(w *WireName) (Name, error) {
	if w == nil {
		return Name{}, nil
	}
	g, err := gfid.FromBytes(w.Parent)
	return Name{Parent: g, Base: string(w.Base)}, err
}

func wireAttr(a *Attr) *WireAttr {
	return &WireAttr{
		Mode: a.Mode, Uid: a.UID, Gid: a.GID, Major: a.Rdev.Major, Minor: a.Rdev.Minor,
		Nlink: a.Nlink, Size: a.Size, Blocks: a.Blocks,
		Mtime: wireTime(a.Mtime), Ctime: wireTime(a.Ctime), Atime: wireTime(a.Atime),
	}
}

func attrOf(w *WireAttr) Attr {
	return Attr{
		Mode: w.GetMode(), UID: w.GetUid(), GID: w.GetGid(), Rdev: Rdev{w.GetMajor(), w.GetMinor()},
		Nlink: w.GetNlink(), Size: w.GetSize(), Blocks: w.GetBlocks(),
		Mtime: timeOf(w.GetMtime()), Ctime: timeOf(w.GetCtime()), Atime: timeOf(w.GetAtime()),
	}
}

func wireEntry(e *Entry) *WireEntry {
	return &WireEntry{
		Errno: uint32(e.Errno), Base: []byte(e.Base), Gfid: wireGFID(e.GFID), Foreign: e.Foreign, Attr: wireAttr(&e.Attr),
	}
}

// entryOf reads an Entry. A GFID of the wrong size is EPROTO in it.
func entryOf(w *WireEntry) Entry {
	g, err := gfidOf(w.Gfid)
	e := Entry{Errno: syscall.Errno(w.Errno), Base: string(w.Base), GFID: g, Foreign: w.Foreign, Attr: attrOf(w.Attr)}
	if err != nil {
		e.Errno = syscall.EPROTO
	}
	return e
}

func wireXattrs(xattrs []Xattr) []*WireXattr {
	w := make([]*WireXattr, len(xattrs))
	for i, x := range xattrs {
		w[i] = &WireXattr{Name: []byte(x.Name), Value: x.Value}
	}
	return w
}

func xattrsOf(w []*WireXattr) []Xattr {
	if len(w) == 0 {
		return nil
	}
	xattrs := make([]Xattr, len(w))
	for i, x := range w {
		xattrs[i] = Xattr{Name: string(x.Name), Value: x.Value}
	}
	return xattrs
}

func wireObject(o *Object) *WireObject {
	return &WireObject{
		Errno: uint32(o.Errno), Attr: wireAttr(&o.Attr), Target: []byte(o.Target), Xattrs: wireXattrs(o.Xattrs),
		Names: wireNames(o.Names), Orphan: o.Orphan, Busy: o.Busy, Changed: o.Changed,
	}
}

// objectOf reads an Object. A GFID of the wrong size is EPROTO in it.
func objectOf(w *WireObject) Object {
	o := Object{
		Errno: syscall.Errno(w.Errno), Attr: attrOf(w.Attr), Target: string(w.Target), Xattrs: xattrsOf(w.Xattrs),
		Orphan: w.Orphan, Busy: w.Busy, Changed: w.Changed,
	}
	for _, n := range w.Names {
		name, err := nameOf(n)
		if err != nil {
			return Object{Errno: syscall.EPROTO}
		}
		o.Names = append(o.Names, name)
	}
	return o
}

func wireMeta(m *Meta) *WireMeta {
	if m == nil {
		return nil
	}
	w := &WireMeta{
		Mode: m.Mode, Uid: m.UID, Gid: m.GID, Mtime: wireTime(m.Mtime),
		Xattrs: wireXattrs(m.Xattrs), KeepXattrs: m.KeepXattrs,
	}
	if !m.Atime.IsZero() {
		w.Atime = wireTime(m.Atime)
	}
	return w
}

func metaOf(w *WireMeta) *Meta {
	if w == nil {
		return nil
	}
	return &Meta{
		Mode: w.Mode, UID: w.Uid, GID: w.Gid, Mtime: timeOf(w.Mtime), Atime: timeOf(w.Atime),
		Xattrs: xattrsOf(w.Xattrs), KeepXattrs: w.KeepXattrs,
	}
}

func wireContent(c *Content) *WireContent {
	if c == nil {
		return nil
	}
	w := &WireContent{Size: c.Size}
	for _, e := range c.Extents {
		w.Extents = append(w.Extents, &WireExtent{Offset: e.Offset, Data: e.Data})
	}
	return w
}

func contentOf(w *WireContent) *Content {
	if w == nil {
		return nil
	}
	c := &Content{Size: w.Size}
	if len(w.Extents) > 0 {
		c.Extents = make([]Extent, len(w.Extents))
		for i, e := range w.Extents {
			c.Extents[i] = Extent{Offset: e.Offset, Data: e.Data}
		}
	}
	return c
}

func wireOps(ops []Op) []*WireOp {
	w := make([]*WireOp, len(ops))
	all := make([]WireOp, len(ops))
	for i := range ops {
		op := &ops[i]
		p := &all[i]
		p.Kind, p.Gfid, p.Gone = uint32(op.Kind), wireGFID(op.GFID), op.Gone
		p.End = op.End
		p.Name, p.Old, p.Target = wireName(op.Name), wireName(op.Old), []byte(op.Target)
		p.Major, p.Minor = op.Rdev.Major, op.Rdev.Minor
		p.Meta, p.Content = wireMeta(op.Meta), wireContent(op.Content)
		w[i] = p
	}
	return w
}

// opOf reads an Op as the peer sent it: only its shape is checked here.
func opOf(w *WireOp) (Op, error) {
	op := Op{
		Kind: Kind(w.Kind), Gone: w.Gone, End: w.End, Target: string(w.Target), Rdev: Rdev{w.Major, w.Minor},
		Meta: metaOf(w.Meta), Content: contentOf(w.Content),
	}
	if w.Kind > 255 {
		op.Kind = 0
	}
	var err error
	if op.GFID, err = gfidOf(w.Gfid); err != nil {
		return op, err
	}
	if op.Name, err = nameOf(w.Name); err != nil {
		return op, fmt.Errorf("name: %w", err)
	}
	if op.Old, err = nameOf(w.Old); err != nil {
		return op, fmt.Errorf("old name: %w", err)
	}
	return op, nil
}

func wireResult(r *Result) *WireResult {
	w := &WireResult{
		Errno: uint32(r.Errno), Detail: []byte(r.Detail), Displaced: wireGFID(r.Displaced), Conflict: []byte(r.Conflict), Size: r.Size, Made: r.Made,
	}
	if len(r.Released) > 0 {
		w.Released = wireGFIDs(r.Released)
	}
	return w
}

// resultOf reads a Result. A GFID of the wrong size is EPROTO in it.
func resultOf(w *WireResult) Result {
	r := Result{Errno: syscall.Errno(w.Errno), Detail: string(w.Detail), Conflict: string(w.Conflict), Size: w.Size, Made: w.Made}
	var err error
	if r.Displaced, err = gfidOf(w.Displaced); err != nil {
		r.Errno, r.Detail = syscall.EPROTO, err.Error()
	}
	if len(w.Released) > 0 {
		if r.Released, err = gfidsOf(w.Released); err != nil {
			r.Errno, r.Detail = syscall.EPROTO, err.Error()
		}
	}
	return r
}

func hashOf(w *WireHash) Hash {
	h := Hash{Errno: syscall.Errno(w.Errno), Size: w.Size, Mtime: timeOf(w.Mtime), Ctime: timeOf(w.Ctime)}
	if h.Errno == 0 && copy(h.Sum[:], w.Sum) != len(h.Sum) {
		h.Errno = syscall.EPROTO
	}
	return h
}
