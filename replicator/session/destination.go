package session

import (
	"database/sql"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// DestinationState is how a destination was found when it was last looked at.
type DestinationState string

const (
	Reachable      DestinationState = "Reachable"
	Unreachable    DestinationState = "Unreachable"
	Untested       DestinationState = "Untested"
	HostKeyChanged DestinationState = "HostKeyChanged" // shows another key than the pinned one
)

// Destination is a host that slaves are on, and how it is reached.
type Destination struct {
	Name        string           `json:"name"`
	ID          uuid.UUID        `json:"id"`
	Host        string           `json:"host"` // name or address, without brackets
	User        string           `json:"user"`
	Port        int              `json:"port"`
	Fingerprint string           `json:"fingerprint"` // of the pinned host key, "SHA256:…"
	Identity    string           `json:"identity"`    // file of the private key
	KnownHosts  string           `json:"known_hosts"` // file with the pinned host key
	Dir         string           `json:"dir"`         // slaves may be below it
	Created     time.Time        `json:"created"`
	State       DestinationState `json:"state"`
	Reason      string           `json:"reason,omitempty"`
	Since       time.Time        `json:"since"`  // of State
	Tested      time.Time        `json:"tested"` // zero: never
	Steps       []Step           `json:"steps"`  // of the last test
}

// Step is one thing that a test of a destination looked at.
type Step struct {
	Name   string `json:"name"` // such as "login"
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`         // what was found
	Mend   string `json:"mend,omitempty"` // what to do about it
}

// Address is dir on the destination as georep replicate takes it.
func (d *Destination) Address(dir string) string {
	u := url.URL{Scheme: "ssh", User: url.User(d.User), Host: net.JoinHostPort(d.Host, strconv.Itoa(d.Port)), Path: dir}
	return u.String()
}

// Check refuses a destination that can't be one, whatever there is, with a Usage
// error.
func (d *Destination) Check() error {
	if err := CheckName("destination", d.Name); err != nil {
		return err
	}
	if d.Host == "" || strings.ContainsAny(d.Host, " \t\n/@") || strings.HasPrefix(d.Host, "-") {
		return Errorf(Usage, "host %q: want a name or an address", d.Host)
	}
	if d.Port < 1 || d.Port > 65535 {
		return Errorf(Usage, "port %d: want 1 to 65535", d.Port)
	}
	if !path.IsAbs(d.Dir) || path.Clean(d.Dir) != d.Dir {
		return Errorf(Usage, "directory %q for slaves: want a clean absolute path", d.Dir)
	}
	return nil
}

// AddDestination adds d. A name, or a user at a host and port, that is there
// already is a Precondition error.
func (s *Store) AddDestination(d *Destination) error {
	if err := d.Check(); err != nil {
		return err
	}
	d.ID, d.Created = uuid.New(), s.now().Truncate(time.Microsecond)
	d.State, d.Since = Untested, d.Created
	return s.do(func(tx *sql.Tx) error {
		if _, err := destination(tx, d.Name); err == nil {
			return Errorf(Precondition, "destination %s is there already", d.Name).WithHint("another name can be given with --name")
		}
		var other string
		switch err := tx.QueryRow("SELECT name FROM destinations WHERE host = ? AND port = ? AND user = ?", d.Host, d.Port, d.User).Scan(&other); {
		case err == nil:
			return Errorf(Precondition, "%s at %s port %d is destination %s already", d.User, d.Host, d.Port, other)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		_, err := tx.Exec(`INSERT INTO destinations (name, id, host, user, port, fingerprint, identity, known_hosts, dir, created, state, since)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, d.Name, d.ID.String(), d.Host, d.User, d.Port, d.Fingerprint, d.Identity, d.KnownHosts, d.Dir,
			unixMicro(d.Created), d.State, unixMicro(d.Since))
		return err
	})
}

func destination(q querier, name string) (*Destination, error) {
	d := &Destination{Name: name}
	var id, steps string
	var created, since, tested int64
	err := q.QueryRow(`SELECT id, host, user, port, fingerprint, identity, known_hosts, dir, created, state, reason, since, tested, steps
		FROM destinations WHERE name = ?`, name).Scan(&id, &d.Host, &d.User, &d.Port, &d.Fingerprint, &d.Identity, &d.KnownHosts, &d.Dir,
		&created, &d.State, &d.Reason, &since, &tested, &steps)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, Errorf(NotFound, "there is no destination %q", name).WithHint("see: georep destination list")
	}
	if err != nil {
		return nil, err
	}
	d.Created, d.Since, d.Tested = fromMicro(created), fromMicro(since), fromMicro(tested)
	if d.ID, err = uuid.Parse(id); err != nil {
		return nil, err
	}
	return d, json.Unmarshal([]byte(steps), &d.Steps)
}

// Destination is the destination of that name.
func (s *Store) Destination(name string) (*Destination, error) {
	d, err := destination(s.db, name)
	return d, wrap(err)
}

// Destinations are all destinations by name.
func (s *Store) Destinations() ([]*Destination, error) {
	names, err := s.names("SELECT name FROM destinations ORDER BY name")
	if err != nil {
		return nil, wrap(err)
	}
	all := make([]*Destination, 0, len(names))
	for _, name := range names {
		d, err := destination(s.db, name)
		if err != nil {
			return nil, wrap(err)
		}
		all = append(all, d)
	}
	return all, nil
}

// SetDestinationTest notes what a test found. The state's time is that of its
// last change.
func (s *Store) SetDestinationTest(name string, state DestinationState, reason string, steps []Step) error {
	if steps == nil {
		steps = []Step{}
	}
	text, err := json.Marshal(steps)
	if err != nil {
		return wrap(err)
	}
	return s.do(func(tx *sql.Tx) error {
		d, err := destination(tx, name)
		if err != nil {
			return err
		}
		now := s.now()
		if d.State == state {
			now = d.Since
		}
		_, err = tx.Exec("UPDATE destinations SET state = ?, reason = ?, since = ?, tested = ?, steps = ? WHERE name = ?",
			state, reason, unixMicro(now), unixMicro(s.now()), string(text), name)
		return err
	})
}

// SetDestinationKeys notes another host key or identity.
func (s *Store) SetDestinationKeys(name, fingerprint, identity string) error {
	return s.do(func(tx *sql.Tx) error {
		r, err := tx.Exec("UPDATE destinations SET fingerprint = ?, identity = ? WHERE name = ?", fingerprint, identity, name)
		return changed(r, err, Errorf(NotFound, "there is no destination %q", name))
	})
}

// RemoveDestination forgets a destination that no session goes to.
func (s *Store) RemoveDestination(name string) error {
	return s.do(func(tx *sql.Tx) error {
		if _, err := destination(tx, name); err != nil {
			return err
		}
		var sess string
		switch err := tx.QueryRow("SELECT name FROM sessions WHERE destination = ? ORDER BY name", name).Scan(&sess); {
		case err == nil:
			return Errorf(Precondition, "session %s goes to destination %s", sess, name).WithHint("first: georep session delete %s", sess)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		_, err := tx.Exec("DELETE FROM destinations WHERE name = ?", name)
		return err
	})
}
