-- Whose artifacts take how much: what a repository, or the author of runs, may keep is limited.
ALTER TABLE artifacts ADD COLUMN repository TEXT NOT NULL DEFAULT '';
ALTER TABLE artifacts ADD COLUMN author TEXT NOT NULL DEFAULT '';
UPDATE artifacts SET
    repository = coalesce((SELECT runs.repository FROM runs WHERE runs.id = artifacts.run), ''),
    author = coalesce((SELECT runs.actor FROM runs WHERE runs.id = artifacts.run), '');
CREATE INDEX artifacts_repository ON artifacts (repository, size);
CREATE INDEX artifacts_author ON artifacts (author, size);
