-- What jobs saved for later jobs. The bytes are blobs; `used_at` decides what goes first.
CREATE TABLE caches (
    id BIGINT PRIMARY KEY,
    repository TEXT NOT NULL,
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size BIGINT NOT NULL,
    made_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX caches_name ON caches (repository, scope, name, version);
CREATE INDEX caches_used ON caches (used_at);

-- What a run's jobs made.
CREATE TABLE artifacts (
    id BIGINT PRIMARY KEY,
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size BIGINT NOT NULL,
    made_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX artifacts_name ON artifacts (run, name);
CREATE INDEX artifacts_expiry ON artifacts (expires_at);
