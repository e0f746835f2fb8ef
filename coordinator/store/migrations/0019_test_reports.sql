-- What the tests of a job said, read from an artifact when it came. `document` is the list; the row goes with the artifact.
CREATE TABLE test_reports (
    artifact BIGINT PRIMARY KEY,
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    author TEXT NOT NULL,
    name TEXT NOT NULL,
    failed BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    passed BIGINT NOT NULL,
    millis BIGINT NOT NULL,
    trusted BIGINT NOT NULL,
    size BIGINT NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX test_reports_run ON test_reports (run);
CREATE INDEX test_reports_author ON test_reports (author, size);
