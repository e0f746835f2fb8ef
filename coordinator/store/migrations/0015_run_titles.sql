-- What a list calls a run by beside its workflow: `run-name`, or the first line of the commit's message.
ALTER TABLE runs ADD COLUMN title TEXT NOT NULL DEFAULT '';
