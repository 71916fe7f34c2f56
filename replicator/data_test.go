package replicator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// noise is n bytes that no two calls share.
func noise(n int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(time.Now().UnixNano())})
	r.Read(b)
	return string(b)
}

func TestLargeFilesByEachMethod(t *testing.T) {
	t.Parallel()
	for _, method := range []Method{Auto, Rsync, Stream} {
		t.Run(string(method), func(t *testing.T) {
			p := newPair(t)
			p.opt.Method = method
			p.create("big", noise(5<<20+17))
			p.create("second", noise(3<<20))
			p.link("big", "link")
			p.setxattr("big", "user.a", "b")
			p.roll()
			nextSecond()
			nextSecond()
			p.same()

			nextSecond()
			f, err := os.OpenFile(p.abs("big"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteAt([]byte("changed"), 1<<20)
			f.Truncate(5 << 20)
			f.Close()
			p.record(changelog.Record{Type: changelog.Data, GFID: p.gfidOf("big")}, "big")
			s := p.same()
			if s.Done.Files != 1 {
				t.Errorf("%d files sent, want 1", s.Done.Files)
			}
			if method != Stream && (s.Done.Literal == 0 || s.Done.Literal > 1<<20) {
				t.Errorf("rsync moved %d bytes and found %d there, want a little and the rest", s.Done.Literal, s.Done.Matched)
			}
		})
	}
}

func TestHolesStayHoles(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	write := func(path string, size int64, at ...int64) {
		t.Helper()
		f, err := os.OpenFile(p.abs(path), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		for _, off := range at {
			if _, err := f.WriteAt([]byte(strings.Repeat("x", 4096)), off); err != nil {
				t.Fatal(err)
			}
		}
		p.record(changelog.Record{Type: changelog.Data, GFID: p.gfidOf(path)}, path)
	}
	p.create("huge", "") // 100 GiB, next to nothing of it data
	write("huge", 100<<30, 5<<30, 99<<30)
	p.create("many", "") // too much data for one operation, most of it holes
	var at []int64
	for i := range int64(600) {
		at = append(at, i<<16)
	}
	write("many", 64<<20, at...)
	nextSecond()
	p.same()
	nextSecond()
	write("huge", 100<<30, 50<<30)
	write("many", 64<<20, 63<<20)
	p.same()
}

// scriptedRsync is the real rsync with something done around it.
func scriptedRsync(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rsync")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// An rsync that says all went well and did nothing is found out.
func TestRsyncThatMovesNothingIsFoundOut(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.opt.Method = Rsync
	p.once() // it was well at the first connection
	p.opt.Rsync = scriptedRsync(t, "cat >/dev/null; exit 0")
	p.create("big", noise(3<<20))
	nextSecond()
	_, err := p.tryOnce()
	if !errors.Is(err, ErrIncomplete) {
		t.Fatalf("error %v, want %v", err, ErrIncomplete)
	}
	if _, err := os.Lstat(filepath.Join(p.slave, "big")); err == nil {
		t.Error("the new file has its name on the slave without its content")
	}
	p.opt.Rsync = ""
	p.same()
}

// Of several files in a run the one that can't be sent is told from the rest.
func TestRsyncPartialFailureIsOneItem(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.opt.Method = Rsync
	p.opt.Jobs = 1
	g := p.create("bad", noise(3<<20))
	p.create("good", noise(3<<20))
	p.create("good2", noise(3<<20))
	nextSecond()
	p.opt.Rsync = scriptedRsync(t, fmt.Sprintf(`tr '\0' '\n' > "$0.all"; grep -v %s "$0.all" | tr '\n' '\0' > "$0.rest"
rsync "$@" < "$0.rest" || exit; ! grep -q %s "$0.all" || exit 23`, g, g))
	_, err := p.tryOnce()
	if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "1 items") || !strings.Contains(err.Error(), g.String()) {
		t.Errorf("error %v, want one item, %v", err, g)
	}
	for _, f := range []string{"good", "good2"} {
		if !equalFiles(t, p.abs(f), filepath.Join(p.slave, f)) {
			t.Errorf("%s differs", f)
		}
	}
	p.opt.Rsync = ""
	p.same()
}

// A large file that keeps changing rests between two times it is sent, stime
// waits for it, and it is sent in the end.
func TestHotFileRests(t *testing.T) {
	t.Parallel()
	h, g, now := newHot(), gfid.GFID{1}, time.Unix(1000, 0)
	bound := brick.Stamp{Sec: 7}
	if !h.admit(g, bound, now) {
		t.Fatal("a file that was never sent is held")
	}
	h.sent(g, 10*time.Second, now)
	if !h.admit(g, bound, now.Add(time.Second)) {
		t.Fatal("the first change after a first copy is held")
	}
	now = now.Add(11 * time.Second)
	h.sent(g, 10*time.Second, now)
	if h.admit(g, bound, now.Add(time.Second)) {
		t.Fatal("sent for the third time in a row a second later, though that takes ten")
	}
	if b, ok := h.bound(); !ok || b != bound {
		t.Errorf("bound %v, %v, want %v", b, ok, bound)
	}
	b := newBatch()
	if h.due(now.Add(9*time.Second), b); !b.empty() {
		t.Error("due before its rest is over")
	}
	now = now.Add(11 * time.Second)
	if h.due(now, b); !b.data.has(g) {
		t.Error("not due after its rest")
	}
	if !h.admit(g, brick.Stamp{Sec: 9}, now) {
		t.Error("held though it is due")
	}
	if _, ok := h.bound(); ok {
		t.Error("stime is held though the file is being sent")
	}
	// The longer it goes on, the longer are its rests.
	for range 10 {
		h.sent(g, time.Second, now)
	}
	if rest := h.files[g].rest.Sub(now); rest != hotShare*time.Second {
		t.Errorf("rests %v, want %v", rest, hotShare*time.Second)
	}
	if h.due(now.Add(time.Minute), newBatch()); len(h.files) != 0 || h.len() != 0 {
		t.Error("remembered though it rested and did not change")
	}
}

func TestPathsDeeperThanTheKernelTakes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	deep := func(root int, n int) int {
		fd := root
		for range n {
			next, errno := brick.Openat(fd, strings.Repeat("d", 200), unix.O_RDONLY|unix.O_DIRECTORY, 0)
			if errno != 0 {
				t.Fatal(errno)
			}
			if fd != root {
				brick.Close(fd)
			}
			fd = next
		}
		return fd
	}
	const depth = 60 // 12,000 bytes, and more links than the kernel follows
	fd, parent := p.b.Root(), gfid.Root
	var src gfid.Source
	for range depth {
		name := strings.Repeat("d", 200)
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		g := src.Next()
		if errno := brick.Setxattr(fd, name, brick.XattrGFID, g[:], 0); errno != 0 {
			t.Fatal(errno)
		}
		if errno := p.b.SymlinkHandle(g, parent, name); errno != 0 {
			t.Fatal(errno)
		}
		p.log.Append(&changelog.Record{Type: changelog.Entry, GFID: g, Fop: changelog.FopMkdir, Mode: 0o40755, Entry: changelog.Name{Parent: parent, Base: name}})
		next, _ := brick.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if fd != p.b.Root() {
			brick.Close(fd)
		}
		fd, parent = next, g
	}
	brick.Close(fd)
	t.Cleanup(func() { // RemoveAll manages, TempDir's own cleanup does too
		os.RemoveAll(p.abs(strings.Repeat("d", 200)))
	})
	p.once()
	root, errno := brick.Openat(unix.AT_FDCWD, p.slave, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer brick.Close(root)
	bottom := deep(root, depth)
	defer brick.Close(bottom)
	if g, errno := p.b.GFIDOf(bottom, ""); errno != 0 || g != parent {
		t.Errorf("at the bottom is %v, %v, want %v", g, errno, parent)
	}
}

// A large file that rests keeps its old times on the slave: new ones would say
// that its contents are there.
func TestRestingFileKeepsItsTimes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	g := p.create("big", noise(3<<20))
	p.same()
	before := p.lstat("big").Mtim
	p.write("big", noise(3<<20))
	p.utimes("big", time.Unix(5000, 0))
	w := p.worker(p.opt)
	p.connected(w, func() {
		w.pass.hot = newHot()
		for range 2 {
			w.pass.hot.sent(g, time.Hour, time.Now())
		}
		b := newBatch()
		b.data.add(g)
		b.meta.add(g)
		if err := w.do(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(p.slave, "big"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Mtim != before {
		t.Errorf("mtime %v on the slave, want %v as long as the contents are old", st.Mtim, before)
	}
	p.same()
}
