package session

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func openStore(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// wantKind fails unless err is an *Error of that kind.
func wantKind(t *testing.T, err error, want Kind) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Errorf("error %v, want one of kind %s", err, want)
	}
}

// filled is a store with a volume of two bricks, a destination and a session.
func filled(t *testing.T, path string) (*Store, *Session) {
	s := openStore(t, path)
	v := &Volume{Name: "v", ID: uuid.New(), Bricks: []Brick{{Path: "/b/1", Mountpoint: "/m/1"}, {Path: "/b/2", Mountpoint: "/m/2"}}}
	if err := s.CreateVolume(v); err != nil {
		t.Fatal(err)
	}
	if err := s.AddDestination(&Destination{Name: "d", Host: "fd00::7", User: "root", Port: 22, Identity: "/k", KnownHosts: "/h", Dir: "/srv"}); err != nil {
		t.Fatal(err)
	}
	x := &Session{Name: "x", Volume: "v", Destination: "d", Dir: "/srv/x"}
	if err := s.CreateSession(x); err != nil {
		t.Fatal(err)
	}
	return s, x
}

// What was answered is there after the process that answered is gone: the file is
// copied as a kill would leave it, without the database being closed.
func TestStoreSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	s, x := filled(t, filepath.Join(dir, "db"))
	if err := s.SetWanted("x", Started, Created); err != nil {
		t.Fatal(err)
	}
	c, err := s.AddCheckpoint("x", time.Unix(1000, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetConfig("x", map[string]string{"sync_jobs": "7"}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetStatus("x", "/b/2", &Report{State: "Active", Stime: Stamp{5, 6}}); err != nil {
		t.Fatal(err)
	}
	e := &Event{Kind: "k", Session: "x", Text: "t"}
	if err := s.AddEvent(e); err != nil {
		t.Fatal(err)
	}
	item := Item{GFID: "g", Name: []byte(`{"Base":"n"}`), Path: "p", Op: "data", Errno: 28, Attempts: 2}
	if err := s.SetQuarantine("x", "/b/2", []Item{item}); err != nil {
		t.Fatal(err)
	}

	after := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, "db"+suffix))
		if err == nil {
			err = os.WriteFile(filepath.Join(after, "db"+suffix), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s2 := openStore(t, filepath.Join(after, "db"))
	got, err := s2.Session("x")
	if err != nil {
		t.Fatal(err)
	}
	x.Wanted, x.Since = Started, got.Since
	if diff := cmp.Diff(x, got); diff != "" {
		t.Errorf("session (-want +got):\n%s", diff)
	}
	if want := []Pair{{"/b/1", "/srv/x/1"}, {"/b/2", "/srv/x/2"}}; !cmp.Equal(got.Pairs, want) {
		t.Errorf("pairs %v, want %v", got.Pairs, want)
	}
	if got, err := s2.Checkpoint("x", 0); err != nil || !cmp.Equal(got, c) {
		t.Errorf("checkpoint %v (%v), want %v", got, err, c)
	}
	if got, err := s2.Setting("x", "sync-jobs"); err != nil || got.Value != "7" || !got.Set {
		t.Errorf("setting %v (%v)", got, err)
	}
	var rep Report
	if err := s2.Status("x", "/b/2", &rep); err != nil || rep.State != "Active" || rep.Stime != (Stamp{5, 6}) {
		t.Errorf("status %v (%v)", rep, err)
	}
	if got, err := s2.Events(0, 10); err != nil || !cmp.Equal(got, []*Event{e}) {
		t.Errorf("events %v (%v)", got, err)
	}
	items, err := s2.Quarantine("x")
	if err != nil || len(items) != 1 || items[0].Error != "no space left on device" {
		t.Errorf("quarantine %v (%v)", items, err)
	}
}

func TestOpenRefusesSecondProcessAndNewerFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "db")
	s := openStore(t, path)
	if _, err := Open(path); !errors.Is(err, ErrBusy) {
		t.Errorf("a second Open: %v, want ErrBusy", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v (%v), want mode 0600", st, err)
	}
	if _, err := s.db.Exec("PRAGMA user_version = 1000"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(path); err == nil {
		t.Error("a file of a newer georep was opened")
	}
}

// Each migration leads from the tables of the one before to those of a new file.
func TestMigrationsOneByOne(t *testing.T) {
	schema := func(s *Store) []string {
		names, err := s.names("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	fresh := openStore(t, filepath.Join(t.TempDir(), "db"))
	path := filepath.Join(t.TempDir(), "db")
	all := migrations
	defer func() { migrations = all }()
	for n := 1; n <= len(all); n++ {
		migrations = all[:n]
		s := openStore(t, path)
		if n == len(all) {
			if diff := cmp.Diff(schema(fresh), schema(s)); diff != "" {
				t.Errorf("tables (-new +migrated):\n%s", diff)
			}
		}
		s.Close()
	}
}

func TestRefusals(t *testing.T) {
	s, _ := filled(t, filepath.Join(t.TempDir(), "db"))
	for name, c := range map[string]struct {
		err  error
		want Kind
	}{
		"volume taken":        {s.CreateVolume(&Volume{Name: "v", Bricks: []Brick{{Path: "/c", Mountpoint: "/n"}}}), Precondition},
		"brick in a brick":    {s.CreateVolume(&Volume{Name: "w", Bricks: []Brick{{Path: "/b/1/x", Mountpoint: "/n"}}}), Precondition},
		"no bricks":           {s.CreateVolume(&Volume{Name: "w"}), Usage},
		"volume in use":       {s.DeleteVolume("v"), Precondition},
		"no such volume":      {s.DeleteVolume("w"), NotFound},
		"destination in use":  {s.RemoveDestination("d"), Precondition},
		"host twice":          {s.AddDestination(&Destination{Name: "e", Host: "fd00::7", User: "root", Port: 22, Dir: "/srv"}), Precondition},
		"port":                {s.AddDestination(&Destination{Name: "e", Host: "h", User: "root", Port: 70000}), Usage},
		"host":                {s.AddDestination(&Destination{Name: "e", Host: "-oProxyCommand=x", User: "root", Port: 22}), Usage},
		"directory in use":    {s.CreateSession(&Session{Name: "y", Volume: "v", Destination: "d", Dir: "/srv/x/1"}), Precondition},
		"root of the slave":   {s.CreateSession(&Session{Name: "y", Volume: "v", Destination: "d", Dir: "/"}), Usage},
		"unclean":             {s.CreateSession(&Session{Name: "y", Volume: "v", Destination: "d", Dir: "/a/../b"}), Usage},
		"outside":             {s.CreateSession(&Session{Name: "y", Volume: "v", Destination: "d", Dir: "/var/x"}), Precondition},
		"no such destination": {s.CreateSession(&Session{Name: "y", Volume: "v", Destination: "e", Dir: "/a"}), NotFound},
		"not started":         {s.SetWanted("x", Paused, Started), Precondition},
		"no such session":     {s.SetWanted("y", Started, Created), NotFound},
	} {
		t.Run(name, func(t *testing.T) { wantKind(t, c.err, c.want) })
	}
	if got, err := s.Volumes(); err != nil || len(got) != 1 {
		t.Errorf("volumes %v (%v), want what there was", got, err)
	}
}

// A checkpoint is complete when stime has passed it, once.
func TestCheckpointCompletes(t *testing.T) {
	s, _ := filled(t, filepath.Join(t.TempDir(), "db"))
	at := time.Unix(1000, 500_000)
	if _, err := s.AddCheckpoint("x", at); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		stime time.Time
		want  int
	}{{at.Add(-time.Microsecond), 0}, {at, 1}, {at.Add(time.Hour), 0}} {
		reached, err := s.CompleteCheckpoints("x", c.stime)
		if err != nil || len(reached) != c.want {
			t.Errorf("at %v: %v reached (%v), want %d", c.stime, reached, err, c.want)
		}
	}
	if err := s.DeleteSession("x"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Checkpoints(""); err != nil || len(got) != 0 {
		t.Errorf("checkpoints of a session that is gone: %v (%v)", got, err)
	}
}

func TestConfigValues(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"sync-jobs", "5", "5"},
		{"sync-jobs", "0", ""},
		{"sync-jobs", "five", ""},
		{"bwlimit", "10M", "10240"},
		{"bwlimit", "9K", "9"},
		{"bwlimit", "-1", ""},
		{"bwlimit", "9000000G", ""},
		{"sync-method", "stream", "stream"},
		{"sync-method", "Stream", ""},
		{"rpo_target", "90", "1m30s"},
		{"rpo-target", "2h", "2h"},
		{"rpo-target", "-2h", ""},
		{"restart-backoff", "10ms", ""},
		{"rsync-path", "/opt/rsync", "/opt/rsync"},
		{"rsync-path", "bin/rsync", ""},
		{"rsync-path", "-e", ""},
	} {
		got, err := CheckSetting(c.key, c.value)
		if c.want == "" {
			wantKind(t, err, Usage)
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s %s: %q (%v), want %q", c.key, c.value, got, err, c.want)
		}
	}
	// Defaults are in their one proper form, or a change back to them would
	// count as one.
	for _, k := range Keys() {
		if got, err := CheckSetting(k.Name, k.Default); err != nil || got != k.Default {
			t.Errorf("default of %s: %q (%v), want %q", k.Name, got, err, k.Default)
		}
	}
}

// Of several values one that is bad leaves the others unset.
func TestSetConfigIsAllOrNothing(t *testing.T) {
	s, _ := filled(t, filepath.Join(t.TempDir(), "db"))
	_, err := s.SetConfig("x", map[string]string{"sync-jobs": "9", "sync-method": "tar", "bwlimit": "1"})
	wantKind(t, err, Usage)
	all, err := s.Config("x")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		if x.Set {
			t.Errorf("%s is set to %q", x.Name, x.Value)
		}
	}
	if restarts, err := s.SetConfig("x", map[string]string{"rpo-target": "1m"}); err != nil || restarts {
		t.Errorf("rpo-target: restarts %v (%v)", restarts, err)
	}
	if restarts, err := s.SetConfig("x", map[string]string{"sync-jobs": "3"}); err != nil || restarts {
		t.Errorf("sync-jobs as it was: restarts %v (%v)", restarts, err)
	}
	if restarts, err := s.SetConfig("x", map[string]string{"sync-jobs": "4"}); err != nil || !restarts {
		t.Errorf("sync-jobs: restarts %v (%v)", restarts, err)
	}
}
