package changelog

import (
	"bytes"
	"fmt"
	"strconv"
)

// Encoding is how records are written: the digit in a changelog's header.
// GlusterFS's own library can consume ASCII changelogs only.
type Encoding uint8

// The two encodings. The zero Encoding means ASCII in Options.
const (
	Binary Encoding = 1
	ASCII  Encoding = 2
)

// ParseEncoding reads "ascii" or "binary", the words of the option.
func ParseEncoding(s string) (Encoding, error) {
	switch s {
	case "ascii":
		return ASCII, nil
	case "binary":
		return Binary, nil
	}
	return 0, fmt.Errorf("changelog: encoding %q, want ascii or binary", s)
}

// String is the word of the option: ascii or binary.
func (e Encoding) String() string {
	switch e {
	case ASCII:
		return "ascii"
	case Binary:
		return "binary"
	}
	return "encoding " + strconv.Itoa(int(e))
}

// Set makes *Encoding a flag value.
func (e *Encoding) Set(s string) error {
	p, err := ParseEncoding(s)
	if err != nil {
		return err
	}
	*e = p
	return nil
}

// Type names the value in help texts.
func (e *Encoding) Type() string { return "ascii|binary" }

// Version is the format version in a changelog's header. 1.2 is written; 1.1,
// whose UNLINK and RMDIR have no deletion path, is read too.
type Version struct{ Major, Minor int }

// The versions that are read; the later one is written.
var (
	version11 = Version{1, 1}
	version12 = Version{1, 2}
)

// String is the version as in the header, without its "v".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// The pieces of a header: one text line, 51 bytes with its LF. The first colon
// has no space before it, the second has one.
const (
	headerStart  = "GlusterFS Changelog | version: v"
	headerMiddle = " | encoding : "
	// headerLen is the length of the header in every version that is read.
	headerLen = len(headerStart) + len("1.2") + len(headerMiddle) + len("2\n")
)

// AppendHeader adds the header line of a version 1.2 changelog to dst.
//
// Source: glusterfs changelog-helpers.h, CHANGELOG_HEADER.
func AppendHeader(dst []byte, e Encoding) []byte {
	dst = append(dst, headerStart...)
	dst = append(dst, "1.2"...)
	dst = append(dst, headerMiddle...)
	return append(dst, '0'+byte(e), '\n')
}

// parseHeader reads the header at the start of b. All headers that are
// accepted are headerLen bytes long. It returns errShort when b is the
// beginning of one.
func parseHeader(b []byte) (Version, Encoding, error) {
	const shape = "GlusterFS Changelog | version: v?.? | encoding : ?\n"
	for i, c := range b[:min(len(b), headerLen)] {
		if shape[i] != '?' && shape[i] != c {
			return Version{}, 0, badField("header %q, want %q", clip(b[:min(len(b), headerLen)]), shape)
		}
	}
	if len(b) < headerLen {
		return Version{}, 0, errShort
	}
	digits := bytes.TrimPrefix(b, []byte(headerStart))
	v := Version{int(digits[0]) - '0', int(digits[2]) - '0'}
	if v != version11 && v != version12 {
		return v, 0, badField("version %q, want 1.1 or 1.2", digits[:3])
	}
	e := Encoding(b[headerLen-2] - '0')
	if e != ASCII && e != Binary {
		return v, 0, badField("encoding %q, want 1 (binary) or 2 (ascii)", b[headerLen-2:headerLen-1])
	}
	return v, e, nil
}
