package changelog

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/georep/georep/brick/gfid"
)

// AppendRecord adds r in encoding e, version 1.2, to dst. It does not allocate
// when dst has room; a record without DelPath is at most 672 bytes.
//
// A record is a type byte, the GFID, and fields each begun by a NUL, ended by
// one more NUL: no length, no newline. It panics when Type and Fop of r do not
// go together: such a record could not be read back.
//
// Source: glusterfs changelog-encoders.c.
func AppendRecord(dst []byte, r *Record, e Encoding) []byte {
	dst = append(dst, byte(r.Type))
	dst = appendGFID(dst, r.GFID, e)
	switch r.Type {
	case Data:
	case Meta:
		dst = appendNumber(dst, uint32(r.Fop), e)
	case Entry:
		dst = appendNumber(dst, uint32(r.Fop), e)
		dst = appendEntryFields(dst, r, e)
	default:
		panic(fmt.Sprintf("changelog: record of type %q", r.Type))
	}
	return append(dst, 0)
}

func appendEntryFields(dst []byte, r *Record, e Encoding) []byte {
	switch r.Fop {
	case FopCreate, FopMknod, FopMkdir:
		dst = appendNumber(dst, r.Mode, e)
		dst = appendNumber(dst, r.UID, e)
		dst = appendNumber(dst, r.GID, e)
		return appendName(dst, r.Entry, e)
	case FopSymlink, FopLink:
		return appendName(dst, r.Entry, e)
	case FopRename:
		dst = appendName(dst, r.Entry, e)
		return appendName(dst, r.NewEntry, e)
	case FopUnlink, FopRmdir:
		dst = appendName(dst, r.Entry, e)
		dst = append(dst, 0)
		if r.DelPath == "" {
			// The value of an unknown path is a NUL of its own.
			return append(dst, 0)
		}
		return append(dst, r.DelPath...)
	}
	panic(fmt.Sprintf("changelog: entry record of fop %s", r.Fop))
}

func appendGFID(dst []byte, g gfid.GFID, e Encoding) []byte {
	if e == Binary {
		return append(dst, g[:]...)
	}
	return g.Append(dst)
}

func appendNumber(dst []byte, n uint32, e Encoding) []byte {
	dst = append(dst, 0)
	if e == Binary {
		return binary.LittleEndian.AppendUint32(dst, n)
	}
	return strconv.AppendUint(dst, uint64(n), 10)
}

func appendName(dst []byte, n Name, e Encoding) []byte {
	dst = append(dst, 0)
	dst = appendGFID(dst, n.Parent, e)
	dst = append(dst, '/')
	return append(dst, n.Base...)
}
