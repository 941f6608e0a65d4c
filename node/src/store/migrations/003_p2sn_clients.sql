    -- From here on `history.peer` and `outbox.recipient` may be the name of a client, too: text
    -- with a colon in it. The bytes of a peer id begin with 0x00 or 0x12, and no name does.
    CREATE TABLE client_pins (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        address TEXT NOT NULL, fingerprint BLOB NOT NULL, bits INTEGER NOT NULL,
        UNIQUE (address, fingerprint)
    ) STRICT;
