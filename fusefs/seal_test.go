package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// slicer is a mount whose slices the test ends itself.
type slicer struct {
	*server
	rec *records
}

func newSlicer(t *testing.T, args ...string) *slicer {
	t.Helper()
	s := newServer(t, t.TempDir(), args...)
	s.start()
	return &slicer{s, newRecords(s.brick)}
}

// hasData ends the slice and reports whether it has a D for g.
func (s *slicer) hasData(g gfid.GFID) bool {
	s.t.Helper()
	s.rec.read(s.t)
	since := s.rec.last
	s.roll()
	s.rec.read(s.t)
	return after(s.rec.data[g], since)
}

func (s *slicer) wantData(g gfid.GFID, what string) {
	s.t.Helper()
	if !s.hasData(g) {
		s.t.Errorf("%s: the slice has no D", what)
	}
}

// open opens a new file of some pages, its creation in a slice of its own.
func (s *slicer) open(name string) *heldFile {
	s.t.Helper()
	fd, err := unix.Open(filepath.Join(s.dir, name), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	h := &heldFile{fd: fd}
	if h.g, err = gfidOf(fd); err != nil {
		s.t.Fatal(err)
	}
	if _, err := unix.Pwrite(fd, make([]byte, 4*4096), 0); err != nil {
		s.t.Fatal(err)
	}
	s.wantData(h.g, "the first write to "+name)
	return h
}

func (h *heldFile) write(t *testing.T, text string) {
	t.Helper()
	if _, err := unix.Pwrite(h.fd, []byte(text), 4096); err != nil {
		t.Fatal(err)
	}
}

func (h *heldFile) mmap(t *testing.T) {
	t.Helper()
	var err error
	if h.mem, err = unix.Mmap(h.fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
}

// forget closes the descriptor; the mapping stays.
func (h *heldFile) forget() {
	unix.Close(h.fd)
	h.fd = -1
}

func (h *heldFile) store(text string) { copy(h.mem, text) }

// A file held open has a D in every slice in which it changed, by write(2) or by
// a store, and soon none in those in which it did not.
func TestHeldFileIsInEachSliceItChangedIn(t *testing.T) {
	for _, mode := range []string{"passthrough", "cached"} {
		t.Run(mode, func(t *testing.T) {
			s := newSlicer(t, mode)
			h := s.open("f")
			defer h.close()
			for i := range 5 {
				h.write(t, fmt.Sprint(i))
				s.wantData(h.g, fmt.Sprintf("write %d", i))
			}
			if mode == "passthrough" {
				h.mmap(t)
				for i := range 10 {
					// The page is dirty from the slice before, if not write-protected.
					h.store(fmt.Sprint(i))
					h.store(fmt.Sprint("again ", i))
					s.wantData(h.g, fmt.Sprintf("store %d", i))
				}
			}
			// One more for a write that may have stalled over the seal.
			s.hasData(h.g)
			for range 3 {
				if s.hasData(h.g) {
					t.Error("a slice without a change has a D")
				}
			}
		})
	}
}

// Whether a scan, a seal or none looked in between, a store after a seal shows.
func TestStoreBesideScansAndSeals(t *testing.T) {
	s := newSlicer(t)
	h := s.open("f")
	defer h.close()
	h.mmap(t)
	for i := range 60 {
		h.store(fmt.Sprint(i))
		if i%20 == 0 {
			// Until a scan has recorded what the seal below is not to see.
			s.awaitLive(h.g)
			h.store(fmt.Sprint("after the scan ", i))
		}
		s.wantData(h.g, fmt.Sprintf("store %d", i))
	}
}

// awaitLive waits until the unsealed changelog has a D for g.
func (s *slicer) awaitLive(g gfid.GFID) {
	s.t.Helper()
	live := filepath.Join(s.brick, brick.Dir, "changelogs", "CHANGELOG")
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(5 * time.Millisecond) {
		data, err := os.ReadFile(live)
		if err != nil {
			s.t.Fatal(err)
		}
		if strings.Contains(string(data), "D"+g.String()) {
			return
		}
	}
	s.t.Fatal("no scan in ten seconds")
}

// A brick in memory has no write-back, and so nothing that shows a store to a
// page that is dirty already: its files are not passed through.
func TestStoresOnBrickInMemory(t *testing.T) {
	s := &slicer{server: newServer(t, memory(t))}
	s.start()
	s.rec = newRecords(s.brick)
	h := s.open("f")
	h.mmap(t)
	for i := range 4 {
		h.store(fmt.Sprint(i))
		if err := unix.Msync(h.mem, unix.MS_SYNC); err != nil {
			t.Fatal(err)
		}
		s.wantData(h.g, fmt.Sprintf("store %d", i))
	}
	h.close()
	s.end()
}

// A mapping outlives its descriptor, the mount it came from, and the process that
// served that: what is stored is recorded as long as it lasts, and then the watch
// is over.
func TestMappingOutlivesItsMount(t *testing.T) {
	s := newSlicer(t)
	mapped, written, gone := s.open("mapped"), s.open("written"), s.open("gone")
	mapped.mmap(t)
	gone.mmap(t)
	mapped.forget()
	if err := os.Remove(filepath.Join(s.dir, "gone")); err != nil {
		t.Fatal(err)
	}
	mapped.store("closed")
	s.wantData(mapped.g, "store after the close")
	mapped.store("closed, next slice")
	s.wantData(mapped.g, "store in the slice after the close")

	for round := range 3 {
		mapped.store("before the kill")
		s.kill()
		mapped.store("no mount")
		written.write(t, "no mount")
		gone.store("no mount")
		s.start()
		// In the changelog that the start begins.
		s.wantData(mapped.g, "store without a mount")
		s.wantData(written.g, "write without a mount, or the record owed for it")
		for i := range 4 {
			mapped.store(fmt.Sprint("store ", round, i))
			written.write(t, fmt.Sprint("write ", round, i))
			s.rec.read(t)
			since := s.rec.last
			s.roll()
			s.rec.read(t)
			if !after(s.rec.data[mapped.g], since) || !after(s.rec.data[written.g], since) {
				t.Errorf("round %d, slice %d: no D for store %v, write %v", round, i, after(s.rec.data[mapped.g], since), after(s.rec.data[written.g], since))
			}
		}
		if got := membersOf(t, s.brick, "writers"); !slices.Contains(got, mapped.g) || !slices.Contains(got, written.g) {
			t.Errorf("watched are %v, want %v and %v", got, mapped.g, written.g)
		}
	}
	mapped.store("last")
	written.write(t, "last")
	unix.Munmap(mapped.mem)
	written.close()
	gone.close()
	s.wantData(mapped.g, "last store")
	s.roll()
	if got := membersOf(t, s.brick, "writers"); len(got) != 0 {
		t.Errorf("still watched: %v", got)
	}
	s.end()
	checkBrick(t, s.brick)
}

// A write(2) is stamped before it copies: one that stalls over several seals is
// in the slice after the first of them, and in the one of its last close.
func TestStalledWrite(t *testing.T) {
	for seals := range 3 {
		t.Run(fmt.Sprintf("seals=%d", seals+1), func(t *testing.T) {
			s := newSlicer(t)
			h := s.open("f")
			s.hasData(h.g)
			stall := newStall(t)
			done := make(chan error, 1)
			go func() {
				_, err := unix.Pwrite(h.fd, stall.mem, 0)
				done <- err
			}()
			stall.await(t)
			for range seals + 1 {
				s.roll()
			}
			s.rec.read(t)
			since := s.rec.last
			stall.goOn(t)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if seals > 0 {
				h.close()
				h = nil
				s.awaitClosed()
			}
			s.roll()
			s.rec.read(t)
			if g := s.rec.data; len(g) != 1 {
				t.Fatalf("records of %d files", len(g))
			}
			for g, stamps := range s.rec.data {
				if !after(stamps, since) {
					t.Errorf("%v has D at %v, want one after %d", g, stamps, since)
				}
			}
			if h != nil {
				h.close()
			}
		})
	}
}

// awaitClosed waits until the mount has seen the last close.
func (s *slicer) awaitClosed() {
	s.t.Helper()
	for began := time.Now(); len(membersOf(s.t, s.brick, "writers")) > 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			s.t.Fatal("a closed file is still among the writers")
		}
	}
}

// stall is a page whose reader waits in the kernel until it is told to go on.
type stall struct {
	fd  int // of userfaultfd(2)
	mem []byte
}

type uffdRange struct{ start, len uint64 }

func newStall(t *testing.T) *stall {
	t.Helper()
	const (
		api, register = 0xc018aa3f, 0xc020aa00
		missing       = 1
	)
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		t.Fatalf("userfaultfd: %v", errno)
	}
	s := &stall{fd: int(fd)}
	t.Cleanup(func() { unix.Close(s.fd) })
	call := func(what string, cmd uintptr, arg unsafe.Pointer) {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, cmd, uintptr(arg)); errno != 0 {
			t.Fatalf("userfaultfd: %s: %v", what, errno)
		}
	}
	hello := struct{ api, features, ioctls uint64 }{api: 0xaa}
	call("api", api, unsafe.Pointer(&hello))
	var err error
	if s.mem, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(s.mem) })
	reg := struct {
		uffdRange
		mode, ioctls uint64
	}{uffdRange: s.where(), mode: missing}
	call("register", register, unsafe.Pointer(&reg))
	return s
}

func (s *stall) where() uffdRange {
	return uffdRange{uint64(uintptr(unsafe.Pointer(&s.mem[0]))), uint64(len(s.mem))}
}

// await returns once somebody waits for the page.
func (s *stall) await(t *testing.T) {
	t.Helper()
	var event [32]byte
	if n, err := unix.Read(s.fd, event[:]); n != len(event) {
		t.Fatalf("userfaultfd: read: %d bytes, %v", n, err)
	}
}

// goOn gives them a page of zeros.
func (s *stall) goOn(t *testing.T) {
	t.Helper()
	const zeropage = 0xc020aa04
	arg := struct {
		uffdRange
		mode uint64
		done int64
	}{uffdRange: s.where()}
	if _, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(s.fd), zeropage, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		t.Fatalf("userfaultfd: zeropage: %v", errno)
	}
}

// What a mere kill can't do to the shared memory is an error: somebody else wrote
// there, and what it said is lost.
func TestGarbageAfterKillStopsTheStart(t *testing.T) {
	s := newSlicer(t)
	s.kill()
	p := filepath.Join(s.brick, brick.Dir, "georep", "intents")
	if err := os.WriteFile(p, slices.Repeat([]byte{0xff}, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if answer := s.tryStart(); !strings.Contains(answer, "intents") {
		t.Errorf("start says %q, want an error that names the intents", answer)
	}
	s.cmd.Wait()
	s.cmd = nil
}
