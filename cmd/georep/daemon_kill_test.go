package main

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/georep/georep/replicator/daemon"
	"github.com/georep/georep/replicator/session"
)

// startDaemon starts a daemon of its own and returns once it answers.
func startDaemon(t *testing.T, dir string) (*exec.Cmd, *daemon.Client) {
	t.Helper()
	socket := filepath.Join(dir, "sock")
	c := exec.Command("georep", "daemon", "--socket", socket, "--state-dir", filepath.Join(dir, "state"), "--mount-dir", filepath.Join(dir, "mnt"))
	c.Stderr = t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	client := daemon.NewClient(socket)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := client.Do(t.Context(), "GET", "/v1/daemon", nil, nil)
		if err == nil {
			return c, client
		}
		if time.Now().After(deadline) {
			c.Process.Kill()
			c.Wait()
			t.Fatal(err)
		}
	}
}

// What was answered is there after kill -9 at any moment, and the next daemon
// starts at once.
func TestDaemonKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	answered := map[int64]bool{}
	for round := range 8 {
		c, client := startDaemon(t, dir)
		if round == 0 {
			for _, req := range []struct {
				path string
				body any
			}{
				{"/v1/volumes", daemon.NewVolume{Name: "v", Bricks: []session.Brick{{Path: filepath.Join(dir, "b")}}}},
				{"/v1/sessions", daemon.NewSession{Name: "s", Volume: "v", Dir: filepath.Join(dir, "slave")}},
			} {
				if err := client.Do(t.Context(), "POST", req.path, req.body, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		var have []session.Checkpoint
		if err := client.Do(t.Context(), "GET", "/v1/sessions/s/checkpoints", nil, &have); err != nil {
			t.Fatal(err)
		}
		there := map[int64]bool{}
		for _, p := range have {
			there[p.ID] = true
		}
		for id := range answered {
			if !there[id] {
				t.Errorf("round %d: checkpoint %d was answered and is gone", round, id)
			}
		}
		killed := time.AfterFunc(time.Duration(rnd.IntN(150))*time.Millisecond, func() { c.Process.Kill() })
		for {
			var made session.Checkpoint
			if client.Do(context.Background(), "POST", "/v1/sessions/s/checkpoints", daemon.NewCheckpoint{}, &made) != nil {
				break // it is dead
			}
			answered[made.ID] = true
		}
		killed.Stop()
		c.Process.Kill()
		c.Wait() // killed, as it should be
	}
	if len(answered) == 0 {
		t.Error("no daemon lived long enough to answer")
	}
}
