package slave

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/georep/georep/brick/gfid"
)

// Batches at once, with looks at everything between them: each batch has its own
// GFIDs and names, but they meet in directories that are moved about meanwhile.
func TestConcurrent(t *testing.T) {
	p := newPair(t)
	shared := []gfid.GFID{p.src.Next(), p.src.Next(), p.src.Next()}
	for i, d := range shared {
		p.do(mkdir(d, inRoot(fmt.Sprint("d", i))))
	}
	const workers, rounds = 4, 25
	var wg sync.WaitGroup
	for w := range workers {
		var mine []gfid.GFID
		for range 20 {
			mine = append(mine, p.src.Next())
		}
		wg.Go(func() {
			for r := range rounds {
				var ops []Op
				for i, g := range mine {
					n := Name{shared[(i+r)%3], fmt.Sprint(w, " ", i, " ", r)}
					old := Name{shared[(i+r+2)%3], fmt.Sprint(w, " ", i, " ", r-1)}
					switch {
					case r == 0 && i%4 == 0:
						ops = append(ops, mkdir(g, n))
					case r == 0:
						ops = append(ops, file(g, n, "0"))
					default:
						ops = append(ops, Op{Kind: Rename, GFID: g, Old: old, Name: n})
						if i%4 != 0 {
							ops = append(ops, put(g, fmt.Sprint(r)))
						}
					}
				}
				res, err := p.Apply(t.Context(), ops)
				if err != nil {
					t.Error(err)
					return
				}
				for i, r := range res {
					if r.Errno != 0 || r.Conflict != "" || !r.Displaced.IsZero() {
						t.Errorf("kind %d %q: %+v", ops[i].Kind, ops[i].Name.Base, r)
					}
				}
			}
		})
	}
	done := make(chan struct{})
	var mover sync.WaitGroup
	mover.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			// d1 goes into d0 and back.
			n := inRoot("d1")
			if i%2 == 0 {
				n = Name{shared[0], "d1"}
			}
			if res, err := p.Apply(t.Context(), []Op{{Kind: Rename, GFID: shared[1], Name: n}}); err != nil || res[0].Errno != 0 {
				t.Errorf("move: %v, %v", res, err)
			}
			if _, err := p.Stat(t.Context(), shared, WantNames|WantXattrs); err != nil {
				t.Error(err)
			}
			for _, d := range shared {
				err := p.List(t.Context(), d, i%2 == 0, func([]Entry) error { return nil })
				if err != nil && !errors.Is(err, syscall.ENOENT) {
					t.Error(err)
				}
			}
		}
	})
	wg.Wait()
	close(done)
	mover.Wait()
	total := 0
	for _, d := range shared {
		err := p.List(t.Context(), d, true, func(entries []Entry) error {
			for _, e := range entries {
				if e.Foreign {
					t.Errorf("%q is foreign", e.Base)
				}
				if e.GFID != shared[1] {
					total++
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if want := workers * 20; total != want {
		t.Errorf("%d names, want %d", total, want)
	}
	p.wantNameless()
	if n := len(p.conflicts()); n != 0 {
		t.Errorf("%d conflicts", n)
	}
}
