package session

import (
	"database/sql"
	"encoding/json"
	"syscall"
	"time"
)

// Item is something in quarantine.
type Item struct {
	GFID     string
	Name     json.RawMessage
	Path     string
	Op       string
	Errno    int
	Detail   string
	Attempts int
	Since    time.Time
	Next     time.Time
}

// Reason is why the item failed.
func (x *Item) Reason() string {
	s := syscall.Errno(x.Errno).Error()
	if x.Detail != "" {
		s += ": " + x.Detail
	}
	return s
}

// SetQuarantine keeps the items of a worker in place of those kept before.
func (s *Store) SetQuarantine(session, brick string, items []Item) error {
	return s.do(func(tx *sql.Tx) error {
		if _, err := tx.Exec("DELETE FROM quarantine WHERE session = ? AND brick = ?", session, brick); err != nil {
			return err
		}
		for _, x := range items {
			_, err := tx.Exec(`INSERT OR REPLACE INTO quarantine (session, brick, gfid, name, path, op, error, attempts, since, next)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, session, brick, x.GFID, string(x.Name), x.Path, x.Op, x.Reason(), x.Attempts, unixMicro(x.Since), unixMicro(x.Next))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Quarantined is an item in quarantine, and where.
type Quarantined struct {
	Session  string    `json:"session"`
	Brick    string    `json:"brick"`
	GFID     string    `json:"gfid"`
	Path     string    `json:"path"`
	Op       string    `json:"op"`
	Error    string    `json:"error"`
	Attempts int       `json:"attempts"`
	Since    time.Time `json:"since"`
	Next     time.Time `json:"next"`
}

// Quarantine are the items of a session, those that wait longest first.
func (s *Store) Quarantine(session string) ([]Quarantined, error) {
	if _, err := s.Session(session); err != nil {
		return nil, err
	}
	all := []Quarantined{}
	r, err := s.db.Query("SELECT brick, gfid, path, op, error, attempts, since, next FROM quarantine WHERE session = ? ORDER BY since, gfid", session)
	err = rows(r, err, func(scan func(...any) error) error {
		x := Quarantined{Session: session}
		var since, next int64
		if err := scan(&x.Brick, &x.GFID, &x.Path, &x.Op, &x.Error, &x.Attempts, &since, &next); err != nil {
			return err
		}
		x.Since, x.Next = fromMicro(since), fromMicro(next)
		all = append(all, x)
		return nil
	})
	return all, wrap(err)
}
