package session

import (
	"database/sql"
	"errors"
	"path"
	"time"

	"github.com/google/uuid"
)

// Wanted is what an operator wants of a session.
type Wanted string

const (
	Created Wanted = "Created" // never started
	Started Wanted = "Started"
	Paused  Wanted = "Paused"
	Stopped Wanted = "Stopped"
)

// Session replicates a volume to one slave.
type Session struct {
	Name        string    `json:"name"`
	ID          uuid.UUID `json:"id"`
	Volume      string    `json:"volume"`
	Destination string    `json:"destination"` // "" is this host
	Dir         string    `json:"dir"`         // on the slave
	Wanted      Wanted    `json:"wanted"`
	Created     time.Time `json:"created"`
	Since       time.Time `json:"since"` // of Wanted
	Pairs       []Pair    `json:"pairs"`
}

// Pair is one brick of a session and its directory on the slave.
type Pair struct {
	Brick string `json:"brick"` // path on this host
	Slave string `json:"slave"` // path on the slave's host
}

// Address is where the session goes, as it was named: DESTINATION:/DIR or /DIR.
func (s *Session) Address() string {
	if s.Destination == "" {
		return s.Dir
	}
	return s.Destination + ":" + s.Dir
}

// PairsOf says where each brick of v goes: to dir itself, or, if there are several,
// to directories in it that have the bricks' names.
func PairsOf(v *Volume, dir string) []Pair {
	pairs := make([]Pair, 0, len(v.Bricks))
	for _, b := range v.Bricks {
		p := Pair{Brick: b.Path, Slave: dir}
		if len(v.Bricks) > 1 {
			p.Slave = path.Join(dir, b.Name)
		}
		pairs = append(pairs, p)
	}
	return pairs
}

// CreateSession adds x, which is not started. Pairs are filled in.
func (s *Store) CreateSession(x *Session) error {
	x.ID, x.Created = uuid.New(), s.now().Truncate(time.Microsecond)
	x.Wanted, x.Since = Created, x.Created
	return s.do(func(tx *sql.Tx) error {
		pairs, err := checkSession(tx, x)
		if err != nil {
			return err
		}
		x.Pairs = pairs
		if _, err := tx.Exec("INSERT INTO sessions (name, id, volume, destination, dir, wanted, created, since) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			x.Name, x.ID.String(), x.Volume, orNull(x.Destination), x.Dir, x.Wanted, unixMicro(x.Created), unixMicro(x.Since)); err != nil {
			return err
		}
		for _, p := range pairs {
			if _, err := tx.Exec("INSERT INTO workers (session, brick, slave) VALUES (?, ?, ?)", x.Name, p.Brick, p.Slave); err != nil {
				return err
			}
		}
		return nil
	})
}

// CheckSession says whether CreateSession would take x, and its pairs.
func (s *Store) CheckSession(x *Session) (pairs []Pair, err error) {
	err = s.do(func(tx *sql.Tx) error {
		pairs, err = checkSession(tx, x)
		return err
	})
	return pairs, err
}

func checkSession(tx *sql.Tx, x *Session) ([]Pair, error) {
	if err := CheckName("session", x.Name); err != nil {
		return nil, err
	}
	if !path.IsAbs(x.Dir) || path.Clean(x.Dir) != x.Dir || x.Dir == "/" {
		return nil, Errorf(Usage, "directory %q on the slave: want a clean absolute path below /", x.Dir)
	}
	v, err := volume(tx, x.Volume)
	if err != nil {
		return nil, err
	}
	if x.Destination != "" {
		d, err := destination(tx, x.Destination)
		if err != nil {
			return nil, err
		}
		if x.Dir == d.Dir || !inside(x.Dir, d.Dir) {
			return nil, Errorf(Precondition, "%s: the key for destination %s is for directories in %s", x.Address(), d.Name, d.Dir)
		}
	}
	if _, err := oneSession(tx, x.Name); err == nil {
		return nil, Errorf(Precondition, "session %s is there already", x.Name).WithHint("another name can be given with --name")
	}
	var clash error
	r, err := tx.Query("SELECT name, dir FROM sessions WHERE destination IS ?", orNull(x.Destination))
	err = rows(r, err, func(scan func(...any) error) error {
		var name, dir string
		if err := scan(&name, &dir); err != nil {
			return err
		}
		if inside(dir, x.Dir) || inside(x.Dir, dir) {
			clash = Errorf(Precondition, "%s is where session %s goes, to %s", x.Address(), name, dir).WithHint("give each session a directory of its own")
		}
		return nil
	})
	if err == nil {
		err = clash
	}
	return PairsOf(v, x.Dir), err
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func oneSession(q querier, name string) (*Session, error) {
	x := &Session{Name: name}
	var id string
	var dest sql.NullString
	var created, since int64
	err := q.QueryRow("SELECT id, volume, destination, dir, wanted, created, since FROM sessions WHERE name = ?", name).
		Scan(&id, &x.Volume, &dest, &x.Dir, &x.Wanted, &created, &since)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, Errorf(NotFound, "there is no session %q", name).WithHint("see: georep session list")
	}
	if err != nil {
		return nil, err
	}
	x.Destination, x.Created, x.Since = dest.String, fromMicro(created), fromMicro(since)
	if x.ID, err = uuid.Parse(id); err != nil {
		return nil, err
	}
	r, err := q.Query("SELECT w.brick, w.slave FROM workers w LEFT JOIN bricks b ON b.path = w.brick WHERE w.session = ? ORDER BY b.ord", name)
	return x, rows(r, err, func(scan func(...any) error) error {
		var p Pair
		if err := scan(&p.Brick, &p.Slave); err != nil {
			return err
		}
		x.Pairs = append(x.Pairs, p)
		return nil
	})
}

// Session is the session of that name.
func (s *Store) Session(name string) (*Session, error) {
	x, err := oneSession(s.db, name)
	return x, wrap(err)
}

// Sessions are all sessions by name.
func (s *Store) Sessions() ([]*Session, error) {
	names, err := s.names("SELECT name FROM sessions ORDER BY name")
	if err != nil {
		return nil, wrap(err)
	}
	all := make([]*Session, 0, len(names))
	for _, name := range names {
		x, err := oneSession(s.db, name)
		if err != nil {
			return nil, wrap(err)
		}
		all = append(all, x)
	}
	return all, nil
}

// SetWanted notes what is wanted of a session. from are the states it may be in
// for that; another one is a Precondition error.
func (s *Store) SetWanted(name string, to Wanted, from ...Wanted) error {
	return s.do(func(tx *sql.Tx) error {
		x, err := oneSession(tx, name)
		if err != nil {
			return err
		}
		ok := false
		for _, w := range from {
			ok = ok || w == x.Wanted
		}
		if !ok {
			return Errorf(Precondition, "session %s is %s", name, x.Wanted.word())
		}
		_, err = tx.Exec("UPDATE sessions SET wanted = ?, since = ? WHERE name = ?", to, unixMicro(s.now()), name)
		return err
	})
}

func (w Wanted) word() string {
	switch w {
	case Created:
		return "not started yet"
	case Started:
		return "started"
	case Paused:
		return "paused"
	}
	return "stopped"
}

// DeleteSession forgets a session that is not started, with all that belongs to
// it but its events.
func (s *Store) DeleteSession(name string) error {
	return s.do(func(tx *sql.Tx) error {
		x, err := oneSession(tx, name)
		if err != nil {
			return err
		}
		if x.Wanted == Started || x.Wanted == Paused {
			return Errorf(Precondition, "session %s is %s", name, x.Wanted.word()).WithHint("first: georep session stop %s", name)
		}
		_, err = tx.Exec("DELETE FROM sessions WHERE name = ?", name)
		return err
	})
}
