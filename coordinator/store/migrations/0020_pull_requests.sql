-- Pull requests of followed repositories. `root` is the id of the event (1618); `number` counts those of one repository, and
-- stays. A write that expects another `version` is refused. `state` is what was known last (JSON), `events` the ids that it
-- was read from (a JSON list), `changed_at` when (ms).
CREATE TABLE pull_requests (
    repository TEXT NOT NULL,
    root TEXT NOT NULL,
    number BIGINT NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    events TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (repository, root)
);
CREATE INDEX pull_requests_changed ON pull_requests (changed_at);
