package changelog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// GapError says that changes went unrecorded: what is on the brick must be
// compared as a whole. It wraps ErrGap.
type GapError struct {
	// From and To are unix seconds: the last slice before the gap, and the
	// moment recording began again. From is 0 when recording began later than
	// the consumer asked for.
	From, To int64
}

// Error names both ends of the gap.
func (e *GapError) Error() string {
	return fmt.Sprintf("changelog: changes between %d and %d may be unrecorded: compare the whole brick", e.From, e.To)
}

// Unwrap is ErrGap.
func (e *GapError) Unwrap() error { return ErrGap }

// indexCursor reads the index of a brick as it grows, from one HTIME file to the
// next, without reading anything twice.
type indexCursor struct {
	dir  string
	span int64 // start of the HTIME file being read; 0: the first there will be
	// stamp is that of the last slice read, empty ones included; earlier ones are
	// passed over.
	stamp  int64
	offset int64 // in the file, behind what was read
}

// uncovered is the span of a moment before all spans.
const uncovered = -1

// more returns the slices that ended since the last call, in order, with those that
// are on disk and that the index passes over. When a file is read to its end and
// a later one has begun, it returns the gap between them, once, and goes on
// with that one at the next call.
func (c *indexCursor) more() (ended []Sealed, gap *GapError, err error) {
	// Before reading on: a file is complete when a later one has begun.
	starts, err := spanStarts(c.dir)
	if err != nil {
		return nil, nil, err
	}
	next := slices.IndexFunc(starts, func(s int64) bool { return s > c.span })
	if c.span > 0 {
		if ended, err = c.read(); err != nil || len(ended) > 0 {
			return ended, nil, err
		}
	}
	if next < 0 {
		return nil, nil, nil
	}
	if c.span != 0 {
		gap = &GapError{From: max(c.span, c.stamp), To: starts[next]}
		if c.span == uncovered {
			gap.From = 0
		}
	}
	c.span, c.offset = starts[next], 0
	if gap != nil {
		return nil, gap, nil
	}
	ended, err = c.read()
	return ended, nil, err
}

// read returns what the current file lists behind offset.
func (c *indexCursor) read() ([]Sealed, error) {
	f, err := os.Open(filepath.Join(c.dir, htimeDir, fmt.Sprintf("%s%d", htimePrefix, c.span)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // somebody removed it: a gap, when another one follows
	}
	if err != nil {
		return nil, fmt.Errorf("changelog: index: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() <= c.offset {
		return nil, err
	}
	data, err := parseHTIME(io.NewSectionReader(f, c.offset, st.Size()-c.offset))
	if err != nil || len(data.entries) == 0 {
		return nil, err
	}
	h := &History{dir: c.dir, spans: []Span{{Start: c.span, entries: data.entries, dirs: data.dirs}}}
	s, err := h.merged(0, c.stamp+1, data.entries[len(data.entries)-1].stamp)
	if err != nil {
		return nil, fmt.Errorf("changelog: index: %w", err)
	}
	var ended []Sealed
	for _, e := range s.entries {
		if e.stamp > c.stamp {
			c.stamp = e.stamp
			ended = append(ended, h.sealed(s, e))
		}
	}
	c.offset += data.good
	return ended, nil
}
