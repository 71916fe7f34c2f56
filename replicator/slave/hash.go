package slave

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"
	"syscall"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// Hash is the hash of a regular file's content.
type Hash struct {
	// Errno is 0 if Sum is valid. EINVAL: not a regular file. EAGAIN: the file
	// changed while it was read.
	Errno syscall.Errno
	Sum   [32]byte // see HashFile
	Size  int64    // bytes
	Mtime Time     // as before and after
	Ctime Time     // as before and after
}

// hashBlock is how much of a file is taken or left out as one.
const hashBlock = 64 << 10

var zeros [hashBlock]byte

// HashFile hashes the content of the regular file fd: BLAKE3-256 over, for each
// 64 KiB block that is not all zeros, its number and its bytes, and at the end
// the size; numbers are 64 bits in network order. So a hole counts as zeros and
// costs nothing, however long.
func HashFile(fd int) Hash {
	var st unix.Statx_t
	if errno := (inode{fd: fd}).statx(&st); errno != 0 {
		return Hash{Errno: errno}
	}
	if !isRegular(&st) {
		return Hash{Errno: syscall.EINVAL}
	}
	a := attrOfStat(&st)
	h := Hash{Size: a.Size, Mtime: a.Mtime, Ctime: a.Ctime}
	d := hashers.Get().(*hasher)
	defer hashers.Put(d)
	d.Reset()
	if errno := d.blocks(fd, a.Size, a.Blocks*512 < a.Size); errno != 0 {
		return Hash{Errno: errno}
	}
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(a.Size))
	d.Write(number[:])
	d.Sum(h.Sum[:0])
	if errno := (inode{fd: fd}).statx(&st); errno != 0 {
		return Hash{Errno: errno}
	}
	if b := attrOfStat(&st); b.Mtime != a.Mtime || b.Ctime != a.Ctime || b.Size != a.Size {
		return Hash{Errno: syscall.EAGAIN}
	}
	return h
}

// hasher is what hashing a file takes.
type hasher struct {
	*blake3.Hasher
	buf []byte
}

// hashers are kept for the next file: most are small, and a hasher is not.
var hashers = sync.Pool{New: func() any {
	return &hasher{blake3.New(), make([]byte, 4*hashBlock)}
}}

// blocks hashes the blocks of fd that are not all zeros. sparse: it has holes
// worth looking for.
func (d *hasher) blocks(fd int, size int64, sparse bool) syscall.Errno {
	buf := d.buf
	for off := int64(0); off < size; {
		end := size
		if sparse {
			start, e, errno := nextData(fd, off, size)
			if errno != 0 {
				return errno
			}
			if start >= size {
				return 0
			}
			off, end = start/hashBlock*hashBlock, (e+hashBlock-1)/hashBlock*hashBlock
		}
		for off < end {
			n, err := io.ReadFull(io.NewSectionReader(preader(fd), off, min(end-off, int64(len(buf)))), buf)
			if err == io.EOF {
				return syscall.EAGAIN // cut meanwhile
			}
			if err != nil && err != io.ErrUnexpectedEOF {
				return errnoOf(err)
			}
			d.run(buf[:n], off/hashBlock)
			off += (int64(n) + hashBlock - 1) / hashBlock * hashBlock
		}
	}
	return 0
}

// run hashes the blocks in b, the first of which has the number block.
func (d *hasher) run(b []byte, block int64) {
	var number [8]byte
	for len(b) > 0 {
		part := b[:min(hashBlock, len(b))]
		if !bytes.Equal(part, zeros[:len(part)]) {
			binary.BigEndian.PutUint64(number[:], uint64(block))
			d.Write(number[:])
			d.Write(part)
		}
		b = b[len(part):]
		block++
	}
}

// hash hashes the content of g.
func (t *tree) hash(g gfid.GFID) Hash {
	i, _, f := t.regular(g)
	if f != nil {
		return Hash{Errno: f.errno}
	}
	fd, errno := i.open(unix.O_RDONLY, 0)
	if errno != 0 {
		return Hash{Errno: errno}
	}
	defer brick.Close(fd)
	return HashFile(fd)
}
