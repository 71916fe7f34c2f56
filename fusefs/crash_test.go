package fusefs

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
)

// killsEnv says how often TestKill kills, for a soak.
const killsEnv = "GEOREP_TEST_KILLS"

// seedEnv repeats a run of TestKill, as far as the scheduler lets it.
const seedEnv = "GEOREP_TEST_SEED"

func envInt(t *testing.T, name string, or int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return or
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// kill -9 at any moment under load: every change that was acknowledged, and every
// difference that is seen on the brick, is in a changelog sealed after it; the
// brick is whole again once it is mounted.
func TestKill(t *testing.T) {
	for _, mode := range []string{"passthrough", "cached"} {
		t.Run(mode, func(t *testing.T) {
			kills := envInt(t, killsEnv, 20)
			seed := uint64(envInt(t, seedEnv, int(time.Now().UnixNano()&0xffffff)))
			t.Logf("seed %d", seed)
			s := newServer(t, t.TempDir(), mode)
			s.start()
			rec := newRecords(s.brick)
			before := readTree(t, s.brick)
			for round := range kills {
				k := &killRound{t: t, s: s, rec: rec, round: round, r: rand.New(rand.NewPCG(seed, uint64(round)))}
				before = k.run(before, mode == "passthrough")
				if t.Failed() {
					t.Fatalf("round %d of seed %d", round, seed)
				}
			}
			s.end()
			checkBrick(t, s.brick)
			if rec.spans != 1 {
				t.Errorf("%d HTIME files, want one: a kill makes no gap", rec.spans)
			}
		})
	}
}

// killRound is one kill.
type killRound struct {
	t     *testing.T
	s     *server
	rec   *records
	round int
	r     *rand.Rand
	l     *load
}

// run loads the mount until it is killed, mounts again, and compares.
func (k *killRound) run(before *tree, mayHold bool) *tree {
	t, since := k.t, k.rec.last
	k.load(before, mayHold)
	// Some close what they hold before the next mount, some go on.
	for len(k.l.held) > 0 && k.r.IntN(2) == 0 {
		k.l.held[0].close()
		k.l.held = k.l.held[1:]
	}
	k.s.start()
	if mayHold {
		k.goOn()
	}
	k.s.roll()
	for _, h := range k.l.held {
		h.close()
	}
	lookAtAll(t, k.s.dir)
	k.s.roll()

	k.rec.read(t)
	now := readTree(t, k.s.brick)
	k.checkAcked(now)
	k.rec.check(t, before, now, since)
	for set := range map[string]bool{"nameless": true, "writers": true} {
		if left := membersOf(t, k.s.brick, set); len(left) > 0 {
			t.Errorf("%d left in the set %s: %v", len(left), set, left)
		}
	}
	checkBrick(t, k.s.brick)
	return now
}

// load runs workers until the server is killed by one of them, at a random moment
// after a change of its own.
func (k *killRound) load(before *tree, mayHold bool) {
	delay := time.Duration(0)
	switch k.r.IntN(4) {
	case 1:
		delay = time.Duration(k.r.IntN(50)) * time.Microsecond
	case 2:
		delay = time.Duration(k.r.IntN(500)) * time.Microsecond
	case 3:
		delay = time.Duration(k.r.IntN(5000)) * time.Microsecond
	}
	k.l = &load{dir: k.s.dir, killAt: 1 + int64(k.r.IntN(400))}
	k.l.sealed.Store(k.rec.last)
	k.l.kill = func() {
		spin(delay)
		if err := k.s.cmd.Process.Kill(); err != nil {
			k.t.Error(err)
		}
	}
	stop := make(chan struct{})
	var users sync.WaitGroup
	for i := range 4 {
		w := &worker{l: k.l, r: rand.New(rand.NewPCG(k.r.Uint64(), 0)), id: fmt.Sprintf("r%d.%d", k.round, i), noMap: !mayHold}
		users.Go(func() { w.run(stop) })
	}
	var rolling sync.WaitGroup
	rolling.Go(func() { k.rollOften(stop) })
	rolling.Go(func() { removeOld(k.s.dir, k.round, k.l) })
	users.Wait()
	close(stop)
	rolling.Wait()
	k.s.reap()
	for _, f := range k.l.fails {
		k.t.Error(f)
	}
}

// rollOften seals changelogs until the server is gone.
func (k *killRound) rollOften(stop <-chan struct{}) {
	dir := filepath.Join(k.s.brick, brick.Dir, "changelogs")
	for {
		select {
		case <-stop:
			return
		case <-time.After(3 * time.Millisecond):
		}
		if k.s.tell("roll") != "ok" {
			return
		}
		if _, end, err := changelog.ActiveSpan(dir); err == nil {
			k.l.sealed.Store(end)
		}
	}
}

// removeOld removes what the round before the last one made.
func removeOld(dir string, round int, l *load) {
	old, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("r%d.*", round-2)))
	if err != nil {
		return
	}
	for _, p := range old {
		if os.RemoveAll(p) != nil {
			return // killed
		}
	}
}

// goOn writes to files that were held open over the kill, past the mount.
func (k *killRound) goOn() {
	k.rec.read(k.t)
	k.l.sealed.Store(k.rec.last)
	k.l.killAt = -1
	for i, h := range k.l.held {
		w := &worker{l: k.l, r: k.r, id: fmt.Sprintf("o%d.%d", k.round, i), held: []*heldFile{h}}
		w.writeHeld()
		w.storeHeld()
		k.l.held[i] = nil
		if len(w.held) > 0 { // not closed
			k.l.held[i] = h
		}
	}
	k.l.held = slices.DeleteFunc(k.l.held, func(h *heldFile) bool { return h == nil })
}

// lookAtAll has the mount look at everything.
func lookAtAll(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			_, err = e.Info()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// checkAcked finds acknowledged changes that are in no changelog sealed later. Of
// a file that has no name now, a kill may have kept D and M: nobody misses them.
func (k *killRound) checkAcked(now *tree) {
	for _, a := range k.l.acks {
		if _, there := now.objects[a.g]; a.typ != changelog.Entry && !there {
			continue
		}
		switch a.typ {
		case changelog.Data:
			if !after(k.rec.data[a.g], a.since) {
				k.t.Errorf("%s of %v after %d: no D, records are %v", a.what, a.g, a.since, k.rec.data[a.g])
			}
		case changelog.Meta:
			if !after(k.rec.meta[a.g], a.since) {
				k.t.Errorf("%s of %v after %d: no M, records are %v", a.what, a.g, a.since, k.rec.meta[a.g])
			}
		case changelog.Entry:
			for _, n := range a.names {
				if !after(k.rec.names[n], a.since) {
					k.t.Errorf("%s of %v/%q after %d: no E, records are %v", a.what, n.Parent, n.Base, a.since, k.rec.names[n])
				}
			}
		}
	}
}
