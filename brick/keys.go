package brick

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"

	"github.com/georep/georep/brick/gfid"
)

// Keys of the extended attributes on a brick.
const (
	XattrGFID       = "trusted.gfid"                  // 16 raw bytes, every object
	XattrVolumeID   = "trusted.glusterfs.volume-id"   // 16 raw bytes, the root
	XattrVolumeMark = "trusted.glusterfs.volume-mark" // virtual, see VolumeMark
	gfid2pathPrefix = "trusted.gfid2path."
	glusterPrefix   = "trusted.glusterfs."
)

// XtimeKey is the xattr that holds a GFID's xtime for the volume.
func XtimeKey(volume uuid.UUID) string { return glusterPrefix + volume.String() + ".xtime" }

// StimeKey is the xattr on a master brick's root that holds the stime of the
// session from the volume master to the volume slave.
func StimeKey(master, slave uuid.UUID) string {
	return glusterPrefix + master.String() + "." + slave.String() + ".stime"
}

// EntryStimeKey is StimeKey for entry operations alone.
func EntryStimeKey(master, slave uuid.UUID) string {
	return glusterPrefix + master.String() + "." + slave.String() + ".entry_stime"
}

// IsInternal reports whether the xattr belongs to the brick and not to its
// users: it is neither listed to them nor set by them.
func IsInternal(attr string) bool {
	return attr == XattrGFID || strings.HasPrefix(attr, gfid2pathPrefix) ||
		strings.HasPrefix(attr, glusterPrefix) || strings.HasPrefix(attr, "trusted.georep.") ||
		strings.HasPrefix(attr, "trusted.afr.") || strings.HasPrefix(attr, "trusted.bit-rot.") ||
		strings.HasPrefix(attr, "trusted.pgfid.") || strings.HasPrefix(attr, "glusterfs.")
}

// GFID2Path is the xattr that says where a non-directory's name is: the key has
// a hash of the value, the value is "<parent gfid>/<base>" without a NUL.
//
// Source: glusterfs posix-gfid-path.c, posix_set_gfid2path_xattr.
func GFID2Path(parent gfid.GFID, base string) (key string, value []byte) {
	value = make([]byte, 0, gfid.TextLen+1+len(base))
	value = parent.Append(value)
	value = append(value, '/')
	value = append(value, base...)
	var sum [8]byte
	binary.BigEndian.PutUint64(sum[:], xxhash.Sum64(value))
	k := make([]byte, 0, len(gfid2pathPrefix)+16)
	k = append(k, gfid2pathPrefix...)
	return string(hex.AppendEncode(k, sum[:])), value
}

// IsGFID2Path reports whether the xattr attr says where a name is.
func IsGFID2Path(attr string) bool { return strings.HasPrefix(attr, gfid2pathPrefix) }

// ParseGFID2Path reads the value of such an xattr.
func ParseGFID2Path(value []byte) (parent gfid.GFID, base string, err error) {
	if len(value) < gfid.TextLen+2 || value[gfid.TextLen] != '/' {
		return parent, "", fmt.Errorf("brick: gfid2path %q: want <parent gfid>/<base>", value)
	}
	parent, err = gfid.Parse(string(value[:gfid.TextLen]))
	base = string(value[gfid.TextLen+1:])
	if err == nil && !isName(base) {
		err = fmt.Errorf("brick: gfid2path %q: %q is no name", value, base)
	}
	return parent, base, err
}

// Stamp is a time as xtime and stime hold it: seconds and microseconds, each 32
// bits in network order. The zero Stamp is before all others.
type Stamp struct{ Sec, Usec uint32 }

// StampOf is t in microseconds, rounded down.
func StampOf(t time.Time) Stamp {
	return Stamp{Sec: uint32(t.Unix()), Usec: uint32(t.Nanosecond() / 1000)}
}

// Bytes is the stamp as kept in an xattr, 8 bytes.
func (s Stamp) Bytes() []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint32(b, s.Sec)
	binary.BigEndian.PutUint32(b[4:], s.Usec)
	return b
}

// ParseStamp reads a Stamp of exactly 8 bytes.
func ParseStamp(b []byte) (Stamp, error) {
	if len(b) != 8 {
		return Stamp{}, fmt.Errorf("brick: time stamp %x: %d bytes, want 8", b, len(b))
	}
	return Stamp{Sec: binary.BigEndian.Uint32(b), Usec: binary.BigEndian.Uint32(b[4:])}, nil
}

// Compare is -1, 0 or 1 as s is before, at or after t.
func (s Stamp) Compare(t Stamp) int {
	switch {
	case s == t:
		return 0
	case s.Sec < t.Sec || s.Sec == t.Sec && s.Usec < t.Usec:
		return -1
	}
	return 1
}

// Time is the stamp as a time.
func (s Stamp) Time() time.Time { return time.Unix(int64(s.Sec), int64(s.Usec)*1000) }

// String is seconds and microseconds with a dot between.
func (s Stamp) String() string { return fmt.Sprintf("%d.%06d", s.Sec, s.Usec) }

// VolumeMark is the identity and the last reset of a volume's xtimes, as the
// virtual xattr trusted.glusterfs.volume-mark shows it.
type VolumeMark struct {
	Volume uuid.UUID
	Retval uint8 // 1: there is no reset time, xtimes can't be trusted
	Reset  Stamp
}

// Bytes is the mark in its 27 bytes: version 1.0, uuid, retval, time.
//
// Source: glusterfs marker.c, struct volume_mark.
func (m VolumeMark) Bytes() []byte {
	b := make([]byte, 0, 27)
	b = append(b, 1, 0)
	b = append(b, m.Volume[:]...)
	b = append(b, m.Retval)
	return append(b, m.Reset.Bytes()...)
}
