package translator

import (
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapped is a file on the brick that is written through memory: what is stored
// outlives this process without a system call, but not a loss of power.
type mapped struct {
	f   *os.File // owned
	mem []byte   // MAP_SHARED
}

// openMapped maps the file path, made or grown to size bytes, all of them
// allocated so that a full disk can't fault a store later.
func openMapped(path string, size int) (*mapped, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	m := &mapped{f: f}
	if err := m.grow(size); err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

// grow maps the file anew at size bytes or at its own size, whichever is more.
// Slices of the old mapping are dead after it.
func (m *mapped) grow(size int) error {
	st, err := m.f.Stat()
	if err != nil {
		return err
	}
	if have := int(st.Size()); have < size {
		// Written, not only allocated: an unwritten extent is converted at the
		// first write-back, which may need space that is no longer there.
		if _, err := m.f.WriteAt(make([]byte, size-have), st.Size()); err != nil {
			if have > 0 {
				return fmt.Errorf("grow to %d bytes: %w", size, err)
			}
			return err
		}
	} else {
		size = have
	}
	mem, err := unix.Mmap(int(m.f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if m.mem != nil {
		unix.Munmap(m.mem) // can only fail for an address that is not mapped
	}
	m.mem = mem
	return nil
}

// do runs f, which stores into mem. A fault, which a brick that lost its disk
// answers a store with, is EIO.
func (m *mapped) do(f func()) (errno syscall.Errno) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
			errno = syscall.EIO
		}
	}()
	f()
	return 0
}

// store64 stores v at the start of mem, 8-byte aligned, in one instruction and
// after all stores before it in the program, which is the order in which a kill
// cuts them off. No atomic: one built for the race detector faults outside Go,
// where do can't catch it.
//
//go:noinline
func store64(mem []byte, v uint64) { *(*uint64)(unsafe.Pointer(&mem[:8][0])) = v }

func (m *mapped) close() error {
	if m.mem != nil {
		unix.Munmap(m.mem)
		m.mem = nil
	}
	return m.f.Close()
}
