-- Secrets and variables that maintainers store for a repository, or for an environment of it (in lower case; empty: for
-- all of it). Of each name the newest order counts. One that removes it stays as a row without a value for a while, so
-- that an older order that comes late does not bring the value back.
CREATE TABLE repository_values (
    repository TEXT NOT NULL,
    environment TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    ordered_at BIGINT NOT NULL,
    event TEXT NOT NULL,
    author TEXT NOT NULL,
    size BIGINT NOT NULL,
    value BYTEA,
    wrapped BYTEA,
    unserved_since BIGINT,
    PRIMARY KEY (repository, environment, kind, name)
);
CREATE INDEX repository_values_author ON repository_values (author, size);

-- What the store key that everything is sealed under is known by. There is one row.
CREATE TABLE store_keys (
    id BIGINT PRIMARY KEY,
    mark TEXT NOT NULL
);
