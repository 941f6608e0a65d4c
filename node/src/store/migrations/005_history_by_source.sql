    -- The id of a received message is followed by its sender, epoch and sequence: an id alone is
    -- chosen by the sender, and another sender may choose the same one. Rows of earlier formats
    -- keep the id alone; a table without the old `UNIQUE` would need the whole history twice.
    -- `weight` counts what a row takes beside its text (ROW_BYTES in `state/capacity.rs`).
    ALTER TABLE history ADD COLUMN source BLOB AS (
        CASE WHEN direction = 1 THEN x'01'
        WHEN substr(peer, 1, 1) IN (x'00', x'12') THEN peer ELSE x'02' END
    ) VIRTUAL;
    ALTER TABLE history ADD COLUMN weight INTEGER AS (octet_length(body) + 256) VIRTUAL;
    CREATE INDEX history_by_source ON history (source, row, weight);
    DROP TRIGGER history_in;
    DROP TRIGGER history_out;
    DROP TABLE totals;
    CREATE TABLE totals (
        source BLOB PRIMARY KEY, rows INTEGER NOT NULL, bytes INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO totals SELECT source, count(*), sum(weight) FROM history GROUP BY source;
    CREATE TRIGGER history_in AFTER INSERT ON history BEGIN
        INSERT INTO totals VALUES (new.source, 1, new.weight)
        ON CONFLICT (source) DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
    END;
    CREATE TRIGGER history_out AFTER DELETE ON history BEGIN
        UPDATE totals SET rows = rows - 1, bytes = bytes - old.weight WHERE source = old.source;
        DELETE FROM totals WHERE source = old.source AND rows = 0;
    END;
    -- When a message to a user of a foreign server was last accepted here.
    ALTER TABLE users ADD COLUMN written_ms INTEGER NOT NULL DEFAULT 0;
    -- Whether a user is more than a registration that nobody has used.
    ALTER TABLE users ADD COLUMN stays INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE history ADD COLUMN is_hex INTEGER NOT NULL DEFAULT 0;
