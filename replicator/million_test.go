package replicator

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// A changelog of any length is read in bounded memory.
func TestLongChangelogInBoundedMemory(t *testing.T) {
	p := newPair(t)
	nextSecond()
	p.same()
	nextSecond()
	records := 20000 * soakRounds(6)
	var buf []byte
	path := filepath.Join(p.b.Path(), brick.Dir, "changelogs/CHANGELOG")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var src gfid.Source
	for i := range records / 2 {
		r := changelog.Record{Type: changelog.Entry, GFID: src.Next(), Fop: changelog.FopCreate, Mode: 0o100644,
			Entry: changelog.Name{Parent: gfid.Root, Base: fmt.Sprintf("a name of some length %d", i)}}
		buf = changelog.AppendRecord(buf, &r, changelog.ASCII)
		buf = changelog.AppendRecord(buf, &changelog.Record{Type: changelog.Data, GFID: r.GFID}, changelog.ASCII)
		if len(buf) > 1<<20 {
			f.Write(buf)
			buf = buf[:0]
		}
	}
	f.Write(buf)
	f.Close()
	done := make(chan uint64)
	stop := make(chan struct{})
	go func() {
		var peak uint64
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.Sys-m.HeapReleased)
			select {
			case <-stop:
				done <- peak
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	p.once()
	close(stop)
	if peak := <-done; peak > 300<<20 {
		t.Errorf("%d records took %d MiB at the peak, want at most 300", records, peak>>20)
	} else {
		t.Logf("%d records, peak %d MiB", records, peak>>20)
	}
}
