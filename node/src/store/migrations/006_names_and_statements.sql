    -- What members are called from a row of the history on, so that renaming and removal leave the
    -- names in it as they were.
    CREATE TABLE names (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        peer BLOB NOT NULL, name TEXT NOT NULL, from_row INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX names_by_peer ON names (peer, from_row);
    ALTER TABLE invites ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE invites ADD COLUMN further TEXT NOT NULL DEFAULT '';
    CREATE TABLE statements (
        kind INTEGER NOT NULL, peer BLOB NOT NULL, statement BLOB NOT NULL,
        PRIMARY KEY (kind, peer)
    ) STRICT, WITHOUT ROWID;
