package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/georep/georep/replicator/session"
)

// maxRequest is the largest body of a request, in bytes.
const maxRequest = 1 << 20

// answerFunc answers a request with a value for JSON; nil is an empty object.
type answerFunc func(*http.Request) (any, error)

func (d *Daemon) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, fn := range map[string]answerFunc{
		"GET /v1/daemon": d.getDaemon,

		"GET /v1/volumes":               d.getVolumes,
		"POST /v1/volumes":              d.postVolume,
		"GET /v1/volumes/{name}":        d.getVolume,
		"DELETE /v1/volumes/{name}":     d.deleteVolume,
		"POST /v1/volumes/{name}/start": d.postVolumeStart,
		"POST /v1/volumes/{name}/stop":  d.postVolumeStop,

		"GET /v1/destinations":              d.getDestinations,
		"POST /v1/destinations":             d.postDestination,
		"GET /v1/destinations/{name}":       d.getDestination,
		"DELETE /v1/destinations/{name}":    d.deleteDestination,
		"POST /v1/destinations/{name}/test": d.postDestinationTest,
		"PUT /v1/destinations/{name}/keys":  d.putDestinationKeys,

		"GET /v1/sessions":                     d.getSessions,
		"POST /v1/sessions":                    d.postSession,
		"GET /v1/sessions/{name}":              d.getSession,
		"DELETE /v1/sessions/{name}":           d.deleteSession,
		"POST /v1/sessions/{name}/{verb}":      d.postSessionVerb,
		"GET /v1/sessions/{name}/config":       d.getConfig,
		"PATCH /v1/sessions/{name}/config":     d.patchConfig,
		"DELETE /v1/sessions/{name}/config":    d.deleteConfig,
		"GET /v1/sessions/{name}/quarantine":   d.getQuarantine,
		"GET /v1/sessions/{name}/samples":      d.getSamples,
		"GET /v1/checkpoints":                  d.getCheckpoints,
		"POST /v1/sessions/{name}/checkpoints": d.postCheckpoint,
		"GET /v1/sessions/{name}/checkpoints":  d.getCheckpoints,
		"GET /v1/sessions/{name}/wait":         d.getWait,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { d.answer(w, r, fn) })
	}
	mux.HandleFunc("GET /v1/events", d.getEvents)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		d.fail(w, r, session.Errorf(session.NotFound, "the daemon knows no %s %s", r.Method, r.URL.Path))
	})
	return mux
}

func (d *Daemon) answer(w http.ResponseWriter, r *http.Request, fn answerFunc) {
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	out, err := fn(r)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	if out == nil {
		out = struct{}{}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // a client that is gone is told nothing
}

// statusOf is the HTTP status of each kind of error.
var statusOf = map[session.Kind]int{
	session.Usage: http.StatusBadRequest, session.NotFound: http.StatusNotFound, session.Precondition: http.StatusConflict,
	session.Timeout: http.StatusRequestTimeout, session.Failed: http.StatusInternalServerError,
}

func (d *Daemon) fail(w http.ResponseWriter, r *http.Request, err error) {
	var e *session.Error
	if !errors.As(err, &e) {
		d.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		e = session.Errorf(session.Failed, "%v", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf[e.Kind])
	_ = json.NewEncoder(w).Encode(e) // as above
}

// read reads the body of a request, strictly.
func read(r *http.Request, into any) error {
	j := json.NewDecoder(r.Body)
	j.DisallowUnknownFields()
	if err := j.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return session.Errorf(session.Usage, "request: %v", err)
	}
	return nil
}

// Info is what a daemon tells of itself.
type Info struct {
	Version string    `json:"version"`
	Node    string    `json:"node"`
	State   string    `json:"state"` // directory of logs and keys
	Began   time.Time `json:"began"`
}

func (d *Daemon) getDaemon(*http.Request) (any, error) {
	return Info{Version: d.opt.Version, Node: d.opt.Node, State: d.opt.State, Began: d.began}, nil
}

// getEvents gives events after a number; with follow it goes on with those to come.
func (d *Daemon) getEvents(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseInt(r.FormValue("after"), 10, 64)
	if err != nil && r.FormValue("after") != "" {
		d.fail(w, r, session.Errorf(session.Usage, "after %q: want a number", r.FormValue("after")))
		return
	}
	out := json.NewEncoder(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	for {
		more := d.events.next()
		events, err := d.store.Events(after, 1000)
		if err != nil {
			d.log.Error("events", "err", err)
			return
		}
		for _, e := range events {
			if out.Encode(e) != nil {
				return
			}
			after = e.ID
		}
		if len(events) > 0 {
			continue
		}
		if r.FormValue("follow") == "" {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

// getWait waits for a checkpoint of a session: the one with the number, or the
// latest.
func (d *Daemon) getWait(r *http.Request) (any, error) {
	number := func(name string) (int64, error) {
		v := r.FormValue(name)
		if v == "" {
			return 0, nil
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return 0, session.Errorf(session.Usage, "%s %q: want a number", name, v)
		}
		return n, nil
	}
	id, err := number("id")
	if err != nil {
		return nil, err
	}
	ms, err := number("timeout")
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if ms > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
	}
	for {
		more := d.events.next()
		c, err := d.store.Checkpoint(r.PathValue("name"), id)
		if err != nil {
			return nil, err
		}
		if !c.Completed.IsZero() {
			return c, nil
		}
		id = c.ID
		select {
		case <-more:
		case <-ctx.Done():
			if r.Context().Err() != nil {
				return nil, session.Errorf(session.Failed, "the daemon is ending")
			}
			return nil, session.Errorf(session.Timeout, "checkpoint %d of session %s is not reached after %v", id, c.Session, time.Duration(ms)*time.Millisecond).
				WithHint("see: georep session status %s --detail", c.Session)
		}
	}
}

func (d *Daemon) getQuarantine(r *http.Request) (any, error) {
	return d.store.Quarantine(r.PathValue("name"))
}

func (d *Daemon) getSamples(r *http.Request) (any, error) {
	since := time.Now().Add(-time.Hour)
	if v := r.FormValue("since"); v != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, v); err != nil {
			return nil, session.Errorf(session.Usage, "since %q: want a time such as 2024-05-01T10:00:00Z", v)
		}
	}
	return d.store.Samples(r.PathValue("name"), since)
}

func (d *Daemon) getCheckpoints(r *http.Request) (any, error) {
	return d.store.Checkpoints(r.PathValue("name"))
}

// NewCheckpoint asks for a checkpoint; the zero time is now.
type NewCheckpoint struct {
	Time time.Time `json:"time"`
}

func (d *Daemon) postCheckpoint(r *http.Request) (any, error) {
	var req NewCheckpoint
	if err := read(r, &req); err != nil {
		return nil, err
	}
	c, err := d.store.AddCheckpoint(r.PathValue("name"), req.Time)
	if err != nil {
		return nil, err
	}
	d.tell(session.Event{Kind: "checkpoint.created", Session: c.Session, Text: fmt.Sprintf("session %s: checkpoint %d of %s", c.Session, c.ID, c.Time.Format(time.RFC3339))})
	return c, nil
}
