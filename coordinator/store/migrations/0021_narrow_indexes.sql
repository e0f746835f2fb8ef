-- An index is written with each row that it holds: those that nothing reads go, and the others hold what is looked for.
DROP INDEX runs_wait;
DROP INDEX runs_publisher;
CREATE INDEX runs_publisher ON runs (publisher) WHERE publisher IS NOT NULL;
DROP INDEX runs_run_event;
CREATE INDEX runs_run_event ON runs (run_event) WHERE run_event IS NOT NULL;
DROP INDEX runs_job_event;
CREATE INDEX runs_job_event ON runs (job_event) WHERE job_event IS NOT NULL;
DROP INDEX runs_previous;
CREATE INDEX runs_previous ON runs (previous, serial) WHERE previous IS NOT NULL;
DROP INDEX leases_cancel;
CREATE INDEX leases_cancel ON leases (confirm_by) WHERE confirm_by IS NOT NULL;
DROP INDEX outbox_pending;
CREATE INDEX outbox_pending ON outbox (sequence) WHERE done = 0;
-- The kinds are few: when the next row is due is asked for each.
DROP INDEX work_next;
DROP INDEX work_claimed;
CREATE INDEX work_claimed ON work (claimed_by) WHERE claimed_by IS NOT NULL;
DROP INDEX work_run;
CREATE INDEX work_run ON work (run) WHERE run IS NOT NULL;
