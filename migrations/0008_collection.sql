-- Whole exchanges of those who consented, to learn from, and what was said of them. Times are milliseconds since 1970-01-01T00:00:00Z.
CREATE TABLE collected (
    id                INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice: pages go on from one
    request_id        TEXT    NOT NULL, -- may have been chosen by the client, and so need not be unique
    at_ms             INTEGER NOT NULL, -- when it was asked
    key_id            TEXT,             -- of the key it was asked with; NULL: none was needed
    tenant            TEXT    NOT NULL,
    dialect           TEXT    NOT NULL,
    model             TEXT    NOT NULL, -- canonical name of the one that answered
    finish_reason     TEXT    NOT NULL,
    prompt_tokens     INTEGER,
    completion_tokens INTEGER,
    bytes             INTEGER NOT NULL, -- of messages, tools, answer and thinking
    feedback_bytes    INTEGER NOT NULL DEFAULT 0,
    rating            TEXT    CHECK (rating IN ('good', 'bad')),
    rated_at_ms       INTEGER,
    -- What is long comes last, so that the rest is found without reading it.
    messages          TEXT    NOT NULL, -- JSON: a list of role and content
    tools             TEXT,             -- JSON: a list, as it was asked
    answer            TEXT    NOT NULL,
    thinking          TEXT,
    correction        TEXT,             -- the answer that would have been right
    comment           TEXT,
    CHECK ((rating IS NULL) = (rated_at_ms IS NULL))
) STRICT;

CREATE INDEX collected_by_request ON collected (request_id);
CREATE INDEX collected_by_time ON collected (at_ms);
CREATE INDEX collected_by_key ON collected (key_id, id);
CREATE INDEX collected_by_model ON collected (model, id);
CREATE INDEX collected_by_size ON collected (bytes, feedback_bytes); -- adds them up

-- Whether the holder of a key agreed that its exchanges are collected.
ALTER TABLE keys ADD COLUMN collect INTEGER NOT NULL DEFAULT 0 CHECK (collect IN (0, 1));
