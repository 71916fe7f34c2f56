package slave

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/georep/georep/brick"
)

func connectTo(t *testing.T, dir string, master *brick.Brick, o Options) (*Client, error) {
	t.Helper()
	c, err := Local(t.Context(), dir, master, o)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// A directory that is not this master's slave, nor empty, is refused and left as
// it is.
func TestRefused(t *testing.T) {
	m, other := newMaster(t), newMaster(t)
	for _, c := range []struct {
		what    string
		prepare func(t *testing.T, dir string) string // returns what to connect to
		want    error
	}{
		{"missing", func(t *testing.T, dir string) string { return dir + "/missing" }, ErrNotSlave},
		{"a file", func(t *testing.T, dir string) string { mustWrite(t, dir+"/f", "x"); return dir + "/f" }, ErrNotSlave},
		{"not empty", func(t *testing.T, dir string) string { mustWrite(t, dir+"/f", "x"); return dir }, ErrNotSlave},
		{"another's slave", func(t *testing.T, dir string) string {
			c, err := Local(t.Context(), dir, other, Options{Create: true})
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			return dir
		}, ErrOtherMaster},
		{"a brick that recorded", func(t *testing.T, dir string) string {
			b, err := brick.Create(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := os.Mkdir(filepath.Join(dir, brick.Dir, "changelogs"), 0o700); err != nil {
				t.Fatal(err)
			}
			return dir
		}, ErrNotSlave},
		{"the master", func(*testing.T, string) string { return m.Path() }, ErrOverlap},
		{"inside the master", func(t *testing.T, _ string) string {
			dir := filepath.Join(m.Path(), "a", "b")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			return dir
		}, ErrOverlap},
		{"by a symlink inside the master", func(t *testing.T, dir string) string {
			if err := os.Symlink(filepath.Join(m.Path(), "a"), dir+"/l"); err != nil {
				t.Fatal(err)
			}
			return dir + "/l"
		}, ErrOverlap},
		{"inside another's slave", func(t *testing.T, dir string) string {
			c, err := Local(t.Context(), dir, other, Options{Create: true})
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			inside := filepath.Join(dir, "a", "b")
			if err := os.MkdirAll(inside, 0o755); err != nil {
				t.Fatal(err)
			}
			return inside
		}, ErrOverlap},
		{"above the master", func(*testing.T, string) string { return filepath.Dir(m.Path()) }, ErrOverlap},
		{"a mounted brick", func(t *testing.T, dir string) string {
			c, err := Local(t.Context(), dir, m, Options{Create: true})
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			b, err := brick.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			if err := b.Lock(); err != nil { // as a mount does
				t.Fatal(err)
			}
			return dir
		}, brick.ErrMounted},
		{"a copy of a slave", func(t *testing.T, dir string) string {
			c, err := Local(t.Context(), dir+"/", m, Options{Create: true})
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			copied := filepath.Join(t.TempDir(), "copy")
			if out, err := exec.Command("cp", "-r", dir, copied).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v\n%s", err, out)
			}
			b, err := brick.Create(copied) // gives it an id of its own
			if err != nil {
				t.Fatal(err)
			}
			b.Close()
			return copied
		}, ErrNotSlave},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := c.prepare(t, t.TempDir())
			before, _ := os.ReadDir(dir)
			_, err := connectTo(t, dir, m, Options{Create: true})
			if !errors.Is(err, c.want) {
				t.Errorf("connect: %v, want %v", err, c.want)
			}
			if after, _ := os.ReadDir(dir); len(after) != len(before) {
				t.Errorf("the directory held %d names, holds %d", len(before), len(after))
			}
		})
	}
}

// An empty directory becomes a slave when that is asked for, with lost+found in
// it too, and keeps its identity.
func TestCreated(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, lostFound), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{}, {ReadOnly: true, Create: true}} {
		if _, err := connectTo(t, dir, oneMaster, o); !errors.Is(err, ErrNotSlave) {
			t.Errorf("not asked to create: %v, want ErrNotSlave", err)
		}
	}
	c, err := connectTo(t, dir, oneMaster, Options{Create: true, Version: "v"})
	if err != nil {
		t.Fatal(err)
	}
	first := c.Info()
	if !first.Created || first.Path != dir || first.Version != "v" || first.Rsync == "" || len(first.Namespaces) != len(namespaceTests) {
		t.Errorf("told %+v", first)
	}
	var names []string
	err = c.List(t.Context(), [16]byte{15: 1}, false, func(e []Entry) error {
		for _, e := range e {
			names = append(names, e.Base)
		}
		return nil
	})
	if err != nil || len(names) != 0 {
		t.Errorf("an empty slave lists %q, %v", names, err)
	}
	if _, err := connectTo(t, dir, oneMaster, Options{}); !errors.Is(err, ErrBusy) {
		t.Errorf("a second connection: %v, want ErrBusy", err)
	}
	look, err := connectTo(t, dir, oneMaster, Options{ReadOnly: true})
	if err != nil {
		t.Fatalf("one that only looks: %v", err)
	}
	if _, err := look.Apply(t.Context(), []Op{{Kind: Destroy}}); err == nil {
		t.Error("one that only looks has applied an operation")
	}
	c.Close()
	again, err := connectTo(t, dir, oneMaster, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if i := again.Info(); i.Created || i.Slave != first.Slave {
		t.Errorf("later told %+v, want the slave %v", i, first.Slave)
	}
	if err := again.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	again.Close()
	if err := again.Sync(t.Context()); !errors.Is(err, ErrDisconnected) {
		t.Errorf("after Close: %v, want ErrDisconnected", err)
	}
	select {
	case <-again.Done():
	default:
		t.Error("Done is not closed after Close")
	}
}

// An rsync that outlives its session keeps the next one out.
func TestReceiverOutlives(t *testing.T) {
	dir := t.TempDir()
	c, err := connectTo(t, dir, oneMaster, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = c.RsyncFiles()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	_, err = connectTo(t, dir, oneMaster, Options{})
	cmd.Process.Kill()
	cmd.Wait()
	if !errors.Is(err, ErrBusy) {
		t.Errorf("while it lives: %v, want ErrBusy", err)
	}
	if _, err := connectTo(t, dir, oneMaster, Options{}); err != nil {
		t.Errorf("when it is dead: %v", err)
	}
}

// A crash while a directory becomes a slave is no reason to refuse it later.
func TestCreateAfterCrash(t *testing.T) {
	dir := t.TempDir()
	b, err := brick.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	mustWrite(t, filepath.Join(dir, brick.Dir, keptDir, "lock"), "1\n")
	mustWrite(t, filepath.Join(dir, brick.Dir, keptDir, ".slave123"), "") // renameio's
	if _, err := connectTo(t, dir, oneMaster, Options{Create: true}); err != nil {
		t.Error(err)
	}
}

func TestProbe(t *testing.T) {
	p := newPair(t)
	before := dump(t, p.root)
	found, err := p.Probe(t.Context(), ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		// The file system of tests may well be fuller than a slave should be.
		if f.Fatal || !strings.HasPrefix(f.What, "the master's file system holds") {
			t.Errorf("found %+v", f)
		}
	}
	if got := dump(t, p.root); got != before {
		t.Errorf("the probe left something, -was +is:\n%s", diffLines(before, got))
	}

	dir := t.TempDir()
	for what, script := range map[string]string{
		"exits well and moves nothing": "#!/bin/sh\ncase $1 in --version) exec rsync --version;; esac\nexec cat >/dev/null\n",
		"fails":                        "#!/bin/sh\ncase $1 in --version) exec rsync --version;; esac\necho boom >&2; exit 12\n",
		"is too old":                   "#!/bin/sh\necho 'rsync  version 3.0.9  protocol version 30'\n",
		"is missing":                   "",
	} {
		rsync := filepath.Join(dir, "rsync "+what)
		if script != "" {
			mustWrite(t, rsync, script)
			if err := os.Chmod(rsync, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		found, err := p.Probe(t.Context(), ProbeOptions{Rsync: rsync})
		if err != nil {
			t.Fatal(err)
		}
		fatal := 0
		for _, f := range found {
			if f.Fatal && strings.Contains(f.What, "rsync") && f.Mend != "" {
				fatal++
			}
		}
		if fatal != 1 {
			t.Errorf("an rsync that %s: found %+v", what, found)
		}
	}
}

func TestOlderThan(t *testing.T) {
	for version, want := range map[string]bool{"3.1.2": true, "3.1.3": false, "3.2.0": false, "2.9.9": true, "3.1.3pre1": false, "3.5.0": false, "10.0": false, "3.1": true, "x": false} {
		if got := olderThan(version, 3, 1, 3); got != want {
			t.Errorf("%s older than 3.1.3: %v, want %v", version, got, want)
		}
	}
}
