-- Tasks of runs are work like all other. Orders to stop an attempt are not carried over: they stand in its lease.
INSERT INTO work (id, kind, run, lane, payload, made_at, due, tries, claimed_by, claimed_until, failure)
SELECT id,
    CASE
        WHEN kind LIKE '{"task":"plan"%' THEN 'plan'
        WHEN kind LIKE '{"task":"seal"%' THEN 'finalize_log'
        WHEN kind LIKE '{"task":"wake"%' THEN 'wake'
        ELSE 'expire'
    END,
    run, '', kind, due, due, 0, NULL, 0, ''
FROM tasks WHERE kind NOT LIKE '{"task":"stop"%';
DROP TABLE tasks;
