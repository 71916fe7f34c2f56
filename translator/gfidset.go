package translator

import (
	"fmt"
	"sync"
	"syscall"

	"github.com/georep/georep/brick/gfid"
)

// gfidSet is a set of GFIDs in a mapped file: 16 bytes per slot, zero when the
// slot is free.
type gfidSet struct {
	mu   sync.Mutex
	m    *mapped // guarded by mu
	free []int   // slots; guarded by mu
}

const (
	gfidSize    = 16
	setSlots    = 4096 // slots in a new file: 64 KiB
	maxSetSlots = 1 << 24
)

// member is a GFID in a set.
type member struct {
	slot int
	gfid gfid.GFID
}

// openGFIDSet opens the set in the file path and returns what a process before
// this one left in it. Those stay members until they are removed.
func openGFIDSet(path string) (s *gfidSet, left []member, err error) {
	m, err := openMapped(path, setSlots*gfidSize)
	if err != nil {
		return nil, nil, fmt.Errorf("translator: gfid set: %w", err)
	}
	s = &gfidSet{m: m}
	s.addFree(0)
	for i := range len(m.mem) / gfidSize {
		if g := gfid.GFID(m.mem[i*gfidSize:][:gfidSize]); !g.IsZero() {
			left = append(left, member{i, g})
		}
	}
	return s, left, nil
}

// addFree makes the zero slots from first on available, lowest first.
func (s *gfidSet) addFree(first int) {
	for i := len(s.m.mem)/gfidSize - 1; i >= first; i-- {
		if (gfid.GFID(s.m.mem[i*gfidSize:][:gfidSize])) == (gfid.GFID{}) {
			s.free = append(s.free, i)
		}
	}
}

// add enters g and returns its slot for remove.
func (s *gfidSet) add(g gfid.GFID) (int, syscall.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		have := len(s.m.mem)
		if have/gfidSize >= maxSetSlots {
			return -1, syscall.ENFILE
		}
		if err := s.m.grow(2 * have); err != nil {
			return -1, syscall.ENOSPC
		}
		s.addFree(have / gfidSize)
	}
	slot := s.free[len(s.free)-1]
	if errno := s.store(slot, g); errno != 0 {
		return -1, errno
	}
	s.free = s.free[:len(s.free)-1]
	return slot, 0
}

// remove frees a slot that add returned.
func (s *gfidSet) remove(slot int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A store that faults leaves the GFID in the set, which is the safe side.
	if s.store(slot, gfid.GFID{}) == 0 {
		s.free = append(s.free, slot)
	}
}

func (s *gfidSet) store(slot int, g gfid.GFID) syscall.Errno {
	return s.m.do(func() { copy(s.m.mem[slot*gfidSize:], g[:]) })
}

func (s *gfidSet) close() error { return s.m.close() }
