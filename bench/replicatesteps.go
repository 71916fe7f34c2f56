package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// idleStep is when nothing changes.
const idleStep = "idle"

// chains are all the work of a round.
func (m *replication) chains() []*replicateChain {
	sc := m.opts.scale
	live := &replicateChain{title: "live", steps: []*replicateStep{
		{name: "first-copy", params: []Param{{"files", int64(sc.small)}, {"size", page}}, first: true, change: sc.makeFiles("tree", sc.small, page)},
		{name: "new-files", params: []Param{{"files", int64(sc.steady)}}, change: sc.makeFiles("new", sc.steady, page)},
		{name: "lag", params: []Param{{"rate", int64(sc.lagRate)}}, watch: sc.lag},
		{name: "delete", params: []Param{{"files", int64(sc.steady)}}, change: sc.remove("new", sc.steady)},
		{name: idleStep, watch: sc.rest},
	}}
	out := []*replicateChain{
		live,
		{title: "large", steps: []*replicateStep{
			{name: "first-copy", params: []Param{{"files", int64(sc.largeFiles)}, {"size", sc.large}}, first: true, change: sc.makeFiles("large", sc.largeFiles, sc.large)},
			{name: "change-1%", params: []Param{{"size", sc.big}}, before: sc.makeFiles("big", 1, sc.big), again: true, change: sc.changePart("big", sc.big)},
		}},
	}
	for _, n := range sc.trees {
		out = append(out, &replicateChain{title: fmt.Sprintf("tree of %d", n), steps: []*replicateStep{
			{name: "first-copy", params: []Param{{"files", int64(n)}, {"size", 100}}, first: true, change: sc.makeFiles("tree", n, 100)},
			{name: "change-some", params: []Param{{"tree", int64(n)}}, again: true, change: sc.changeSome("tree", n)},
		}})
	}
	for _, n := range sc.renamed {
		out = append(out, &replicateChain{title: fmt.Sprintf("directory of %d", n), steps: []*replicateStep{
			{name: "first-copy", params: []Param{{"files", int64(n)}, {"size", page}}, first: true, change: sc.makeFiles("dir", n, page)},
			{name: "rename-dir", params: []Param{{"files", int64(n)}}, change: sc.rename("dir", n)},
		}})
	}
	return out
}

// part is a block written within a file.
type part struct {
	file   string // relative to the root
	off    int64
	size   int
	number uint64
}

// check tells whether the block is in the file below root.
func (p *part) check(root string) error {
	f, err := os.Open(filepath.Join(root, p.file))
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, p.size)
	if _, err := f.ReadAt(b, p.off); err != nil {
		return fmt.Errorf("%q: %w", p.file, err)
	}
	want := make([]byte, p.size)
	if unique(want, p.number); !bytes.Equal(b, want) {
		return fmt.Errorf("%q at byte %d: %w", p.file, p.off, errContent)
	}
	return nil
}

// file is the path of file i in dir, relative to the root.
func (sc *replicateScale) file(dir string, i int) string {
	return fmt.Sprintf("%s/d%04d/f%06d", dir, i/sc.filesPerRoot, i)
}

// makeFiles makes n files of size bytes in directories in dir.
func (sc *replicateScale) makeFiles(dir string, n int, size int64) func(root string) (change, error) {
	return func(root string) (change, error) {
		c := change{files: n, bytes: int64(n) * size}
		b := make([]byte, min(size, 1<<20))
		for i := range n {
			rel := sc.file(dir, i)
			if i%sc.filesPerRoot == 0 {
				if err := os.MkdirAll(filepath.Join(root, filepath.Dir(rel)), 0o755); err != nil {
					return c, err
				}
			}
			if err := writeUnique(filepath.Join(root, rel), size, b, uint64(i)<<20); err != nil {
				return c, err
			}
			c.names = append(c.names, rel)
		}
		// Directories' times are set last.
		for i := 0; i < n; i += sc.filesPerRoot {
			c.names = append(c.names, filepath.Dir(sc.file(dir, i)))
		}
		c.names = append(c.names, dir)
		return c, nil
	}
}

// writeUnique makes a file of size bytes, in blocks as large as b, numbered from
// first on.
func writeUnique(path string, size int64, b []byte, first uint64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	for off := int64(0); off < size; off += int64(len(b)) {
		unique(b, first)
		first++
		if _, err := f.Write(b[:min(int64(len(b)), size-off)]); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// changeSome writes a few files again, spread over a tree of n.
func (sc *replicateScale) changeSome(dir string, n int) func(root string) (change, error) {
	return func(root string) (change, error) {
		c := change{files: sc.changed}
		for i := range sc.changed {
			rel := sc.file(dir, i*n/sc.changed)
			b := newContent(200).block(uint64(i) | overwritten)
			if err := os.WriteFile(filepath.Join(root, rel), b, 0o644); err != nil {
				return c, err
			}
			c.names, c.bytes = append(c.names, rel), c.bytes+int64(len(b))
		}
		return c, nil
	}
}

// rename renames dir, with all its files.
func (sc *replicateScale) rename(dir string, n int) func(root string) (change, error) {
	return func(root string) (change, error) {
		to := dir + "-renamed"
		if err := os.Rename(filepath.Join(root, dir), filepath.Join(root, to)); err != nil {
			return change{}, err
		}
		return change{files: n, names: []string{dir, to, sc.file(to, 0), sc.file(to, n-1)}}, nil
	}
}

// remove removes all n files of dir, and it.
func (sc *replicateScale) remove(dir string, n int) func(root string) (change, error) {
	return func(root string) (change, error) {
		c := change{files: n, names: []string{dir}}
		for i := range n {
			c.names = append(c.names, sc.file(dir, i))
		}
		return c, os.RemoveAll(filepath.Join(root, dir))
	}
}

// partSize is how much is written at each place that changes in a big file.
const partSize = 64 << 10

// changePart writes to 1 % of a file of size bytes, at least partSize, here and there.
func (sc *replicateScale) changePart(dir string, size int64) func(root string) (change, error) {
	return func(root string) (change, error) {
		rel := sc.file(dir, 0)
		c := change{files: 1, names: []string{rel}}
		f, err := os.OpenFile(filepath.Join(root, rel), os.O_WRONLY, 0)
		if err != nil {
			return c, err
		}
		rnd := rand.New(rand.NewPCG(3, 4))
		b := make([]byte, partSize)
		for c.bytes < size/100 {
			p := part{file: rel, off: rnd.Int64N(size/partSize) * partSize, size: partSize}
			p.number = uint64(p.off) | storeNumber
			unique(b, p.number)
			if _, err := f.WriteAt(b, p.off); err != nil {
				return c, errors.Join(err, f.Close())
			}
			c.parts, c.bytes = append(c.parts, p), c.bytes+partSize
		}
		return c, f.Close()
	}
}

// Lag is how late a file was on the slave.
type Lag struct {
	// At is when it was made, since the first, and Late how much later it was there,
	// in nanoseconds.
	At   time.Duration `json:"at_ns"`
	Late time.Duration `json:"late_ns"`
}

// keptLags is how many of them a sample keeps, besides their percentiles.
const keptLags = 400

// lag makes files at a steady rate and sees when each is on the slave.
func (sc *replicateScale) lag(ctx context.Context, r replica, s *Sample) error {
	dir := filepath.Join(r.root(), "lag")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	n := int(sc.lagFor.Seconds() * float64(sc.lagRate))
	name := func(i int) string { return fmt.Sprintf("lag/f%06d", i) }
	lags := make([]Lag, 0, n)
	made := make([]time.Time, 0, n)
	c := newContent(page)
	began := time.Now()
	for end := began.Add(sc.lagFor + r.patience()); len(lags) < n; {
		for len(made) < n && time.Since(began) >= time.Duration(len(made))*time.Second/time.Duration(sc.lagRate) {
			i := len(made)
			if err := writeNew(newCPath(filepath.Join(r.root(), name(i))), c.block(uint64(i))); err != nil {
				return err
			}
			made = append(made, time.Now())
		}
		for len(lags) < len(made) {
			i := len(lags)
			if st, err := os.Lstat(filepath.Join(r.slave(), name(i))); err != nil || st.Size() != page {
				break
			}
			lags = append(lags, Lag{made[i].Sub(began), time.Since(made[i])})
		}
		if err := errors.Join(r.alive(), ctx.Err()); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d files are on the slave after %v", len(lags), n, r.patience())
		}
		time.Sleep(pollEvery / 2)
	}
	s.Ops, s.Bytes = n, int64(n)*page
	s.setLags(lags)
	_, err := arrived(ctx, r, &change{names: []string{name(n - 1), "lag"}})
	return err
}

// setLags keeps percentiles and some of the lags.
func (s *Sample) setLags(lags []Lag) {
	late := make([]time.Duration, len(lags))
	for i, l := range lags {
		late[i] = l.Late
	}
	slices.Sort(late)
	at := func(q float64) time.Duration { return late[int(q*float64(len(late)-1))] }
	// The median is what the row shows as its time.
	s.Wall, s.LateP99, s.LateMax = at(0.5), at(0.99), late[len(late)-1]
	for i := 0; i < len(lags); i += max(1, len(lags)/keptLags) {
		s.Lags = append(s.Lags, lags[i])
	}
}

// rest sees what there is to do when nothing changes.
func (sc *replicateScale) rest(ctx context.Context, r replica, s *Sample) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(sc.idle):
	}
	s.Ops = 1 // of no length: only what it uses counts
	return r.alive()
}
