-- Lists of runs are answered from columns and an index alone. They stand before `state`: a database that keeps a row
-- as one chain of pages would read the whole state to reach what is behind it. What old rows lack is filled at opening.
CREATE TABLE runs_listed (
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
INSERT INTO runs_listed (id, version, serial, number, attempt, previous, request, run_event, job_event, publisher,
    repository, workflow, actor, phase, wait_kind, wait_name, wait_until, conclusion, visibility, readers, created_at,
    expires_at, name, commit_id, branch, event, status, started_at, ended_at, changed, state)
SELECT id, version, serial, number, attempt, previous, request, run_event, job_event, publisher, repository, workflow,
    actor, phase, wait_kind, wait_name, wait_until, conclusion, visibility, readers, created_at, expires_at, '', '', '',
    '', '', NULL, NULL, serial, state FROM runs;
DROP TABLE runs;
ALTER TABLE runs_listed RENAME TO runs;
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
