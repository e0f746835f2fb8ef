-- Workflow files that are events: every version that counted when it came, the whole event in `signed`.
CREATE TABLE definitions (
    event TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    path TEXT NOT NULL,
    author TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    size BIGINT NOT NULL,
    withdrawn BIGINT NOT NULL,
    signed TEXT NOT NULL,
    seen_at BIGINT NOT NULL
);
CREATE INDEX definitions_repository ON definitions (repository, path, made_at);

-- Whose definitions count for a repository, as relays said last: JSON, 64 hex each.
CREATE TABLE maintainers (
    repository TEXT PRIMARY KEY,
    keys TEXT NOT NULL,
    looked_at BIGINT NOT NULL
);
