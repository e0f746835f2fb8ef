-- Retention is work like all other. Its rows are done again and again, and never completed.
INSERT INTO work (id, kind, run, lane, payload, made_at, due, tries, claimed_by, claimed_until, failure) VALUES
    ('retain runs', 'retain', NULL, '', '"runs"', 0, 0, 0, NULL, 0, ''),
    ('retain logs', 'retain', NULL, '', '"logs"', 0, 0, 0, NULL, 0, ''),
    ('retain caches', 'retain', NULL, '', '"caches"', 0, 0, 0, NULL, 0, ''),
    ('retain mirrors', 'retain', NULL, '', '"mirrors"', 0, 0, 0, NULL, 0, '');

-- The version at which retention found a group that nobody holds or waits for.
ALTER TABLE run_groups ADD COLUMN idle_version BIGINT;
