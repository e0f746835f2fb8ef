-- What is told over HTTP. A row is written with the change that it tells of; `state` is pending, delivered or given_up.
CREATE TABLE hooks (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    event TEXT NOT NULL,
    run TEXT NOT NULL,
    body TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    due BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    state TEXT NOT NULL,
    answer TEXT NOT NULL
);
CREATE INDEX hooks_due ON hooks (url, state, due);
CREATE INDEX hooks_made ON hooks (made_at);
