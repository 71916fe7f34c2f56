package session

import (
	"database/sql"
	"encoding/json"
	"time"
)

// SetStatus keeps status, any value that JSON can hold, as the last one of a
// worker.
func (s *Store) SetStatus(session, brick string, status any) error {
	text, err := json.Marshal(status)
	if err != nil {
		return wrap(err)
	}
	return s.do(func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE workers SET status = ?, updated = ? WHERE session = ? AND brick = ?", string(text), unixMicro(s.now()), session, brick)
		return err
	})
}

// Status reads what SetStatus kept into status; nothing, if there is none.
func (s *Store) Status(session, brick string, status any) error {
	var text string
	err := s.db.QueryRow("SELECT status FROM workers WHERE session = ? AND brick = ?", session, brick).Scan(&text)
	if err == sql.ErrNoRows {
		return Errorf(NotFound, "session %q has no brick %q", session, brick)
	}
	if err != nil {
		return wrap(err)
	}
	return wrap(json.Unmarshal([]byte(text), status))
}

// Sample is a worker at one moment.
type Sample struct {
	Session string        `json:"session"`
	Brick   string        `json:"brick"`
	Time    time.Time     `json:"time"`
	Lag     time.Duration `json:"lag"`     // nanoseconds
	Backlog int64         `json:"backlog"` // records
	Ops     int64         `json:"ops"`     // applied since the worker began
	Bytes   int64         `json:"bytes"`   // of contents, since the worker began
}

// sampleAge is how long samples are kept.
const sampleAge = 24 * time.Hour

// AddSamples keeps samples, and drops old ones.
func (s *Store) AddSamples(samples []Sample) error {
	return s.do(func(tx *sql.Tx) error {
		for _, x := range samples {
			_, err := tx.Exec("INSERT OR REPLACE INTO samples (session, brick, at, lag, backlog, ops, bytes) VALUES (?, ?, ?, ?, ?, ?, ?)",
				x.Session, x.Brick, unixMicro(x.Time), x.Lag.Microseconds(), x.Backlog, x.Ops, x.Bytes)
			if err != nil {
				return err
			}
		}
		_, err := tx.Exec("DELETE FROM samples WHERE at < ?", unixMicro(s.now().Add(-sampleAge)))
		return err
	})
}

// Samples are those of a session since a time, oldest first.
func (s *Store) Samples(session string, since time.Time) ([]Sample, error) {
	all := []Sample{}
	r, err := s.db.Query("SELECT brick, at, lag, backlog, ops, bytes FROM samples WHERE session = ? AND at >= ? ORDER BY at", session, unixMicro(since))
	err = rows(r, err, func(scan func(...any) error) error {
		x := Sample{Session: session}
		var at, lag int64
		if err := scan(&x.Brick, &at, &lag, &x.Backlog, &x.Ops, &x.Bytes); err != nil {
			return err
		}
		x.Time, x.Lag = fromMicro(at), time.Duration(lag)*time.Microsecond
		all = append(all, x)
		return nil
	})
	return all, wrap(err)
}
