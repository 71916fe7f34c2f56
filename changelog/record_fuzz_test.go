package changelog

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/georep/georep/brick/gfid"
)

// FuzzReader reads any bytes as a changelog: no panic, and whatever is read of a
// version 1.2 file is written again as it was.
func FuzzReader(f *testing.F) {
	for _, path := range goldenFiles(f, "*/changelogs/2026/*/*/CHANGELOG.*") {
		b := readFile(f, path)
		f.Add(b)
		f.Add(bytes.Replace(b, []byte("v1.2"), []byte("v1.1"), 1))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b), "fuzz")
		if err != nil {
			var bad *ParseError
			if !errors.As(err, &bad) {
				t.Fatalf("error %v of type %T, want a *ParseError", err, err)
			}
			return
		}
		again := AppendHeader(nil, r.Encoding())
		for {
			rec, err := r.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, ErrTorn) && !errors.Is(err, ErrCorrupt) {
					t.Fatalf("error %v", err)
				}
				if _, later := r.Next(); !errors.Is(later, err) {
					t.Fatalf("error %v, then %v", err, later)
				}
				break
			}
			again = AppendRecord(again, rec, r.Encoding())
			if int64(len(again)) != r.Offset() && r.Version() == version12 {
				t.Fatalf("offset %d after %d bytes", r.Offset(), len(again))
			}
		}
		if r.Version() == version12 && !bytes.Equal(again, b[:r.Offset()]) {
			t.Fatalf("read %q, written again %q", b[:r.Offset()], again)
		}
	})
}

// FuzzHeader reads any bytes as a header.
func FuzzHeader(f *testing.F) {
	f.Add([]byte("GlusterFS Changelog | version: v1.1 | encoding : 1\n"))
	for _, path := range goldenFiles(f, "*/changelogs/CHANGELOG") {
		f.Add(readFile(f, path))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, e, err := parseHeader(b)
		if err != nil || v != version12 {
			return
		}
		if got := AppendHeader(nil, e); !bytes.Equal(got, b[:headerLen]) {
			t.Fatalf("header %q, written again %q", b[:headerLen], got)
		}
	})
}

// FuzzRecord encodes any record that can be, in both encodings and as a PARSED
// line, and reads it back.
func FuzzRecord(f *testing.F) {
	f.Add(byte('E'), uint32(FopRename), []byte("0123456789abcdef0123456789abcdef"), uint32(0), uint32(0), "a b", "%2F\n", "")
	f.Add(byte('E'), uint32(FopUnlink), []byte{}, uint32(0), uint32(0), "x", "x", "d/x")
	f.Add(byte('E'), uint32(FopCreate), []byte{15: 1}, uint32(0o100644), uint32(1<<32-1), "\xff\x01", "x", "")
	f.Add(byte('M'), uint32(FopSetxattr), []byte{15: 1}, uint32(0), uint32(0), "x", "x", "")
	f.Add(byte('D'), uint32(0), []byte{15: 1}, uint32(0), uint32(0), "x", "x", "")
	f.Fuzz(func(t *testing.T, typ byte, fop uint32, ids []byte, mode, owner uint32, base, base2, path string) {
		r, ok := record(typ, fop, ids, mode, owner, base, base2, path)
		if !ok {
			return
		}
		for _, e := range []Encoding{ASCII, Binary} {
			b := AppendRecord(nil, &r, e)
			var got Record
			n, err := decodeRecord(b, &got, version12, e)
			if err != nil || n != len(b) {
				t.Fatalf("%v: %q: %d of %d bytes read, %v", e, b, n, len(b), err)
			}
			if diff := cmp.Diff(r, got); diff != "" {
				t.Fatalf("%v (-want +got):\n%s", e, diff)
			}
			for cut := range b {
				if _, err := decodeRecord(b[:cut], &got, version12, e); !errors.Is(err, errShort) {
					t.Fatalf("%v: %q cut off at %d: error %v", e, b, cut, err)
				}
			}
		}
		got, err := ParseParsed(r.AppendParsed(nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Fatalf("PARSED (-want +got):\n%s", diff)
		}
	})
}

// record is the record made of the values, if there is one.
func record(typ byte, fop uint32, ids []byte, mode, owner uint32, base, base2, path string) (r Record, ok bool) {
	for _, name := range []string{base, base2} {
		if name == "" || len(name) > maxBase || strings.ContainsAny(name, "\x00/") {
			return r, false
		}
	}
	if strings.Contains(path, "\x00") {
		return r, false
	}
	ids = append(ids, make([]byte, 48)...)
	r = Record{Type: Type(typ), GFID: gfid.GFID(ids[:16])}
	switch r.Type {
	case Data:
		return r, true
	case Meta:
		r.Fop = Fop(fop)
		return r, r.Fop.isMeta()
	case Entry:
	default:
		return r, false
	}
	r.Fop = Fop(fop)
	r.Entry = Name{Parent: gfid.GFID(ids[16:32]), Base: base}
	switch r.Fop {
	case FopCreate, FopMknod, FopMkdir:
		r.Mode, r.UID, r.GID = mode, owner, ^owner
	case FopRename:
		r.NewEntry = Name{Parent: gfid.GFID(ids[32:48]), Base: base2}
	case FopUnlink, FopRmdir:
		r.DelPath = path
	}
	return r, r.Fop.isEntry()
}

// FuzzParsed reads any bytes as a PARSED line. What is read says the same when it
// is written again.
func FuzzParsed(f *testing.F) {
	for _, path := range goldenFiles(f, "ascii/parsed/CHANGELOG.*") {
		for line := range bytes.Lines(readFile(f, path)) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseParsed(line)
		if err != nil {
			return
		}
		again, err := ParseParsed(r.AppendParsed(nil))
		if err != nil {
			t.Fatalf("%q is read as %+v, and that not: %v", line, r, err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatalf("%q (-first +again):\n%s", line, diff)
		}
	})
}

// FuzzHTIME reads any bytes as an index: no panic, the stamps that are read are in
// it, and it goes on where a reader left off.
func FuzzHTIME(f *testing.F) {
	for _, path := range goldenFiles(f, "*/changelogs/htime/HTIME.*") {
		f.Add(readFile(f, path), 300)
	}
	f.Add([]byte(filepath.Join("/x", "CHANGELOG.1795228899")+"\x00/changelog.\x00\x00"), 5)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole, err := parseHTIME(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(bytes.LastIndexByte(b, 0) + 1); whole.good != want {
			t.Fatalf("%d good bytes, want %d", whole.good, want)
		}
		cut = max(0, min(cut, len(b)))
		first, err := parseHTIME(bytes.NewReader(b[:cut]))
		if err != nil {
			t.Fatal(err)
		}
		second, err := parseHTIME(bytes.NewReader(b[first.good:]))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(first.entries) + len(second.entries); got != len(whole.entries) || first.good+second.good != whole.good {
			t.Fatalf("%d entries in two parts, want %d", got, len(whole.entries))
		}
	})
}
