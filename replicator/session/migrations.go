package session

// migrations make the tables. One that was released is never changed, another is
// added. Times are unix microseconds, 0 for none.
var migrations = []string{
	`
CREATE TABLE volumes (
	name    TEXT PRIMARY KEY,
	id      TEXT NOT NULL,              -- uuid, the xtime key of all its bricks
	created INTEGER NOT NULL,
	started INTEGER NOT NULL DEFAULT 0  -- whether its bricks are to be mounted
) STRICT;
CREATE TABLE bricks (
	path       TEXT PRIMARY KEY,
	volume     TEXT NOT NULL REFERENCES volumes(name) ON DELETE CASCADE,
	ord        INTEGER NOT NULL,        -- place in the volume, from 0
	name       TEXT NOT NULL,           -- its slave directory, when there are several
	mountpoint TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE destinations (
	name        TEXT PRIMARY KEY,
	id          TEXT NOT NULL,
	host        TEXT NOT NULL,
	user        TEXT NOT NULL,
	port        INTEGER NOT NULL,
	fingerprint TEXT NOT NULL,
	identity    TEXT NOT NULL,          -- file of the private key
	known_hosts TEXT NOT NULL,          -- file with the host's key
	dir         TEXT NOT NULL,          -- slaves may be below it
	created     INTEGER NOT NULL,
	state       TEXT NOT NULL,
	reason      TEXT NOT NULL DEFAULT '',
	since       INTEGER NOT NULL,
	tested      INTEGER NOT NULL DEFAULT 0,
	steps       TEXT NOT NULL DEFAULT '[]', -- of the last test, JSON
	UNIQUE (host, port, user)
) STRICT;
CREATE TABLE sessions (
	name        TEXT PRIMARY KEY,
	id          TEXT NOT NULL,
	volume      TEXT NOT NULL REFERENCES volumes(name),
	destination TEXT REFERENCES destinations(name), -- NULL: a directory on this host
	dir         TEXT NOT NULL,
	wanted      TEXT NOT NULL,          -- Created, Started, Paused or Stopped
	created     INTEGER NOT NULL,
	since       INTEGER NOT NULL        -- of wanted
) STRICT;
CREATE TABLE config (
	session TEXT NOT NULL REFERENCES sessions(name) ON DELETE CASCADE,
	key     TEXT NOT NULL,
	value   TEXT NOT NULL,
	PRIMARY KEY (session, key)
) STRICT;
CREATE TABLE checkpoints (
	id        INTEGER PRIMARY KEY AUTOINCREMENT,
	session   TEXT NOT NULL REFERENCES sessions(name) ON DELETE CASCADE,
	at        INTEGER NOT NULL,
	created   INTEGER NOT NULL,
	completed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE workers (
	session TEXT NOT NULL REFERENCES sessions(name) ON DELETE CASCADE,
	brick   TEXT NOT NULL,
	slave   TEXT NOT NULL,              -- its directory on the slave
	status  TEXT NOT NULL DEFAULT '{}', -- JSON, the last one told
	updated INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (session, brick)
) STRICT;
CREATE TABLE samples (
	session TEXT NOT NULL REFERENCES sessions(name) ON DELETE CASCADE,
	brick   TEXT NOT NULL,
	at      INTEGER NOT NULL,
	lag     INTEGER NOT NULL,           -- microseconds
	backlog INTEGER NOT NULL,
	ops     INTEGER NOT NULL,           -- applied since the worker began
	bytes   INTEGER NOT NULL,
	PRIMARY KEY (session, brick, at)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	at      INTEGER NOT NULL,
	kind    TEXT NOT NULL,
	session TEXT NOT NULL DEFAULT '',
	brick   TEXT NOT NULL DEFAULT '',
	text    TEXT NOT NULL
) STRICT;
CREATE TABLE quarantine (
	session  TEXT NOT NULL REFERENCES sessions(name) ON DELETE CASCADE,
	brick    TEXT NOT NULL,
	gfid     TEXT NOT NULL,
	name     TEXT NOT NULL,             -- JSON
	path     TEXT NOT NULL,
	op       TEXT NOT NULL,
	error    TEXT NOT NULL,
	attempts INTEGER NOT NULL,
	since    INTEGER NOT NULL,
	next     INTEGER NOT NULL,
	PRIMARY KEY (session, brick, gfid, name)
) STRICT;
`,
}
