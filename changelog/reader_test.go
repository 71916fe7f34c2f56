package changelog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/georep/georep/brick/gfid"
)

// anyRecord draws a record of every kind there is, names in any bytes.
func anyRecord() *rapid.Generator[Record] {
	id := rapid.Custom(func(t *rapid.T) gfid.GFID {
		return gfid.GFID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "gfid"))
	})
	base := rapid.Custom(func(t *rapid.T) Name {
		b := rapid.SliceOfN(rapid.Byte().Filter(func(c byte) bool { return c != 0 && c != '/' }), 1, maxBase).Draw(t, "base")
		return Name{Parent: id.Draw(t, "parent"), Base: string(b)}
	})
	return rapid.Custom(func(t *rapid.T) Record {
		r := Record{Type: rapid.SampledFrom([]Type{Entry, Data, Meta}).Draw(t, "type"), GFID: id.Draw(t, "gfid")}
		switch r.Type {
		case Meta:
			r.Fop = rapid.SampledFrom([]Fop{FopSetattr, FopSetxattr, FopRemovexattr, FopFsetattr}).Draw(t, "fop")
		case Entry:
			r.Fop = rapid.SampledFrom([]Fop{FopMknod, FopMkdir, FopUnlink, FopRmdir, FopSymlink, FopRename, FopLink, FopCreate}).Draw(t, "fop")
			r.Entry = base.Draw(t, "entry")
		}
		if r.Type != Entry {
			return r
		}
		switch r.Fop {
		case FopCreate, FopMknod, FopMkdir:
			r.Mode, r.UID, r.GID = rapid.Uint32().Draw(t, "mode"), rapid.Uint32().Draw(t, "uid"), rapid.Uint32().Draw(t, "gid")
		case FopRename:
			r.NewEntry = base.Draw(t, "new entry")
		case FopUnlink, FopRmdir:
			// Longer than a path can be, and than the reader's buffer.
			r.DelPath = strings.Repeat("d/", rapid.SampledFrom([]int{0, 1, 50_000}).Draw(t, "depth"))
		}
		return r
	})
}

// Any records come back, however the bytes arrive.
func TestReaderReadsWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(anyRecord(), 0, 20).Draw(t, "records")
		e := rapid.SampledFrom(bothEncodings).Draw(t, "encoding")
		b := AppendHeader(nil, e)
		for _, r := range want {
			b = AppendRecord(b, &r, e)
		}
		var src io.Reader = bytes.NewReader(b)
		if rapid.Bool().Draw(t, "in halves") {
			src = iotest.DataErrReader(iotest.HalfReader(src))
		}
		r, err := NewReader(src, "x")
		if err != nil {
			t.Fatal(err)
		}
		got := []Record{}
		for rec, err := r.Next(); !errors.Is(err, io.EOF); rec, err = r.Next() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, *rec)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("records (-want +got):\n%s", diff)
		}
		if r.Offset() != int64(len(b)) || r.Encoding() != e || r.Version() != version12 {
			t.Fatalf("offset %d, %v, version %v; want %d, %v, 1.2", r.Offset(), r.Encoding(), r.Version(), len(b), e)
		}
	})
}

// Version 1.1 has no deletion path.
func TestReaderReadsVersion11(t *testing.T) {
	for _, e := range bothEncodings {
		unlink := &Record{Type: Entry, Fop: FopUnlink, GFID: gfid.GFID{15: 9}, Entry: Name{gfid.Root, "a"}}
		b := bytes.Replace(AppendHeader(nil, e), []byte("v1.2"), []byte("v1.1"), 1)
		rec := AppendRecord(nil, unlink, e)
		b = append(b, rec[:len(rec)-2]...)
		b = AppendRecord(b, entry(2), e)
		r, err := NewReader(bytes.NewReader(b), "x")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for rec, err := r.Next(); !errors.Is(err, io.EOF); rec, err = r.Next() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, rec.String())
		}
		if diff := cmp.Diff([]string{unlink.String(), entry(2).String()}, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", e, diff)
		}
	}
}

// Errors name the place, what is there and what should be.
func TestParseErrors(t *testing.T) {
	header := string(AppendHeader(nil, ASCII))
	first := string(AppendRecord(nil, entry(1), ASCII))
	id := gfid.Root.String()
	for _, test := range []struct{ file, want string }{
		{"", "header at byte 0: cut off at the end of the file after 0 bytes of it"},
		{header[:20], "header at byte 0: cut off at the end of the file after 20 bytes of it"},
		{"#!/bin/sh\n", `header at byte 0: header "#!/bin/sh\n", want "GlusterFS Changelog | version: v?.? | encoding : ?\n"`},
		{strings.Replace(header, "v1.2", "v2.0", 1), `version "2.0", want 1.1 or 1.2`},
		{strings.Replace(header, ": 2", ": 7", 1), `encoding "7", want 1 (binary) or 2 (ascii)`},
		{header + first + "X", "record 2 at byte 142: type 'X', want E, D or M"},
		{header + first + first[:40], "record 2 at byte 142: cut off at the end of the file after 40 bytes of it"},
		{header + "D" + strings.ToUpper(entry(1).GFID.String()) + "\x00", "want a lower-case UUID"},
		{header + "D" + id + "x", "record 1 at byte 51: byte 0x78, want 0 at end of the record"},
		{header + "M" + id + "\x000\x00", "fop 0, which no record of type 'M' has"},
		{header + "M" + id + "\x0099\x00", "fop 99, which no record of type 'M' has"},
		{header + "E" + id + "\x0017\x00", "fop 17, which no record of type 'E' has"},
		{header + "E" + id + "\x0007\x00", `fop "07", want a number of 32 bits without padding`},
		{header + "E" + id + "\x0023\x00-1\x00", `mode "-1", want a number`},
		{header + "E" + id + "\x0023\x004294967296\x00", `mode "4294967296", want a number of 32 bits`},
		{header + "E" + id + "\x0023\x0012345678901\x00", "mode of more than 10 bytes"},
		{header + "E" + id + "\x007\x00" + id + "x", "byte 0x78 after the directory, want '/'"},
		{header + "E" + id + "\x007\x00" + id + "/\x00\x00", `entry "", want a name without a slash`},
		{header + "E" + id + "\x007\x00" + id + "/a/b\x00\x00", `entry "a/b", want a name without a slash`},
		{header + "E" + id + "\x007\x00" + id + "/" + strings.Repeat("x", 256) + "\x00", "entry of more than 255 bytes"},
		{header + "E" + id + "\x005\x00" + id + "/a\x00" + strings.Repeat("x", 2*maxRecord), "1048576"},
	} {
		r, err := NewReader(strings.NewReader(test.file), "f")
		for err == nil {
			_, err = r.Next()
		}
		var bad *ParseError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), `changelog: parse "f": `) {
			t.Errorf("got error %v, want one that says %q", err, test.want)
		}
		if torn := strings.Contains(test.want, "cut off"); torn != errors.Is(err, ErrTorn) || torn == errors.Is(err, ErrCorrupt) {
			t.Errorf("%v: torn %v, corrupt %v", err, errors.Is(err, ErrTorn), errors.Is(err, ErrCorrupt))
		}
	}
}

// An error of the file itself is no damage of its contents.
func TestReadErrorIsPassedOn(t *testing.T) {
	broken := errors.New("broken disk")
	src := io.MultiReader(bytes.NewReader(AppendHeader(nil, ASCII)), iotest.ErrReader(broken))
	r, err := NewReader(src, "f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, broken) || errors.Is(err, ErrTorn) {
		t.Errorf("got error %v, want %v", err, broken)
	}
}

// Old libraries quote all unusual bytes, and the slash.
func TestParseParsedOfOldLibraries(t *testing.T) {
	id := gfid.Root.String()
	for line, want := range map[string]Name{
		"%2Fa%20b%2F":  {gfid.Root, "a b/"},
		"/a%20b%2525":  {gfid.Root, "a b%25"},
		"/100%":        {gfid.Root, "100%"},
		"/%2Fa":        {gfid.Root, "/a"},
		"%2F%C3%A4%0A": {gfid.Root, "ä\n"},
	} {
		r, err := ParseParsed(fmt.Appendf(nil, "E %s SYMLINK %s%s\n", id, id, line))
		if err != nil || r.Entry != want {
			t.Errorf("%q: got %+v, %v, want %+v", line, r.Entry, err, want)
		}
	}
	for _, line := range []string{
		"", "X", "D", "D x", "D " + id + " more", "M " + id, "M " + id + " FLY", "M " + id + " NULL",
		"E " + id + " SETATTR", "E " + id + " LINK", "E " + id + " LINK " + id, "E " + id + " LINK " + id + "/",
		"E " + id + " CREATE 1 2 x " + id + "/a", "E " + id + " RENAME " + id + "/a", "E " + id + " LINK " + id + "/a x",
	} {
		if r, err := ParseParsed([]byte(line)); err == nil {
			t.Errorf("%q is read as %+v", line, r)
		}
	}
}

func TestFopNames(t *testing.T) {
	for f, want := range map[Fop]string{
		FopMknod: "MKNOD", FopMkdir: "MKDIR", FopUnlink: "UNLINK", FopRmdir: "RMDIR", FopSymlink: "SYMLINK", FopRename: "RENAME",
		FopLink: "LINK", FopSetxattr: "SETXATTR", FopRemovexattr: "REMOVEXATTR", FopCreate: "CREATE", FopXattrop: "XATTROP",
		FopFxattrop: "FXATTROP", FopFsetxattr: "FSETXATTR", FopSetattr: "SETATTR", FopFsetattr: "FSETATTR",
		FopFremovexattr: "FREMOVEXATTR", 58: "COPY_FILE_RANGE", 59: "59",
	} {
		if got := f.String(); got != want {
			t.Errorf("fop %d is %s, want %s", uint32(f), got, want)
		}
	}
}
