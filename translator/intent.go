package translator

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/georep/georep/changelog"
)

// An intent is what a fop is about to record, which has begun and may not be
// recorded yet: one record, or two of a fop that makes two changes. The name that
// a rename takes from another object follows as an UNLINK or RMDIR, which is not
// recorded. An intent stands in a slot of a mapped file from before the act until
// after the record: 8 bytes that hold the payload's length, 0 when the slot is
// free, and the records as the binary changelog encodes them.
//
// There are more slots than fops go on at once, as a rule: one is held by each
// fop that waits for an inode that a stalled writer has locked.
const (
	intentSlots    = 512
	intentSlotSize = 2048
	intentHeader   = 8
	// owingAt is where behind the slots the moment stands that owing tells.
	owingAt     = intentSlots * intentSlotSize
	intentsSize = owingAt + 4096
)

// intents hands out slots. It is safe for concurrent use; with all slots taken
// begin waits.
type intents struct {
	m    *mapped
	free chan int
}

// openIntents opens the slots in the file path and returns the intents that a
// process before this one left in them. The slots are free; the caller deals
// with the intents before it serves.
//
// Bytes that are no intent are an error, unless the last process ended with a
// loss of power, which leaves anything: then their slots are counted in bad.
func openIntents(path string, lostPower bool) (in *intents, left [][]changelog.Record, bad int, err error) {
	m, err := openMapped(path, intentsSize)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("translator: intents: %w", err)
	}
	in = &intents{m: m, free: make(chan int, intentSlots)}
	for i := range intentSlots {
		in.free <- i
		var rs []changelog.Record
		errno := m.do(func() { rs, err = readSlot(m.mem[i*intentSlotSize:][:intentSlotSize]) })
		if errno != 0 {
			err = errno
		}
		if err != nil && (errno != 0 || !lostPower) {
			m.close()
			return nil, nil, 0, fmt.Errorf("translator: intents: %q: slot %d: %w", path, i, err)
		}
		if err != nil {
			bad++
		} else if len(rs) > 0 {
			left = append(left, rs)
		}
	}
	return in, left, bad, nil
}

// readSlot reads the payload of a slot as a changelog.
func readSlot(slot []byte) ([]changelog.Record, error) {
	n := binary.NativeEndian.Uint64(slot)
	if n == 0 {
		return nil, nil
	}
	if n > intentSlotSize-intentHeader {
		return nil, fmt.Errorf("length %d, want at most %d", n, intentSlotSize-intentHeader)
	}
	b := append(changelog.AppendHeader(nil, changelog.Binary), slot[intentHeader:][:n]...)
	rd, err := changelog.NewReader(bytes.NewReader(b), "intent")
	if err != nil {
		return nil, err
	}
	var rs []changelog.Record
	for {
		r, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return rs, nil
		}
		if err != nil {
			return nil, err
		}
		rs = append(rs, *r)
	}
}

// begin fills a slot with rs and returns it for end. Without deletion paths,
// which may be longer than a slot and are of no use after a crash.
func (in *intents) begin(rs ...*changelog.Record) (int, syscall.Errno) {
	slot := <-in.free
	errno := in.m.do(func() {
		mem := in.m.mem[slot*intentSlotSize:][:intentSlotSize:intentSlotSize]
		b := mem[intentHeader:intentHeader]
		for _, r := range rs {
			path := r.DelPath
			r.DelPath = ""
			b = changelog.AppendRecord(b, r, changelog.Binary)
			r.DelPath = path
		}
		// The length last: a slot is valid as a whole or not at all.
		store64(mem, uint64(len(b)))
	})
	if errno != 0 {
		in.free <- slot
	}
	return slot, errno
}

// end frees a slot, after the record or after an act that failed.
func (in *intents) end(slot int) {
	in.m.do(func() {
		store64(in.m.mem[slot*intentSlotSize:], 0)
	})
	in.free <- slot
}

// clear frees all slots on disk, at start, after their records were dealt with.
func (in *intents) clear() {
	in.m.do(func() {
		for i := range intentSlots {
			store64(in.m.mem[i*intentSlotSize:], 0)
		}
	})
}

// owing is the moment, unix seconds, since when changes may have neither a record
// nor an xtime on the brick, because one or both could not be written; 0 if all
// have. It outlives this process, and needs no space on a full disk.
func (in *intents) owing() (at int64) {
	in.m.do(func() { at = int64(binary.NativeEndian.Uint64(in.m.mem[owingAt:])) })
	return at
}

func (in *intents) setOwing(at int64) {
	// A brick whose disk is gone is not stopped cleanly, and swept for that.
	in.m.do(func() { store64(in.m.mem[owingAt:], uint64(at)) })
}

func (in *intents) close() error { return in.m.close() }
