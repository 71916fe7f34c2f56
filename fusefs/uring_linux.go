package fusefs

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// uring is the transport over io_uring (Linux 6.14): a queue per CPU, each served
// by one thread on that CPU, so that a request costs no switch to another core
// and one system call instead of two. Some messages come by /dev/fuse all the
// same (device); notifications and backing files go that way too.
//
// Source: linux/fuse.h, FUSE_IO_URING_CMD_REGISTER and _COMMIT_AND_FETCH.
type uring struct {
	*classic
	fd     int // of /dev/fuse; owned by classic
	proto  *fuse.ProtocolServer
	size   int // of a payload
	log    *slog.Logger
	queues []*uringQueue
	served sync.WaitGroup
	slow   sync.WaitGroup // requests carried out beside the queues
	ended  chan struct{}  // closed when Serve ends
}

const (
	// uringDepth is how many requests of a CPU are carried out at once.
	uringDepth = 16
	// maxQueues is for how many CPUs the memory of so many queues is well spent.
	maxQueues = 128

	// A request that takes longer than slowAfter waits for a disk, so the next
	// ones of the queue, coldRun of them, are carried out beside it.
	slowAfter = 500 * time.Microsecond
	coldRun   = 64

	cmdRegister       = 1
	cmdCommitAndFetch = 2

	// wakeData marks the completion of a read of a queue's eventfd.
	wakeData = ^uint64(0)
)

// uringHeader is struct fuse_uring_req_header.
type uringHeader struct {
	inOut [128]byte // struct fuse_in_header; then fuse_out_header
	op    [128]byte // first argument of the request
	ent   struct {
		flags       uint64
		commitID    uint64
		payloadSize uint32
		_           uint32
		_           uint64
	}
}

var _ [288]byte = [unsafe.Sizeof(uringHeader{})]byte{}

// uringCommand is struct fuse_uring_cmd_req.
type uringCommand struct {
	flags    uint64
	commitID uint64
	queue    uint16
	_        [6]byte
}

// uringEntry is the memory of one request in flight.
type uringEntry struct {
	header  *uringHeader
	payload []byte
	iov     *[2]unix.Iovec // what the kernel is told of the two

	in  [3][]byte // the request and its answer as the protocol server wants them
	out [2][]byte
}

const (
	inHeaderSize  = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeaderSize = int(unsafe.Sizeof(fuse.OutHeader{}))
)

// uringQueue serves the requests made on one CPU.
type uringQueue struct {
	u       *uring
	cpu     int
	ring    *ring
	entries [uringDepth]uringEntry
	mem     []byte // of the entries; owned

	// cold counts down the requests to be carried out beside the queue.
	cold int

	wake    int // eventfd that ends a wait; owned
	wakeBuf *[8]byte

	mu   sync.Mutex
	done []int // entries answered by other goroutines; guarded by mu
}

// newURing returns a transport over io_uring for the mount that c serves. The
// kernel was offered it in INIT; an error here lets it go on without.
func newURing(c *classic, f fuse.RawFileSystem, opts *Options) (*uring, error) {
	m := opts.mountOptions()
	u := &uring{classic: c, fd: c.fd, proto: fuse.NewProtocolServer(f, m), size: m.MaxWrite, log: opts.Logger, ended: make(chan struct{})}
	if err := u.negotiate(); err != nil {
		return nil, err
	}
	cpus, err := possibleCPUs()
	if err != nil {
		return nil, err
	}
	if cpus > maxQueues {
		return nil, fmt.Errorf("io_uring: %d CPUs, want at most %d", cpus, maxQueues)
	}
	for cpu := range cpus {
		q, err := u.newQueue(cpu)
		if err != nil {
			u.closeQueues()
			return nil, err
		}
		u.queues = append(u.queues, q)
	}
	return u, nil
}

// negotiate has the protocol server see the INIT that the classic loop answered,
// so that both read requests alike.
func (u *uring) negotiate() error {
	in := *u.KernelSettings()
	in.Opcode = 26 // FUSE_INIT
	in.Length = uint32(unsafe.Sizeof(in))
	b := unsafe.Slice((*byte)(unsafe.Pointer(&in)), unsafe.Sizeof(in))
	out := make([]byte, 256)
	if _, code := u.proto.HandleRequest([][]byte{b}, [][]byte{out}); !code.Ok() {
		return fmt.Errorf("io_uring: init: %v", code)
	}
	return nil
}

// possibleCPUs is the number of CPUs the kernel may ever have, each of which has a
// queue.
func possibleCPUs() (int, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return 0, err
	}
	list := strings.TrimSpace(string(b))
	last := list[strings.LastIndexAny(list, "-,")+1:]
	n, err := strconv.Atoi(last)
	if err != nil {
		return 0, fmt.Errorf("possible CPUs %q: %w", list, err)
	}
	return n + 1, nil
}

func (u *uring) newQueue(cpu int) (*uringQueue, error) {
	q := &uringQueue{u: u, cpu: cpu, wakeBuf: new([8]byte)}
	const page = 4096
	per := page + u.size
	var err error
	if q.mem, err = unix.Mmap(-1, 0, uringDepth*per, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return nil, fmt.Errorf("io_uring: mmap: %w", err)
	}
	for i := range q.entries {
		mem := q.mem[i*per:][:per]
		// The vectors lie in the same memory, which never moves.
		e := &q.entries[i]
		e.header = (*uringHeader)(unsafe.Pointer(&mem[0]))
		e.iov = (*[2]unix.Iovec)(unsafe.Pointer(&mem[1024]))
		e.payload = mem[page:]
		e.iov[0] = unix.Iovec{Base: &mem[0], Len: uint64(unsafe.Sizeof(*e.header))}
		e.iov[1] = unix.Iovec{Base: &e.payload[0], Len: uint64(len(e.payload))}
	}
	if q.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		unix.Munmap(q.mem)
		return nil, fmt.Errorf("io_uring: eventfd: %w", err)
	}
	return q, nil
}

// Serve answers requests until the file system is unmounted.
func (u *uring) Serve() {
	for _, q := range u.queues {
		u.served.Add(1)
		go q.serve()
	}
	u.device()
	u.served.Wait()
	u.slow.Wait()
	u.closeQueues()
	// It finds the mount gone, and closes what go-fuse has open.
	u.classic.Serve()
	close(u.ended)
}

// Unmount unmounts and waits until the last request is answered.
func (u *uring) Unmount() error {
	if err := u.detach(); err != nil {
		return err
	}
	<-u.ended
	return nil
}

// device serves what comes by /dev/fuse until the mount is gone: forgets, and
// interrupts, which no fop heeds; saying so once stops them. Without queues, if
// the kernel takes none, all requests come here.
func (u *uring) device() {
	const opInterrupt = 36
	buf := make([]byte, u.size+4096)
	for {
		n, err := unix.Read(u.fd, buf)
		switch {
		case err == unix.EINTR || err == unix.ENOENT || err == unix.EAGAIN:
			continue
		case err != nil || n < inHeaderSize:
			return // ENODEV: unmounted
		}
		h := (*fuse.InHeader)(unsafe.Pointer(&buf[0]))
		switch {
		case h.Opcode == opInterrupt:
			out := fuse.OutHeader{Length: uint32(outHeaderSize), Status: -int32(syscall.ENOSYS), Unique: h.Unique}
			// ENOENT: the request it is about was answered meanwhile.
			_, _ = unix.Write(u.fd, unsafe.Slice((*byte)(unsafe.Pointer(&out)), outHeaderSize))
		case isForget(h.Opcode):
			u.proto.HandleRequest([][]byte{buf[:n]}, nil)
		default:
			in := append([]byte(nil), buf[:n]...)
			u.slow.Add(1)
			go u.handleByDevice(in)
		}
	}
}

func (u *uring) handleByDevice(in []byte) {
	defer u.slow.Done()
	out := make([]byte, outHeaderSize+u.size+4096)
	n, code := u.proto.HandleRequest([][]byte{in}, [][]byte{out})
	if !code.Ok() || n < outHeaderSize {
		h := (*fuse.InHeader)(unsafe.Pointer(&in[0]))
		*(*fuse.OutHeader)(unsafe.Pointer(&out[0])) = fuse.OutHeader{Length: uint32(outHeaderSize), Status: -int32(syscall.EIO), Unique: h.Unique}
		n = outHeaderSize
	}
	// It fails when the caller was killed or the mount is gone.
	_, _ = unix.Write(u.fd, out[:n])
}

func isForget(opcode uint32) bool { return opcode == 2 || opcode == 42 } // FORGET, BATCH_FORGET

func (u *uring) closeQueues() {
	for _, q := range u.queues {
		unix.Munmap(q.mem)
		unix.Close(q.wake)
	}
}

// serve is the thread of the queue. It ends when the mount does.
func (q *uringQueue) serve() {
	defer q.u.served.Done()
	// The thread is never given back: it is bound to its CPU.
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(q.cpu)
	// A CPU that is offline has no requests either; its queue must be there.
	_ = unix.SchedSetaffinity(0, &set)
	var err error
	if q.ring, err = newRing(2 * uringDepth); err != nil {
		q.u.log.Error("a queue of io_uring is missing, requests may wait for ever; mount without it", "cpu", q.cpu, "err", err)
		return
	}
	defer q.ring.close()
	for i := range q.entries {
		q.command(i, cmdRegister, 0)
	}
	q.armWake()
	for {
		if errno := q.ring.enter(true); errno != 0 {
			q.u.log.Error("io_uring", "cpu", q.cpu, "err", errno)
			return
		}
		for {
			c, ok := q.ring.pop()
			if !ok {
				break
			}
			switch {
			case c.userData == wakeData:
				q.armWake()
			case c.res != 0:
				return // the mount is gone
			default:
				q.answer(int(c.userData))
			}
		}
		q.commitDone()
	}
}

func (q *uringQueue) command(i int, op uint32, commit uint64) {
	e := q.ring.push()
	e.opcode = opURingCmd
	e.fd = int32(q.u.fd)
	e.cmdOp = op
	e.userData = uint64(i)
	if op == cmdRegister {
		e.addr = uint64(uintptr(unsafe.Pointer(q.entries[i].iov)))
		e.len = 2
	}
	*(*uringCommand)(unsafe.Pointer(&e.cmd[0])) = uringCommand{commitID: commit, queue: uint16(q.cpu)}
}

func (q *uringQueue) armWake() {
	e := q.ring.push()
	e.opcode = opRead
	e.fd = int32(q.wake)
	e.addr = uint64(uintptr(unsafe.Pointer(q.wakeBuf)))
	e.len = 8
	e.userData = wakeData
}

// answer carries out the request in entry i: here if it is short, so that no
// other thread has to wake, or beside.
func (q *uringQueue) answer(i int) {
	if q.cold > 0 {
		q.cold--
	} else if !isSlow(q.entries[i].inHeader().Opcode) {
		began := time.Now()
		q.handle(i)
		if time.Since(began) > slowAfter {
			q.cold = coldRun
		}
		q.command(i, cmdCommitAndFetch, q.entries[i].header.ent.commitID)
		return
	}
	q.u.slow.Add(1)
	go q.answerBeside(i)
}

func (q *uringQueue) answerBeside(i int) {
	defer q.u.slow.Done()
	q.handle(i)
	q.mu.Lock()
	q.done = append(q.done, i)
	first := len(q.done) == 1
	q.mu.Unlock()
	if first {
		// Fails only for a counter that is full, and then the queue is awake.
		_, _ = unix.Write(q.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// commitDone sends the answers of other goroutines.
func (q *uringQueue) commitDone() {
	q.mu.Lock()
	done := q.done
	q.done = nil
	q.mu.Unlock()
	for _, i := range done {
		q.command(i, cmdCommitAndFetch, q.entries[i].header.ent.commitID)
	}
}

// isSlow reports whether a request may take longer than it takes to wake another
// thread: those that move data or wait for the disk.
func isSlow(opcode uint32) bool {
	switch opcode {
	case 15, 16, 20, 30, 43, 44, 28, 47, 53, 46: // READ WRITE FSYNC FSYNCDIR FALLOCATE READDIRPLUS READDIR COPY_FILE_RANGE{,_64} LSEEK
		return true
	}
	return false
}

func (e *uringEntry) inHeader() *fuse.InHeader {
	return (*fuse.InHeader)(unsafe.Pointer(&e.header.inOut[0]))
}

// handle carries out the request in entry i and leaves the answer in its place.
// The protocol server copies headers before it answers.
func (q *uringQueue) handle(i int) {
	e := &q.entries[i]
	h := e.inHeader()
	unique, payload := h.Unique, int(e.header.ent.payloadSize)
	op := int(h.Length) - inHeaderSize - payload
	n, code := 0, fuse.EIO
	if op >= 0 && op <= len(e.header.op) && payload <= len(e.payload) {
		e.in = [3][]byte{e.header.inOut[:inHeaderSize], e.header.op[:op], e.payload[:payload]}
		e.out = [2][]byte{e.header.inOut[:outHeaderSize], e.payload}
		n, code = q.u.proto.HandleRequest(e.in[:], e.out[:])
	}
	if !code.Ok() || n < outHeaderSize {
		*(*fuse.OutHeader)(unsafe.Pointer(&e.header.inOut[0])) = fuse.OutHeader{Length: uint32(outHeaderSize), Status: -int32(syscall.EIO), Unique: unique}
		n = outHeaderSize
	}
	e.header.ent.payloadSize = uint32(n - outHeaderSize)
}

// uringSwitch is the module parameter that lets FUSE connections use io_uring.
const uringSwitch = "/sys/module/fuse/parameters/enable_uring"

// offerURing has the kernel offer io_uring to a mount made before restore is
// called, which leaves the switch as it was: a connection that has io_uring keeps
// it. Without such a switch, or the right to turn it, nothing changes.
func offerURing() (restore func()) {
	f, err := os.OpenFile(uringSwitch, os.O_RDWR, 0)
	if err != nil {
		return func() {}
	}
	// Two mounts at once must not restore each other's setting.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return func() {}
	}
	var now [1]byte
	if n, err := f.ReadAt(now[:], 0); err != nil && n == 0 || now[0] != 'N' {
		return func() { f.Close() }
	}
	_, err = f.WriteAt([]byte("Y"), 0)
	return func() {
		if err == nil {
			// It was written a moment ago; there is no one to tell if not now.
			_, _ = f.WriteAt([]byte("N"), 0)
		}
		f.Close()
	}
}
