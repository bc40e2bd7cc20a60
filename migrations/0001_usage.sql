-- The request log: one row a generation that was asked for. Never what was asked or answered.
CREATE TABLE usage (
    id                INTEGER PRIMARY KEY,
    -- Clients may choose their request ids, so they need not be unique.
    request_id        TEXT    NOT NULL,
    started_at_ms     INTEGER NOT NULL, -- milliseconds since 1970-01-01T00:00:00Z
    dialect           TEXT    NOT NULL,
    model             TEXT,
    backend           TEXT,
    outcome           TEXT    NOT NULL CHECK (outcome IN ('ok', 'cancelled', 'client_error', 'gateway_error', 'upstream_error')),
    error_kind        TEXT,
    streamed          INTEGER NOT NULL CHECK (streamed IN (0, 1)),
    prompt_tokens     INTEGER,
    completion_tokens INTEGER,
    queued_ms         INTEGER,
    ttft_ms           INTEGER,
    total_ms          INTEGER NOT NULL,
    prompt_bytes      INTEGER NOT NULL,
    answer_bytes      INTEGER NOT NULL
) STRICT;

CREATE INDEX usage_by_time ON usage (started_at_ms);
CREATE INDEX usage_by_request ON usage (request_id);
