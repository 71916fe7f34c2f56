package changelog

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Sentinels of ParseError.
var (
	// ErrTorn is a record, or a header, that the end of the file cuts off: a
	// crash, or a changelog still being written. What precedes it is good.
	ErrTorn = errors.New("cut off at the end of the file")
	// ErrCorrupt is a file whose bytes are no record where one should begin.
	ErrCorrupt = errors.New("not a record")
)

// ParseError says where a changelog is not as the format has it, and why.
type ParseError struct {
	File   string // the name given to NewReader
	Record int    // counts from 1; 0 is the header
	Offset int64  // of the record's first byte in the file
	Reason string // what was found and what was wanted
	Err    error  // ErrTorn or ErrCorrupt
}

// Error names the file, the record and its byte offset.
func (e *ParseError) Error() string {
	what := "header"
	if e.Record > 0 {
		what = fmt.Sprintf("record %d", e.Record)
	}
	return fmt.Sprintf("changelog: parse %q: %s at byte %d: %s", e.File, what, e.Offset, e.Reason)
}

// Unwrap is ErrTorn or ErrCorrupt.
func (e *ParseError) Unwrap() error { return e.Err }

const (
	// maxRecord is the length in bytes past which no record goes on: a
	// deletion path may be longer than PATH_MAX, but not without end.
	maxRecord = 1 << 20
	readAhead = 64 << 10
)

// Reader reads the records of a changelog, either encoding, version 1.1 or 1.2.
// It is for one goroutine.
type Reader struct {
	src  io.Reader
	name string
	ver  Version
	enc  Encoding
	// buf[start:end] is read and not yet parsed; buf[start] is at offset.
	buf        []byte
	start, end int
	offset     int64
	eof        bool
	records    int
	rec        Record
	err        error // the first error; it stays
}

// NewReader reads the header of a changelog. name is for errors. The error is a
// *ParseError when the header is torn or is none, else that of r.
func NewReader(r io.Reader, name string) (*Reader, error) {
	rd := &Reader{src: r, name: name, buf: make([]byte, readAhead)}
	for {
		v, e, err := parseHeader(rd.buf[:rd.end])
		if err == nil {
			rd.ver, rd.enc = v, e
			rd.start, rd.offset = headerLen, int64(headerLen)
			return rd, nil
		}
		if err := rd.more(err); err != nil {
			return nil, err
		}
	}
}

// Version is the format version of the file.
func (r *Reader) Version() Version { return r.ver }

// Encoding is the encoding of the file.
func (r *Reader) Encoding() Encoding { return r.enc }

// Offset is the byte after the last record that Next returned: where the next
// one begins, and where a torn file is to be cut.
func (r *Reader) Offset() int64 { return r.offset }

// Next returns the next record, io.EOF after the last, or a *ParseError, which
// every later call returns again. The Record is valid until the next call; a
// copy of it stays good.
func (r *Reader) Next() (*Record, error) {
	for r.err == nil {
		n, err := 0, errShort
		if r.start < r.end {
			n, err = decodeRecord(r.buf[r.start:r.end], &r.rec, r.ver, r.enc)
		} else if r.eof {
			r.err = io.EOF
			break
		}
		if err == nil {
			r.start += n
			r.offset += int64(n)
			r.records++
			return &r.rec, nil
		}
		if err := r.more(err); err != nil {
			r.err = err
		}
	}
	return nil, r.err
}

// more reads on when cause is errShort and makes a *ParseError of it when there
// is nothing more, or of any other cause.
func (r *Reader) more(cause error) error {
	record := r.records + 1
	if r.ver == (Version{}) {
		record = 0
	}
	fail := func(reason string, err error) error {
		return &ParseError{File: r.name, Record: record, Offset: r.offset, Reason: reason, Err: err}
	}
	have := r.end - r.start
	switch {
	case cause != errShort:
		return fail(cause.Error(), ErrCorrupt)
	case r.eof && r.start == r.end && record > 0:
		return nil
	case r.eof:
		return fail(fmt.Sprintf("%v after %d bytes of it", ErrTorn, have), ErrTorn)
	case have >= maxRecord:
		return fail(fmt.Sprintf("no end within %d bytes", have), ErrCorrupt)
	}
	copy(r.buf, r.buf[r.start:r.end])
	r.start, r.end = 0, have
	if have == len(r.buf) {
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	switch {
	case errors.Is(err, io.EOF):
		r.eof = true
	case err != nil:
		return fmt.Errorf("changelog: read %q: %w", r.name, err)
	}
	return nil
}

// ParseFile calls fn with each record of the changelog at path, in order. It
// stops at the first error of fn and returns it as it is. A *ParseError comes
// after fn had all records before the bad one. The Record is valid until fn
// returns.
func ParseFile(path string, fn func(*Record) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("changelog: %w", err)
	}
	defer f.Close()
	r, err := NewReader(f, path)
	if err != nil {
		return err
	}
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
}
