package bench

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tinyReplicate is as little to replicate as shows that it is.
var tinyReplicate = replicateScale{
	small: 12, large: 1 << 20, largeFiles: 2, steady: 10, lagRate: 50, lagFor: 200 * time.Millisecond,
	trees: []int{20}, renamed: []int{11}, big: 7 << 20, changed: 4, idle: 10 * time.Millisecond, filesPerRoot: 5, settle: 5 * time.Millisecond,
}

// All steps are replicated, by both means, over SSH and to a directory.
func TestReplicate(t *testing.T) {
	for _, slave := range []string{LoopbackSlave, t.TempDir()} {
		name, sc := "directory", tinyReplicate
		sc.renamed = nil
		if slave == LoopbackSlave {
			name, sc.trees, sc.renamed = slave, nil, tinyReplicate.renamed
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			rep, err := Replicate(t.Context(), ReplicateOptions{Dir: dir, Image: "xfs", Slave: slave, Rounds: 1, Georep: georep, scale: &sc})
			if err != nil {
				t.Fatal(err)
			}
			if fails := rep.Failures(); len(fails) > 0 {
				t.Errorf("failed:\n%s", strings.Join(fails, "\n"))
			}
			for _, row := range rep.Tables[0].Rows {
				for _, target := range rep.Tables[0].Targets {
					c, alone := row.Cells[target], row.Step == "lag" || row.Step == idleStep
					switch {
					case alone && target == rsyncTarget:
						if len(c.Samples) != 0 {
							t.Errorf("%s, rsync: %+v, want none: it does not work by itself", row.Name(), c)
						}
					case len(c.Samples) != 1 || c.Samples[0].Wall <= 0 && row.Step != idleStep || c.Samples[0].Work < 0:
						t.Errorf("%s, %s: %+v, want one sample", row.Name(), target, c)
					case slave == LoopbackSlave && !alone && c.Samples[0].Wire == 0:
						t.Errorf("%s, %s: nothing went over the wire", row.Name(), target)
					}
				}
			}
			var text strings.Builder
			if err := errors.Join(rep.WriteTable(&text), rep.WriteHTML(&text)); err != nil {
				t.Error(err)
			}
			leavesNothing(t, dir)
			if slave != LoopbackSlave {
				leavesNothing(t, slave)
			}
		})
	}
}

// A slow link is as slow as it is told to be, and loses nothing.
func TestSlowLink(t *testing.T) {
	h := &sshHost{rate: 4 << 20, delay: 20 * time.Millisecond}
	in, from := net.Pipe()
	to, out := net.Pipe()
	go h.pass(to, from)
	sent := newContent(1 << 20).block(7)
	began := time.Now()
	go func() {
		_, err := in.Write(sent)
		if err := errors.Join(err, in.Close()); err != nil {
			t.Error(err)
		}
	}()
	got, err := io.ReadAll(out)
	if err != nil || !bytes.Equal(got, sent) || h.wire.Load() != int64(len(sent)) {
		t.Errorf("%d bytes (%v), %d counted, want the %d that were sent", len(got), err, h.wire.Load(), len(sent))
	}
	if took := time.Since(began); took < 270*time.Millisecond {
		t.Errorf("%v for 1 MiB at 4 MiB/s and 20 ms, want at least 270 ms", took)
	}
}

// badReplica copies a file as told.
type badReplica struct {
	from, to string
	make     func(from, to string) error
}

func (r *badReplica) root() string                 { return r.from }
func (r *badReplica) slave() string                { return r.to }
func (r *badReplica) copy(_ context.Context) error { return r.make(r.from, r.to) }
func (r *badReplica) patience() time.Duration      { return 0 }
func (r *badReplica) roughDirs() bool              { return false }
func (r *badReplica) alive() error                 { return nil }
func (r *badReplica) close() error                 { return nil }

// A slave that is not as its master has no figure.
func TestReplicateWrongIsFailed(t *testing.T) {
	o := ReplicateOptions{Dir: t.TempDir(), Slave: t.TempDir(), Georep: georep, scale: &tinyReplicate}
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	m, err := newReplication(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	}()
	same := func(from, to, content string) error {
		st, err := os.Stat(from + "/f")
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(to+"/f", []byte(content), st.Mode()), os.Chtimes(to+"/f", st.ModTime(), st.ModTime()))
	}
	for _, c := range []struct {
		name string
		make func(from, to string) error
		want string // "" for none
	}{
		{"right", func(from, to string) error { return same(from, to, "new") }, ""},
		{"missing", func(string, string) error { return nil }, "not on the slave"},
		{"other content", func(from, to string) error { return same(from, to, "old") }, "contents of"},
		{"one more", func(from, to string) error {
			return errors.Join(same(from, to, "new"), os.WriteFile(to+"/g", nil, 0o644))
		}, "on the slave only"},
		{"other time", func(from, to string) error {
			return errors.Join(same(from, to, "new"), os.Chtimes(to+"/f", time.Time{}, time.Unix(1, 0)))
		}, "not on the slave"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &badReplica{from: t.TempDir(), to: t.TempDir(), make: c.make}
			_, err := m.measure(t.Context(), r, &replicateStep{change: func(root string) (change, error) {
				return change{names: []string{"f"}, files: 1}, os.WriteFile(filepath.Join(root, "f"), []byte("new"), 0o600)
			}})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
