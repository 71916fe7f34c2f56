package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/georep/georep/replicator/session"
	"github.com/georep/georep/replicator/transport"
)

// Test looks at each thing that replication to a destination needs, in order, as
// far as it gets.
func (h *daemonHost) Test(ctx context.Context, d *session.Destination) (session.DestinationState, []session.Step) {
	p := &destinationProbe{d: d}
	if state := p.login(ctx); state != session.Reachable {
		return state, p.steps
	}
	defer p.conn.Close()
	p.agent()
	for _, s := range p.steps {
		if !s.OK {
			return session.Unreachable, p.steps
		}
	}
	return session.Reachable, p.steps
}

// destinationProbe gathers what a test finds.
type destinationProbe struct {
	d     *session.Destination
	conn  *transport.Conn // owned by the caller after login
	steps []session.Step
}

func (p *destinationProbe) add(name string, ok bool, detail, mend string) {
	if ok {
		mend = ""
	}
	p.steps = append(p.steps, session.Step{Name: name, OK: ok, Detail: oneLine(detail), Mend: mend})
}

// address is where the destination is, with any directory in it.
func destinationAddress(d *session.Destination) transport.Address {
	return transport.Address{User: d.User, Host: d.Host, Port: d.Port, Dir: d.Dir}
}

// login connects as a worker would.
func (p *destinationProbe) login(ctx context.Context) session.DestinationState {
	d := p.d
	at := net.JoinHostPort(d.Host, strconv.Itoa(d.Port))
	tcp, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", at)
	if err != nil {
		p.add("reach", false, err.Error(), "see whether the host is up, and its sshd answers at port "+strconv.Itoa(d.Port))
		return session.Unreachable
	}
	tcp.Close()
	p.add("reach", true, at+" answers", "")
	p.conn, err = transport.Dial(ctx, destinationAddress(d), transport.Options{Identities: []string{d.Identity}, KnownHosts: d.KnownHosts, Timeout: 20 * time.Second})
	var changed *transport.ChangedHostError
	var unknown *transport.UnknownHostError
	switch {
	case errors.As(err, &changed):
		p.add("host key", false, fmt.Sprintf("it is %s now, and was %s", changed.Fingerprint, d.Fingerprint),
			"if the host was set up anew: georep destination reestablish "+d.Name+" --fingerprint "+changed.Fingerprint)
		return session.HostKeyChanged
	case errors.As(err, &unknown):
		p.add("host key", false, "the pinned key is lost", "georep destination reestablish "+d.Name+" --fingerprint "+unknown.Fingerprint)
		return session.HostKeyChanged
	case err != nil:
		p.add("host key", true, d.Fingerprint, "")
		p.add("login", false, err.Error(), "install the key again: georep destination reestablish "+d.Name)
		return session.Unreachable
	}
	p.add("host key", true, d.Fingerprint, "")
	p.add("login", true, "as "+d.User+" with "+d.Identity, "")
	return session.Reachable
}

// agent asks georep there for what else is needed.
func (p *destinationProbe) agent() {
	asked := time.Now()
	out, err := p.conn.Run(reportRequest, nil)
	var r hostReport
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		p.add("agent", false, err.Error(), "install georep there, and the key again: georep destination reestablish "+p.d.Name)
		return
	}
	took := time.Since(asked)
	p.add("agent", true, "georep "+r.Version, "")
	p.add("rsync", r.Rsync != "", orText(r.Rsync, "there is none"), "install rsync 3.1.3 or newer there")
	if _, err := exec.LookPath("rsync"); err != nil {
		p.add("rsync here", false, err.Error(), "install rsync 3.1.3 or newer on this host")
	}
	if r.Error != "" {
		p.add("space", false, r.Error, "make "+p.d.Dir+" a directory there that "+p.d.User+" can write in")
		return
	}
	var lacking []string
	for ns, why := range r.Xattrs {
		if why != "" {
			lacking = append(lacking, ns+": "+why)
		}
	}
	slices.Sort(lacking)
	p.add("xattrs", len(lacking) == 0, orText(strings.Join(lacking, "; "), "user, trusted and security can be set"), "another file system, such as ext4 or XFS, and root as user")
	p.add("space", r.Free > 0, fmt.Sprintf("%s of %s free below %s", bytesText(r.Free), bytesText(r.Size), r.Below), "make room there")
	skew := r.Clock.Sub(asked.Add(took / 2)).Abs()
	p.add("clock", skew < time.Minute+took, fmt.Sprintf("%v apart", skew.Round(time.Millisecond)), "run a time service on both hosts")
}

func orText(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
