package replicator

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/replicator/slave"
)

// soakEnv is how many rounds long tests run; unset means a handful.
const soakEnv = "GEOREP_SOAK"

// childEnv makes the test program a Worker: "BRICK SLAVE" by os.PathListSeparator.
const childEnv = "GEOREP_TEST_WORKER"

func TestMain(m *testing.M) {
	if pair := filepath.SplitList(os.Getenv(childEnv)); len(pair) == 2 {
		os.Exit(child(pair[0], pair[1]))
	}
	flag.Set("rapid.checks", "40") // soak asks for more
	flag.Parse()
	flag.Set("rapid.nofailfile", "true") // the seed is enough, and nothing is left behind
	os.Exit(m.Run())
}

// child replicates until it is killed.
func child(dir, slaveDir string) int {
	b, err := brick.Open(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	w, err := New(Options{
		Brick: b, streamMax: 2000, // some files go in several operations, or by rsync
		Dial: func(ctx context.Context) (*slave.Client, error) {
			return slave.Local(ctx, slaveDir, b, slave.Options{Create: true})
		},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err == nil {
		err = w.Run(context.Background())
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func soakRounds(def int) int {
	if n, err := strconv.Atoi(os.Getenv(soakEnv)); err == nil {
		return n
	}
	return def
}

// Replicator and slave are killed at any point while the master changes, again
// and again; in the end the slave is as the master, and stime never went ahead.
func TestKilledAtAnyPoint(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("GEOREP_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("to repeat: GEOREP_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	p := newPair(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range soakRounds(6) {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childEnv+"="+p.b.Path()+string(os.PathListSeparator)+p.slave)
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := time.Now().Add(time.Duration(r.IntN(700)) * time.Millisecond)
		for time.Now().Before(end) {
			mutate(p.scribe, r)
			if r.IntN(60) == 0 {
				p.roll()
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		if round%3 == 2 {
			p.once()
			wantSame(t, p.b.Path(), p.slave)
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	p.once()
	wantSame(t, p.b.Path(), p.slave)
}

// mutate makes one random change, with bigger files than those of TestSlaveConverges.
func mutate(s *scribe, r *rand.Rand) {
	dirs, files := pathsIn(s)
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	name := filepath.Join(pick(dirs), string(rune('a'+r.IntN(6))))
	_, err := os.Lstat(s.abs(name))
	free := err != nil
	switch op := r.IntN(12); {
	case op < 3 && free:
		s.create(name, noise(r.IntN(6000)))
	case op < 5 && free && len(dirs) < 30:
		s.mkdir(name)
	case op < 6 && free && len(files) > 0:
		s.link(pick(files), name)
	case op < 9 && len(files) > 0:
		s.tryRename(pick(append(dirs[1:], files...)), name)
	case op < 10 && len(files) > 0:
		s.unlink(pick(files))
	case op < 11 && len(dirs) > 1:
		if d := pick(dirs[1:]); s.isEmpty(d) {
			s.rmdir(d)
		}
	case len(files) > 0:
		s.write(pick(files), noise(r.IntN(9000)))
	}
}
