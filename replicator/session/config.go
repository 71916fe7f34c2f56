package session

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key is one thing that can be configured of a session.
type Key struct {
	Name        string `json:"name"`
	Type        string `json:"type"`    // "integer", "duration", "choice", "program", "rate"
	Default     string `json:"default"` // as it is shown; "" is none
	Allowed     string `json:"allowed"` // in words
	Description string `json:"description"`
	Restarts    bool   `json:"restarts"` // a change restarts the session's workers at a safe point
	// Flag is that of georep replicate which the value is given with, "" if the
	// daemon itself heeds the key.
	Flag string `json:"-"`

	// check returns the value in its one proper form; false: not allowed.
	check func(string) (string, bool)
}

// Setting is a key with the value it has in a session.
type Setting struct {
	Key
	Value string `json:"value"`
	Set   bool   `json:"set"` // false: it is the default
}

// keys are all keys, by name.
var keys = []Key{
	rate("bwlimit", "0", "bwlimit", "most KiB/s for the contents of large files, of each worker"),
	duration("changelog-hold", "720h", "how long changelogs are kept for the session while it is not running; 0 is not at all", 0, 87600*time.Hour),
	duration("changelog-retention", "168h", "age at which changelogs that all sessions have consumed are removed; 0 is never", 0, 87600*time.Hour),
	choice("log-level", "warn", "", "what a worker logs", "warn", "info"),
	duration("restart-backoff", "30s", "longest wait before a worker that ended is started again", time.Second, time.Hour),
	duration("rpo-target", "5m", "lag past which an event is told and status says so; 0 is none", 0, 720*time.Hour),
	program("rsync-path", "rsync", "rsync-path", "rsync on this host"),
	duration("stall-timeout", "2m", "time without progress, while there is work, after which a worker is Stalled; 0 is never", 0, 720*time.Hour),
	integer("sync-jobs", "3", "sync-jobs", "large files, or runs of rsync, at once, of each worker", 1, 100),
	choice("sync-method", "auto", "sync-method", "how contents are sent", "auto", "rsync", "stream"),
}

// Keys are all keys by name.
func Keys() []Key { return slices.Clone(keys) }

func lookupKey(name string) (*Key, error) {
	name = strings.ReplaceAll(name, "_", "-")
	names := make([]string, len(keys))
	for i := range keys {
		if keys[i].Name == name {
			return &keys[i], nil
		}
		names[i] = keys[i].Name
	}
	return nil, Errorf(Usage, "there is no key %q", name).WithHint("keys are %s", strings.Join(names, ", "))
}

// CheckSetting is the value of a key in its proper form. A value that is not
// allowed is a Usage error which says what is.
func CheckSetting(key, value string) (string, error) {
	k, err := lookupKey(key)
	if err != nil {
		return "", err
	}
	proper, ok := k.check(value)
	if !ok {
		return "", Errorf(Usage, "%s %q: want %s", k.Name, value, k.Allowed)
	}
	return proper, nil
}

// SetConfig sets keys of a session, all or none, and says whether any change
// restarts its workers.
func (s *Store) SetConfig(session string, values map[string]string) (restarts bool, err error) {
	err = s.do(func(tx *sql.Tx) error {
		if _, err := oneSession(tx, session); err != nil {
			return err
		}
		for key, value := range values {
			k, err := lookupKey(key)
			if err != nil {
				return err
			}
			proper, err := CheckSetting(key, value)
			if err != nil {
				return err
			}
			before, err := setting(tx, session, k)
			if err != nil {
				return err
			}
			restarts = restarts || k.Restarts && before.Value != proper
			_, err = tx.Exec("INSERT INTO config (session, key, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", session, k.Name, proper)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return restarts, err
}

// ResetConfig gives a key of a session its default again; "" is all keys.
func (s *Store) ResetConfig(session, key string) (restarts bool, err error) {
	err = s.do(func(tx *sql.Tx) error {
		if _, err := oneSession(tx, session); err != nil {
			return err
		}
		for i := range keys {
			k := &keys[i]
			if key != "" {
				if k, err = lookupKey(key); err != nil {
					return err
				}
			}
			before, err := setting(tx, session, k)
			if err != nil {
				return err
			}
			restarts = restarts || k.Restarts && before.Value != k.Default
			if _, err := tx.Exec("DELETE FROM config WHERE session = ? AND key = ?", session, k.Name); err != nil {
				return err
			}
			if key != "" {
				return nil
			}
		}
		return nil
	})
	return restarts, err
}

// Config is each key of a session, by name.
func (s *Store) Config(session string) ([]Setting, error) {
	if _, err := s.Session(session); err != nil {
		return nil, err
	}
	all := make([]Setting, 0, len(keys))
	for i := range keys {
		x, err := setting(s.db, session, &keys[i])
		if err != nil {
			return nil, wrap(err)
		}
		all = append(all, x)
	}
	return all, nil
}

// Setting is one key of a session.
func (s *Store) Setting(session, key string) (Setting, error) {
	k, err := lookupKey(key)
	if err != nil {
		return Setting{}, err
	}
	x, err := setting(s.db, session, k)
	return x, wrap(err)
}

func setting(q querier, session string, k *Key) (Setting, error) {
	x := Setting{Key: *k, Value: k.Default}
	err := q.QueryRow("SELECT value FROM config WHERE session = ? AND key = ?", session, k.Name).Scan(&x.Value)
	if err == nil {
		x.Set = true
		return x, nil
	}
	if err == sql.ErrNoRows {
		return x, nil
	}
	return x, err
}

// Duration is the value of a duration, 0 if it is none.
func (x Setting) Duration() time.Duration {
	d, _ := time.ParseDuration(x.Value) // checked when it was set
	return d
}

func integer(name, value, flag, description string, least, most int) Key {
	return Key{
		Name: name, Type: "integer", Default: value, Flag: flag, Description: description, Restarts: true,
		Allowed: fmt.Sprintf("a number from %d to %d", least, most),
		check: func(s string) (string, bool) {
			n, err := strconv.Atoi(s)
			return strconv.Itoa(n), err == nil && n >= least && n <= most
		},
	}
}

// rate is a number of KiB per second; a suffix K, M or G is understood.
func rate(name, value, flag, description string) Key {
	return Key{
		Name: name, Type: "rate", Default: value, Flag: flag, Description: description, Restarts: true,
		Allowed: "a number of KiB/s, or one with K, M or G behind it; 0 is no limit",
		check: func(s string) (string, bool) {
			unit := int64(1)
			switch {
			case strings.HasSuffix(s, "K"):
				s = s[:len(s)-1]
			case strings.HasSuffix(s, "M"):
				s, unit = s[:len(s)-1], 1<<10
			case strings.HasSuffix(s, "G"):
				s, unit = s[:len(s)-1], 1<<20
			}
			n, err := strconv.ParseInt(s, 10, 64)
			return strconv.FormatInt(n*unit, 10), err == nil && n >= 0 && n <= 1<<30/unit
		},
	}
}

func choice(name, value, flag, description string, allowed ...string) Key {
	return Key{
		Name: name, Type: "choice", Default: value, Flag: flag, Description: description, Restarts: true,
		Allowed: "one of " + strings.Join(allowed, ", "),
		check:   func(s string) (string, bool) { return s, slices.Contains(allowed, s) },
	}
}

func duration(name, value, description string, least, most time.Duration) Key {
	allowed := fmt.Sprintf("a time from %v to %v, such as 90s or 5m", least, most)
	return Key{
		Name: name, Type: "duration", Default: value, Description: description, Allowed: allowed,
		check: func(s string) (string, bool) {
			if n, err := strconv.Atoi(s); err == nil && n >= 0 {
				s += "s"
			}
			d, err := time.ParseDuration(s)
			return shortDuration(d), err == nil && d >= least && d <= most
		},
	}
}

// shortDuration is d without units of which there are none: 5m, not 5m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

func program(name, value, flag, description string) Key {
	return Key{
		Name: name, Type: "program", Default: value, Flag: flag, Description: description, Restarts: true,
		Allowed: "the name of a program or its absolute path",
		check: func(s string) (string, bool) {
			ok := s != "" && !strings.ContainsAny(s, "\x00\n") && (filepath.IsAbs(s) || !strings.Contains(s, "/")) && s[0] != '-'
			return s, ok
		},
	}
}
