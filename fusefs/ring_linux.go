package fusefs

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is an io_uring with entries of 128 bytes, as linux/io_uring.h has it. One
// thread submits and reaps.
type ring struct {
	fd       int // owned
	rings    []byte
	sqeMem   []byte
	cqHead   *uint32
	cqTail   *uint32
	cqMask   uint32
	cqes     []cqe
	sqTail   *uint32
	sqMask   uint32
	sqes     []sqe
	unpushed uint32 // entries filled and not yet given to the kernel
}

// sqe is struct io_uring_sqe with 128 bytes.
type sqe struct {
	opcode   uint8
	flags    uint8
	ioprio   uint16
	fd       int32
	cmdOp    uint32 // of off, for URING_CMD
	_        uint32
	addr     uint64
	len      uint32
	opFlags  uint32
	userData uint64
	_        [8]byte
	cmd      [80]byte
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

var (
	_ [128]byte = [unsafe.Sizeof(sqe{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(cqe{})]byte{}
)

// Numbers of linux/io_uring.h.
const (
	ringOffSQ   = 0
	ringOffSQEs = 0x10000000

	setupCoopTaskrun  = 1 << 8
	setupSQE128       = 1 << 10
	setupSingleIssuer = 1 << 12
	setupNoSQArray    = 1 << 16

	enterGetEvents = 1

	opRead     = 22
	opURingCmd = 46
)

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

var _ [120]byte = [unsafe.Sizeof(ringParams{})]byte{}

// newRing makes a ring for entries submissions at once.
func newRing(entries uint32) (*ring, error) {
	p := ringParams{flags: setupSQE128 | setupNoSQArray | setupSingleIssuer | setupCoopTaskrun}
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &ring{fd: int(fd)}
	unix.CloseOnExec(r.fd)
	var err error
	size := int(p.cq.cqes) + int(p.cqEntries)*int(unsafe.Sizeof(cqe{}))
	if r.rings, err = unix.Mmap(r.fd, ringOffSQ, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		r.close()
		return nil, fmt.Errorf("mmap of the rings: %w", err)
	}
	if r.sqeMem, err = unix.Mmap(r.fd, ringOffSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		r.close()
		return nil, fmt.Errorf("mmap of the entries: %w", err)
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.cqHead, r.cqTail, r.cqMask = at(p.cq.head), at(p.cq.tail), *at(p.cq.mask)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.rings[p.cq.cqes])), p.cqEntries)
	r.sqTail, r.sqMask = at(p.sq.tail), *at(p.sq.mask)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.sqeMem[0])), p.sqEntries)
	return r, nil
}

// push returns the next entry to fill, zeroed; submit gives it to the kernel. The
// ring has room for as many as there are commands in flight, so it never fails.
func (r *ring) push() *sqe {
	e := &r.sqes[(*r.sqTail+r.unpushed)&r.sqMask]
	*e = sqe{}
	r.unpushed++
	return e
}

// enter gives the kernel what was pushed and waits until there is a completion,
// if wait. EINTR is nothing: the caller looks and comes again.
func (r *ring) enter(wait bool) syscall.Errno {
	n := r.unpushed
	r.unpushed = 0
	atomic.StoreUint32(r.sqTail, *r.sqTail+n)
	var least, flags uintptr
	if wait {
		least, flags = 1, enterGetEvents
	}
	for {
		_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), least, flags, 0, 0)
		switch errno {
		case syscall.EINTR:
			return 0
		case syscall.EAGAIN, syscall.EBUSY:
			continue // the kernel is short of memory for a moment
		}
		return errno
	}
}

// pop returns the next completion, false if there is none.
func (r *ring) pop() (cqe, bool) {
	head := *r.cqHead
	if head == atomic.LoadUint32(r.cqTail) {
		return cqe{}, false
	}
	c := r.cqes[head&r.cqMask]
	atomic.StoreUint32(r.cqHead, head+1)
	return c, true
}

func (r *ring) close() {
	if r.sqeMem != nil {
		unix.Munmap(r.sqeMem)
	}
	if r.rings != nil {
		unix.Munmap(r.rings)
	}
	unix.Close(r.fd)
}
