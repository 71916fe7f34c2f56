package daemon

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/georep/georep/replicator/session"
)

// keptStatus is what was last put in the store of a worker.
type keptStatus struct {
	at     time.Time
	state  string
	stime  session.Stamp
	sample time.Time
}

// How often what changes all the time is put in the store.
const (
	keepEvery   = 10 * time.Second
	sampleEvery = 10 * time.Second
)

// keep puts the worker's status in the store if it changed in what matters, or
// was not for a while.
func (w *worker) keep(now bool) {
	w.mu.Lock()
	rep, kept := w.report, w.kept
	items, err := json.Marshal(rep.Items)
	changed := err == nil && string(items) != w.items && w.told
	w.mu.Unlock()
	if rep.State == "" {
		return
	}
	if !now && kept.state == rep.State && kept.stime == rep.Stime && time.Since(kept.at) < keepEvery && !changed {
		return
	}
	if err := w.d.store.SetStatus(w.id.session, w.id.brick, &rep); err != nil {
		w.d.log.Error("status not kept", "session", w.id.session, "err", err)
		return
	}
	if changed {
		if err := w.d.store.SetQuarantine(w.id.session, w.id.brick, rep.Items); err != nil {
			w.d.log.Error("quarantine not kept", "session", w.id.session, "err", err)
			return
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept.at, w.kept.state, w.kept.stime = time.Now(), rep.State, rep.Stime
	if changed {
		w.items = string(items)
	}
}

// look is one round: what workers tell is kept, checkpoints are completed, and
// events told. It returns a line that sums up.
func (d *Daemon) look() (string, error) {
	sessions, err := d.store.Sessions()
	if err != nil {
		return "", err
	}
	var samples []session.Sample
	counts := map[string]int{}
	for _, s := range sessions {
		st, err := d.sessionStatus(s)
		if err != nil {
			return "", err
		}
		counts[st.Status]++
		if s.Wanted != session.Started {
			continue
		}
		for i := range st.Workers {
			ws := &st.Workers[i]
			d.mu.Lock()
			w := d.workers[workerID{s.Name, ws.Brick}]
			d.mu.Unlock()
			if w == nil {
				continue
			}
			w.keep(false)
			d.alarm(w, ws)
			if w.sampleDue() {
				samples = append(samples, session.Sample{Session: s.Name, Brick: ws.Brick, Time: time.Now(), Lag: ws.Lag, Backlog: ws.Backlog, Ops: ws.Done.Ops(), Bytes: ws.Done.Bytes})
			}
		}
		if err := d.checkpoints(st); err != nil {
			return "", err
		}
	}
	if len(samples) > 0 {
		if err := d.store.AddSamples(samples); err != nil {
			return "", err
		}
	}
	line := fmt.Sprintf("%d sessions", len(sessions))
	for _, state := range append(append([]string{}, worst...), "Created", "Paused", "Stopped") {
		if n := counts[state]; n > 0 {
			line += fmt.Sprintf(", %d %s", n, state)
		}
	}
	return line, nil
}

func (w *worker) sampleDue() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.kept.sample) < sampleEvery || !w.told {
		return false
	}
	w.kept.sample = time.Now()
	return true
}

// checkpoints completes those that all workers of a session have passed.
func (d *Daemon) checkpoints(st *SessionStatus) error {
	var least time.Time
	for i := range st.Workers {
		t := st.Workers[i].Stime
		if t.IsZero() {
			return nil
		}
		if i == 0 || t.Before(least) {
			least = t
		}
	}
	reached, err := d.store.CompleteCheckpoints(st.Name, least)
	for _, c := range reached {
		d.tell(session.Event{Kind: "checkpoint.completed", Session: st.Name, Text: fmt.Sprintf("session %s: checkpoint %d of %s is reached", st.Name, c.ID, c.Time.Format(time.RFC3339))})
	}
	return err
}

// alarms is what was told of a worker; used by rounds alone.
type alarms struct {
	state   string
	lagOver bool
	waiting int64
}

// alarm tells what changed of a worker since the last round.
func (d *Daemon) alarm(w *worker, ws *WorkerStatus) {
	before := w.alarms
	w.alarms = alarms{ws.Status, ws.LagOver, ws.Failures}
	tell := func(kind, format string, args ...any) {
		d.tell(session.Event{Kind: kind, Session: ws.Session, Brick: ws.Brick, Text: "session " + ws.Session + ": " + fmt.Sprintf(format, args...)})
	}
	if ws.Status != before.state && (ws.Status != "Initializing" || before.state == "") {
		kind := map[string]string{
			"Active": "worker.active", "Faulty": "worker.faulty", "Stalled": "worker.stalled", "Degraded": "worker.degraded",
			"HostKeyChanged": "worker.host-key-changed", "Initializing": "worker.initializing",
		}[ws.Status]
		text := ws.Brick + " is " + ws.Status
		if ws.Reason != "" {
			text += ": " + ws.Reason
		}
		tell(kind, "%s", text)
	}
	if ws.LagOver != before.lagOver {
		if ws.LagOver {
			tell("rpo.exceeded", "%s is %v behind, above rpo-target", ws.Brick, ws.Lag.Round(time.Second))
		} else {
			tell("rpo.met", "%s is within rpo-target again", ws.Brick)
		}
	}
	switch {
	case ws.Failures > before.waiting:
		tell("quarantine.grew", "%d items of %s wait in quarantine", ws.Failures, ws.Brick)
	case ws.Failures == 0 && before.waiting > 0:
		tell("quarantine.empty", "no item of %s waits in quarantine any more", ws.Brick)
	}
}
