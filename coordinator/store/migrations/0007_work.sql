-- Work that a commit asked for: one row for each task, delivery or timer, whoever carries it out. `sequence` is the
-- order of making; `claimed_by` names one claim of one coordinator, and lapses at `claimed_until`.
CREATE TABLE work (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
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
CREATE INDEX work_due ON work (kind, due);
CREATE INDEX work_lane ON work (kind, lane, sequence);
CREATE INDEX work_next ON work (due);
CREATE INDEX work_claimed ON work (claimed_by);
CREATE INDEX work_run ON work (run);
