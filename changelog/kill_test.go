package changelog

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// killEnv makes the test binary a process that records until it is killed.
const killEnv = "GEOREP_TEST_RECORD_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killEnv); dir != "" {
		recordForEver(dir)
	}
	os.Exit(m.Run())
}

// recordForEver appends records and prints the number of each when it is
// acknowledged, while slices are sealed as fast as they can be.
func recordForEver(dir string) {
	l, err := Open(Options{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		for {
			if err := l.Rollover(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}()
	for n := 0; ; n++ {
		r := entry(n)
		r.Entry.Base = fmt.Sprintf("%d.%d", os.Getpid(), n)
		if _, err := l.Append(r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(r.Entry.Base)
	}
}

// kill -9 at any moment: what was acknowledged is in the one history, in order.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "changelogs")
	seed := uint64(os.Getpid())
	rng := rand.New(rand.NewPCG(seed, 0))
	var acknowledged []string
	for range 25 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		want := rng.IntN(3000) + 1
		sc := bufio.NewScanner(out)
		for n := 0; sc.Scan(); n++ {
			acknowledged = append(acknowledged, sc.Text())
			if n == want {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
	}
	l := mustOpen(t, Options{Dir: dir})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	spans, kept := checkDirectory(t, dir, false)
	if len(spans) != 1 {
		t.Errorf("%d HTIME files, want one", len(spans))
	}
	// A record may be kept whose acknowledgement was not printed any more.
	i := 0
	for _, name := range kept {
		if i < len(acknowledged) && name == acknowledged[i] {
			i++
		}
	}
	if extra := len(kept) - len(acknowledged); i != len(acknowledged) || extra > 25 {
		t.Errorf("%d acknowledged, %d found in order, %d kept; seed %s", len(acknowledged), i, len(kept), strconv.FormatUint(seed, 10))
	}
}
