-- Attempts that workers hold. A row is written with the acceptance of a job and removed with the end of the attempt;
-- `cancel_reason` is an order to its worker, whichever coordinator has the session, and `confirm_by` is when it must
-- have been confirmed (NULL: it was, or there is none).
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
);
CREATE INDEX leases_worker ON leases (worker);
CREATE INDEX leases_expiry ON leases (expires_at);
CREATE INDEX leases_cancel ON leases (confirm_by);
