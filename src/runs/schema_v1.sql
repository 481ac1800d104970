-- Version 1 of `runs.db`; docs/runs-db.md explains it to people who ask it questions.
-- Times are UTC with microseconds, so that their texts sort. Digests and keys are 64
-- hexadecimal digits. Names that start with a noun alone (`stage`, `param`, `metric`, …) are
-- views; `…_record`, `…_value` and `…_name` are the compact tables behind them.

-- Bytes worth keeping, once each: resolved pipelines, patches, logs, predictions.
CREATE TABLE content (
  id      INTEGER PRIMARY KEY,
  digest  TEXT NOT NULL UNIQUE,
  bytes   INTEGER NOT NULL,
  deflate BLOB NOT NULL
);

CREATE TABLE run (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  status        TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'interrupted')),
  started       TEXT NOT NULL,
  ended         TEXT,
  file          TEXT NOT NULL,
  pipeline      TEXT NOT NULL,
  command       TEXT NOT NULL,
  profiles      TEXT NOT NULL,
  sets          TEXT NOT NULL,
  seed          INTEGER NOT NULL,
  resolved      TEXT NOT NULL REFERENCES content (digest),
  git_commit    TEXT,
  git_dirty     INTEGER,
  git_patch     TEXT REFERENCES content (digest),
  version       TEXT NOT NULL,
  host          TEXT NOT NULL,
  cpus          INTEGER NOT NULL,
  -- Who writes this run, to tell later whether it still lives.
  process       TEXT,
  ran           INTEGER NOT NULL DEFAULT 0,
  cached        INTEGER NOT NULL DEFAULT 0,
  failed        INTEGER NOT NULL DEFAULT 0,
  skipped       INTEGER NOT NULL DEFAULT 0,
  interrupted   INTEGER NOT NULL DEFAULT 0,
  -- A run that only found again what an earlier one had found shares that run's stage records.
  stages_digest BLOB,
  repeats       INTEGER REFERENCES run (id)
);
CREATE INDEX run_by_file ON run (file, id);
CREATE INDEX run_by_repeats ON run (repeats) WHERE repeats IS NOT NULL;

-- One stage computed once. `run` is empty when another `runs.db` saw it being computed;
-- `duration` and what follows are empty until it is complete.
CREATE TABLE execution (
  id          INTEGER PRIMARY KEY,
  name        TEXT NOT NULL UNIQUE,
  key         TEXT NOT NULL,
  hashed      TEXT NOT NULL,
  kind        TEXT NOT NULL,
  stage       TEXT NOT NULL,
  run         INTEGER REFERENCES run (id),
  started     TEXT NOT NULL,
  duration    REAL,
  cpu         REAL,
  peak_memory INTEGER,
  device      TEXT
);
CREATE INDEX execution_by_key ON execution (key);

-- What a stage was told, once for all runs that told it the same.
CREATE TABLE definition (
  id           INTEGER PRIMARY KEY,
  hash         BLOB NOT NULL UNIQUE,
  kind         TEXT NOT NULL,
  kind_version INTEGER NOT NULL,
  seed         INTEGER,
  params       TEXT NOT NULL
);

-- What one run did about one stage. `key` is kept where no execution has it; `reasons`,
-- `started` and `duration` say something about a stage that ran, not about one found.
CREATE TABLE stage_record (
  run        INTEGER NOT NULL REFERENCES run (id),
  position   INTEGER NOT NULL,
  name       TEXT NOT NULL,
  definition INTEGER NOT NULL REFERENCES definition (id),
  outcome    TEXT NOT NULL CHECK (outcome IN ('ran', 'cached', 'failed', 'skipped', 'interrupted')),
  execution  INTEGER REFERENCES execution (id),
  key        TEXT,
  reasons    TEXT,
  started    TEXT,
  duration   REAL,
  exit_code  INTEGER,
  error      TEXT,
  log        TEXT REFERENCES content (digest),
  PRIMARY KEY (run, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX stage_record_by_name ON stage_record (name, run);
CREATE INDEX stage_record_by_execution ON stage_record (execution, run) WHERE execution IS NOT NULL;

CREATE TABLE metric_name (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);

CREATE TABLE final_value (
  execution INTEGER NOT NULL REFERENCES execution (id),
  name      INTEGER NOT NULL REFERENCES metric_name (id),
  value     REAL,
  PRIMARY KEY (execution, name)
) WITHOUT ROWID;

CREATE TABLE step_value (
  execution INTEGER NOT NULL REFERENCES execution (id),
  name      INTEGER NOT NULL REFERENCES metric_name (id),
  step      INTEGER NOT NULL,
  value     REAL,
  PRIMARY KEY (execution, name, step)
) WITHOUT ROWID;

-- `edges` and `counts` are JSON lists.
CREATE TABLE histogram_value (
  execution INTEGER NOT NULL REFERENCES execution (id),
  name      INTEGER NOT NULL REFERENCES metric_name (id),
  step      INTEGER,
  edges     TEXT NOT NULL,
  counts    TEXT NOT NULL
);
CREATE INDEX histogram_by_execution ON histogram_value (execution, name, step);

CREATE TABLE artifact_record (
  execution INTEGER NOT NULL REFERENCES execution (id),
  port      TEXT NOT NULL,
  type      TEXT NOT NULL,
  digest    TEXT NOT NULL,
  bytes     INTEGER NOT NULL,
  PRIMARY KEY (execution, port)
) WITHOUT ROWID;

CREATE TABLE tag (
  name    TEXT PRIMARY KEY,
  run     INTEGER NOT NULL REFERENCES run (id),
  created TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX tag_by_run ON tag (run);

CREATE TABLE note (
  id      INTEGER PRIMARY KEY,
  run     INTEGER NOT NULL REFERENCES run (id),
  created TEXT NOT NULL,
  text    TEXT NOT NULL
);
CREATE INDEX note_by_run ON note (run);

CREATE VIEW stage AS
SELECT run.id AS run, record.position, record.name AS stage, definition.kind, definition.kind_version,
       definition.seed, definition.params, coalesce(record.key, execution.key) AS key, record.outcome,
       execution.run AS since, execution.name AS execution, record.reasons, record.started, record.duration,
       record.exit_code, record.error, execution.device, execution.duration AS computed_in, execution.cpu,
       execution.peak_memory
FROM run
JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
JOIN definition ON definition.id = record.definition
LEFT JOIN execution ON execution.id = record.execution;

CREATE VIEW param AS
SELECT stage.run, stage.stage, substr(tree.fullkey, 3) AS param, tree.value
FROM stage, json_tree(stage.params) AS tree
WHERE tree.type <> 'object' AND tree.path NOT LIKE '%]' AND tree.fullkey NOT LIKE '%]';

CREATE VIEW final_metrics AS
SELECT run.id AS run, record.name AS stage, record.name || '.' || metric_name.name AS metric, final_value.value
FROM run
JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
JOIN final_value ON final_value.execution = record.execution
JOIN metric_name ON metric_name.id = final_value.name;

CREATE VIEW metric AS
SELECT run.id AS run, record.name AS stage, record.name || '.' || metric_name.name AS metric,
       step_value.step, step_value.value
FROM run
JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
JOIN step_value ON step_value.execution = record.execution
JOIN metric_name ON metric_name.id = step_value.name
UNION ALL
SELECT run, stage, metric, NULL, value FROM final_metrics;

CREATE VIEW histogram AS
SELECT run.id AS run, record.name AS stage, record.name || '.' || metric_name.name AS metric,
       histogram_value.step, histogram_value.edges, histogram_value.counts
FROM run
JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
JOIN histogram_value ON histogram_value.execution = record.execution
JOIN metric_name ON metric_name.id = histogram_value.name;

CREATE VIEW artifact AS
SELECT run.id AS run, record.name AS stage, artifact.port, artifact.type, artifact.digest, artifact.bytes
FROM run
JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
JOIN artifact_record AS artifact ON artifact.execution = record.execution;

CREATE VIEW slowest_stages AS
SELECT stage, kind, run, started, duration, cpu, peak_memory, device
FROM execution WHERE duration IS NOT NULL
ORDER BY duration DESC;

CREATE VIEW runs_overview AS
SELECT 'run_' || run.id AS run, run.status, run.started,
       round((julianday(run.ended) - julianday(run.started)) * 86400, 3) AS seconds, run.pipeline,
       run.profiles, run.sets, run.ran, run.cached, run.failed, run.git_commit,
       (SELECT group_concat(name, ' ') FROM tag WHERE tag.run = run.id) AS tags,
       (SELECT text FROM note WHERE note.run = run.id ORDER BY id DESC LIMIT 1) AS note
FROM run
ORDER BY run.id DESC;
