-- API keys. Of a key's secret there is only a keyed hash; the key of that hash lies outside of this file.
CREATE TABLE keys (
    id                TEXT    NOT NULL PRIMARY KEY,
    name              TEXT    NOT NULL,
    tenant            TEXT    NOT NULL,
    role              TEXT    NOT NULL CHECK (role IN ('metrics', 'user', 'operator', 'admin')),
    models            TEXT    NOT NULL, -- JSON: a list of patterns
    default_priority  TEXT    NOT NULL CHECK (default_priority IN ('batch', 'low', 'normal', 'high', 'urgent')),
    priority_ceiling  TEXT    NOT NULL CHECK (priority_ceiling IN ('batch', 'low', 'normal', 'high', 'urgent')),
    weight            INTEGER NOT NULL,
    allowance         TEXT    NOT NULL, -- JSON: an object of bounds
    labels            TEXT    NOT NULL, -- JSON: an object of texts
    hash              BLOB    NOT NULL CHECK (length(hash) = 32),
    -- The secret before the last rotation, and until when it is still taken.
    previous_hash     BLOB    CHECK (length(previous_hash) = 32),
    previous_until_ms INTEGER,
    -- Milliseconds since 1970-01-01T00:00:00Z.
    created_at_ms     INTEGER NOT NULL,
    expires_at_ms     INTEGER,
    revoked_at_ms     INTEGER,
    rotated_at_ms     INTEGER,
    last_used_at_ms   INTEGER
) STRICT, WITHOUT ROWID;
