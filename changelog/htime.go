package changelog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// Xattrs of the index.
const (
	// xattrHTIME on an HTIME file: "<last stamp>:<count>", "0:0" when new.
	// GlusterFS gets the count wrong after a restart; nobody trusts it.
	xattrHTIME = "trusted.glusterfs.htime"
	// xattrCurrent on the htime directory: the name of the active HTIME file.
	xattrCurrent = "trusted.glusterfs.current_htime"
)

const htimePrefix = "HTIME." // then the moment recording began

// maxIndexPath is the length of an index record past which it is none.
const maxIndexPath = 8 << 10

// indexEntry is one record of an HTIME file: the end of a slice.
type indexEntry struct {
	stamp int64
	dir   uint32 // of the recorded path, in indexData.dirs
	empty bool   // no records, no file
}

// indexData is what an HTIME file holds.
type indexData struct {
	entries []indexEntry // as in the file
	dirs    []string     // directories of the recorded paths, each once
	good    int64        // bytes up to and with the last NUL
	pathLen int          // of the first record, without its NUL
}

// parseHTIME reads an HTIME file: absolute paths, each ended by a NUL. Records
// that are no changelog's path are passed over, and so is a torn last one: the
// index of a crashed writer is still an index. Errors are those of r.
func parseHTIME(r io.Reader) (*indexData, error) {
	x := &indexData{}
	dirs := map[string]uint32{}
	br := bufio.NewReaderSize(r, maxIndexPath)
	for {
		rec, err := br.ReadSlice(0)
		if errors.Is(err, bufio.ErrBufferFull) {
			// Not a path: skip to its end.
			n := len(rec)
			for errors.Is(err, bufio.ErrBufferFull) {
				rec, err = br.ReadSlice(0)
				n += len(rec)
			}
			if err == nil {
				x.good += int64(n)
				continue
			}
		}
		if errors.Is(err, io.EOF) {
			return x, nil
		}
		if err != nil {
			return nil, err
		}
		x.good += int64(len(rec))
		p := rec[:len(rec)-1]
		if x.pathLen == 0 {
			x.pathLen = len(p)
		}
		dir, base := path.Split(string(p))
		stamp, empty, ok := parseSealedBase(base)
		if !ok {
			continue
		}
		i, known := dirs[dir]
		if !known {
			i = uint32(len(x.dirs))
			dirs[dir] = i
			x.dirs = append(x.dirs, dir)
		}
		x.entries = append(x.entries, indexEntry{stamp: stamp, dir: i, empty: empty})
	}
}

// parseHTIMEName reads the moment an HTIME file begins from its name.
func parseHTIMEName(base string) (start int64, ok bool) {
	digits, found := strings.CutPrefix(base, htimePrefix)
	if !found {
		return 0, false
	}
	return parseStamp(digits)
}

// index is the HTIME file a Log adds to. Guarded by Log.rollMu.
type index struct {
	d       *disk
	f       *os.File // owned
	name    string   // HTIME.<start>
	start   int64
	last    int64 // the last stamp in it, or start
	count   int64 // records in it
	size    int64 // bytes in it
	pathLen int   // of its records; 0 when it has none
	// pending are slices sealed but not yet in the file, in order: adding them
	// failed and is tried again with the next one.
	pending []indexEntry
}

// currentIndex opens the active HTIME file; nil when there is none. A torn last
// record is cut off.
func currentIndex(d *disk) (*index, error) {
	name, start, err := activeName(d.path)
	if err != nil || name == "" {
		return nil, err
	}
	f, err := d.open(path.Join(htimeDir, name), 0)
	if err != nil {
		return nil, err
	}
	x, err := openIndex(d, f, name, start)
	if err != nil {
		_ = f.Close() // the first error counts
		return nil, err
	}
	return x, nil
}

func openIndex(d *disk, f *os.File, name string, start int64) (*index, error) {
	data, err := parseHTIME(f)
	if err != nil {
		return nil, err
	}
	x := &index{
		d: d, f: f, name: name, start: start, last: start,
		count: int64(len(data.entries)), size: data.good, pathLen: data.pathLen,
	}
	for _, e := range data.entries {
		x.last = max(x.last, e.stamp)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > x.size {
		if err := d.truncate(f, x.rel(), x.size); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// newIndex makes HTIME.<start>, or with the next free stamp, and makes it the
// active one. It is durable when newIndex returns.
func newIndex(d *disk, start int64) (*index, error) {
	x := &index{d: d}
	for {
		x.start, x.last = start, start
		x.name = htimePrefix + strconv.FormatInt(start, 10)
		var err error
		if x.f, err = d.create(x.rel(), 0); err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		start++
	}
	err := x.setXattr()
	if err == nil {
		err = d.sync(x.f, x.rel())
	}
	if err == nil {
		err = d.syncDir(htimeDir)
	}
	if err == nil {
		err = d.setxattr(d.htime, htimeDir, xattrCurrent, []byte(x.name))
	}
	if err == nil {
		err = d.syncDir(htimeDir)
	}
	if err != nil {
		x.discard()
		return nil, err
	}
	return x, nil
}

// discard removes an index that was not used after all. Should that fail, an
// index without records stays behind, which covers nothing.
func (x *index) discard() {
	_ = x.f.Close()
	_ = x.d.unlink(x.rel())
}

// makeCurrent makes x the active index again.
func (x *index) makeCurrent() error {
	return x.d.setxattr(x.d.htime, htimeDir, xattrCurrent, []byte(x.name))
}

func (x *index) rel() string { return path.Join(htimeDir, x.name) }

// path is the record of an entry, without its NUL.
func (x *index) path(e indexEntry) string {
	p := path.Join(x.d.path, sealedName(e.stamp))
	if e.empty {
		p = p[:len(p)-len(path.Base(p))] + emptyPrefix + strconv.FormatInt(e.stamp, 10)
	}
	return p
}

// fits reports whether records of this directory have the length of those in
// the file: readers of the index rely on a fixed stride.
func (x *index) fits() bool {
	return x.pathLen == 0 || x.pathLen == len(x.path(indexEntry{stamp: x.last}))
}

// add lists a sealed slice, and those before it that could not be listed then.
// It is durable when add returns nil. After an error the slice waits for the
// next call; nothing is half written.
func (x *index) add(e indexEntry) error {
	x.pending = append(x.pending, e)
	return x.flush()
}

// flush lists the slices that wait.
func (x *index) flush() error {
	if len(x.pending) == 0 {
		return nil
	}
	var buf []byte
	for _, e := range x.pending {
		buf = append(append(buf, x.path(e)...), 0)
	}
	if err := x.d.write(x.f, x.rel(), buf, x.size); err != nil {
		// Should this fail as well, Open cuts the torn record off, or the next
		// flush writes the same bytes again.
		_ = x.d.truncate(x.f, x.rel(), x.size)
		return err
	}
	if err := x.d.sync(x.f, x.rel()); err != nil {
		return err
	}
	x.size += int64(len(buf))
	x.count += int64(len(x.pending))
	x.last = x.pending[len(x.pending)-1].stamp
	x.pathLen = len(x.path(x.pending[0]))
	x.pending = x.pending[:0]
	return x.setXattr()
}

// setXattr writes what GlusterFS's readers take for the end of the index.
func (x *index) setXattr() error {
	last := x.last
	if x.count == 0 {
		last = 0
	}
	return x.d.setxattr(x.f, x.rel(), xattrHTIME, fmt.Appendf(nil, "%d:%d", last, x.count))
}

func (x *index) close() error { return x.f.Close() }
