package daemon

import (
	"net/http"
	"path"

	"github.com/georep/georep/replicator/session"
)

// NewSession asks for a session.
type NewSession struct {
	Name        string `json:"name"` // "" is one made of the volume and the destination
	Volume      string `json:"volume"`
	Destination string `json:"destination"` // "" is this host
	Dir         string `json:"dir"`
	Start       bool   `json:"start"`
	Force       bool   `json:"force"`
}

func (d *Daemon) getSessions(*http.Request) (any, error) {
	all, err := d.store.Sessions()
	if err != nil {
		return nil, err
	}
	out := make([]*SessionStatus, 0, len(all))
	for _, s := range all {
		st, err := d.sessionStatus(s)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

func (d *Daemon) getSession(r *http.Request) (any, error) { return d.status(r.PathValue("name")) }

func (d *Daemon) status(name string) (*SessionStatus, error) {
	s, err := d.store.Session(name)
	if err != nil {
		return nil, err
	}
	return d.sessionStatus(s)
}

// postSession creates a session after all that can be checked was found well.
func (d *Daemon) postSession(r *http.Request) (any, error) {
	var req NewSession
	if err := read(r, &req); err != nil {
		return nil, err
	}
	s := &session.Session{Name: req.Name, Volume: req.Volume, Destination: req.Destination, Dir: path.Clean(req.Dir)}
	if s.Name == "" {
		s.Name = s.Volume + "-local"
		if s.Destination != "" {
			s.Name = s.Volume + "-" + s.Destination
		}
	}
	d.ops.Lock()
	defer d.ops.Unlock()
	pairs, err := d.store.CheckSession(s)
	if err != nil {
		return nil, err
	}
	slave, err := d.slaveOf(s)
	if err != nil {
		return nil, err
	}
	for _, p := range pairs {
		if err := d.opt.Host.PrepareSlave(r.Context(), p.Brick, slave(p), req.Force); err != nil {
			return nil, err
		}
	}
	if err := d.store.CreateSession(s); err != nil {
		return nil, err
	}
	d.tell(session.Event{Kind: "session.created", Session: s.Name, Text: "session " + s.Name + " is created: " + s.Volume + " to " + s.Address()})
	if req.Start {
		if err := d.start(s.Name, false); err != nil {
			return nil, err
		}
	}
	return d.status(s.Name)
}

func (d *Daemon) deleteSession(r *http.Request) (any, error) {
	d.ops.Lock()
	defer d.ops.Unlock()
	name := r.PathValue("name")
	s, err := d.store.Session(name)
	if err != nil {
		return nil, err
	}
	slave, err := d.slaveOf(s)
	if err != nil {
		return nil, err
	}
	if s.Wanted != session.Started && s.Wanted != session.Paused && r.FormValue("reset-sync-time") != "" {
		for _, p := range s.Pairs {
			if err := d.opt.Host.ResetStime(r.Context(), p.Brick, slave(p)); err != nil {
				return nil, err
			}
		}
	}
	if err := d.store.DeleteSession(name); err != nil {
		return nil, err
	}
	d.tell(session.Event{Kind: "session.deleted", Session: name, Text: "session " + name + " is deleted"})
	return nil, nil
}

func (d *Daemon) postSessionVerb(r *http.Request) (any, error) {
	name, force := r.PathValue("name"), r.FormValue("force") != ""
	d.ops.Lock()
	defer d.ops.Unlock()
	if _, err := d.store.Session(name); err != nil {
		return nil, err
	}
	var err error
	switch verb := r.PathValue("verb"); verb {
	case "start":
		err = d.start(name, force)
	case "stop":
		err = d.end(name, session.Stopped, force, session.Started, session.Paused)
	case "pause":
		err = d.end(name, session.Paused, force, session.Started)
	case "resume":
		err = d.resumeSession(name, force)
	case "retry":
		err = d.say(name, verb)
	default:
		err = session.Errorf(session.NotFound, "a session can't %s", verb)
	}
	if err != nil {
		return nil, err
	}
	return d.status(name)
}

// start starts a session. With force one that is started is started anew.
func (d *Daemon) start(name string, force bool) error {
	s, err := d.store.Session(name)
	if err != nil {
		return err
	}
	switch {
	case s.Wanted == session.Started && !force:
		return session.Errorf(session.Precondition, "session %s is started already", name)
	case s.Wanted == session.Paused && !force:
		return session.Errorf(session.Precondition, "session %s is paused", name).WithHint("go on with: georep session resume %s", name)
	}
	return d.begin(s, "session.started", "started")
}

func (d *Daemon) resumeSession(name string, force bool) error {
	s, err := d.store.Session(name)
	if err != nil {
		return err
	}
	if s.Wanted != session.Paused && !force {
		return session.Errorf(session.Precondition, "session %s is not paused", name)
	}
	return d.begin(s, "session.resumed", "resumed")
}

func (d *Daemon) begin(s *session.Session, kind, verb string) error {
	d.stopWorkers(s)
	if err := d.store.SetWanted(s.Name, session.Started, s.Wanted); err != nil {
		return err
	}
	if err := d.startWorkers(s); err != nil {
		return err
	}
	d.tell(session.Event{Kind: kind, Session: s.Name, Text: "session " + s.Name + " is " + verb})
	return nil
}

// end ends the workers of a session and notes what it is to be from now on. With
// force it does not matter what it was.
func (d *Daemon) end(name string, to session.Wanted, force bool, from ...session.Wanted) error {
	if force {
		from = []session.Wanted{session.Created, session.Started, session.Paused, session.Stopped}
	}
	if err := d.store.SetWanted(name, to, from...); err != nil {
		return err
	}
	s, err := d.store.Session(name)
	if err != nil {
		return err
	}
	d.stopWorkers(s)
	kind, verb := "session.stopped", "stopped"
	if to == session.Paused {
		kind, verb = "session.paused", "paused"
	}
	d.tell(session.Event{Kind: kind, Session: name, Text: "session " + name + " is " + verb})
	return nil
}

// restart starts the workers of a session anew if it is started. They end at a
// safe point.
func (d *Daemon) restart(s *session.Session) error {
	if s.Wanted != session.Started {
		return nil
	}
	d.stopWorkers(s)
	return d.startWorkers(s)
}

// say sends all workers of a session a word.
func (d *Daemon) say(name, do string) error {
	s, err := d.store.Session(name)
	if err != nil {
		return err
	}
	if s.Wanted != session.Started {
		return session.Errorf(session.Precondition, "session %s is not started", name)
	}
	for _, p := range s.Pairs {
		d.mu.Lock()
		w := d.workers[workerID{name, p.Brick}]
		d.mu.Unlock()
		if w == nil {
			continue
		}
		if err := w.say(do); err != nil {
			return err
		}
	}
	d.tell(session.Event{Kind: "session." + do, Session: name, Text: "session " + name + ": " + do})
	return nil
}

func (d *Daemon) getConfig(r *http.Request) (any, error) { return d.store.Config(r.PathValue("name")) }

func (d *Daemon) patchConfig(r *http.Request) (any, error) {
	values := map[string]string{}
	if err := read(r, &values); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	return d.configure(name, func() (bool, error) { return d.store.SetConfig(name, values) })
}

func (d *Daemon) deleteConfig(r *http.Request) (any, error) {
	name := r.PathValue("name")
	return d.configure(name, func() (bool, error) { return d.store.ResetConfig(name, r.FormValue("key")) })
}

// configure changes the configuration of a session and makes its workers heed it.
func (d *Daemon) configure(name string, change func() (restarts bool, err error)) (any, error) {
	d.ops.Lock()
	defer d.ops.Unlock()
	restarts, err := change()
	if err != nil {
		return nil, err
	}
	d.tell(session.Event{Kind: "session.configured", Session: name, Text: "session " + name + " is configured anew"})
	d.retainSoon()
	if restarts {
		s, err := d.store.Session(name)
		if err != nil {
			return nil, err
		}
		if err := d.restart(s); err != nil {
			return nil, err
		}
	}
	return d.store.Config(name)
}
