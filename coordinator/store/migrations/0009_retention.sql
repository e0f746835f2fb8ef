-- What is past its retention is found by its age.
CREATE INDEX seen_at ON seen (at);
CREATE INDEX outbox_made ON outbox (made_at);
CREATE INDEX definitions_seen ON definitions (seen_at);
