package session

import (
	"database/sql"
	"errors"
	"time"
)

// Checkpoint is a time; it is reached when the stime of each worker passed it.
type Checkpoint struct {
	ID        int64     `json:"id"`
	Session   string    `json:"session"`
	Time      time.Time `json:"time"`
	Created   time.Time `json:"created"`
	Completed time.Time `json:"completed"` // zero: not reached yet
}

// AddCheckpoint adds a checkpoint at a time; the zero time is now.
func (s *Store) AddCheckpoint(session string, at time.Time) (*Checkpoint, error) {
	c := &Checkpoint{Session: session, Time: at.Truncate(time.Microsecond), Created: s.now().Truncate(time.Microsecond)}
	if at.IsZero() {
		c.Time = c.Created
	}
	err := s.do(func(tx *sql.Tx) error {
		if _, err := oneSession(tx, session); err != nil {
			return err
		}
		r, err := tx.Exec("INSERT INTO checkpoints (session, at, created) VALUES (?, ?, ?)", session, unixMicro(c.Time), unixMicro(c.Created))
		if err != nil {
			return err
		}
		c.ID, err = r.LastInsertId()
		return err
	})
	return c, err
}

const checkpointColumns = "SELECT id, session, at, created, completed FROM checkpoints "

func scanCheckpoint(scan func(...any) error) (*Checkpoint, error) {
	c := &Checkpoint{}
	var at, created, completed int64
	err := scan(&c.ID, &c.Session, &at, &created, &completed)
	c.Time, c.Created, c.Completed = fromMicro(at), fromMicro(created), fromMicro(completed)
	return c, err
}

// Checkpoint is the checkpoint id of a session; id 0 is the latest one.
func (s *Store) Checkpoint(session string, id int64) (*Checkpoint, error) {
	if _, err := s.Session(session); err != nil {
		return nil, err
	}
	c, err := scanCheckpoint(s.db.QueryRow(checkpointColumns+"WHERE session = ? AND (? = 0 OR id = ?) ORDER BY id DESC LIMIT 1", session, id, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		if id == 0 {
			return nil, Errorf(NotFound, "session %s has no checkpoint", session).WithHint("make one: georep checkpoint create %s", session)
		}
		return nil, Errorf(NotFound, "session %s has no checkpoint %d", session, id).WithHint("see: georep checkpoint list %s", session)
	}
	return c, wrap(err)
}

// Checkpoints are those of a session, or of all if that is "", oldest first.
func (s *Store) Checkpoints(session string) ([]*Checkpoint, error) {
	if session != "" {
		if _, err := s.Session(session); err != nil {
			return nil, err
		}
	}
	all := []*Checkpoint{}
	r, err := s.db.Query(checkpointColumns+"WHERE ? = '' OR session = ? ORDER BY id", session, session)
	err = rows(r, err, func(scan func(...any) error) error {
		c, err := scanCheckpoint(scan)
		all = append(all, c)
		return err
	})
	return all, wrap(err)
}

// CompleteCheckpoints notes that each checkpoint of the session before stime is
// reached, and returns those that were not before.
func (s *Store) CompleteCheckpoints(session string, stime time.Time) (reached []*Checkpoint, err error) {
	err = s.do(func(tx *sql.Tx) error {
		r, err := tx.Query(checkpointColumns+"WHERE session = ? AND completed = 0 AND at <= ? ORDER BY id", session, unixMicro(stime))
		err = rows(r, err, func(scan func(...any) error) error {
			c, err := scanCheckpoint(scan)
			reached = append(reached, c)
			return err
		})
		if err != nil {
			return err
		}
		now := s.now().Truncate(time.Microsecond)
		for _, c := range reached {
			c.Completed = now
			if _, err := tx.Exec("UPDATE checkpoints SET completed = ? WHERE id = ?", unixMicro(now), c.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reached, nil
}
