package translator

import (
	"fmt"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// An inode that the kernel knows takes less than 400 bytes of heap, so that a
// million of them fit into what a daemon may use. What is left when the kernel has
// forgotten them all is none.
func TestInodeMemory(t *testing.T) {
	b, err := brick.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Lock(); err != nil {
		t.Fatal(err)
	}
	tr, err := Open(Options{Brick: b})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	// Just beyond a power of two: tables have doubled, and are at their emptiest.
	const n, perDir, most = 15_000, 1000, 400
	before := heap()
	var parent *Inode
	ids := make([]uint64, 0, n)
	for i := range n {
		var st Attr
		if i%perDir == 0 {
			in, errno := tr.Mkdir(tr.Root(), fmt.Sprintf("directory-%d", i), 0o755, Caller{}, &st)
			if errno != 0 {
				t.Fatal(errno)
			}
			parent = in
			ids = append(ids, in.ID())
			continue
		}
		in, errno := tr.Mknod(parent, fmt.Sprintf("name-of-a-file-%06d.dat", i), unix.S_IFREG|0o644, 0, Caller{}, &st)
		if errno != 0 {
			t.Fatal(errno)
		}
		ids = append(ids, in.ID())
	}
	if got := int(heap()-before-uint64(8*cap(ids))) / n; got > most {
		t.Errorf("an inode takes %d bytes, want at most %d", got, most)
	} else {
		t.Logf("an inode takes %d bytes", got)
	}
	parent = nil
	for _, id := range ids {
		tr.Forget(tr.Find(id), 1)
	}
	if got := len(tr.table.byID); got != 1 {
		t.Errorf("%d inodes are left, want the root alone", got)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
