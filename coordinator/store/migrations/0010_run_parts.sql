-- A run in parts: a transition writes the rows of what it changed. Rows with `state_version` 1 hold the whole run in
-- `state`; the next write of such a run takes it apart.
ALTER TABLE runs ADD COLUMN state_version BIGINT NOT NULL DEFAULT 1;

-- Parts that are written once: `request`, `rerun`, `planned`.
CREATE TABLE run_parts (
    run TEXT NOT NULL,
    part TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (run, part)
);

CREATE TABLE run_jobs (
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    position BIGINT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (run, job)
);

CREATE TABLE run_calls (
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    position BIGINT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (run, job)
);

-- Accepted reports, beside the run that they belong to.
CREATE TABLE job_reports (
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    report TEXT NOT NULL,
    PRIMARY KEY (run, job, attempt)
);

-- Why a queued job still waits, for people.
ALTER TABLE queue ADD COLUMN reason TEXT NOT NULL DEFAULT '';
