package slave

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// quote is a name for a person: the peer's bytes, made printable.
func quote(s string) string { return strconv.Quote(s) }

// stat tells of g what want asks for.
func (t *tree) stat(g gfid.GFID, want Want) (o Object) {
	i, st, d, f := t.find(g)
	if f != nil {
		return Object{Errno: f.errno}
	}
	defer t.dirs.release(d)
	o.Attr = attrOfStat(st)
	var errno syscall.Errno
	switch o.Attr.Type() {
	case unix.S_IFLNK:
		o.Target, errno = i.readlink()
	case unix.S_IFREG:
		l := readLeft(i)
		o.Busy, o.Changed = l.busy, l.changed(st)
	case unix.S_IFDIR:
		errno = t.statPlace(g, &o, want)
	}
	if !o.Attr.IsDir() {
		o.Attr.Nlink-- // the handle
		if errno == 0 && want&WantNames != 0 {
			o.Names, errno = t.names(g, st)
		}
	}
	if errno == 0 && want&WantXattrs != 0 {
		o.Xattrs, errno = readXattrs(i)
	}
	if errno != 0 {
		return Object{Errno: errno}
	}
	return o
}

// statPlace tells where the directory g is. The root has no name.
func (t *tree) statPlace(g gfid.GFID, o *Object, want Want) syscall.Errno {
	if g == gfid.Root {
		return 0
	}
	p, errno := t.readPlace(g)
	if errno != 0 {
		return errno
	}
	o.Orphan = p.orphan
	if want&WantNames != 0 && !p.orphan {
		o.Names = []Name{p.name}
	}
	return 0
}

// lookup tells who holds n.
func (t *tree) lookup(n Name) Entry {
	d, f := t.parent(n)
	if f != nil {
		return Entry{Errno: f.errno}
	}
	defer t.dirs.release(d)
	o, errno := t.occupant(d, n.Base)
	if errno != 0 || o.free {
		return Entry{Errno: errno}
	}
	return entryOfOccupant(&o)
}

func entryOfOccupant(o *occupant) Entry {
	e := Entry{GFID: o.g, Foreign: o.foreign, Attr: attrOfStat(&o.st)}
	if !o.foreign && !isDir(&o.st) {
		e.Attr.Nlink--
	}
	return e
}
