package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/georep/georep/replicator"
	"github.com/georep/georep/replicator/slave"
	"github.com/georep/georep/replicator/transport"
)

// hostKeyChanged is the state of a worker whose slave's host shows another key
// than the pinned one.
const hostKeyChanged replicator.State = "HostKeyChanged"

// replicateControl is what a daemon that started this process has a hand in.
type replicateControl struct {
	changed error // the host key is another one; set by dial, read after Run
}

// follow ends ctx when in does: then the daemon is gone. Until then it does what
// each line of in, a JSON object, says.
func (rc *replicateControl) follow(ctx context.Context, in io.Reader, w *replicator.Worker, log *slog.Logger) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the process
		defer cancel()
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			var order struct {
				Do string `json:"do"`
			}
			if err := json.Unmarshal(lines.Bytes(), &order); err != nil || order.Do != "retry" {
				log.Error("order not understood", "order", lines.Text(), "err", err)
				continue
			}
			w.Retry()
		}
	}()
	return ctx
}

// dial makes errors that only an operator can mend permanent.
func (rc *replicateControl) dial(dial func(context.Context) (*slave.Client, error)) func(context.Context) (*slave.Client, error) {
	return func(ctx context.Context) (*slave.Client, error) {
		c, err := dial(ctx)
		var changed *transport.ChangedHostError
		if errors.As(err, &changed) {
			rc.changed = err
			return nil, &replicator.PermanentError{Err: err}
		}
		return c, err
	}
}

// status is the worker's, with what only a daemon wants to know.
func (rc *replicateControl) status(s replicator.Status) replicator.Status {
	if rc.changed != nil {
		s.State, s.Reason = hostKeyChanged, rc.changed.Error()
	}
	return s
}

// watch prints the status every second, and sooner when the state or the stime
// changes, until done is closed.
func (rc *replicateControl) watch(v *replicateView, w *replicator.Worker, done <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var told time.Time
	var last replicator.Status
	for {
		s := w.Status()
		if s.State != last.State || s.Stime != last.Stime || s.Crawl != last.Crawl || s.Current != last.Current || s.Waiting != last.Waiting || time.Since(told) >= time.Second {
			v.encode(s)
			told, last = time.Now(), s
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}
