-- The schema that a PostgreSQL database begins with: what scripts 1 to 6 make of a SQLite file.
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

-- `state` holds the run; the other columns are what is searched by and listed.
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
    wait_holder BIGINT,
    conclusion TEXT,
    visibility TEXT NOT NULL,
    readers TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    name TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    branch TEXT NOT NULL,
    event TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT,
    -- Grows with every write of any run: what a list that is kept up to date asks by.
    changed BIGINT NOT NULL,
    state TEXT NOT NULL
);
CREATE INDEX runs_request ON runs (request);
CREATE INDEX runs_run_event ON runs (run_event);
CREATE INDEX runs_job_event ON runs (job_event);
CREATE INDEX runs_publisher ON runs (publisher);
CREATE INDEX runs_wait ON runs (wait_kind, wait_name);
CREATE INDEX runs_expiry ON runs (expires_at);
CREATE INDEX runs_repository ON runs (repository, serial);
CREATE INDEX runs_workflow ON runs (workflow, serial);
CREATE INDEX runs_branch ON runs (branch, serial);
CREATE INDEX runs_event ON runs (event, serial);
CREATE INDEX runs_actor ON runs (actor, serial);
CREATE INDEX runs_status ON runs (status, serial);
CREATE INDEX runs_changed ON runs (changed);

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

-- What jobs saved for later jobs. The bytes are blobs; `used_at` decides what goes first.
CREATE TABLE caches (
    id BIGINT PRIMARY KEY,
    repository TEXT NOT NULL,
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size BIGINT NOT NULL,
    made_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX caches_name ON caches (repository, scope, name, version);
CREATE INDEX caches_used ON caches (used_at);

-- What a run's jobs made.
CREATE TABLE artifacts (
    id BIGINT PRIMARY KEY,
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size BIGINT NOT NULL,
    made_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX artifacts_name ON artifacts (run, name);
CREATE INDEX artifacts_expiry ON artifacts (expires_at);

-- What each attempt asked of caches.
CREATE TABLE cache_uses (
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    name TEXT NOT NULL,
    found TEXT,
    size BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (run, job, attempt, outcome, name)
);

-- Reruns of a run.
CREATE INDEX runs_previous ON runs (previous, serial);

-- What is told over HTTP. A row is written with the change that it tells of; `state` is pending, delivered or given_up.
CREATE TABLE hooks (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    event TEXT NOT NULL,
    run TEXT NOT NULL,
    body TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    due BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    state TEXT NOT NULL,
    answer TEXT NOT NULL
);
CREATE INDEX hooks_due ON hooks (url, state, due);
CREATE INDEX hooks_made ON hooks (made_at);

-- Workflow files that are events: every version that counted when it came, the whole event in `signed`.
CREATE TABLE definitions (
    event TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    path TEXT NOT NULL,
    author TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    size BIGINT NOT NULL,
    withdrawn BIGINT NOT NULL,
    signed TEXT NOT NULL,
    seen_at BIGINT NOT NULL
);
CREATE INDEX definitions_repository ON definitions (repository, path, made_at);

-- Whose definitions count for a repository, as relays said last: JSON, 64 hex each.
CREATE TABLE maintainers (
    repository TEXT PRIMARY KEY,
    keys TEXT NOT NULL,
    looked_at BIGINT NOT NULL
);
