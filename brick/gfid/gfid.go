// Package gfid is the identity of a file as a value: 16 bytes that outlive
// renames and are shared by the hard links of a file.
//
// Source: glusterfs stores it raw in the xattr trusted.gfid and writes it as a
// canonical lower-case UUID everywhere else.
package gfid

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/google/uuid"
)

// TextLen is the length in bytes of a GFID in text form.
const TextLen = 36

// GFID is the identity of a file: 16 raw bytes, as in the xattr trusted.gfid.
type GFID [16]byte

// Root is the GFID of a brick's root directory.
var Root = GFID{15: 1}

// Parse reads a GFID in text form, 36 bytes with hyphens, in upper or lower case.
func Parse(s string) (GFID, error) {
	if len(s) != TextLen {
		return GFID{}, fmt.Errorf("gfid: %q: %d bytes, want %d", s, len(s), TextLen)
	}
	u, err := uuid.Parse(s)
	if err != nil {
		return GFID{}, fmt.Errorf("gfid: %q: %w", s, err)
	}
	return GFID(u), nil
}

// FromBytes reads a GFID in raw form, exactly 16 bytes.
func FromBytes(b []byte) (GFID, error) {
	if len(b) != len(GFID{}) {
		return GFID{}, fmt.Errorf("gfid: %x: %d bytes, want %d", b, len(b), len(GFID{}))
	}
	return GFID(b), nil
}

// String is the canonical lower-case text form, 36 bytes.
func (g GFID) String() string {
	return string(g.Append(make([]byte, 0, TextLen)))
}

// Append adds the text form to b without allocating.
func (g GFID) Append(b []byte) []byte {
	b = hex.AppendEncode(b, g[:4])
	b = append(b, '-')
	b = hex.AppendEncode(b, g[4:6])
	b = append(b, '-')
	b = hex.AppendEncode(b, g[6:8])
	b = append(b, '-')
	b = hex.AppendEncode(b, g[8:10])
	b = append(b, '-')
	return hex.AppendEncode(b, g[10:])
}

// MarshalText makes a GFID its text form in JSON and the like.
func (g GFID) MarshalText() ([]byte, error) { return g.Append(nil), nil }

// UnmarshalText reads what MarshalText wrote.
func (g *GFID) UnmarshalText(b []byte) error {
	p, err := Parse(string(b))
	if err != nil {
		return err
	}
	*g = p
	return nil
}

// IsZero reports whether g is the null GFID, which no file has.
func (g GFID) IsZero() bool { return g == GFID{} }

// Compare orders GFIDs by their bytes: -1, 0 or 1. Locks of two inodes are
// taken in this order.
func (g GFID) Compare(h GFID) int { return bytes.Compare(g[:], h[:]) }
