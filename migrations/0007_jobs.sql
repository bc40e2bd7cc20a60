-- Background jobs. Times are milliseconds since 1970-01-01T00:00:00Z.
CREATE TABLE jobs (
    id               TEXT    NOT NULL PRIMARY KEY, -- UUID version 7: sorts by time
    kind             TEXT    NOT NULL,
    name             TEXT    NOT NULL,
    tenant           TEXT    NOT NULL,
    priority         INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 4), -- batch, low, normal, high, urgent
    input            TEXT    NOT NULL, -- JSON
    labels           TEXT    NOT NULL, -- JSON: an object of texts
    steps            TEXT    NOT NULL, -- JSON: a list of names
    schedule         TEXT,             -- id of the schedule that made it
    -- What it takes while it runs.
    cpu_threads      INTEGER NOT NULL,
    gpus             INTEGER NOT NULL,
    memory_bytes     INTEGER NOT NULL,
    disk_bytes       INTEGER NOT NULL,
    created_at_ms    INTEGER NOT NULL,
    -- Where it stands. Every change is made to the row with the state and the epoch that were read.
    state            TEXT    NOT NULL CHECK (state IN ('queued', 'leased', 'running', 'succeeded', 'failed', 'cancelled')),
    epoch            INTEGER NOT NULL, -- counts how often the right to write the row was given or taken
    owner            TEXT,
    lease_until_ms   INTEGER,
    attempts         INTEGER NOT NULL,
    max_attempts     INTEGER NOT NULL,
    not_before_ms    INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL CHECK (cancel_requested IN (0, 1)),
    step             INTEGER NOT NULL, -- how many steps have ended
    progress         TEXT,             -- JSON
    result           TEXT,             -- JSON
    error            TEXT,             -- JSON
    started_at_ms    INTEGER,
    finished_at_ms   INTEGER,
    events           INTEGER NOT NULL DEFAULT 0, -- how many events it has had
    CHECK ((state IN ('leased', 'running')) = (owner IS NOT NULL)),
    CHECK ((owner IS NULL) = (lease_until_ms IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_waiting ON jobs (priority DESC, id) WHERE state = 'queued';
CREATE INDEX jobs_active ON jobs (lease_until_ms) WHERE state IN ('leased', 'running');
CREATE INDEX jobs_finished ON jobs (finished_at_ms) WHERE finished_at_ms IS NOT NULL;
CREATE INDEX jobs_of_tenants ON jobs (tenant, id);

-- Which jobs must have succeeded before one may start.
CREATE TABLE job_needs (
    job   TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    needs TEXT NOT NULL,
    PRIMARY KEY (job, needs)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_needs_by ON job_needs (needs);

-- One row each time a worker took a job.
CREATE TABLE job_attempts (
    job           TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    epoch         INTEGER NOT NULL,
    owner         TEXT    NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_at_ms   INTEGER,
    outcome       TEXT,
    PRIMARY KEY (job, epoch)
) STRICT, WITHOUT ROWID;

-- Steps that have ended, with a hash of all that went into them: a later attempt passes over those whose hash is the same.
CREATE TABLE job_steps (
    job            TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number         INTEGER NOT NULL,
    input_hash     TEXT    NOT NULL,
    output         TEXT    NOT NULL, -- JSON
    finished_at_ms INTEGER NOT NULL,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

-- What happened to a job, for those who follow it. Numbers grow without gaps; the oldest go when there are too many.
CREATE TABLE job_events (
    job    TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    kind   TEXT    NOT NULL,
    data   TEXT    NOT NULL, -- JSON
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

-- What jobs made. A row is written after its file is whole and in its place.
CREATE TABLE job_artifacts (
    job           TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name          TEXT    NOT NULL,
    path          TEXT    NOT NULL, -- below the folder of artifacts
    size_bytes    INTEGER NOT NULL,
    sha256        TEXT    NOT NULL,
    lineage       TEXT    NOT NULL, -- JSON: inputs, options, version of the code
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (job, name)
) STRICT, WITHOUT ROWID;

-- Jobs that are made again and again.
CREATE TABLE job_schedules (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    tenant        TEXT    NOT NULL,
    cron          TEXT    NOT NULL,
    missed        TEXT    NOT NULL CHECK (missed IN ('skip', 'once', 'all')),
    job           TEXT    NOT NULL, -- JSON: what each of them is made from
    next_at_ms    INTEGER,          -- none: never again
    last_at_ms    INTEGER,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Submissions that must not be made twice.
CREATE TABLE job_keys (
    tenant        TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    body_hash     TEXT    NOT NULL,
    made          TEXT    NOT NULL, -- id of the job or the schedule
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

-- What operators want of all workers.
CREATE TABLE job_pool (
    one   INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    order_ TEXT   NOT NULL CHECK (order_ IN ('run', 'pause', 'drain'))
) STRICT;
INSERT INTO job_pool VALUES (1, 'run');
