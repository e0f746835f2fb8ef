-- Repositories whose pushes start workflows. `state` is where their refs were when they were last looked at (JSON), and
-- `state_event` the id of the event (30618) that says so: a write that expects another one is refused. Both are empty
-- before the first look. `maintainers`, `relays` and `events` (ids of what was found) are JSON lists of the last look.
CREATE TABLE followed_repositories (
    address TEXT PRIMARY KEY,
    added_by TEXT NOT NULL,
    added_at BIGINT NOT NULL,
    maintainers TEXT NOT NULL,
    relays TEXT NOT NULL,
    state_event TEXT NOT NULL,
    state TEXT NOT NULL,
    events TEXT NOT NULL
);
