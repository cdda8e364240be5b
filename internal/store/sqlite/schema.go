package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// migrations are the steps from one version of the schema to the next. The number of
// those that a database has been through is its user_version. A step that has been
// released never changes.
var migrations = [...]string{`
-- Times are unix nanoseconds, 0 for none. Addresses are sixteen bytes, IPv4 as
-- IPv4-mapped; a prefix is its first address, and how many of the 128 bits count.
CREATE TABLE bans (
	id INTEGER PRIMARY KEY,
	addr BLOB NOT NULL, bits INTEGER NOT NULL,
	host BLOB NOT NULL,                -- who was seen
	began INTEGER NOT NULL,
	since INTEGER NOT NULL,            -- when it became what it is now
	until INTEGER NOT NULL,            -- 0: until undone by hand
	ended INTEGER NOT NULL DEFAULT 0,  -- 0: it stands
	ending INTEGER NOT NULL DEFAULT 0, -- respond.Ending
	ended_by TEXT NOT NULL DEFAULT '',
	asked_by TEXT NOT NULL DEFAULT '', -- who asked for it; '': the daemon
	strength INTEGER NOT NULL, scope INTEGER NOT NULL, evidence INTEGER NOT NULL,
	times INTEGER NOT NULL,
	port INTEGER NOT NULL, proto INTEGER NOT NULL, kind TEXT NOT NULL,
	reason TEXT NOT NULL,
	scan TEXT NOT NULL DEFAULT '',     -- detect.Found in JSON
	packets BLOB NOT NULL              -- see packetBytes
);
CREATE INDEX bans_addr ON bans (addr, bits, ended);
CREATE INDEX bans_began ON bans (began);
CREATE INDEX bans_ended ON bans (ended);

-- What a ban was before it became longer or stronger, and became.
CREATE TABLE ban_changes (
	ban INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL,
	strength INTEGER NOT NULL, scope INTEGER NOT NULL, evidence INTEGER NOT NULL,
	times INTEGER NOT NULL, reason TEXT NOT NULL, asked_by TEXT NOT NULL,
	PRIMARY KEY (ban, since)
) WITHOUT ROWID;

-- One row for each source, kind and interval, never one for each packet. The source
-- is empty in the rows of those for whom there was none.
CREATE TABLE sightings (
	slot INTEGER NOT NULL,             -- unix time by ten minutes
	source BLOB NOT NULL, kind INTEGER NOT NULL, proto INTEGER NOT NULL,
	first INTEGER NOT NULL, last INTEGER NOT NULL,
	count INTEGER NOT NULL, triggered INTEGER NOT NULL,
	ports INTEGER NOT NULL, port INTEGER NOT NULL, dst BLOB NOT NULL,
	PRIMARY KEY (slot, source, kind, proto)
) WITHOUT ROWID;
CREATE INDEX sightings_source ON sightings (source, slot);

CREATE TABLE ports (
	slot INTEGER NOT NULL, proto INTEGER NOT NULL, port INTEGER NOT NULL, -- 0: the others together
	count INTEGER NOT NULL,
	PRIMARY KEY (slot, proto, port)
) WITHOUT ROWID;

CREATE TABLE sources (
	source BLOB PRIMARY KEY,
	name TEXT NOT NULL DEFAULT '',
	first INTEGER NOT NULL, last INTEGER NOT NULL,
	probes INTEGER NOT NULL,
	kinds INTEGER NOT NULL,            -- bit n: detect.Kind n
	ports INTEGER NOT NULL, evidence INTEGER NOT NULL,
	scan TEXT NOT NULL DEFAULT '',     -- the last that was found, detect.Found in JSON
	scanned INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX sources_last ON sources (last);

CREATE TABLE changes (
	id INTEGER PRIMARY KEY,
	time INTEGER NOT NULL, asked_by TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX changes_time ON changes (time);
`}

// errNewer: a later portsentry wrote the file.
var errNewer = errors.New("it is of a later version of portsentry")

// migrate brings the database to the version of this program, and reports whether it
// was empty.
func migrate(ctx context.Context, db *sql.DB, steps []string) (empty bool, err error) {
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return false, err
	}
	if version > len(steps) {
		return false, errNewer
	}
	for empty = version == 0; version < len(steps); version++ {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return false, err
		}
		_, err = tx.ExecContext(ctx, steps[version]+fmt.Sprintf(";PRAGMA user_version=%d", version+1))
		if err != nil {
			return false, errors.Join(err, tx.Rollback())
		}
		if err := tx.Commit(); err != nil {
			return false, err
		}
	}
	return empty, nil
}
