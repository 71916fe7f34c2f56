package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The service manager is told when the daemon can be asked, that it lives, what
// it is at, and that it ends.
func TestDaemonNotifies(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", socket)
	c, _ := startDaemon(t, dir)
	defer c.Wait() // what counts is what it says
	defer c.Process.Kill()
	for i, want := range []string{"READY=1", "WATCHDOG=1\nSTATUS=0 sessions", "STOPPING=1"} {
		if i == 2 {
			if err := c.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
		buf := make([]byte, 4096)
		got := ""
		// The watchdog may be fed once more before the end.
		for got == "" || i == 2 && strings.HasPrefix(got, "WATCHDOG") {
			n, err := l.Read(buf)
			if err != nil {
				t.Fatalf("waiting for %q: %v", want, err)
			}
			got = string(buf[:n])
		}
		if got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}
