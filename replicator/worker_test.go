package replicator

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/georep/georep/replicator/slave"
)

// pair is a scribe's brick with a slave.
type pair struct {
	*scribe
	tb    testing.TB
	slave string
	opt   Options
}

func newPair(tb testing.TB) *pair {
	tb.Helper()
	p := &pair{scribe: newScribe(tb), tb: tb, slave: filepath.Join(tb.TempDir(), "slave")}
	if err := os.Mkdir(p.slave, 0o755); err != nil {
		tb.Fatal(err)
	}
	p.opt = Options{
		Brick: p.b,
		Dial: func(ctx context.Context) (*slave.Client, error) {
			return slave.Local(ctx, p.slave, p.b, slave.Options{Create: true})
		},
		Logger: slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	return p
}

// once runs a Worker with Once and returns its last status.
func (p *pair) once() Status {
	p.tb.Helper()
	s, err := p.tryOnce()
	if err != nil {
		p.tb.Fatal(err)
	}
	return s
}

func (p *pair) tryOnce() (Status, error) {
	p.tb.Helper()
	o := p.opt
	o.Once = true
	w, err := New(o)
	if err != nil {
		p.tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.tb.Context(), time.Minute)
	defer cancel()
	err = w.Run(ctx)
	return w.Status(), err
}

// worker makes a Worker that is not run.
func (p *pair) worker(o Options) *Worker {
	p.tb.Helper()
	w, err := New(o)
	if err != nil {
		p.tb.Fatal(err)
	}
	p.tb.Cleanup(w.m.close)
	return w
}

// connected calls fn while w has a connection.
func (p *pair) connected(w *Worker, fn func()) {
	p.tb.Helper()
	c, err := w.opt.Dial(p.tb.Context())
	if err != nil {
		p.tb.Fatal(err)
	}
	defer c.Close()
	w.c = c
	fn()
}

// same runs once and compares.
func (p *pair) same() Status {
	p.tb.Helper()
	s := p.once()
	wantSame(p.tb, p.b.Path(), p.slave)
	return s
}

// live runs a Worker until the test ends or stop is called.
func (p *pair) live() (w *Worker, stop func()) {
	p.tb.Helper()
	w, err := New(p.opt)
	if err != nil {
		p.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			p.tb.Error(err)
		}
	}
	p.tb.Cleanup(stop)
	return w, stop
}

// until polls until ok says yes.
func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			tb.Fatalf("still not: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// inStep waits until all that was recorded before the call is on the slave.
func (p *pair) inStep(w *Worker) {
	p.tb.Helper()
	now := time.Now()
	until(p.tb, "in step", func() bool { s := w.Status(); return s.Current && s.Checked.After(now) })
}

func TestOnceMakesAnEqualTree(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.mkdir("d")
	p.mkdir("d/e")
	p.create("d/e/f", "hello")
	p.create("empty", "")
	p.link("d/e/f", "g")
	p.symlink("d/e/f", "s")
	p.mknod("fifo", 0o10644, 0)
	p.mknod("null", 0o20666, 0x103)
	p.setxattr("d", "user.a", "b")
	p.chmod("d/e", 0o1777)
	p.chown("s", 5, 6)
	p.utimes("s", time.Unix(1e9, 123456789))
	p.utimes("d", time.Unix(1e9, 5))
	p.create("name with \n newline \xff", "x")
	p.same()

	// Again, by changelogs now, with nothing to do and then with changes.
	p.same()
	p.rename("d", "D")
	p.write("D/e/f", "other")
	p.unlink("empty")
	p.create("new", "data")
	p.removexattr("D", "user.a")
	if s := p.same(); s.Crawl != HistoryCrawl {
		t.Errorf("crawl %s (%s), want %s", s.Crawl, s.Why, HistoryCrawl)
	}
}
