package daemon

import (
	"fmt"
	"time"

	"github.com/georep/georep/replicator/session"
)

// WorkerStatus is one brick of a session as it is now.
type WorkerStatus struct {
	Session   string    `json:"session"`
	Node      string    `json:"master_node"`
	Volume    string    `json:"master_volume"`
	Brick     string    `json:"master_brick"`
	SlaveUser string    `json:"slave_user"`
	Slave     string    `json:"slave"` // as the session was created
	SlaveNode string    `json:"slave_node"`
	Status    string    `json:"status"`
	Crawl     string    `json:"crawl_status"` // "" if there is none
	Stime     time.Time `json:"last_synced"`  // zero: nothing is complete yet

	Entries  int64 `json:"entry"` // waiting, by class
	Data     int64 `json:"data"`
	Meta     int64 `json:"meta"`
	Failures int64 `json:"failures"` // items in quarantine

	Checkpoint *session.Checkpoint `json:"checkpoint,omitempty"` // the latest one

	Current   bool          `json:"current"`    // nothing is known to be waiting
	Lag       time.Duration `json:"lag"`        // nanoseconds
	LagOver   bool          `json:"lag_over"`   // it is above rpo-target
	Backlog   int64         `json:"backlog"`    // records
	Rate      float64       `json:"rate"`       // operations a second, of the last minute
	RateBytes float64       `json:"rate_bytes"` // bytes of contents a second, of the last minute
	ETA       time.Duration `json:"eta"`        // nanoseconds; 0 if not known
	Reason    string        `json:"reason,omitempty"`
	Why       string        `json:"crawl_reason,omitempty"` // why that crawl

	Done     session.Counts `json:"done"` // since the worker's process began
	Progress time.Time      `json:"last_progress"`
	PID      int            `json:"pid,omitempty"`
	Began    time.Time      `json:"began"` // of the process
	Restarts int            `json:"restarts"`
}

// SessionStatus is a session as it is now.
type SessionStatus struct {
	*session.Session
	// Status is what is wanted, unless that is Started: then it is the worst
	// that any worker is at.
	Status  string         `json:"status"`
	Workers []WorkerStatus `json:"workers"`
}

// worst are the states of a worker that runs, worst first.
var worst = []string{"HostKeyChanged", "Faulty", "Stalled", "Degraded", "Initializing", "Active"}

// sessionStatus is what s is at.
func (d *Daemon) sessionStatus(s *session.Session) (*SessionStatus, error) {
	out := &SessionStatus{Session: s, Status: string(s.Wanted), Workers: []WorkerStatus{}}
	rank := len(worst)
	var user, node string
	if s.Destination != "" {
		dest, err := d.store.Destination(s.Destination)
		if err != nil {
			return nil, err
		}
		user, node = dest.User, dest.Host
	} else {
		user, node = "root", d.opt.Node
	}
	checkpoints, err := d.store.Checkpoints(s.Name)
	if err != nil {
		return nil, err
	}
	for _, p := range s.Pairs {
		ws := WorkerStatus{
			Session: s.Name, Node: d.opt.Node, Volume: s.Volume, Brick: p.Brick,
			SlaveUser: user, Slave: s.Address(), SlaveNode: node,
		}
		if n := len(checkpoints); n > 0 {
			ws.Checkpoint = checkpoints[n-1]
		}
		if err := d.fill(&ws, s); err != nil {
			return nil, err
		}
		if s.Wanted == session.Started {
			for i, state := range worst {
				if ws.Status == state && i < rank {
					rank, out.Status = i, state
				}
			}
		}
		out.Workers = append(out.Workers, ws)
	}
	return out, nil
}

// fill fills in what the worker told, or what it told last.
func (d *Daemon) fill(ws *WorkerStatus, s *session.Session) error {
	d.mu.Lock()
	w := d.workers[workerID{s.Name, ws.Brick}]
	d.mu.Unlock()
	if w == nil || s.Wanted != session.Started {
		var rep session.Report
		if err := d.store.Status(s.Name, ws.Brick, &rep); err != nil {
			return err
		}
		ws.take(&rep)
		ws.Status, ws.Crawl, ws.Reason, ws.Why, ws.Current, ws.Lag = string(s.Wanted), "", "", "", false, 0
		if !ws.Stime.IsZero() {
			ws.Lag = time.Since(ws.Stime)
		}
		var err error
		ws.Reason, err = d.heldBack(s, ws.Stime)
		return err
	}
	stall, err := d.store.Setting(s.Name, "stall-timeout")
	if err != nil {
		return err
	}
	rpo, err := d.store.Setting(s.Name, "rpo-target")
	if err != nil {
		return err
	}
	w.fill(ws, stall.Duration())
	ws.LagOver = rpo.Duration() > 0 && ws.Lag > rpo.Duration()
	return nil
}

func (w *worker) fill(ws *WorkerStatus, stall time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ws.take(&w.report)
	ws.PID, ws.Began, ws.Restarts, ws.Progress = w.pid, w.began, w.restarts, w.progress
	switch {
	case w.pid == 0 && w.failure == "":
		ws.Status, ws.Reason, ws.Crawl = "Initializing", "", ""
	case w.pid == 0:
		ws.Crawl = ""
	case !w.told:
		ws.Status, ws.Crawl, ws.Current = "Initializing", "", false
		ws.Reason = w.failure // of the one before
	}
	if ws.Status != "Active" && ws.Status != "Degraded" && !ws.Stime.IsZero() {
		// It can't know what is waiting.
		ws.Lag = time.Since(ws.Stime)
	}
	working := ws.Status == "Active" || ws.Status == "Degraded"
	if idle := time.Since(w.progress); working && !ws.Current && stall > 0 && idle > stall {
		ws.Status = "Stalled"
		ws.Reason = fmt.Sprintf("no progress for %v with work waiting", idle.Round(time.Second))
	}
	ops, bytes := w.rate.per(time.Now())
	ws.Rate, ws.RateBytes = ops, bytes
	if ws.Backlog > 0 && ops > 0 {
		ws.ETA = time.Duration(float64(ws.Backlog) / ops * float64(time.Second))
	}
}

func (ws *WorkerStatus) take(r *session.Report) {
	ws.Status, ws.Reason, ws.Crawl, ws.Why = r.State, r.Reason, r.Crawl, r.Why
	ws.Stime, ws.Current, ws.Lag, ws.Backlog = r.Stime.Time(), r.Current, r.Lag, r.Backlog
	ws.Entries, ws.Data, ws.Meta = r.Pending.Entries, r.Pending.Data, r.Pending.Meta
	ws.Failures, ws.Done = int64(r.Waiting), r.Done
}

// rate is what was done in the last minute.
type rate struct {
	points []ratePoint // oldest first, one a second
}

type ratePoint struct {
	at         time.Time
	ops, bytes int64
}

const rateSpan = time.Minute

func (r *rate) add(now time.Time, c session.Counts) {
	if n := len(r.points); n > 0 && now.Sub(r.points[n-1].at) < time.Second {
		return
	}
	r.points = append(r.points, ratePoint{now, c.Ops(), c.Bytes})
	for len(r.points) > 2 && now.Sub(r.points[0].at) > rateSpan {
		r.points = r.points[1:]
	}
}

// per is operations and bytes a second.
func (r *rate) per(now time.Time) (ops, bytes float64) {
	if len(r.points) < 2 {
		return 0, 0
	}
	a, b := r.points[0], r.points[len(r.points)-1]
	s := max(b.at.Sub(a.at), now.Sub(a.at)).Seconds()
	return float64(b.ops-a.ops) / s, float64(b.bytes-a.bytes) / s
}
