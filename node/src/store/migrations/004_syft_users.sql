    -- Gateways for Syft agents. `user` is for whom a message to a member is there, or who sent it;
    -- `letter` is what is carried for a user, which has no place in this node's history.
    ALTER TABLE outbox ADD COLUMN user TEXT NOT NULL DEFAULT '';
    ALTER TABLE outbox ADD COLUMN letter TEXT NOT NULL DEFAULT '';
    ALTER TABLE history ADD COLUMN user TEXT NOT NULL DEFAULT '';
    CREATE TABLE users (
        id TEXT NOT NULL, door BLOB NOT NULL,
        title TEXT NOT NULL, key BLOB NOT NULL, shown BLOB NOT NULL DEFAULT x'',
        registered_ms INTEGER NOT NULL, descriptions TEXT NOT NULL, taken INTEGER NOT NULL,
        PRIMARY KEY (id, door)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE letters (
        row INTEGER PRIMARY KEY,
        id BLOB NOT NULL, user TEXT NOT NULL, sender TEXT NOT NULL, author TEXT NOT NULL,
        door BLOB NOT NULL, at_ms INTEGER NOT NULL, bytes INTEGER NOT NULL, frame TEXT NOT NULL
    ) STRICT;
    CREATE INDEX letters_by_user ON letters (user, row);
    CREATE TABLE seen (
        row INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint BLOB NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE revoked_tokens (token BLOB PRIMARY KEY, until_ms INTEGER NOT NULL) STRICT;
