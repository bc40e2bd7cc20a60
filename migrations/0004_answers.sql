-- Finished answers, to be given again. A cache: every row may be lost.
CREATE TABLE answers (
    id            INTEGER PRIMARY KEY,
    key           BLOB    NOT NULL UNIQUE CHECK (length(key) = 32), -- digest of everything that decides the answer
    model         TEXT    NOT NULL, -- canonical name
    digest        TEXT,             -- of the model's content, where it was known
    tenant        TEXT    NOT NULL, -- whose request it was
    key_id        TEXT,             -- of the key it was asked with
    created_at_ms INTEGER NOT NULL, -- milliseconds since 1970-01-01T00:00:00Z
    expires_at_ms INTEGER NOT NULL, -- the same; the largest integer: never
    used_at_ms    INTEGER NOT NULL, -- the same; when it was last given, roughly
    bytes         INTEGER NOT NULL, -- length of `answer`
    answer        BLOB    NOT NULL
) STRICT;

CREATE INDEX answers_by_use ON answers (used_at_ms, bytes);
CREATE INDEX answers_by_expiry ON answers (expires_at_ms);
CREATE INDEX answers_by_model ON answers (model);
CREATE INDEX answers_by_tenant ON answers (tenant);
