package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/georep/georep/replicator/session"
)

// workerID says which brick of which session.
type workerID struct{ session, brick string }

// worker keeps one georep replicate running.
type worker struct {
	d       *Daemon
	id      workerID
	pair    session.Pair
	session *session.Session // as it was when the worker was started
	slave   Slave
	cancel  context.CancelFunc
	done    chan struct{} // closed when the process has ended for good

	mu       sync.Mutex
	report   session.Report // the last one of the present process, or of the one before
	told     bool           // the present process has told something
	pid      int            // 0: none is running
	began    time.Time      // of the present process
	restarts int
	failure  string // why the last process ended
	stdin    io.WriteCloser
	progress time.Time // when something was last seen to move
	rate     rate
	alarms   alarms
	kept     keptStatus
	items    string // JSON of the items last kept
}

// startWorkers starts a worker for each brick of s.
func (d *Daemon) startWorkers(s *session.Session) error {
	slave, err := d.slaveOf(s)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range s.Pairs {
		id := workerID{s.Name, p.Brick}
		if d.workers[id] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		w := &worker{d: d, id: id, pair: p, session: s, slave: slave(p), cancel: cancel, done: make(chan struct{})}
		// What it said last is shown until it says something new.
		if err := d.store.Status(s.Name, p.Brick, &w.report); err != nil {
			cancel()
			return err
		}
		d.workers[id] = w
		d.wait.Go(func() { w.run(ctx) })
	}
	return nil
}

// slaveOf says where each brick of s goes.
func (d *Daemon) slaveOf(s *session.Session) (func(session.Pair) Slave, error) {
	if s.Destination == "" {
		return func(p session.Pair) Slave { return Slave{Address: p.Slave, Base: s.Dir} }, nil
	}
	dest, err := d.store.Destination(s.Destination)
	if err != nil {
		return nil, err
	}
	return func(p session.Pair) Slave {
		return Slave{Address: dest.Address(p.Slave), Base: s.Dir, Identity: dest.Identity, KnownHosts: dest.KnownHosts}
	}, nil
}

// stopWorkers ends the workers of a session and returns when they have ended.
func (d *Daemon) stopWorkers(s *session.Session) {
	d.mu.Lock()
	var all []*worker
	for _, p := range s.Pairs {
		if w := d.workers[workerID{s.Name, p.Brick}]; w != nil {
			w.cancel()
			all = append(all, w)
		}
	}
	d.mu.Unlock()
	for _, w := range all {
		<-w.done
		w.keep(true)
		d.mu.Lock()
		delete(d.workers, w.id)
		d.mu.Unlock()
	}
}

const (
	// firstWait is the wait before a worker that ended is started again; it
	// doubles each time, up to restart-backoff.
	firstWait = 500 * time.Millisecond
	// stableAfter is how long a worker must live to count as one that works.
	stableAfter = time.Minute
	// endPatience is how long a worker may take to end at a safe point.
	endPatience = 20 * time.Second
)

func (w *worker) run(ctx context.Context) {
	// The kernel sends the signal for a dead parent when the thread dies that
	// started the child, so that thread is kept until the child has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(w.done)
	wait := firstWait
	for ctx.Err() == nil {
		began := time.Now()
		err := w.process(ctx)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			err = errors.New("the worker ended by itself")
		}
		if time.Since(began) > stableAfter {
			wait = firstWait
		}
		w.ended(err)
		limit, e := w.d.store.Setting(w.id.session, "restart-backoff")
		if e != nil {
			w.d.log.Error("config", "err", e)
		}
		if most := limit.Duration(); most > 0 && wait > most {
			wait = most
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait *= 2
		w.mu.Lock()
		w.restarts++
		w.mu.Unlock()
	}
}

// ended notes why a process ended that should not have.
func (w *worker) ended(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pid, w.stdin = 0, nil
	if w.report.State != "HostKeyChanged" {
		w.report.State, w.report.Reason = "Faulty", err.Error()
	}
	w.report.Current = false
	w.failure = err.Error()
	w.d.log.Warn("worker ended", "session", w.id.session, "brick", w.id.brick, "err", err)
}

// args is the worker's command line.
func (w *worker) args() ([]string, error) {
	args := []string{"replicate", "--json", "--control"}
	config, err := w.d.store.Config(w.id.session)
	if err != nil {
		return nil, err
	}
	for _, x := range config {
		switch {
		case x.Flag != "" && x.Value != x.Default:
			args = append(args, "--"+x.Flag+"="+x.Value)
		case x.Name == "log-level" && x.Value == "info":
			args = append(args, "--verbose")
		}
	}
	if w.slave.Identity != "" {
		args = append(args, "--identity", w.slave.Identity, "--known-hosts", w.slave.KnownHosts)
	}
	return append(args, "--", w.pair.Brick, w.slave.Address), nil
}

// process runs one process until it ends. The error says why it did.
func (w *worker) process(ctx context.Context) error {
	args, err := w.args()
	if err != nil {
		return err
	}
	log, err := openLog(w.logPath())
	if err != nil {
		return err
	}
	defer log.Close()
	c := exec.Command(w.d.opt.Georep, args...)
	c.Env, c.Dir = w.d.opt.Env, "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	said := &lastWords{w: log}
	c.Stderr = said
	stdin, err := c.StdinPipe()
	if err != nil {
		return fmt.Errorf("daemon: worker: %w", err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		return fmt.Errorf("daemon: worker: %w", err)
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("daemon: worker: %w", err)
	}
	w.mu.Lock()
	w.pid, w.began, w.stdin, w.told = c.Process.Pid, time.Now(), stdin, false
	w.report.Done, w.rate, w.progress = session.Counts{}, rate{}, w.began
	w.mu.Unlock()

	finished := make(chan struct{})
	var ending sync.WaitGroup
	ending.Go(func() {
		select {
		case <-finished:
			return
		case <-ctx.Done():
		}
		// Errors here: it has ended just now.
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = stdin.Close()
		select {
		case <-finished:
		case <-time.After(endPatience):
			w.d.log.Error("worker does not end, killed", "session", w.id.session, "brick", w.id.brick)
			_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		}
	})
	w.read(stdout)
	err = c.Wait()
	close(finished)
	ending.Wait()
	if err == nil {
		return nil
	}
	if text := said.String(); text != "" {
		return errors.New(text)
	}
	return fmt.Errorf("the worker ended: %w", err)
}

// read takes in what the worker tells until it tells no more.
func (w *worker) read(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var rep session.Report
		if err := json.Unmarshal(line, &rep); err != nil {
			w.d.log.Error("worker says what is no status", "session", w.id.session, "brick", w.id.brick, "err", err)
			continue
		}
		w.take(rep)
	}
}

// take takes in one report.
func (w *worker) take(rep session.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rep.State == "Stopped" && w.told {
		rep.State = w.report.State // it is ending; what it was at before says more
	}
	before := w.report
	if rep.Stime == (session.Stamp{}) {
		rep.Stime = before.Stime // not connected yet
	}
	if rep.Done != before.Done || rep.Found != before.Found || rep.Stime != before.Stime || rep.Current || !w.told {
		w.progress = time.Now()
	}
	w.rate.add(time.Now(), rep.Done)
	w.report, w.told = rep, true
}

// say sends the worker a word on its standard input.
func (w *worker) say(do string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stdin == nil {
		return session.Errorf(session.Precondition, "session %s: the worker of %s is not running", w.id.session, w.id.brick)
	}
	if _, err := fmt.Fprintf(w.stdin, "{\"do\":%q}\n", do); err != nil {
		return fmt.Errorf("daemon: worker: %w", err)
	}
	return nil
}

// logPath is where the worker's log is.
func (w *worker) logPath() string {
	brick := strings.ReplaceAll(strings.Trim(w.id.brick, "/"), "/", "-")
	return filepath.Join(w.d.opt.State, "log", w.id.session+"."+brick+".log")
}

// maxLog is the size in bytes past which a log is put aside at the next start of
// its worker; one old log is kept.
const maxLog = 16 << 20

func openLog(path string) (*os.File, error) {
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("daemon: log: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("daemon: log: %w", err)
	}
	return f, nil
}

// lastWords passes a log on, and keeps the last lines "georep: …": why a command
// failed, and what to do about it.
type lastWords struct {
	w    io.Writer
	mu   sync.Mutex
	said []string // at most 2; guarded by mu
	part []byte   // a line that is not complete; guarded by mu
}

func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	for {
		i := bytes.IndexByte(l.part, '\n')
		if i < 0 {
			break
		}
		if text, ok := strings.CutPrefix(string(l.part[:i]), "georep: "); ok {
			l.said = append(l.said, text)
			l.said = l.said[max(0, len(l.said)-2):]
		}
		l.part = l.part[i+1:]
	}
	if len(l.part) > 64<<10 {
		l.part = nil
	}
	return l.w.Write(p)
}

func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.said, "; ")
}
