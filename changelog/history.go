package changelog

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Sentinels of History's errors.
var (
	// ErrNotCovered is a start that no index covers: older than the first, at
	// or past the end of the last, or in a gap. GlusterFS's library answers -2.
	ErrNotCovered = errors.New("not covered by any HTIME file")
	// ErrRange is a start later than the end, or an index out of order.
	// GlusterFS's library answers -1.
	ErrRange = errors.New("no such range")
)

// partialAfter is how many seconds a range may go on past the end of the index
// and still count as complete: those changelogs are not sealed yet.
const partialAfter = 20

// Sealed is a slice that has ended.
type Sealed struct {
	// Stamp is when it was sealed, unix seconds. It covers what happened since
	// the stamp before it, up to a second later than its own.
	Stamp int64
	// Path is its changelog, "" when it is Empty. The file may be gone.
	Path string
	// Empty is a slice without records; there is no file.
	Empty bool
	// Indexed is false for a changelog that is on disk and not in its HTIME file:
	// the last one of each run of GlusterFS, or one being sealed just now.
	Indexed bool
}

// Span is a time in which recording went on without a gap: one HTIME file.
type Span struct {
	Name  string // HTIME.<start>
	Start int64  // unix seconds; no changelog has this stamp
	// End is the last stamp in the index; it is Start when there is none yet.
	End int64

	entries []indexEntry // in stamp order
	dirs    []string
}

// Count is how many slices the index lists, empty ones included. The counts that
// GlusterFS keeps in an xattr are not to be trusted, and not looked at.
func (s *Span) Count() int { return len(s.entries) }

// History is what the changelogs directory of a brick told when it was opened:
// which spans are recorded without a gap, and by which changelogs.
type History struct {
	dir   string
	spans []Span
}

// OpenHistory reads the HTIME files in dir, BRICK/.glusterfs/changelogs. That
// there are none is no error. The directory may be that of a GlusterFS brick, and
// one that was moved: paths in the index are looked for below dir first.
//
// A History takes 16 bytes per slice and does not change when slices are sealed
// afterwards.
func OpenHistory(dir string) (*History, error) {
	h := &History{dir: dir}
	names, err := os.ReadDir(filepath.Join(dir, htimeDir))
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("changelog: history: %w", err)
	}
	for _, e := range names {
		start, ok := parseHTIMEName(e.Name())
		if !ok {
			continue
		}
		s, err := readSpan(filepath.Join(dir, htimeDir, e.Name()), start)
		if err != nil {
			return nil, fmt.Errorf("changelog: history: %w", err)
		}
		h.spans = append(h.spans, *s)
	}
	slices.SortFunc(h.spans, func(a, b Span) int { return compareStamps(a.Start, b.Start) })
	return h, nil
}

func readSpan(name string, start int64) (*Span, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := parseHTIME(f)
	if err != nil {
		return nil, err
	}
	s := &Span{Name: filepath.Base(name), Start: start, End: start, entries: data.entries, dirs: data.dirs}
	// A clock set back makes GlusterFS's index unordered.
	slices.SortStableFunc(s.entries, func(a, b indexEntry) int { return compareStamps(a.stamp, b.stamp) })
	if n := len(s.entries); n > 0 {
		s.End = s.entries[n-1].stamp
	}
	return s, nil
}

func compareStamps(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Spans are the spans in order of time. A gap lies between each two.
func (h *History) Spans() []Span { return h.spans }

// Slices are the slices of the i-th span in order, with all changelogs that are on
// disk and not in its index. Those later than the span's End may still be on
// their way into the index, or part of the gap behind it.
func (h *History) Slices(i int) (iter.Seq[Sealed], error) {
	s, err := h.merged(i, h.spans[i].Start, math.MaxInt64)
	if err != nil {
		return nil, fmt.Errorf("changelog: history: %w", err)
	}
	return func(yield func(Sealed) bool) {
		for _, e := range s.entries {
			if !yield(h.sealed(s, e)) {
				return
			}
		}
	}, nil
}

// Selection is the answer of Select.
type Selection struct {
	// Span is the name of the HTIME file that covers the start.
	Span string
	// Slices are those with records, in order.
	Slices []Sealed
	// End is up to where they tell all. It may be later than the end asked for,
	// because the last changelog goes on past that.
	End int64
	// Partial says that the span ends more than 20 s before the end asked for:
	// recording was turned off, or the rest is in another span.
	Partial bool
}

// Select finds the changelogs that tell what happened from start to end, unix
// seconds. The span is the one with its Start <= start < its end; then every
// slice counts from the first with a stamp >= start to the first with a stamp
// >= end. The error wraps ErrNotCovered or ErrRange.
//
// It follows gf_history_changelog, and goes beyond it in also finding changelogs
// that the index passes over: those on disk and older than the last one listed.
// Later ones do not count: they may be incomplete.
//
// Source: glusterfs gf-history-changelog.c.
func (h *History) Select(start, end int64) (*Selection, error) {
	return h.choose(start, end, func(i int) (*Span, error) { return h.merged(i, start, h.spans[i].End) })
}

// SelectIndexed is Select without changelogs that are not in the index: exactly
// what GlusterFS 10.3's library would choose.
func (h *History) SelectIndexed(start, end int64) (*Selection, error) {
	return h.choose(start, end, func(i int) (*Span, error) { return &h.spans[i], nil })
}

func (h *History) choose(start, end int64, span func(int) (*Span, error)) (*Selection, error) {
	if start > end {
		return nil, fmt.Errorf("changelog: history: from %d to %d: %w", start, end, ErrRange)
	}
	for i := range h.spans {
		if start < h.spans[i].Start || start >= h.spans[i].End {
			continue
		}
		s, err := span(i)
		if err != nil {
			return nil, fmt.Errorf("changelog: history: %w", err)
		}
		return h.selection(s, start, end), nil
	}
	return nil, fmt.Errorf("changelog: history: from %d: %w", start, ErrNotCovered)
}

// selection chooses in a span with s.Start <= start < s.End, so both searches
// find something.
func (h *History) selection(s *Span, start, end int64) *Selection {
	first := func(stamp int64) int {
		i, _ := slices.BinarySearchFunc(s.entries, stamp, func(e indexEntry, t int64) int { return compareStamps(e.stamp, t) })
		return i
	}
	from, to := first(start), first(min(end, s.End))
	sel := &Selection{Span: s.Name, End: s.entries[to].stamp, Partial: end-partialAfter > s.End}
	for _, e := range s.entries[from : to+1] {
		if !e.empty {
			sel.Slices = append(sel.Slices, h.sealed(s, e))
		}
	}
	return sel
}

// unlisted marks an entry that is on disk and not in the index.
const unlisted = ^uint32(0)

// merged is the i-th span with the changelogs from one stamp to another that are
// on disk and not in its index. They belong to it up to the start of the next.
func (h *History) merged(i int, from, to int64) (*Span, error) {
	s := h.spans[i]
	stamps, err := sealedSince(h.dir, max(s.Start, from-1))
	if err != nil {
		return nil, err
	}
	if i+1 < len(h.spans) {
		to = min(to, h.spans[i+1].Start-1)
	}
	listed := s.entries
	s.entries = make([]indexEntry, 0, len(listed)+1)
	for _, stamp := range stamps {
		if stamp > to {
			break
		}
		for len(listed) > 0 && listed[0].stamp < stamp {
			s.entries, listed = append(s.entries, listed[0]), listed[1:]
		}
		if len(listed) == 0 || listed[0].stamp != stamp {
			s.entries = append(s.entries, indexEntry{stamp: stamp, dir: unlisted})
		}
	}
	s.entries = append(s.entries, listed...)
	return &s, nil
}

// sealed says where the changelog of an entry is: in its day directory, in the
// changelogs directory itself, where old releases put it, or where the index
// says.
func (h *History) sealed(s *Span, e indexEntry) Sealed {
	out := Sealed{Stamp: e.stamp, Empty: e.empty, Indexed: e.dir != unlisted}
	if e.empty {
		return out
	}
	base := sealedPrefix + strconv.FormatInt(e.stamp, 10)
	places := []string{filepath.Join(h.dir, sealedName(e.stamp)), filepath.Join(h.dir, base)}
	if out.Indexed {
		places = append(places, filepath.Join(s.dirs[e.dir], base))
	}
	for _, p := range places {
		if _, err := os.Lstat(p); err == nil {
			out.Path = p
			return out
		}
	}
	out.Path = places[0]
	return out
}

// sealedSince lists the stamps of the sealed changelogs in dir that are later
// than after, in order, while more are being sealed: of those it finds, none in
// between is missing.
func sealedSince(dir string, after int64) ([]int64, error) {
	seen, err := sealedAfter(dir, after)
	if err != nil || len(seen) == 0 {
		return nil, err
	}
	// A directory that grows while it is read may show a later name and not an
	// earlier one; whatever is older than a name seen before is there now.
	stamps, err := sealedAfter(dir, after)
	if err != nil {
		return nil, err
	}
	i, found := slices.BinarySearch(stamps, seen[len(seen)-1])
	if found {
		i++
	}
	return stamps[:i], nil
}
