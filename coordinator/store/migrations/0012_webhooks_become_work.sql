-- Deliveries of webhooks are work like all other. What stays here is a record of each for the operator; while one is
-- pending, its tries, its next try and the last answer stand in the row of work with its id.
INSERT INTO work (id, kind, run, lane, payload, made_at, due, tries, claimed_by, claimed_until, failure)
SELECT id, 'webhook', run, url, body, made_at, due, tries, NULL, 0, answer
FROM hooks WHERE state = 'pending' ORDER BY due, made_at, id;
DROP INDEX hooks_due;
DROP INDEX hooks_made;
ALTER TABLE hooks DROP COLUMN body;
ALTER TABLE hooks DROP COLUMN due;
ALTER TABLE hooks RENAME TO webhook_deliveries;
CREATE INDEX webhook_deliveries_made ON webhook_deliveries (made_at);
CREATE INDEX webhook_deliveries_run ON webhook_deliveries (run);
