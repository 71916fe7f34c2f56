package changelog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

var bothEncodings = []Encoding{ASCII, Binary}

// BenchmarkEncode is the part of Append that is done under its lock before the write.
func BenchmarkEncode(b *testing.B) {
	for _, e := range bothEncodings {
		for name, r := range map[string]*Record{"create": entry(1), "data": {Type: Data}, "meta": {Type: Meta, Fop: FopSetattr}} {
			b.Run(fmt.Sprintf("encoding=%v/record=%s", e, name), func(b *testing.B) {
				buf := make([]byte, 0, 1024)
				b.ReportAllocs()
				for b.Loop() {
					buf = AppendRecord(buf[:0], r, e)
				}
				b.SetBytes(int64(len(buf)))
			})
		}
	}
}

// BenchmarkAppend is what recording adds to a fop: encoding and one write(2).
// It is compared with that write alone.
func BenchmarkAppend(b *testing.B) {
	for _, e := range bothEncodings {
		for _, parallel := range []int{1, 4} {
			b.Run(fmt.Sprintf("encoding=%v/parallel=%d", e, parallel), func(b *testing.B) {
				dir := newDir(b)
				l := mustOpen(b, Options{Dir: dir, Encoding: e})
				defer l.release()
				b.ReportAllocs()
				b.SetParallelism(parallel) // times GOMAXPROCS
				size := len(AppendRecord(nil, entry(1), e))
				b.SetBytes(int64(size))
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					r := entry(1)
					for pb.Next() {
						if _, err := l.Append(r); err != nil {
							b.Error(err)
						}
					}
				})
				st, err := os.Stat(filepath.Join(dir, "CHANGELOG"))
				if want := int64(headerLen) + int64(b.N)*int64(size); err != nil || st.Size() != want {
					b.Fatalf("CHANGELOG of %d bytes, %v, want %d", st.Size(), err, want)
				}
			})
		}
	}
	b.Run("on=write", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		buf := AppendRecord(nil, entry(1), ASCII)
		fd, off := int(f.Fd()), int64(0)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if err := pwriteAll(fd, buf, off); err != nil {
				b.Fatal(err)
			}
			off += int64(len(buf))
		}
	})
}

// BenchmarkRead reads a changelog of 10,000 records.
func BenchmarkRead(b *testing.B) {
	const records = 10000
	for _, e := range bothEncodings {
		b.Run(fmt.Sprintf("encoding=%v/records=%d", e, records), func(b *testing.B) {
			file := AppendHeader(nil, e)
			for n := range records {
				file = AppendRecord(file, entry(n), e)
			}
			b.SetBytes(int64(len(file)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := NewReader(bytes.NewReader(file), "bench")
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				for _, err = r.Next(); err == nil; _, err = r.Next() {
					n++
				}
				if !errors.Is(err, io.EOF) || n != records {
					b.Fatalf("%d records, %v", n, err)
				}
			}
		})
	}
}

// BenchmarkRollover seals a slice of one record, its syncs included.
func BenchmarkRollover(b *testing.B) {
	for _, records := range []int{0, 1} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			l := mustOpen(b, Options{Dir: newDir(b)})
			defer l.release()
			for b.Loop() {
				if records > 0 {
					mustAppend(b, l, entry(1))
				}
				if err := l.Rollover(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Append is on the path of every fop.
func TestAppendDoesNotAllocate(t *testing.T) {
	l := mustOpen(t, Options{Dir: newDir(t)})
	defer l.release()
	r := entry(1)
	if got := testing.AllocsPerRun(100, func() {
		if _, err := l.Append(r); err != nil {
			t.Error(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations per Append, want none", got)
	}
}
