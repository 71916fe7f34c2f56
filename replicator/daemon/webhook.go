package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/georep/georep/replicator/session"
)

const (
	webhookTimeout = 10 * time.Second
	// webhookTries is how often an event is posted before it is given up, with a
	// wait that doubles from webhookWait: about a minute in all.
	webhookTries = 6
	webhookWait  = time.Second
)

// post sends each event from now on to the webhook, one after another, until ctx
// is done.
func (d *Daemon) post(ctx context.Context) {
	if d.opt.Webhook == "" {
		return
	}
	after, err := d.store.LastEvent()
	if err != nil {
		d.log.Error("webhook", "err", err)
		return
	}
	for {
		more := d.events.next()
		events, err := d.store.Events(after, 100)
		if err != nil {
			d.log.Error("webhook", "err", err)
		}
		for _, e := range events {
			after = e.ID
			if err := d.postOne(ctx, e); err != nil && ctx.Err() == nil {
				d.log.Error("event not posted", "url", d.opt.Webhook, "event", e.ID, "err", err)
			}
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

func (d *Daemon) postOne(ctx context.Context, e *session.Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	wait := webhookWait
	for try := 1; ; try++ {
		err := d.postOnce(ctx, body)
		if err == nil || try == webhookTries {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait *= 2
	}
}

func (d *Daemon) postOnce(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, webhookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.opt.Webhook, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}
