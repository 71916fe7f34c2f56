package changelog

import (
	"bytes"
	"strconv"
	"strings"
)

// AppendParsed adds the PARSED line of r, LF included, to dst: the text that
// GlusterFS's consumers read. Fields are separated by one space; in names and
// paths space, LF and percent are %20, %0A and %25, all else is raw.
//
//	D <gfid>
//	M <gfid> <FOP>
//	E <gfid> CREATE|MKNOD|MKDIR <mode> <uid> <gid> <pargfid>/<name>
//	E <gfid> SYMLINK|LINK <pargfid>/<name>
//	E <gfid> RENAME <oldpargfid>/<oldname> <newpargfid>/<newname>
//	E <gfid> UNLINK|RMDIR <pargfid>/<name>[ <delpath>]
//
// Source: glusterfs gf-changelog-journal-handler.c.
func (r *Record) AppendParsed(dst []byte) []byte {
	dst = append(dst, byte(r.Type), ' ')
	dst = r.GFID.Append(dst)
	if r.Type != Data {
		dst = append(dst, ' ')
		dst = append(dst, r.Fop.String()...)
	}
	if r.Type == Entry {
		switch r.Fop {
		case FopCreate, FopMknod, FopMkdir:
			for _, n := range [...]uint32{r.Mode, r.UID, r.GID} {
				dst = append(dst, ' ')
				dst = strconv.AppendUint(dst, uint64(n), 10)
			}
		}
		dst = appendParsedName(dst, r.Entry)
		if r.Fop == FopRename {
			dst = appendParsedName(dst, r.NewEntry)
		}
		if r.DelPath != "" {
			dst = append(dst, ' ')
			dst = appendEscaped(dst, r.DelPath)
		}
	}
	return append(dst, '\n')
}

// String is the PARSED line without its LF.
func (r *Record) String() string {
	b := r.AppendParsed(nil)
	return string(b[:len(b)-1])
}

func appendParsedName(dst []byte, n Name) []byte {
	dst = append(dst, ' ')
	dst = n.Parent.Append(dst)
	dst = append(dst, '/')
	return appendEscaped(dst, n.Base)
}

func appendEscaped(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; c {
		case ' ':
			dst = append(dst, "%20"...)
		case '\n':
			dst = append(dst, "%0A"...)
		case '%':
			dst = append(dst, "%25"...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// parsedFields takes the fields of a PARSED line one by one.
type parsedFields struct {
	rest []byte
	err  error
}

// ParseParsed reads one PARSED line, with or without its LF. Lines of libraries
// from before 2017, which quote every unusual byte and the slash before the name
// (%2F), are read too. The error says which field is wrong.
func ParseParsed(line []byte) (Record, error) {
	var r Record
	p := parsedFields{rest: bytes.TrimSuffix(line, []byte{'\n'})}
	if t := p.next("type"); len(t) == 1 {
		r.Type = Type(t[0])
	}
	if r.Type != Entry && r.Type != Data && r.Type != Meta {
		return r, badField("type in %q, want E, D or M", clip(line))
	}
	g, ok := parseGFID(p.next("gfid"))
	if !ok {
		p.fail("gfid in %q", clip(line))
	}
	r.GFID = g
	if r.Type != Data {
		word := p.next("fop")
		r.Fop, ok = ParseFop(string(word))
		if !ok || r.Type == Entry && !r.Fop.isEntry() || r.Type == Meta && !r.Fop.isMeta() {
			p.fail("fop %q", clip(word))
		}
	}
	if r.Type == Entry {
		p.entryFields(&r)
	}
	if p.err == nil && p.rest != nil {
		p.fail("%q after the last field", clip(p.rest))
	}
	return r, p.err
}

func (p *parsedFields) entryFields(r *Record) {
	switch r.Fop {
	case FopCreate, FopMknod, FopMkdir:
		r.Mode = p.number("mode")
		r.UID = p.number("uid")
		r.GID = p.number("gid")
	}
	r.Entry = p.name()
	switch r.Fop {
	case FopRename:
		r.NewEntry = p.name()
	case FopUnlink, FopRmdir:
		if p.err == nil && p.rest != nil {
			r.DelPath = unescape(string(p.next("deletion path")))
		}
	}
}

func (p *parsedFields) fail(format string, args ...any) {
	if p.err == nil {
		p.err = badField(format, args...)
	}
}

// next returns the field up to the next space; rest is nil after the last one.
func (p *parsedFields) next(what string) []byte {
	if p.rest == nil {
		p.fail("%s is missing", what)
		return nil
	}
	field, rest, more := bytes.Cut(p.rest, []byte{' '})
	if !more {
		rest = nil
	} else if rest == nil {
		rest = []byte{}
	}
	p.rest = rest
	return field
}

func (p *parsedFields) number(what string) uint32 {
	word := p.next(what)
	n, err := strconv.ParseUint(string(word), 10, 32)
	if err != nil {
		p.fail("%s %q, want a number", what, clip(word))
	}
	return uint32(n)
}

func (p *parsedFields) name() Name {
	word := string(p.next("entry"))
	if p.err != nil {
		return Name{}
	}
	const gfidLen = 36
	var n Name
	ok := len(word) > gfidLen
	if ok {
		n.Parent, ok = parseGFID([]byte(word[:gfidLen]))
	}
	if ok {
		base, literal := strings.CutPrefix(word[gfidLen:], "/")
		if !literal {
			base, ok = strings.CutPrefix(word[gfidLen:], "%2F")
		}
		n.Base = unescape(base)
	}
	if !ok || n.Base == "" || len(n.Base) > maxBase {
		p.fail("entry %q, want <gfid>/<name>", clip([]byte(word)))
	}
	return n
}

// unescape undoes percent escapes of any byte; a percent that begins none stays.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(n))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
