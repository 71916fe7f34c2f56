package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"

	"github.com/georep/georep/replicator/session"
)

// ErrNoDaemon is wrapped by a Client's errors when nobody answers at the socket.
var ErrNoDaemon = errors.New("no daemon answers")

// Client asks a daemon.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client of the daemon at socket. It does not connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Do sends a request with in as its body, if it is not nil, and reads the answer
// into out, if that is not nil. An error that the daemon answers with is a
// *session.Error.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	body, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("daemon: %s %s: %w", method, path, err)
	}
	return nil
}

// Events calls fn with each event after a number; with follow until ctx is done
// or the daemon ends, which is no error then.
func (c *Client) Events(ctx context.Context, after int64, follow bool, fn func(*session.Event) error) error {
	path := fmt.Sprintf("/v1/events?after=%d", after)
	if follow {
		path += "&follow=1"
	}
	body, err := c.open(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := json.NewDecoder(body)
	for {
		e := &session.Event{}
		err := lines.Decode(e)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("daemon: events: %w", err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}

func (c *Client) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("daemon: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, body)
	if err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("daemon: %w at %s", ErrNoDaemon, c.socket)
		}
		return nil, fmt.Errorf("daemon: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	e := &session.Error{}
	if err := json.NewDecoder(resp.Body).Decode(e); err != nil || e.Kind == "" {
		return nil, fmt.Errorf("daemon: %s %s: status %s", method, path, resp.Status)
	}
	return nil, e
}
