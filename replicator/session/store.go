package session

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// ErrBusy is wrapped by Open when another process has the store.
var ErrBusy = errors.New("store is in use by another process")

// Store is an open store. Its methods may be called by many at once.
type Store struct {
	db   *sql.DB
	lock *os.File         // flock held until Close; owned
	now  func() time.Time // the clock
}

// Open opens the store in the file path, making it and its directory, readable
// by root alone, if missing. The error wraps ErrBusy if another process has it.
func Open(path string) (*Store, error) {
	fail := func(err error) (*Store, error) { return nil, fmt.Errorf("session: open %q: %w", path, err) }
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fail(err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fail(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return fail(err)
	}
	s := &Store{lock: lock, now: time.Now}
	// The file is made before SQLite would make it, for its mode; SQLite gives
	// -wal and -shm the same.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		lock.Close()
		return fail(err)
	}
	f.Close()
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
	}}
	s.db, err = sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		lock.Close()
		return fail(err)
	}
	// One connection: writers wait for each other here and not in SQLite.
	s.db.SetMaxOpenConns(1)
	if err := s.migrate(); err != nil {
		s.Close()
		return fail(err)
	}
	return s, nil
}

// Close closes the store.
func (s *Store) Close() error {
	return errors.Join(s.db.Close(), s.lock.Close())
}

// migrate brings the tables to the form this program knows.
func (s *Store) migrate() error {
	var version int
	if err := s.db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("written by a newer georep: version %d, want at most %d", version, len(migrations))
	}
	for i := version; i < len(migrations); i++ {
		err := s.do(func(tx *sql.Tx) error {
			if _, err := tx.Exec(migrations[i]); err != nil {
				return err
			}
			_, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", i+1))
			return err
		})
		if err != nil {
			return fmt.Errorf("migration %d: %w", i+1, err)
		}
	}
	return nil
}

// do runs fn in a transaction, which is taken back if fn fails.
func (s *Store) do(fn func(*sql.Tx) error) error {
	tx, err := s.db.Begin()
	if err != nil {
		return fmt.Errorf("session: %w", err)
	}
	defer tx.Rollback() // no effect after Commit
	if err := fn(tx); err != nil {
		return wrap(err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	return nil
}

// wrap names this package in err unless it is for the operator.
func wrap(err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("session: %w", err)
}

// changed is missing when a statement that must change a row changed none.
func changed(r sql.Result, err error, missing error) error {
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if err == nil && n == 0 {
		return missing
	}
	return err
}

// rows calls fn for each row of a query.
func rows(r *sql.Rows, err error, fn func(scan func(...any) error) error) error {
	if err != nil {
		return err
	}
	defer r.Close()
	for r.Next() {
		if err := fn(r.Scan); err != nil {
			return err
		}
	}
	return r.Err()
}

// nameForm is what volumes, destinations and sessions may be called.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckName refuses a name that would need quoting somewhere. what is a word such
// as "volume".
func CheckName(what, name string) error {
	if !nameForm.MatchString(name) {
		return Errorf(Usage, "%s name %q: want 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit", what, name)
	}
	return nil
}

// unixMicro is t as kept in the store: microseconds, 0 for the zero time.
func unixMicro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}
