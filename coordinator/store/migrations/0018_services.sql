-- Wishes that a repository be served, or no more: the newest of each kind by each author. `event` is its id, `relay` had it.
CREATE TABLE service_controls (
    repository TEXT NOT NULL,
    author TEXT NOT NULL,
    starts BIGINT NOT NULL,
    event TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    relay TEXT NOT NULL,
    PRIMARY KEY (repository, author, starts)
);
-- Repositories that are served: `status` is the id of the event that says so last, `stamp` its time in seconds, `request`
-- the event by which they are, empty where the operator named them.
CREATE TABLE served_repositories (
    repository TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    stamp BIGINT NOT NULL,
    request TEXT NOT NULL
);
