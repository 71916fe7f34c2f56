package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/changelog"
)

// readPasses is how often a large file is read: it comes from the page cache.
const readPasses = 3

const page = 4096

// largeFile writes and reads a file of size bytes in all the ways large files are.
func largeFile(size int64, randomOps, appends, fsyncs int) *workload {
	made := func(*run) records {
		return records{entries: map[changelog.Fop]int{changelog.FopCreate: 1}, data: 1}
	}
	written := func(*run) records { return records{data: 1} }
	l := &large{size: size, offsets: randomPages(size, randomOps)}
	w := &workload{family: "large", title: "large files", setup: func(r *run) error { return r.name(1, 5) }}
	for i, block := range []int{128 << 10, 1 << 20} {
		p := []Param{{"block", int64(block)}}
		w.steps = append(w.steps,
			&step{name: "seq-write", params: p, ops: blocks(size, block), bytes: size, work: l.write(i, block), leaves: made,
				check: func(r *run) error { return checkFile(r.below(r.files[0][i]), size, block, 0) }},
			&step{name: "seq-read", params: p, ops: readPasses * blocks(size, block), bytes: readPasses * size, work: l.read(i, block)},
		)
	}
	p := []Param{{"block", page}}
	w.steps = append(w.steps,
		&step{name: "random-write", params: p, ops: randomOps, bytes: int64(randomOps) * page, work: l.randomWrite, check: l.checkRandom, leaves: written},
		&step{name: "random-read", params: p, ops: randomOps, bytes: int64(randomOps) * page, work: l.randomRead},
		&step{name: "append", params: p, ops: appends, bytes: int64(appends) * page, work: l.append(2, appends, false), leaves: made,
			check: func(r *run) error { return checkFile(r.below(r.files[0][2]), int64(appends)*page, page, 0) }},
		&step{name: "write+fsync", params: p, ops: fsyncs, work: l.append(3, fsyncs, true), leaves: made,
			check: func(r *run) error { return checkFile(r.below(r.files[0][3]), int64(fsyncs)*page, page, 0) }},
		&step{name: "mmap-store", params: p, ops: int(size / page), bytes: size, work: l.store, check: l.checkStored, leaves: written},
	)
	return w
}

// large has the steps of largeFile. File 0 is written in blocks of 128 KiB and then
// at random, file 1 in blocks of 1 MiB and then through a mapping, 2 and 3 page by
// page at their end.
type large struct {
	size    int64
	offsets []int64
}

// randomPages are n offsets of pages within size, the same in every run.
func randomPages(size int64, n int) []int64 {
	rnd := rand.New(rand.NewPCG(1, 2))
	off := make([]int64, n)
	for i := range off {
		off[i] = rnd.Int64N(size/page) * page
	}
	return off
}

// blocks is how many writes or reads of block bytes a file takes.
func blocks(size int64, block int) int { return int((size + int64(block) - 1) / int64(block)) }

// withFile opens a file for f, which returns how many operations it did on it, and
// closes it afterwards.
func withFile(p cpath, flags int, f func(fd int) (int, error)) (ops int, err error) {
	fd, err := sysOpen(p, flags, 0o644)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", p, err)
	}
	ops, err = f(fd)
	if cerr := sysClose(fd); err == nil {
		err = cerr
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", p, err)
	}
	return ops, err
}

func (l *large) write(file, block int) func(*run, int) (int, error) {
	return func(r *run, _ int) (int, error) { return writeFile(r.files[0][file], l.size, block, 0) }
}

// writeFile makes a file of size bytes with a write for each block; they are
// numbered from first on. It returns how many there were.
func writeFile(p cpath, size int64, block int, first uint64) (int, error) {
	c := newContent(block)
	return withFile(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, func(fd int) (n int, err error) {
		for off := int64(0); off < size; off += int64(block) {
			b := c.block(first + uint64(off)/uint64(block))
			if err := sysWrite(fd, b[:min(int64(block), size-off)]); err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	})
}

func (l *large) read(file, block int) func(*run, int) (int, error) {
	return func(r *run, _ int) (ops int, err error) {
		for range readPasses {
			n, err := readFile(r.files[0][file], l.size, block)
			ops += n
			if err != nil {
				return ops, err
			}
		}
		return ops, nil
	}
}

// readFile reads a file of size bytes to its end, and returns how many blocks it had.
func readFile(p cpath, size int64, block int) (int, error) {
	b := make([]byte, block)
	return withFile(p, unix.O_RDONLY, func(fd int) (blocks int, err error) {
		var total int64
		for {
			n, err := sysRead(fd, b)
			if err != nil {
				return blocks, err
			}
			if n == 0 {
				break
			}
			total += int64(n)
			blocks++
		}
		if total != size {
			return blocks, fmt.Errorf("read %d bytes, want %d", total, size)
		}
		return blocks, nil
	})
}

// randomNumber tells pages written at random from those before.
const randomNumber = 1 << 40

func (l *large) randomWrite(r *run, _ int) (int, error) {
	c := newContent(page)
	return withFile(r.files[0][0], unix.O_WRONLY, func(fd int) (int, error) {
		for i, off := range l.offsets {
			if err := sysPwrite(fd, c.block(randomNumber+uint64(i)), off); err != nil {
				return i, err
			}
		}
		return len(l.offsets), nil
	})
}

func (l *large) randomRead(r *run, _ int) (int, error) {
	b := make([]byte, page)
	return withFile(r.files[0][0], unix.O_RDONLY, func(fd int) (int, error) {
		for i, off := range l.offsets {
			if n, err := sysPread(fd, b, off); err != nil || n != page {
				return i, fmt.Errorf("read %d bytes at %d: %w", n, off, errors.Join(err, errContent))
			}
		}
		return len(l.offsets), nil
	})
}

func (l *large) checkRandom(r *run) error {
	last := map[int64]int{}
	for i, off := range l.offsets {
		last[off] = i
	}
	return checkPages(r.below(r.files[0][0]), func(check func(off int64, number uint64) error) error {
		for off, i := range last {
			if err := check(off, randomNumber+uint64(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkPages checks pages of a file.
func checkPages(path string, each func(check func(off int64, number uint64) error) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, page)
	return each(func(off int64, number uint64) error {
		if _, err := f.ReadAt(b, off); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		if err := checkBlock(b, number); err != nil {
			return fmt.Errorf("%q at byte %d: %w", path, off, err)
		}
		return nil
	})
}

func (l *large) append(file, n int, sync bool) func(*run, int) (int, error) {
	return func(r *run, _ int) (int, error) {
		c := newContent(page)
		return withFile(r.files[0][file], unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_APPEND, func(fd int) (int, error) {
			for i := range n {
				if err := sysWrite(fd, c.block(uint64(i))); err != nil {
					return i, err
				}
				if sync {
					if err := sysFsync(fd); err != nil {
						return i, err
					}
				}
			}
			return n, nil
		})
	}
}

// storeNumber tells pages stored to from those before.
const storeNumber = 1 << 41

// store writes to each page of a file through a mapping.
func (l *large) store(r *run, _ int) (int, error) {
	c := newContent(page)
	return withFile(r.files[0][1], unix.O_RDWR, func(fd int) (pages int, err error) {
		m, err := unix.Mmap(fd, 0, int(l.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return 0, fmt.Errorf("mmap: %w", err)
		}
		for off := 0; off < len(m); off += page {
			copy(m[off:], c.block(storeNumber+uint64(off)))
			pages++
		}
		if err := unix.Msync(m, unix.MS_SYNC); err != nil {
			return pages, errors.Join(fmt.Errorf("msync: %w", err), unix.Munmap(m))
		}
		return pages, unix.Munmap(m)
	})
}

func (l *large) checkStored(r *run) error {
	return checkPages(r.below(r.files[0][1]), func(check func(off int64, number uint64) error) error {
		for off := int64(0); off < l.size; off += page {
			if err := check(off, storeNumber+uint64(off)); err != nil {
				return err
			}
		}
		return nil
	})
}

// fileSizes writes and reads files of one size, for the curve from small to large:
// total bytes of them, at most so many files.
func fileSizes(size int64, total int64, most int) *workload {
	n := int(max(1, min(int64(most), total/size)))
	f := &sized{size: size, block: int(min(size, 128<<10))}
	params := []Param{{"size", size}}
	return &workload{
		family: "sizes",
		title:  "files of " + formatBytes(float64(size)),
		setup:  func(r *run) error { return r.name(1, n) },
		steps: []*step{
			{name: "write-files", params: params, ops: n, bytes: int64(n) * size, work: f.write, check: f.check,
				leaves: func(*run) records {
					return records{entries: map[changelog.Fop]int{changelog.FopCreate: n}, data: n}
				}},
			{name: "read-files", params: params, ops: n, bytes: int64(n) * size, work: f.read},
		},
	}
}

// sized has the steps of fileSizes.
type sized struct {
	size  int64
	block int
}

// number is that of a file's first block.
func (f *sized) number(i int) uint64 {
	return uint64(i) * uint64(blocks(f.size, f.block))
}

func (f *sized) write(r *run, thread int) (int, error) {
	return each("write", r.files[thread], func(i int, p cpath) error {
		_, err := writeFile(p, f.size, f.block, f.number(i))
		return err
	})
}

func (f *sized) read(r *run, thread int) (int, error) {
	return each("read", r.files[thread], func(_ int, p cpath) error {
		_, err := readFile(p, f.size, f.block)
		return err
	})
}

func (f *sized) check(r *run) error {
	_, err := each("check", r.files[0], func(i int, p cpath) error {
		return checkFile(r.below(p), f.size, f.block, f.number(i))
	})
	return err
}
