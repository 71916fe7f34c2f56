package replicator

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h.
const immutableFlag = 0x10

// immutable sets or clears the flag on path that makes every change of it EPERM,
// for root too.
func immutable(t *testing.T, path string, on bool) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Fatal(err)
	}
	flags &^= immutableFlag
	if on {
		flags |= immutableFlag
	}
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags)); err != nil {
		t.Fatal(err)
	}
}

// One item that can't be done does not stop the rest, stime stays before it, and
// it heals when its cause is gone.
func TestBadItemIsQuarantinedAndHeals(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.mkdir("bad")
	p.mkdir("good")
	nextSecond()
	p.same()
	bad := filepath.Join(p.slave, "bad")
	immutable(t, bad, true)
	t.Cleanup(func() { immutable(t, bad, false) })

	w, stop := p.live()
	p.inStep(w)
	stime := w.Status().Stime
	nextSecond()
	p.create("bad/f", "1")
	p.create("good/f", "1")
	p.roll()
	until(t, "quarantine", func() bool { return w.Status().Waiting > 0 })
	until(t, "the rest", func() bool { return p.content("good/f") == "1" })
	nextSecond()
	p.create("good/later", "2")
	p.roll()
	until(t, "what came later", func() bool { return p.content("good/later") == "2" })
	s := w.Status()
	if s.State != Degraded || s.Current || s.Stime != stime {
		t.Errorf("state %s, current %v, stime %v, want %s, false, %v", s.State, s.Current, s.Stime, Degraded, stime)
	}
	found := false
	for _, it := range s.Items {
		if it.Path == "bad/f" || it.Path == "bad" {
			found = true
		}
		if !errors.Is(it.Errno, syscall.EPERM) || it.Attempts < 1 || it.Op == "" {
			t.Errorf("item %+v, want EPERM, attempts and what was tried", it)
		}
	}
	if !found {
		t.Errorf("items %+v, want bad/f among them", s.Items)
	}

	// Once says that it is not complete.
	stop()
	if _, err := p.tryOnce(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("error %v, want %v", err, ErrIncomplete)
	}

	w, _ = p.live()
	until(t, "quarantine again", func() bool { return w.Status().Waiting > 0 })
	immutable(t, bad, false)
	w.Retry()
	p.inStep(w)
	wantSame(t, p.b.Path(), p.slave)
	if s := w.Status(); s.State != Active || s.Waiting != 0 {
		t.Errorf("state %s, %d waiting, want %s and none", s.State, s.Waiting, Active)
	}
	until(t, "stime", func() bool { return w.Status().Stime.Compare(stime) > 0 })
}

// A renamed directory moves no data, whatever it holds.
func TestRenameOfDirectoryMovesNoData(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.mkdir("d")
	p.mkdir("d/sub")
	for i := range 300 {
		p.create(fmt.Sprintf("d/sub/f%d", i), "content")
	}
	p.roll()
	nextSecond()
	nextSecond()
	p.same()
	nextSecond()
	p.rename("d", "e")
	s := p.same()
	if s.Done.Files != 0 || s.Done.Entries > 3 {
		t.Errorf("%d files sent in %d operations, want none in at most 3", s.Done.Files, s.Done.Entries)
	}
}

// smallSlave makes the slave a file system of so many bytes.
func (p *pair) smallSlave(size string) {
	p.tb.Helper()
	if err := unix.Mount("slave", p.slave, "tmpfs", 0, "size="+size); err != nil {
		p.tb.Fatal(err)
	}
	p.tb.Cleanup(func() {
		if err := unix.Unmount(p.slave, 0); err != nil {
			p.tb.Error(err)
		}
	})
}

func TestFullSlaveDegradesAndRecovers(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.smallSlave("8M")
	p.create("small", "1")
	w, _ := p.live()
	p.inStep(w)
	for i := range 12 {
		p.create(fmt.Sprintf("big%d", i), strings.Repeat("x", 900<<10))
	}
	p.create("another", "small")
	until(t, "degraded", func() bool { s := w.Status(); return s.State == Degraded && strings.Contains(s.Reason, "no space") })
	if w.Status().Current {
		t.Error("status says current though items wait")
	}
	for i := range 8 {
		p.unlink(fmt.Sprintf("big%d", i))
	}
	until(t, "healed", func() bool { w.Retry(); return w.Status().Waiting == 0 })
	p.inStep(w)
	wantSame(t, p.b.Path(), p.slave)
}

func TestReadOnlySlaveIsFaultyAndRecovers(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.smallSlave("8M")
	p.create("f", "1")
	p.once()
	if err := unix.Mount("", p.slave, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	p.create("g", "2")
	p.write("f", "3")
	w, _ := p.live()
	until(t, "faulty", func() bool { s := w.Status(); return s.State != Active && strings.Contains(s.Reason, "read-only") })
	if err := unix.Mount("", p.slave, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	p.inStep(w)
	wantSame(t, p.b.Path(), p.slave)
}

// What somebody removed on the slave comes back when the master touches it, or
// what it is in.
func TestLossOnTheSlaveIsMended(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.mkdir("d")
	p.mkdir("d/e")
	p.create("d/e/f", "1")
	p.create("d/g", "1")
	p.create("h", "1")
	nextSecond()
	p.same()
	for _, path := range []string{"d", "h"} {
		if err := os.RemoveAll(filepath.Join(p.slave, path)); err != nil {
			t.Fatal(err)
		}
	}
	nextSecond()
	p.write("d/e/f", "2")
	p.chmod("h", 0o600)
	p.once()
	wantSame(t, p.b.Path(), p.slave)
}

// What others write on the slave is kept aside when it is in the way.
func TestForeignWritesAreKeptAside(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.create("f", "1")
	p.create("g", "1")
	nextSecond()
	p.same()
	for name, content := range map[string]string{"f": "theirs", "new": "theirs too"} {
		if err := os.WriteFile(filepath.Join(p.slave, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	nextSecond()
	p.write("f", "ours")
	p.create("new", "ours")
	s := p.same()
	if s.Done.Conflicts != 2 {
		t.Errorf("%d conflicts, want 2", s.Done.Conflicts)
	}
	kept, err := filepath.Glob(filepath.Join(p.slave, brick.Dir, "georep/conflicts/*"))
	if err != nil || len(kept) != 2 {
		t.Fatalf("kept aside: %q, %v, want 2", kept, err)
	}
	for _, k := range kept {
		if b, err := os.ReadFile(k); err != nil || !strings.HasPrefix(string(b), "theirs") {
			t.Errorf("%s holds %q, %v", k, b, err)
		}
	}
}

// A same-size rewrite that leaves the mtime as it was arrives.
func TestSameSizeAndTimeRewriteArrives(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, 3 << 20} {
		p := newPair(t)
		p.create("f", strings.Repeat("a", size))
		nextSecond()
		p.same()
		nextSecond()
		st := p.lstat("f")
		p.write("f", strings.Repeat("b", size))
		p.utimes("f", time.Unix(st.Mtim.Sec, st.Mtim.Nsec))
		p.same()
	}
}
