package changelog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Names in a working directory, those of GlusterFS's library.
const (
	currentDir    = ".current"    // being decoded
	processingDir = ".processing" // decoded, waiting for Done
	processedDir  = ".processed"  // after Done; nothing here is read or removed by us
	historyDir    = ".history"    // the same four for History
	trackerName   = "tracker"     // what the last Scan listed: absolute paths, one per line
)

// maxPublished is how many changelogs wait in .processing at most; the others
// are decoded when some of these are done.
const maxPublished = 1024

// Published is a sealed changelog, decoded: one PARSED line per record.
type Published struct {
	// Path is the file, private to the consumer, until Done moves it away.
	Path string
	// Stamp is when the slice was sealed, unix seconds.
	Stamp int64
	// Damage says that the changelog had more, which could not be read: a
	// *ParseError, or fs.ErrNotExist when it was removed. One that wraps ErrTorn
	// is the work of a crash, and nothing acknowledged is missing.
	Damage error
}

// Records reads the records. After an error there are no more.
func (p Published) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f, err := os.Open(p.Path)
		if err != nil {
			yield(Record{}, fmt.Errorf("changelog: %w", err))
			return
		}
		defer f.Close()
		lines := bufio.NewReader(f)
		for n := 1; ; n++ {
			line, err := lines.ReadBytes('\n')
			if errors.Is(err, io.EOF) && len(line) == 0 {
				return
			}
			var r Record
			if err == nil {
				r, err = ParseParsed(line)
			}
			if err != nil {
				yield(Record{}, fmt.Errorf("changelog: parse %q: line %d: %w", p.Path, n, err))
				return
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

// workdir is the directory through which changelogs reach a consumer.
type workdir struct {
	path  string
	limit int // see maxPublished
	// waiting are those in .processing, in order of their stamps.
	waiting []Published
	// next counts in listed, what the last list wrote into the tracker.
	listed []Published
	next   int
}

// openWorkdir makes the directories, private to the owner, and empties those of
// what was not done.
func openWorkdir(path string) (*workdir, error) {
	w := &workdir{path: path, limit: maxPublished}
	for _, sub := range []string{currentDir, processingDir} {
		if err := os.RemoveAll(filepath.Join(path, sub)); err != nil {
			return nil, err
		}
	}
	for _, sub := range []string{currentDir, processingDir, processedDir} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// full reports whether no more may be published now.
func (w *workdir) full() bool { return len(w.waiting) >= w.limit }

// publish decodes a sealed changelog into .processing. What of it cannot be read
// is its Damage; the error is of the working directory.
func (w *workdir) publish(s Sealed) error {
	base := sealedPrefix + strconv.FormatInt(s.Stamp, 10)
	current := filepath.Join(w.path, currentDir, base)
	f, err := os.OpenFile(current, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(f, readAhead)
	var line []byte
	var writeErr error
	damage := ParseFile(s.Path, func(r *Record) error {
		line = r.AppendParsed(line[:0])
		_, writeErr = out.Write(line)
		return writeErr
	})
	if writeErr == nil {
		writeErr = out.Flush()
	}
	if err := errors.Join(writeErr, f.Close()); err != nil {
		return err
	}
	var bad *ParseError
	if damage != nil && !errors.As(damage, &bad) && !errors.Is(damage, fs.ErrNotExist) {
		return damage // the brick cannot be read now
	}
	path := filepath.Join(w.path, processingDir, base)
	if err := os.Rename(current, path); err != nil {
		return err
	}
	w.waiting = append(w.waiting, Published{Path: path, Stamp: s.Stamp, Damage: damage})
	return nil
}

// list writes all that wait into the tracker, and next begins with the first.
func (w *workdir) list() (int, error) {
	var b bytes.Buffer
	for _, p := range w.waiting {
		b.WriteString(p.Path)
		b.WriteByte('\n')
	}
	if err := os.WriteFile(filepath.Join(w.path, trackerName), b.Bytes(), 0o600); err != nil {
		return 0, err
	}
	w.listed, w.next = slices.Clone(w.waiting), 0
	return len(w.listed), nil
}

// take returns the next of those listed.
func (w *workdir) take() (Published, bool) {
	if w.next == len(w.listed) {
		return Published{}, false
	}
	w.next++
	return w.listed[w.next-1], true
}

// finish moves what is done to .processed, durably. Nothing is moved when one of
// them does not wait.
func (w *workdir) finish(done []Published) error {
	for _, p := range done {
		if !w.waits(p) {
			return fmt.Errorf("%q is not waiting in %s", p.Path, filepath.Join(w.path, processingDir))
		}
	}
	for _, p := range done {
		if err := os.Rename(p.Path, filepath.Join(w.path, processedDir, filepath.Base(p.Path))); err != nil {
			return err
		}
		w.waiting = slices.DeleteFunc(w.waiting, func(q Published) bool { return q.Path == p.Path })
	}
	return syncPath(filepath.Join(w.path, processedDir))
}

func (w *workdir) waits(p Published) bool {
	return slices.ContainsFunc(w.waiting, func(q Published) bool { return q.Path == p.Path })
}

// processed are the stamps of what was done, as far as nobody cleared them away.
func (w *workdir) processed() ([]int64, error) {
	entries, err := os.ReadDir(filepath.Join(w.path, processedDir))
	if err != nil {
		return nil, err
	}
	return appendSealed(nil, entries, 0), nil
}

// syncPath makes the names in a directory durable.
func syncPath(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
