
-- What gateways keep for themselves, each in a space of its own. `ends_ms` is when a record goes by
-- itself; NULL: never.
CREATE TABLE gateway_records (
    gateway TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, ends_ms INTEGER,
    PRIMARY KEY (gateway, key)
) STRICT, WITHOUT ROWID;
-- Revoked tokens were remembered for a day after their end. `726576...` is `revoked/`.
INSERT INTO gateway_records
SELECT 'syft', unhex('7265766f6b65642f' || hex(token)), x'',
    min(until_ms, 9223372036768375807) + 86400000
FROM revoked_tokens;
DROP TABLE revoked_tokens;
