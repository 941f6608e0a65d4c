    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE members (peer BLOB PRIMARY KEY, certificate BLOB NOT NULL) STRICT;
    CREATE TABLE revocations (peer BLOB PRIMARY KEY, revocation BLOB NOT NULL) STRICT;
    CREATE TABLE invites (
        secret_hash BLOB PRIMARY KEY,
        expires_ms INTEGER NOT NULL,
        name TEXT NOT NULL DEFAULT '',
        idx INTEGER NOT NULL,
        used_by BLOB NOT NULL DEFAULT x''
    ) STRICT;
    CREATE TABLE addresses (
        peer BLOB NOT NULL, rank INTEGER NOT NULL, address TEXT NOT NULL,
        PRIMARY KEY (peer, rank)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE pins (
        peer BLOB PRIMARY KEY, fingerprint BLOB NOT NULL, bits INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE marks (
        used INTEGER PRIMARY KEY AUTOINCREMENT,
        sender BLOB NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX marks_by_sender ON marks (sender, epoch);
    CREATE TABLE outbox (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE, recipient BLOB NOT NULL,
        epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
        created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE history (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL,
        direction INTEGER NOT NULL CHECK (direction IN (0, 1)),
        peer BLOB NOT NULL,
        created_ms INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        via TEXT NOT NULL,
        outcome TEXT NOT NULL DEFAULT '',
        body TEXT NOT NULL,
        UNIQUE (id, direction)
    ) STRICT;
    CREATE TABLE totals (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL) STRICT;
    INSERT INTO totals VALUES (1, 0);
    CREATE TRIGGER history_in AFTER INSERT ON history BEGIN
        UPDATE totals SET bytes = bytes + length(CAST(new.body AS BLOB));
    END;
    CREATE TRIGGER history_out AFTER DELETE ON history BEGIN
        UPDATE totals SET bytes = bytes - length(CAST(old.body AS BLOB));
    END;
