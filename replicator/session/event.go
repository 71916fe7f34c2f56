package session

import (
	"database/sql"
	"time"
)

// Event is something an operator may want to know.
type Event struct {
	ID      int64     `json:"id"` // grows by one and more
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"` // such as "session.started"
	Session string    `json:"session,omitempty"`
	Brick   string    `json:"brick,omitempty"`
	Text    string    `json:"text"`
}

// maxEvents is how many events are kept; the oldest go first.
const maxEvents = 20000

// AddEvent notes an event, and gives it its number and time.
func (s *Store) AddEvent(e *Event) error {
	e.Time = s.now().Truncate(time.Microsecond)
	return s.do(func(tx *sql.Tx) error {
		r, err := tx.Exec("INSERT INTO events (at, kind, session, brick, text) VALUES (?, ?, ?, ?, ?)", unixMicro(e.Time), e.Kind, e.Session, e.Brick, e.Text)
		if err != nil {
			return err
		}
		if e.ID, err = r.LastInsertId(); err != nil {
			return err
		}
		_, err = tx.Exec("DELETE FROM events WHERE id <= ?", e.ID-maxEvents)
		return err
	})
}

// Events are the first of those after the number given, oldest first, at most
// limit of them.
func (s *Store) Events(after int64, limit int) ([]*Event, error) {
	all := []*Event{}
	r, err := s.db.Query("SELECT id, at, kind, session, brick, text FROM events WHERE id > ? ORDER BY id LIMIT ?", after, limit)
	err = rows(r, err, func(scan func(...any) error) error {
		e := &Event{}
		var at int64
		if err := scan(&e.ID, &at, &e.Kind, &e.Session, &e.Brick, &e.Text); err != nil {
			return err
		}
		e.Time = fromMicro(at)
		all = append(all, e)
		return nil
	})
	return all, wrap(err)
}

// LastEvent is the number of the latest event, 0 if there is none.
func (s *Store) LastEvent() (int64, error) {
	var id int64
	err := s.db.QueryRow("SELECT coalesce(max(id), 0) FROM events").Scan(&id)
	return id, wrap(err)
}
