package daemon

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/georep/georep/replicator/session"
)

func (d *Daemon) getDestinations(*http.Request) (any, error) { return d.store.Destinations() }

func (d *Daemon) getDestination(r *http.Request) (any, error) {
	return d.store.Destination(r.PathValue("name"))
}

func (d *Daemon) postDestination(r *http.Request) (any, error) {
	dest := &session.Destination{}
	if err := read(r, dest); err != nil {
		return nil, err
	}
	if err := d.store.AddDestination(dest); err != nil {
		return nil, err
	}
	d.tell(session.Event{Kind: "destination.added", Text: "destination " + dest.Name + " is added"})
	return dest, nil
}

func (d *Daemon) deleteDestination(r *http.Request) (any, error) {
	name := r.PathValue("name")
	dest, err := d.store.Destination(name)
	if err != nil {
		return nil, err
	}
	if err := d.store.RemoveDestination(name); err != nil {
		return nil, err
	}
	d.tell(session.Event{Kind: "destination.removed", Text: "destination " + name + " is removed"})
	return dest, nil
}

func (d *Daemon) postDestinationTest(r *http.Request) (any, error) {
	return d.testDestination(r.Context(), r.PathValue("name"))
}

// testDestination tests a destination and notes what was found.
func (d *Daemon) testDestination(ctx context.Context, name string) (*session.Destination, error) {
	dest, err := d.store.Destination(name)
	if err != nil {
		return nil, err
	}
	state, steps := d.opt.Host.Test(ctx, dest)
	if ctx.Err() != nil {
		return nil, ctx.Err() // it says nothing of the destination
	}
	reason := ""
	for _, s := range steps {
		if !s.OK && reason == "" {
			reason = s.Name + ": " + s.Detail
		}
	}
	if err := d.store.SetDestinationTest(dest.Name, state, reason, steps); err != nil {
		return nil, err
	}
	if state != dest.State {
		text := "destination " + dest.Name + " is " + string(state)
		if reason != "" {
			text += ": " + reason
		}
		d.tell(session.Event{Kind: "destination." + strings.ToLower(string(state)), Text: text})
	}
	return d.store.Destination(dest.Name)
}

// testEvery is how often each destination is tested.
const testEvery = 5 * time.Minute

// testAll tests all destinations now and then until ctx is done.
func (d *Daemon) testAll(ctx context.Context) {
	tick := time.NewTicker(testEvery)
	defer tick.Stop()
	for {
		all, err := d.store.Destinations()
		if err != nil {
			d.log.Error("destinations not tested", "err", err)
		}
		for _, dest := range all {
			if _, err := d.testDestination(ctx, dest.Name); err != nil && ctx.Err() == nil {
				d.log.Error("destination not tested", "destination", dest.Name, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Keys are another host key and identity of a destination.
type Keys struct {
	Fingerprint string `json:"fingerprint"`
	Identity    string `json:"identity"`
}

// putDestinationKeys takes on new keys, and starts the workers anew that use them.
func (d *Daemon) putDestinationKeys(r *http.Request) (any, error) {
	var req Keys
	if err := read(r, &req); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	d.ops.Lock()
	defer d.ops.Unlock()
	if err := d.store.SetDestinationKeys(name, req.Fingerprint, req.Identity); err != nil {
		return nil, err
	}
	sessions, err := d.store.Sessions()
	if err != nil {
		return nil, err
	}
	for _, s := range sessions {
		if s.Destination == name {
			if err := d.restart(s); err != nil {
				return nil, err
			}
		}
	}
	return d.store.Destination(name)
}
