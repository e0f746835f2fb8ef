-- Attempts that were out under the older schema get a full term when the coordinator starts.
INSERT INTO leases (run, job, attempt, worker, coordinator, repository, expires_at, cancel_reason, confirm_by)
SELECT runs.id, jobs.key, json_extract(jobs.value, '$.attempts[#-1].number'),
    json_extract(jobs.value, '$.attempts[#-1].worker'), '', runs.repository, 0,
    CASE json_extract(jobs.value, '$.phase.phase') WHEN 'cancelling' THEN 'the run ends' END,
    CASE json_extract(jobs.value, '$.phase.phase') WHEN 'cancelling' THEN 0 END
FROM runs, json_each(runs.state, '$.jobs') AS jobs
WHERE runs.phase <> 'done' AND json_extract(jobs.value, '$.phase.phase') IN ('running', 'cancelling');
