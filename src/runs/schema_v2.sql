-- Version 2: runs can be put out of sight (`pipe rm`) and come back (`pipe restore`).

-- When the run was removed; it stays, since later runs may be satisfied by what it executed.
ALTER TABLE run ADD COLUMN removed TEXT;

DROP VIEW runs_overview;
CREATE VIEW runs_overview AS
SELECT 'run_' || run.id AS run, run.status, run.started,
       round((julianday(run.ended) - julianday(run.started)) * 86400, 3) AS seconds, run.pipeline,
       run.profiles, run.sets, run.ran, run.cached, run.failed, run.git_commit,
       (SELECT group_concat(name, ' ') FROM tag WHERE tag.run = run.id) AS tags,
       (SELECT text FROM note WHERE note.run = run.id ORDER BY id DESC LIMIT 1) AS note
FROM run
WHERE run.removed IS NULL
ORDER BY run.id DESC;
