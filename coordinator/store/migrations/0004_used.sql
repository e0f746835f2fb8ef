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
