-- Whether a user's id alone means him here. Until now it meant who had registered first; the ids of
-- foreign servers' pins (their "node" is a hash) never meant anybody alone, and neither did the name
-- of a node.
ALTER TABLE users ADD COLUMN named INTEGER NOT NULL DEFAULT 0;
UPDATE users SET named = 1 WHERE substr(door, 1, 1) = x'00'
AND id NOT IN (SELECT name FROM names) AND NOT EXISTS (
    SELECT 1 FROM users AS other
    WHERE other.id = users.id AND substr(other.door, 1, 1) = x'00'
    AND (other.registered_ms < 1735689600000, other.registered_ms, other.door)
      < (users.registered_ms < 1735689600000, users.registered_ms, users.door)
);
