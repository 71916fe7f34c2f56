package daemon

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/georep/georep/replicator/session"
)

// started is a daemon with a session that is started, and its one worker, which
// has no process.
func started(t *testing.T) (*Daemon, *session.Session, *worker) {
	t.Helper()
	store, err := session.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	v := &session.Volume{Name: "v", ID: uuid.New(), Bricks: []session.Brick{{Path: "/b", Mountpoint: "/m"}}}
	if err := store.CreateVolume(v); err != nil {
		t.Fatal(err)
	}
	s := &session.Session{Name: "s", Volume: "v", Dir: "/slave"}
	if err := store.CreateSession(s); err != nil {
		t.Fatal(err)
	}
	if err := store.SetWanted("s", session.Started, session.Created); err != nil {
		t.Fatal(err)
	}
	s, err = store.Session("s")
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Options{Store: store, Host: noHost{}, Socket: "s", State: "s", Mounts: "s", Georep: "g", Node: "here"})
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{d: d, id: workerID{"s", "/b"}}
	d.workers[w.id] = w
	return d, s, w
}

// noHost is a Host that is not asked.
type noHost struct{ Host }

// The state shown is what a worker says, unless what it does says otherwise.
func TestWorkerState(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		set  func(w *worker)
		want string
	}{
		"no process yet": {func(w *worker) {}, "Initializing"},
		"says nothing yet": {func(w *worker) {
			w.pid, w.report.State = 1, "Active"
		}, "Initializing"},
		"works": {func(w *worker) {
			w.pid, w.told, w.progress, w.report.State = 1, true, now, "Active"
		}, "Active"},
		"works on the same for long": {func(w *worker) {
			w.pid, w.told, w.progress, w.report.State = 1, true, now.Add(-3*time.Minute), "Active"
		}, "Stalled"},
		"has nothing to do for long": {func(w *worker) {
			w.pid, w.told, w.progress, w.report.State, w.report.Current = 1, true, now.Add(-3*time.Minute), "Active", true
		}, "Active"},
		"degraded": {func(w *worker) {
			w.pid, w.told, w.progress, w.report.State = 1, true, now, "Degraded"
		}, "Degraded"},
		"ended": {func(w *worker) {
			w.report.State = "Active"
			w.ended(io.ErrUnexpectedEOF)
		}, "Faulty"},
		"ended for a host key": {func(w *worker) {
			w.report.State = "HostKeyChanged"
			w.ended(io.ErrUnexpectedEOF)
		}, "HostKeyChanged"},
	} {
		t.Run(name, func(t *testing.T) {
			d, s, w := started(t)
			c.set(w)
			st, err := d.sessionStatus(s)
			if err != nil {
				t.Fatal(err)
			}
			if got := st.Workers[0].Status; got != c.want || st.Status != c.want {
				t.Errorf("worker %s, session %s, want %s", got, st.Status, c.want)
			}
		})
	}
}

// A worker that is not running says how far it is, and that it may be behind.
func TestStoppedShowsLastStime(t *testing.T) {
	d, _, w := started(t)
	w.report = session.Report{State: "Active", Stime: session.Stamp{Sec: 1000}, Current: true, Waiting: 2}
	w.keep(true)
	if err := d.store.SetWanted("s", session.Stopped, session.Started); err != nil {
		t.Fatal(err)
	}
	s, err := d.store.Session("s")
	if err != nil {
		t.Fatal(err)
	}
	st, err := d.sessionStatus(s)
	if err != nil {
		t.Fatal(err)
	}
	got := st.Workers[0]
	if got.Status != "Stopped" || !got.Stime.Equal(time.Unix(1000, 0)) || got.Current || got.Lag < time.Hour || got.Failures != 2 {
		t.Errorf("status %+v", got)
	}
}

// Alarms are told when something changes, once.
func TestAlarms(t *testing.T) {
	d, _, w := started(t)
	kinds := func(ws WorkerStatus) []string {
		last, err := d.store.LastEvent()
		if err != nil {
			t.Fatal(err)
		}
		ws.Session, ws.Brick = "s", "/b"
		d.alarm(w, &ws)
		events, err := d.store.Events(last, 10)
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, e := range events {
			kinds = append(kinds, e.Kind)
		}
		return kinds
	}
	for i, c := range []struct {
		ws   WorkerStatus
		want []string
	}{
		{WorkerStatus{Status: "Active"}, []string{"worker.active"}},
		{WorkerStatus{Status: "Active"}, nil},
		{WorkerStatus{Status: "Active", LagOver: true}, []string{"rpo.exceeded"}},
		{WorkerStatus{Status: "Degraded", Failures: 1}, []string{"worker.degraded", "rpo.met", "quarantine.grew"}},
		{WorkerStatus{Status: "Stalled", Failures: 1}, []string{"worker.stalled"}},
		{WorkerStatus{Status: "Initializing"}, []string{"quarantine.empty"}},
		{WorkerStatus{Status: "Faulty"}, []string{"worker.faulty"}},
	} {
		got := kinds(c.ws)
		if len(got) != len(c.want) {
			t.Errorf("%d: told %v, want %v", i, got, c.want)
			continue
		}
		for j := range got {
			if got[j] != c.want[j] {
				t.Errorf("%d: told %v, want %v", i, got, c.want)
			}
		}
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rate
		for i := range 100 {
			r.add(time.Now(), session.Counts{Entries: int64(10 * i), Bytes: int64(1000 * i)})
			time.Sleep(time.Second)
		}
		ops, bytes := r.per(time.Now())
		if ops < 9 || ops > 10 || bytes < 900 || bytes > 1000 {
			t.Errorf("%.1f operations and %.1f bytes a second, want nearly 10 and 1000", ops, bytes)
		}
		time.Sleep(time.Hour)
		if ops, _ := r.per(time.Now()); ops > 1 {
			t.Errorf("%.1f operations a second after an hour of nothing", ops)
		}
	})
}

// Why a command failed is what it said last.
func TestLastWords(t *testing.T) {
	var log bytes.Buffer
	l := &lastWords{w: &log}
	const text = "time=1 level=INFO msg=x\ngeorep: one\ngeorep: two\ngeorep: see: three\nnot a word"
	for i := range len(text) {
		if _, err := l.Write([]byte{text[i]}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := l.String(), "two; see: three"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if log.String() != text {
		t.Errorf("the log got %q", log.String())
	}
}
