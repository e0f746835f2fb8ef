-- The whole state. TEXT, BIGINT and BYTEA only: the same text serves SQLite and PostgreSQL.
-- Times are milliseconds since the Unix epoch, flags are 0 or 1, JSON is TEXT.

-- What came in once and must not come in twice.
CREATE TABLE seen (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL
);

-- Values handed out once each: run serials, run numbers, the order of the outbox.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);

-- `state` holds the run; the other columns are what is searched by.
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    version BIGINT NOT NULL,
    serial BIGINT NOT NULL UNIQUE,
    number BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    previous TEXT,
    request TEXT NOT NULL,
    run_event TEXT,
    job_event TEXT,
    publisher TEXT,
    repository TEXT NOT NULL,
    workflow TEXT NOT NULL,
    actor TEXT NOT NULL,
    phase TEXT NOT NULL,
    wait_kind TEXT,
    wait_name TEXT,
    wait_until BIGINT,
    conclusion TEXT,
    visibility TEXT NOT NULL,
    readers TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    state TEXT NOT NULL
);
CREATE INDEX runs_request ON runs (request);
CREATE INDEX runs_run_event ON runs (run_event);
CREATE INDEX runs_job_event ON runs (job_event);
CREATE INDEX runs_publisher ON runs (publisher);
CREATE INDEX runs_repository ON runs (repository, serial);
CREATE INDEX runs_phase ON runs (phase, serial);
CREATE INDEX runs_wait ON runs (wait_kind, wait_name);
CREATE INDEX runs_expiry ON runs (expires_at);

-- Who holds a concurrency group and who waits for it.
CREATE TABLE run_groups (
    name TEXT PRIMARY KEY,
    version BIGINT NOT NULL,
    holder TEXT,
    pending TEXT NOT NULL
);

CREATE TABLE queue (
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    labels TEXT NOT NULL,
    avoid TEXT NOT NULL,
    owner TEXT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (run, job)
);
CREATE INDEX queue_since ON queue (since);

CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    kind TEXT NOT NULL,
    due BIGINT NOT NULL
);
CREATE INDEX tasks_due ON tasks (due);

CREATE TABLE outbox (
    event TEXT PRIMARY KEY,
    sequence BIGINT NOT NULL UNIQUE,
    unsigned TEXT NOT NULL,
    signature TEXT,
    signer TEXT NOT NULL,
    relays TEXT NOT NULL,
    run TEXT,
    made_at BIGINT NOT NULL,
    done BIGINT NOT NULL
);
CREATE INDEX outbox_pending ON outbox (done, sequence);
CREATE INDEX outbox_run ON outbox (run);

CREATE TABLE deliveries (
    event TEXT NOT NULL,
    relay TEXT NOT NULL,
    answer TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (event, relay)
);

-- Values sealed under a run's data key, and that key wrapped by the store key.
CREATE TABLE secrets (
    run TEXT NOT NULL,
    name TEXT NOT NULL,
    sealed BYTEA NOT NULL,
    PRIMARY KEY (run, name)
);
CREATE TABLE run_keys (
    run TEXT PRIMARY KEY,
    wrapped BYTEA NOT NULL
);

CREATE TABLE parked (
    id TEXT PRIMARY KEY,
    waits_for TEXT NOT NULL,
    event TEXT NOT NULL,
    until BIGINT NOT NULL
);
CREATE INDEX parked_waits_for ON parked (waits_for);
CREATE INDEX parked_until ON parked (until);

CREATE TABLE cursors (
    relay TEXT PRIMARY KEY,
    seen BIGINT NOT NULL
);

-- One row for each owner of the same bytes.
CREATE TABLE blobs (
    sha256 TEXT NOT NULL,
    owner TEXT NOT NULL,
    size BIGINT NOT NULL,
    kind TEXT NOT NULL,
    public BIGINT NOT NULL,
    stored_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (sha256, owner)
);
CREATE INDEX blobs_owner ON blobs (owner, stored_at);
CREATE INDEX blobs_expiry ON blobs (expires_at);

CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    slots BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    draining BIGINT NOT NULL
);
