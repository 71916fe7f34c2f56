package session

import (
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Volume is a named set of bricks on this host that share one volume id.
type Volume struct {
	Name    string    `json:"name"`
	ID      uuid.UUID `json:"id"` // volume id of each brick, the xtime key
	Bricks  []Brick   `json:"bricks"`
	Created time.Time `json:"created"`
	Started bool      `json:"started"` // its bricks are to be mounted
}

// Brick is one brick of a volume.
type Brick struct {
	Path       string `json:"path"` // absolute, without symlinks
	Mountpoint string `json:"mountpoint"`
	// Name is the last part of Path. A session of a volume with several bricks
	// has a directory with this name on the slave for each.
	Name string `json:"name"`
}

// CreateVolume adds v, which is not started. Bricks get their names. The
// *Error is a Precondition if the name, a brick or a mountpoint is taken.
func (s *Store) CreateVolume(v *Volume) error {
	if err := CheckName("volume", v.Name); err != nil {
		return err
	}
	if len(v.Bricks) == 0 {
		return Errorf(Usage, "volume %s: a brick is missing", v.Name)
	}
	names := map[string]string{}
	for i := range v.Bricks {
		b := &v.Bricks[i]
		b.Name = filepath.Base(b.Path)
		if other, twice := names[b.Name]; twice {
			return Errorf(Precondition, "volume %s: bricks %q and %q have the same last name, which is to be their directory on a slave", v.Name, other, b.Path)
		}
		names[b.Name] = b.Path
	}
	v.Created = s.now().Truncate(time.Microsecond)
	return s.do(func(tx *sql.Tx) error {
		if _, err := volume(tx, v.Name); err == nil {
			return Errorf(Precondition, "volume %s is there already", v.Name)
		}
		if err := checkPaths(tx, v); err != nil {
			return err
		}
		if _, err := tx.Exec("INSERT INTO volumes (name, id, created) VALUES (?, ?, ?)", v.Name, v.ID.String(), unixMicro(v.Created)); err != nil {
			return err
		}
		for i, b := range v.Bricks {
			if _, err := tx.Exec("INSERT INTO bricks (path, volume, ord, name, mountpoint) VALUES (?, ?, ?, ?, ?)", b.Path, v.Name, i, b.Name, b.Mountpoint); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkPaths refuses bricks and mountpoints that lie in one another, in v and
// across volumes.
func checkPaths(tx *sql.Tx, v *Volume) error {
	type place struct{ what, volume, path string }
	var taken []place
	r, err := tx.Query("SELECT volume, path, mountpoint FROM bricks")
	err = rows(r, err, func(scan func(...any) error) error {
		var vol, path, point string
		if err := scan(&vol, &path, &point); err != nil {
			return err
		}
		taken = append(taken, place{"brick", vol, path}, place{"mountpoint", vol, point})
		return nil
	})
	if err != nil {
		return err
	}
	for _, b := range v.Bricks {
		for _, p := range []place{{"brick", v.Name, b.Path}, {"mountpoint", v.Name, b.Mountpoint}} {
			for _, t := range taken {
				if inside(p.path, t.path) || inside(t.path, p.path) {
					return Errorf(Precondition, "volume %s: %s %q and %s %q of volume %s lie in one another", v.Name, p.what, p.path, t.what, t.path, t.volume)
				}
			}
			taken = append(taken, p)
		}
	}
	return nil
}

// inside reports whether the clean path is dir or lies in it.
func inside(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// querier is a transaction or the database.
type querier interface {
	Query(string, ...any) (*sql.Rows, error)
	QueryRow(string, ...any) *sql.Row
}

func volume(q querier, name string) (*Volume, error) {
	v := &Volume{Name: name}
	var id string
	var created int64
	err := q.QueryRow("SELECT id, created, started FROM volumes WHERE name = ?", name).Scan(&id, &created, &v.Started)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, Errorf(NotFound, "there is no volume %q", name).WithHint("see: georep volume list")
	}
	if err != nil {
		return nil, err
	}
	if v.ID, err = uuid.Parse(id); err != nil {
		return nil, err
	}
	v.Created = fromMicro(created)
	r, err := q.Query("SELECT path, name, mountpoint FROM bricks WHERE volume = ? ORDER BY ord", name)
	return v, rows(r, err, func(scan func(...any) error) error {
		var b Brick
		if err := scan(&b.Path, &b.Name, &b.Mountpoint); err != nil {
			return err
		}
		v.Bricks = append(v.Bricks, b)
		return nil
	})
}

// Volume is the volume of that name.
func (s *Store) Volume(name string) (*Volume, error) {
	v, err := volume(s.db, name)
	return v, wrap(err)
}

// Volumes are all volumes by name.
func (s *Store) Volumes() ([]*Volume, error) {
	names, err := s.names("SELECT name FROM volumes ORDER BY name")
	if err != nil {
		return nil, wrap(err)
	}
	all := make([]*Volume, 0, len(names))
	for _, name := range names {
		v, err := volume(s.db, name)
		if err != nil {
			return nil, wrap(err)
		}
		all = append(all, v)
	}
	return all, nil
}

func (s *Store) names(query string, args ...any) (names []string, err error) {
	r, err := s.db.Query(query, args...)
	err = rows(r, err, func(scan func(...any) error) error {
		var name string
		if err := scan(&name); err != nil {
			return err
		}
		names = append(names, name)
		return nil
	})
	return names, err
}

// SetVolumeStarted notes whether the volume's bricks are to be mounted.
func (s *Store) SetVolumeStarted(name string, started bool) error {
	return s.do(func(tx *sql.Tx) error {
		if _, err := volume(tx, name); err != nil {
			return err
		}
		_, err := tx.Exec("UPDATE volumes SET started = ? WHERE name = ?", started, name)
		return err
	})
}

// DeleteVolume forgets a volume that is stopped and has no sessions. What is on
// its bricks stays.
func (s *Store) DeleteVolume(name string) error {
	return s.do(func(tx *sql.Tx) error {
		v, err := volume(tx, name)
		if err != nil {
			return err
		}
		if v.Started {
			return Errorf(Precondition, "volume %s is started", name).WithHint("first: georep volume stop %s", name)
		}
		var sess string
		switch err := tx.QueryRow("SELECT name FROM sessions WHERE volume = ? ORDER BY name", name).Scan(&sess); {
		case err == nil:
			return Errorf(Precondition, "volume %s has session %s", name, sess).WithHint("first: georep session delete %s", sess)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		_, err = tx.Exec("DELETE FROM volumes WHERE name = ?", name)
		return err
	})
}
