package changelog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"

	"github.com/georep/georep/brick/gfid"
)

// errShort says that the bytes at hand are the beginning of a record.
var errShort = errors.New("record goes on past the bytes at hand")

// fieldError says what in a record is not as the format has it.
type fieldError string

func (e fieldError) Error() string { return string(e) }

func badField(format string, args ...any) error { return fieldError(fmt.Sprintf(format, args...)) }

// clip shortens bytes for an error message.
func clip(b []byte) []byte {
	const most = 64
	if len(b) > most {
		return b[:most]
	}
	return b
}

// decodeRecord reads the record at the start of b into r and returns its length.
// It returns errShort when b ends before the record, and a fieldError when b
// does not begin with a record. Binary numbers and GFIDs may hold NULs, so
// records are read by position.
func decodeRecord(b []byte, r *Record, v Version, e Encoding) (int, error) {
	*r = Record{}
	d := decoder{b: b, binary: e == Binary}
	switch r.Type = Type(d.byte()); {
	case d.err != nil:
		return 0, d.err
	case r.Type != Entry && r.Type != Data && r.Type != Meta:
		return 0, badField("type %q, want E, D or M", byte(r.Type))
	}
	r.GFID = d.gfid("gfid")
	switch r.Type {
	case Meta:
		r.Fop = d.fop(Fop.isMeta)
	case Entry:
		r.Fop = d.fop(Fop.isEntry)
		d.entryFields(r, v)
	}
	d.nul("end of the record")
	if d.err != nil {
		return 0, d.err
	}
	return d.i, nil
}

// isEntry reports whether an E record can name f.
func (f Fop) isEntry() bool {
	switch f {
	case FopMknod, FopMkdir, FopUnlink, FopRmdir, FopSymlink, FopRename, FopLink, FopCreate:
		return true
	}
	return false
}

// decoder reads fields from the front of b; after the first error it does nothing.
type decoder struct {
	b      []byte
	i      int // bytes used
	binary bool
	err    error
}

func (d *decoder) entryFields(r *Record, v Version) {
	switch r.Fop {
	case FopCreate, FopMknod, FopMkdir:
		r.Mode = d.number("mode")
		r.UID = d.number("uid")
		r.GID = d.number("gid")
		r.Entry = d.name("entry")
	case FopSymlink, FopLink:
		r.Entry = d.name("entry")
	case FopRename:
		r.Entry = d.name("old entry")
		r.NewEntry = d.name("new entry")
	case FopUnlink, FopRmdir:
		r.Entry = d.name("entry")
		if v != version11 {
			r.DelPath = d.delPath()
		}
	}
}

func (d *decoder) byte() byte {
	b := d.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// take returns the next n bytes, or nil after setting an error.
func (d *decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if len(d.b)-d.i < n {
		d.err = errShort
		return nil
	}
	b := d.b[d.i : d.i+n]
	d.i += n
	return b
}

// until returns the bytes before the next c and leaves c unread. A field of more
// than most bytes is an error.
func (d *decoder) until(c byte, most int, what string) []byte {
	if d.err != nil {
		return nil
	}
	rest := d.b[d.i:]
	n := bytes.IndexByte(rest[:min(len(rest), most+1)], c)
	switch {
	case n >= 0:
		d.i += n
		return rest[:n]
	case len(rest) > most:
		d.err = badField("%s of more than %d bytes: %q…", what, most, clip(rest))
	default:
		d.err = errShort
	}
	return nil
}

func (d *decoder) nul(what string) {
	if b := d.take(1); b != nil && b[0] != 0 {
		d.err = badField("byte %#02x, want 0 at %s", b[0], what)
	}
}

func (d *decoder) gfid(what string) gfid.GFID {
	if d.binary {
		if b := d.take(len(gfid.GFID{})); b != nil {
			return gfid.GFID(b)
		}
		return gfid.GFID{}
	}
	b := d.take(gfid.TextLen)
	if b == nil {
		return gfid.GFID{}
	}
	g, ok := parseGFID(b)
	if !ok {
		d.err = badField("%s %q, want a lower-case UUID", what, b)
	}
	return g
}

// parseGFID reads the canonical text form, the only one that is ever written.
func parseGFID(b []byte) (g gfid.GFID, ok bool) {
	if len(b) != gfid.TextLen || b[8] != '-' || b[13] != '-' || b[18] != '-' || b[23] != '-' {
		return g, false
	}
	for _, c := range b {
		if c >= 'A' && c <= 'F' {
			return g, false
		}
	}
	var hexed [32]byte
	copy(hexed[:8], b[:8])
	copy(hexed[8:12], b[9:13])
	copy(hexed[12:16], b[14:18])
	copy(hexed[16:20], b[19:23])
	copy(hexed[20:], b[24:])
	_, err := hex.Decode(g[:], hexed[:])
	return g, err == nil
}

// number reads a NUL and an unsigned number: decimal without padding, or four
// bytes in the writer's order, which is little-endian.
func (d *decoder) number(what string) uint32 {
	d.nul(what)
	if d.binary {
		if b := d.take(4); b != nil {
			return binary.LittleEndian.Uint32(b)
		}
		return 0
	}
	b := d.until(0, len("4294967295"), what)
	if d.err != nil {
		return 0
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			d.err = badField("%s %q, want a number", what, b)
			return 0
		}
		n = n*10 + uint64(c-'0')
	}
	if len(b) == 0 || n > math.MaxUint32 || len(b) > 1 && b[0] == '0' {
		d.err = badField("%s %q, want a number of 32 bits without padding", what, b)
		return 0
	}
	return uint32(n)
}

func (d *decoder) fop(known func(Fop) bool) Fop {
	f := Fop(d.number("fop"))
	if d.err == nil && !known(f) {
		d.err = badField("fop %d, which no record of type %q has", uint32(f), d.b[0])
	}
	return f
}

// name reads a NUL, a GFID, a slash and a base name, which a NUL ends.
func (d *decoder) name(what string) Name {
	d.nul(what)
	n := Name{Parent: d.gfid(what + "'s directory")}
	if b := d.take(1); b != nil && b[0] != '/' {
		d.err = badField("%s: byte %#02x after the directory, want '/'", what, b[0])
	}
	b := d.until(0, maxBase, what)
	if d.err != nil {
		return n
	}
	if len(b) == 0 || bytes.IndexByte(b, '/') >= 0 {
		d.err = badField("%s %q, want a name without a slash", what, b)
	}
	n.Base = string(b)
	return n
}

// delPath reads a NUL and a path that a NUL ends; a path that was not captured is
// a NUL of its own.
func (d *decoder) delPath() string {
	d.nul("deletion path")
	b := d.take(1)
	if b == nil || b[0] == 0 {
		return ""
	}
	d.i--
	return string(d.until(0, maxRecord, "deletion path"))
}
