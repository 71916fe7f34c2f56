package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// contentSize is the largest block that contents are written and checked in.
const contentSize = 1 << 20

// content makes blocks of bytes that can be told apart: noise, which no file system
// compresses, with the number of the block at its start. It is for one thread.
type content struct{ buf []byte }

// noise is what all blocks have after their number.
var noise = func() []byte {
	b := make([]byte, contentSize)
	seed := [32]byte{'g', 'e', 'o', 'r', 'e', 'p'}
	if _, err := rand.NewChaCha8(seed).Read(b); err != nil {
		panic(err) // it never fails
	}
	return b
}()

func newContent(size int) *content {
	return &content{buf: bytes.Clone(noise[:size])}
}

// block is valid until the next call.
func (c *content) block(number uint64) []byte {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], number)
	copy(c.buf, n[:]) // a block may be shorter than its number
	return c.buf
}

// unique fills b with bytes that are nowhere else, neither moved: what a search for
// known blocks must not find.
func unique(b []byte, number uint64) {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], number)
	// It never fails.
	_, _ = rand.NewChaCha8(seed).Read(b)
}

// errContent is a file that holds something else than what was written to it.
var errContent = errors.New("not what was written")

// checkBlock tells whether got is the block with this number.
func checkBlock(got []byte, number uint64) error {
	if !bytes.Equal(got, newContent(len(got)).block(number)) {
		return errContent
	}
	return nil
}

// checkFile reads the file at path, which must hold size bytes in blocks that are
// numbered from first on, the last one maybe shorter.
func checkFile(path string, size int64, block int, first uint64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return err
	} else if st.Size() != size {
		return fmt.Errorf("%q has %d bytes, want %d", path, st.Size(), size)
	}
	got, want := make([]byte, block), newContent(block)
	for off := int64(0); off < size; off += int64(block) {
		n, err := io.ReadFull(f, got[:min(int64(block), size-off)])
		if err != nil {
			return fmt.Errorf("%q at byte %d: %w", path, off, err)
		}
		if !bytes.Equal(got[:n], want.block(first + uint64(off)/uint64(block))[:n]) {
			return fmt.Errorf("%q at byte %d: %w", path, off, errContent)
		}
	}
	return nil
}
