-- What a list says of a run that failed: the job and the step.
ALTER TABLE runs ADD COLUMN failed TEXT NOT NULL DEFAULT '';
