package translator

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/georep/georep/changelog"
)

// An intent is the record of a fop that has begun and may not be recorded yet.
// It stands in a slot of a mapped file from before the act until after the
// record: 8 bytes that hold the payload's length, 0 when the slot is free, and
// the record as the binary changelog encodes it.
const (
	intentSlots    = 64
	intentSlotSize = 2048
	intentHeader   = 8
)

// intents hands out slots. It is safe for concurrent use; with all slots taken
// begin waits.
type intents struct {
	m    *mapped
	free chan int
}

// openIntents opens the slots in the file path and returns the records that a
// process before this one left in them. The slots are free; the caller deals
// with the records before it serves.
func openIntents(path string) (*intents, []changelog.Record, error) {
	m, err := openMapped(path, intentSlots*intentSlotSize)
	if err != nil {
		return nil, nil, fmt.Errorf("translator: intents: %w", err)
	}
	in := &intents{m: m, free: make(chan int, intentSlots)}
	var left []changelog.Record
	for i := range intentSlots {
		in.free <- i
		slot := m.mem[i*intentSlotSize:][:intentSlotSize]
		n := binary.NativeEndian.Uint64(slot)
		if n == 0 {
			continue
		}
		if n > intentSlotSize-intentHeader {
			m.close()
			return nil, nil, fmt.Errorf("translator: intents: %q: slot %d: length %d, want at most %d", m.f.Name(), i, n, intentSlotSize-intentHeader)
		}
		r, err := readIntent(slot[intentHeader:][:n])
		if err != nil {
			m.close()
			return nil, nil, fmt.Errorf("translator: intents: %q: slot %d: %w", m.f.Name(), i, err)
		}
		left = append(left, *r)
	}
	return in, left, nil
}

// readIntent reads a payload as a changelog of one record.
func readIntent(payload []byte) (*changelog.Record, error) {
	b := append(changelog.AppendHeader(nil, changelog.Binary), payload...)
	rd, err := changelog.NewReader(bytes.NewReader(b), "intent")
	if err != nil {
		return nil, err
	}
	return rd.Next()
}

// begin fills a slot with r and returns it for end. Without a deletion path,
// which may be longer than a slot and is found again after a crash if it can be.
func (in *intents) begin(r *changelog.Record) (int, syscall.Errno) {
	slot := <-in.free
	errno := in.m.do(func() {
		mem := in.m.mem[slot*intentSlotSize:][:intentSlotSize:intentSlotSize]
		path := r.DelPath
		r.DelPath = ""
		b := changelog.AppendRecord(mem[intentHeader:intentHeader], r, changelog.Binary)
		r.DelPath = path
		// The length last: a slot is valid as a whole or not at all.
		atomic.StoreUint64((*uint64)(unsafe.Pointer(&mem[0])), uint64(len(b)))
	})
	if errno != 0 {
		in.free <- slot
	}
	return slot, errno
}

// end frees a slot, after the record or after an act that failed.
func (in *intents) end(slot int) {
	in.m.do(func() {
		atomic.StoreUint64((*uint64)(unsafe.Pointer(&in.m.mem[slot*intentSlotSize])), 0)
	})
	in.free <- slot
}

// clear frees all slots on disk, at start, after their records were dealt with.
func (in *intents) clear() {
	in.m.do(func() {
		for i := range intentSlots {
			atomic.StoreUint64((*uint64)(unsafe.Pointer(&in.m.mem[i*intentSlotSize])), 0)
		}
	})
}

func (in *intents) close() error { return in.m.close() }
