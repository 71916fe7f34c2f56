package replicator

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/replicator/slave"
)

// world is a brick, a slave and the records of what happened, in order.
type world struct {
	*scribe
	c       *slave.Client
	m       *master
	dir     string
	records []changelog.Record
	sent    int // how many of records were replayed to the slave
	next    int // for names of contents
}

func newWorld(t fataler, dir string) *world {
	for _, d := range []string{"brick", "slave"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := brick.Create(filepath.Join(dir, "brick"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{scribe: &scribe{b: b}, dir: filepath.Join(dir, "slave"), m: newMaster(b)}
	w.c, err = slave.Local(context.Background(), w.dir, b, slave.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// begin empties the brick and the slave, for t.
func (w *world) begin(t *rapid.T) {
	w.tb, w.records, w.sent = t, nil, 0
	w.seen = func(r changelog.Record) {
		t.Logf("%d: %s", len(w.records), r.AppendParsed(nil))
		w.records = append(w.records, r)
	}
	dirs, files := pathsIn(w.scribe)
	for _, f := range files {
		w.unlink(f)
	}
	slices.Reverse(dirs)
	for _, d := range dirs[:len(dirs)-1] {
		w.rmdir(d)
	}
	b := newBatch()
	b.meta.add(gfid.Root)
	for i := range w.records {
		b.add(&w.records[i], time.Time{})
	}
	w.run(t, b)
	w.records = nil
}

func (w *world) end() {
	w.c.Close()
	w.m.close()
	w.b.Close()
}

// replay runs the records from to as one batch.
func (w *world) replay(t *rapid.T, from, to int) {
	t.Logf("replay %d to %d", from, to)
	b := newBatch()
	for i := from; i < to; i++ {
		b.add(&w.records[i], time.Time{})
	}
	w.run(t, b)
}

func (w *world) run(t *rapid.T, b *batch) {
	t.Helper()
	o := &passOptions{log: slog.New(slog.DiscardHandler), streamMax: 64, bulk: &bulk{
		method: Stream, jobs: 2, slot: semaphore.NewWeighted(2), line: rate.NewLimiter(rate.Inf, writeSize),
	}}
	p := newPass(w.m, w.c, b, o, brick.Stamp{})
	if err := p.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, f := range p.failed {
		t.Errorf("failed: %v", &f)
	}
	if len(p.lost) > 0 {
		// A directory that is not on the slave though its making was replayed.
		h := &hybrid{m: w.m, c: w.c, linked: make(set)}
		err := h.run(context.Background(), p.lost, func(b *batch) error { w.run(t, b); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
}

// step makes one random change.
func (w *world) step(t *rapid.T) {
	dirs, files := pathsIn(w.scribe)
	all := slices.Concat(dirs[1:], files)
	dir := rapid.SampledFrom(dirs).Draw(t, "dir")
	name := filepath.Join(dir, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "base"))
	_, err := os.Lstat(w.abs(name))
	free := err != nil
	pick := func(from []string) string { return rapid.SampledFrom(from).Draw(t, "path") }
	op := rapid.SampledFrom([]string{"create", "create", "mkdir", "mkdir", "symlink", "fifo", "link", "rename", "rename", "rename", "rename",
		"unlink", "rmdir", "write", "chmod", "xattr"}).Draw(t, "op")
	w.next++
	switch {
	case op == "create" && free:
		w.create(name, strings.Repeat(fmt.Sprint("content ", w.next, " "), w.next%12))
	case op == "mkdir" && free:
		w.mkdir(name)
	case op == "symlink" && free:
		w.symlink(fmt.Sprint("target", w.next), name)
	case op == "fifo" && free:
		w.mknod(name, 0o10600, 0)
	case op == "link" && free && len(files) > 0:
		w.link(pick(files), name)
	case op == "rename" && len(all) > 0:
		w.tryRename(pick(all), name)
	case op == "unlink" && len(files) > 0:
		w.unlink(pick(files))
	case op == "rmdir" && len(dirs) > 1:
		if d := pick(dirs[1:]); w.isEmpty(d) {
			w.rmdir(d)
		}
	case op == "write" && len(files) > 0:
		if f := pick(files); w.lstat(f).Mode&0o170000 == 0o100000 {
			w.write(f, strings.Repeat(fmt.Sprint("new ", w.next, " "), w.next%15))
		}
	case op == "chmod" && len(all) > 0:
		if f := pick(all); w.lstat(f).Mode&0o170000 != 0o120000 {
			w.chmod(f, uint32(0o700+w.next%0o77))
		}
	case op == "xattr" && len(dirs) > 1:
		w.setxattr(pick(dirs[1:]), "user.x", fmt.Sprint(w.next))
	}
}

// Whatever happens on the master, and however its records are cut into batches
// and replayed, the slave ends as the master is; and replaying anything once
// more changes nothing.
func TestSlaveConverges(t *testing.T) {
	var w *world
	run := 0
	end := func() {
		if w != nil {
			w.end()
			w = nil
		}
	}
	defer end()
	rapid.Check(t, func(rt *rapid.T) {
		if w == nil {
			run++
			w = newWorld(rt, filepath.Join(t.TempDir(), fmt.Sprint(run)))
		}
		ok := false
		defer func() {
			if !ok || rt.Failed() {
				end() // what it left says nothing about the next
			}
		}()
		w.begin(rt)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			w.step(rt)
			switch rapid.IntRange(0, 9).Draw(rt, "then") {
			case 0: // some of what is new
				to := rapid.IntRange(w.sent, len(w.records)).Draw(rt, "to")
				w.replay(rt, w.sent, to)
				w.sent = to
			case 1: // something old again
				if w.sent > 0 {
					from := rapid.IntRange(0, w.sent-1).Draw(rt, "from")
					w.replay(rt, from, rapid.IntRange(from, w.sent).Draw(rt, "to"))
				}
			}
		}
		w.replay(rt, w.sent, len(w.records))
		wantSame(rt, w.b.Path(), w.dir)
		w.replay(rt, rapid.IntRange(0, len(w.records)).Draw(rt, "again"), len(w.records))
		wantSame(rt, w.b.Path(), w.dir)
		ok = true
	})
}
