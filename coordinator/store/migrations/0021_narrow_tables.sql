-- SQLite keeps a table by the number of its rows and its key beside it. Small rows that are found by their key alone are
-- kept in its order instead, and where a number is the order it is the row's own: one page for each write less.
ALTER TABLE seen RENAME TO seen_before;
CREATE TABLE seen (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO seen SELECT id, at FROM seen_before;
DROP TABLE seen_before;
CREATE INDEX seen_at ON seen (at);

ALTER TABLE counters RENAME TO counters_before;
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO counters SELECT name, value FROM counters_before;
DROP TABLE counters_before;

ALTER TABLE deliveries RENAME TO deliveries_before;
CREATE TABLE deliveries (
    event TEXT NOT NULL,
    relay TEXT NOT NULL,
    answer TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (event, relay)
) WITHOUT ROWID;
INSERT INTO deliveries SELECT event, relay, answer, at FROM deliveries_before;
DROP TABLE deliveries_before;

ALTER TABLE run_keys RENAME TO run_keys_before;
CREATE TABLE run_keys (
    run TEXT PRIMARY KEY,
    wrapped BYTEA NOT NULL
) WITHOUT ROWID;
INSERT INTO run_keys SELECT run, wrapped FROM run_keys_before;
DROP TABLE run_keys_before;

ALTER TABLE queue RENAME TO queue_before;
CREATE TABLE queue (
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    labels TEXT NOT NULL,
    avoid TEXT NOT NULL,
    owner TEXT NOT NULL,
    since BIGINT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (run, job)
) WITHOUT ROWID;
INSERT INTO queue SELECT run, job, labels, avoid, owner, since, reason FROM queue_before;
DROP TABLE queue_before;
CREATE INDEX queue_since ON queue (since);

ALTER TABLE leases RENAME TO leases_before;
CREATE TABLE leases (
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    worker TEXT NOT NULL,
    coordinator TEXT NOT NULL,
    repository TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    cancel_reason TEXT,
    confirm_by BIGINT,
    PRIMARY KEY (run, job, attempt)
) WITHOUT ROWID;
INSERT INTO leases SELECT run, job, attempt, worker, coordinator, repository, expires_at, cancel_reason, confirm_by
    FROM leases_before;
DROP TABLE leases_before;
CREATE INDEX leases_worker ON leases (worker);
CREATE INDEX leases_expiry ON leases (expires_at);
CREATE INDEX leases_cancel ON leases (confirm_by) WHERE confirm_by IS NOT NULL;

ALTER TABLE outbox RENAME TO outbox_before;
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY,
    event TEXT NOT NULL UNIQUE,
    unsigned TEXT NOT NULL,
    signature TEXT,
    signer TEXT NOT NULL,
    relays TEXT NOT NULL,
    run TEXT,
    made_at BIGINT NOT NULL,
    done BIGINT NOT NULL
);
INSERT INTO outbox (sequence, event, unsigned, signature, signer, relays, run, made_at, done)
    SELECT sequence, event, unsigned, signature, signer, relays, run, made_at, done FROM outbox_before ORDER BY sequence;
DROP TABLE outbox_before;
CREATE INDEX outbox_pending ON outbox (sequence) WHERE done = 0;
CREATE INDEX outbox_run ON outbox (run);
CREATE INDEX outbox_made ON outbox (made_at);

-- A number may be used again once its row and all later ones are gone: it orders the rows that are there.
ALTER TABLE work RENAME TO work_before;
CREATE TABLE work (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    run TEXT,
    lane TEXT NOT NULL,
    payload TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    due BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    claimed_by TEXT,
    claimed_until BIGINT NOT NULL,
    failure TEXT NOT NULL
);
INSERT INTO work SELECT sequence, id, kind, run, lane, payload, made_at, due, tries, claimed_by, claimed_until, failure
    FROM work_before ORDER BY sequence;
DROP TABLE work_before;
CREATE INDEX work_due ON work (kind, due);
CREATE INDEX work_lane ON work (kind, lane, sequence);
CREATE INDEX work_claimed ON work (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX work_run ON work (run) WHERE run IS NOT NULL;
