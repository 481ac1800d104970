//! What the engine tells `runs.db` while a run goes on.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::{RunsDb, RunsError, packed, time_text};
use crate::{
    digest::Digest,
    names::RunId,
    process,
    record::{
        Execution, GitState, Histogram, Invocation, Metric, Outcome, Reason, RunStart, RunStatus, StageRecord,
    },
};

impl RunsDb {
    /// Records that a run starts and gives it the next number.
    pub fn begin(&mut self, start: &RunStart) -> Result<RunId, RunsError> {
        let resolved = start.resolved.to_string();
        let list = |words: &[String]| Value::from(words.to_vec()).to_string();
        self.write(|tx| {
            let resolved = packed::keep_by_hash(tx, resolved.as_bytes())?;
            let Invocation { command, git, version, host, cpus, started } = &start.invocation;
            tx.prepare_cached(
                "INSERT INTO run (status, started, file, pipeline, command, profiles, sets, seed, resolved,
                                  git_commit, git_dirty, git_patch, version, host, cpus, process)
                 VALUES ('running', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                time_text(*started),
                start.file.to_string_lossy(),
                start.pipeline,
                list(command),
                list(&start.profiles),
                list(&start.sets),
                start.seed as i64,
                resolved,
                git.as_ref().map(|git| &git.commit),
                git.as_ref().map(|git| git.is_dirty),
                keep_patch(tx, git.as_ref())?,
                version,
                host,
                *cpus as i64,
                process::this_process(),
            ])?;
            Ok(RunId(tx.last_insert_rowid()))
        })
    }

    /// Records a whole run that finds the results of the `stages` stages that the run `of` found or made;
    /// `None` if that run did not begin at `began` or is not recorded so, or if its file has a later one
    /// with other records.
    pub fn repeat(
        &mut self,
        of: RunId,
        began: Timestamp,
        stages: usize,
        invocation: &Invocation,
    ) -> Result<Option<RunId>, RunsError> {
        let Invocation { command, git, version, host, cpus, started } = invocation;
        self.write(|tx| {
            // The records of a run that only found are shared, for which they have a digest.
            let count = tx
                .prepare_cached(
                    "INSERT INTO run (status, started, ended, file, pipeline, command, profiles, sets, seed, resolved,
                                      git_commit, git_dirty, git_patch, version, host, cpus, process,
                                      cached, stages_digest, repeats)
                     SELECT 'done', ?, ?, file, pipeline, ?, profiles, sets, seed, resolved, ?, ?, ?, ?, ?, ?, ?,
                            ran + cached, coalesce(stages_digest, x''),
                            iif(stages_digest IS NULL, NULL, coalesce(repeats, id))
                     FROM run AS earlier
                     WHERE id = ? AND started = ? AND status = 'done'
                       AND coalesce(repeats, id) =
                           (SELECT coalesce(latest.repeats, latest.id) FROM run AS latest
                            WHERE latest.file = earlier.file ORDER BY latest.id DESC LIMIT 1)
                       AND (stages_digest IS NOT NULL
                            OR ? = (SELECT count(*) FROM stage_record AS record
                                    JOIN execution ON execution.id = record.execution
                                    WHERE record.run = earlier.id AND record.outcome IN ('ran', 'cached')
                                      AND execution.duration IS NOT NULL))",
                )?
                .execute(params![
                    time_text(*started),
                    time_text(Timestamp::now()),
                    Value::from(command.clone()).to_string(),
                    git.as_ref().map(|git| &git.commit),
                    git.as_ref().map(|git| git.is_dirty),
                    keep_patch(tx, git.as_ref())?,
                    version,
                    host,
                    *cpus as i64,
                    process::this_process(),
                    of.0,
                    time_text(began),
                    stages as i64,
                ])?;
            if count == 0 {
                return Ok(None);
            }
            let run = tx.last_insert_rowid();
            tx.prepare_cached(
                "INSERT INTO stage_record (run, position, name, definition, outcome, execution)
                 SELECT run.id, record.position, record.name, record.definition, 'cached', record.execution
                 FROM run JOIN stage_record AS record ON record.run = ?
                 WHERE run.id = ? AND run.repeats IS NULL",
            )?
            .execute((of.0, run))?;
            Ok(Some(RunId(run)))
        })
    }

    /// Records an execution that begins, so that metrics can be appended while it runs.
    pub fn begin_execution(&mut self, execution: &Execution) -> Result<(), RunsError> {
        let Execution { id, key, hashed, kind, stage, run, started, .. } = execution;
        self.write(|tx| {
            tx.prepare_cached(
                "INSERT OR IGNORE INTO execution (name, key, hashed, kind, stage, run, started)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute((id, key.to_string(), hashed, kind, stage, run.0, time_text(*started)))?;
            Ok(())
        })
    }

    /// Adds what the running execution `id` has measured since the last call.
    ///
    /// A value for a name and step that was given before replaces it.
    pub fn append_metrics(
        &mut self,
        id: &str,
        metrics: &[Metric],
        histograms: &[Histogram],
    ) -> Result<(), RunsError> {
        let known = self.write(|tx| match execution_number(tx, id)? {
            Some(execution) => insert_metrics(tx, execution, metrics, histograms).map(|()| true),
            None => Ok(false),
        })?;
        if known { Ok(()) } else { Err(self.unknown_executions(vec![id.into()])) }
    }

    /// Completes an execution, or adds one that was computed elsewhere and came with a cache.
    ///
    /// Replaces what [`Self::append_metrics`] collected; saying it twice changes nothing.
    pub fn record_execution(&mut self, execution: &Execution) -> Result<(), RunsError> {
        self.record_executions([execution])
    }

    /// [`Self::record_execution`] of each, all in one step.
    pub fn record_executions<'e>(
        &mut self,
        executions: impl IntoIterator<Item = &'e Execution>,
    ) -> Result<(), RunsError> {
        self.write(|tx| executions.into_iter().try_for_each(|execution| record_execution(tx, execution)))
    }

    /// Keeps predictions (the CSV whose hash is `digest`), so that runs can be compared without the cache.
    pub fn keep_predictions(&mut self, digest: Digest, csv: &[u8]) -> Result<(), RunsError> {
        self.write(|tx| packed::keep(tx, &digest.to_string(), csv))
    }

    /// Records what `run` did about `stages`, in the order they shall be listed.
    ///
    /// May be called more than once in a run; a stage that is recorded again is replaced.
    /// Executions that are not recorded as complete make it do nothing and are listed in the error;
    /// that happens to results that came with a cache from elsewhere or whose run was killed. A run that found every stage
    /// exactly as the run of this file before it did shares that run's records.
    pub fn record_stages(&mut self, run: RunId, stages: &[StageRecord]) -> Result<(), RunsError> {
        let digest = digest_of_found(stages);
        let recorded = self.try_write(|tx| {
            let shared: Option<i64> = tx
                .prepare_cached("SELECT repeats FROM run WHERE id = ?")?
                .query_row([run.0], |row| row.get(0))?;
            let next: i64 = tx
                .prepare_cached("SELECT coalesce(max(position) + 1, 0) FROM stage_record WHERE run = ?")?
                .query_row([shared.unwrap_or(run.0)], |row| row.get(0))?;
            if let (Some(digest), 0) = (digest, next)
                && share_records(tx, run, digest.as_bytes())?
            {
                return Ok(Ok(()));
            }
            if let Some(shared) = shared {
                copy_records(tx, run, shared)?;
            }
            let unknown = insert_stages(tx, run, next, stages)?;
            if !unknown.is_empty() {
                return Ok(Err(unknown));
            }
            tx.prepare_cached(
                "UPDATE run SET repeats = NULL, stages_digest = ?2,
                   (ran, cached, failed, skipped, interrupted) =
                   (SELECT count(*) FILTER (WHERE outcome = 'ran'), count(*) FILTER (WHERE outcome = 'cached'),
                           count(*) FILTER (WHERE outcome = 'failed'), count(*) FILTER (WHERE outcome = 'skipped'),
                           count(*) FILTER (WHERE outcome = 'interrupted')
                    FROM stage_record WHERE run = ?1)
                 WHERE id = ?1",
            )?
            .execute((run.0, digest.filter(|_| next == 0).map(|digest| *digest.as_bytes())))?;
            Ok(Ok(()))
        })?;
        recorded.map_err(|ids| self.unknown_executions(ids))
    }

    /// Records how `run` ended.
    pub fn finish(&mut self, run: RunId, status: RunStatus, ended: Timestamp) -> Result<(), RunsError> {
        self.write(|tx| {
            tx.prepare_cached("UPDATE run SET status = ?, ended = ? WHERE id = ?")?.execute((
                status.word(),
                time_text(ended),
                run.0,
            ))?;
            Ok(())
        })?;
        if self.is_in_place() { Ok(()) } else { Err(RunsError::Gone { run, path: self.path.clone() }) }
    }

    fn unknown_executions(&self, ids: Vec<String>) -> RunsError {
        RunsError::UnknownExecutions { ids, path: self.path.clone() }
    }
}

/// Keeps the uncommitted changes, if there are any, and returns under which name.
fn keep_patch(tx: &Connection, git: Option<&GitState>) -> rusqlite::Result<Option<String>> {
    let changed = git.filter(|git| !git.patch.is_empty());
    changed.map(|git| packed::keep_by_hash(tx, &git.patch)).transpose()
}

fn record_execution(tx: &Connection, execution: &Execution) -> rusqlite::Result<()> {
    let started = time_text(execution.started);
    let seen_by = seen_by(tx, execution)?.map(|run| run.0);
    tx.prepare_cached(
        "INSERT INTO execution (name, key, hashed, kind, stage, run, started, duration, cpu, peak_memory, device)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET started = excluded.started, duration = excluded.duration,
           cpu = excluded.cpu, peak_memory = excluded.peak_memory, device = excluded.device",
    )?
    .execute(params![
        execution.id,
        execution.key.to_string(),
        execution.hashed,
        execution.kind,
        execution.stage,
        seen_by,
        started,
        execution.duration,
        execution.cpu,
        execution.peak_memory as i64,
        execution.device,
    ])?;
    let number = execution_number(tx, &execution.id)?.expect("it was just inserted");
    for table in ["final_value", "step_value", "histogram_value", "artifact_record"] {
        tx.prepare_cached(&format!("DELETE FROM {table} WHERE execution = ?"))?.execute([number])?;
    }
    insert_metrics(tx, number, &execution.metrics, &execution.histograms)?;
    let mut insert = tx.prepare_cached(
        "INSERT OR REPLACE INTO artifact_record (execution, port, type, digest, bytes) VALUES (?, ?, ?, ?, ?)",
    )?;
    for artifact in &execution.outputs {
        insert.execute((
            number,
            &artifact.port,
            serde_json::to_value(artifact.port_type).expect("a port type is a word").as_str(),
            artifact.digest.to_string(),
            artifact.bytes as i64,
        ))?;
    }
    Ok(())
}

/// The run that executed `execution`, if it is one of this database: the number of a run means nothing
/// in another `runs.db`, nor after this one was made anew.
pub(super) fn seen_by(conn: &Connection, execution: &Execution) -> rusqlite::Result<Option<RunId>> {
    conn.prepare_cached(
        "SELECT id FROM run WHERE id = ?1 AND started <= ?2 AND (ended IS NULL OR ended >= ?2)",
    )?
    .query_row((execution.run.0, time_text(execution.started)), |row| row.get(0).map(RunId))
    .optional()
}

fn execution_number(conn: &Connection, id: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT id FROM execution WHERE name = ?")?
        .query_row([id], |row| row.get(0))
        .optional()
}

/// The number of an execution that was recorded to its end: one whose `pipe` was killed between
/// keeping the result and recording it has a row, but no outputs and metrics.
fn complete_execution(conn: &Connection, id: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT id FROM execution WHERE name = ? AND duration IS NOT NULL")?
        .query_row([id], |row| row.get(0))
        .optional()
}

fn insert_metrics(
    conn: &Connection,
    execution: i64,
    metrics: &[Metric],
    histograms: &[Histogram],
) -> rusqlite::Result<()> {
    let mut last: Option<(&str, i64)> = None;
    let mut number_of = |name| match last {
        Some((known, number)) if known == name => Ok(number),
        _ => metric_name(conn, name).inspect(|number| last = Some((name, *number))),
    };
    let mut final_value =
        conn.prepare_cached("INSERT OR REPLACE INTO final_value (execution, name, value) VALUES (?, ?, ?)")?;
    let mut step_value = conn.prepare_cached(
        "INSERT OR REPLACE INTO step_value (execution, name, step, value) VALUES (?, ?, ?, ?)",
    )?;
    for metric in metrics {
        let name = number_of(metric.name.as_str())?;
        match metric.step {
            None => final_value.execute((execution, name, metric.value))?,
            Some(step) => step_value.execute((execution, name, step as i64, metric.value))?,
        };
    }
    let mut remove =
        conn.prepare_cached("DELETE FROM histogram_value WHERE execution = ? AND name = ? AND step IS ?")?;
    let mut insert = conn.prepare_cached(
        "INSERT INTO histogram_value (execution, name, step, edges, counts) VALUES (?, ?, ?, ?, ?)",
    )?;
    for histogram in histograms {
        let name = number_of(histogram.name.as_str())?;
        let step = histogram.step.map(|step| step as i64);
        let edges = Value::from(histogram.edges.clone()).to_string();
        let counts = Value::from(histogram.counts.clone()).to_string();
        remove.execute((execution, name, step))?;
        insert.execute((execution, name, step, edges, counts))?;
    }
    Ok(())
}

fn metric_name(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    let found = conn
        .prepare_cached("SELECT id FROM metric_name WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    if let Some(number) = found {
        return Ok(number);
    }
    conn.prepare_cached("INSERT INTO metric_name (name) VALUES (?)")?.insert([name])
}

/// A hash of all that is kept of stages that were found, or `None` if one of them was not.
fn digest_of_found(stages: &[StageRecord]) -> Option<blake3::Hash> {
    if stages.is_empty() || !stages.iter().all(|stage| stage.outcome == Outcome::Cached) {
        return None;
    }
    let mut text = Vec::with_capacity(stages.len() * 256);
    for stage in stages {
        let StageRecord { stage: name, kind, kind_version, seed, params, execution, reasons, log, .. } =
            stage;
        let kept = (name, kind, kind_version, seed, params, execution, reasons, log);
        serde_json::to_writer(&mut text, &kept).expect("plain values serialize to JSON");
    }
    Some(blake3::hash(&text))
}

/// Lets `run` share the records of the run of its file before it, if those have this digest.
///
/// Only the run right before is looked at, so that records of one file are in order of time.
fn share_records(conn: &Connection, run: RunId, digest: &[u8]) -> rusqlite::Result<bool> {
    let shared = conn
        .prepare_cached(
            "UPDATE run SET (repeats, stages_digest, cached) =
               (SELECT coalesce(earlier.repeats, earlier.id), earlier.stages_digest, earlier.cached)
             FROM run AS earlier
             WHERE run.id = ?1 AND earlier.stages_digest = ?2 AND earlier.id =
               (SELECT max(id) FROM run AS other WHERE other.file = run.file AND other.id < ?1)",
        )?
        .execute((run.0, digest))?;
    Ok(shared == 1)
}

/// Gives `run` records of its own, equal to those of `shared`.
pub(super) fn copy_records(conn: &Connection, run: RunId, shared: i64) -> rusqlite::Result<()> {
    conn.execute(
        "INSERT INTO stage_record SELECT ?1, position, name, definition, outcome, execution, key, reasons, started,
           duration, exit_code, error, log FROM stage_record WHERE run = ?2",
        (run.0, shared),
    )?;
    Ok(())
}

/// Inserts records at positions from `next`; returns executions that are not recorded to their end.
fn insert_stages(
    conn: &Connection,
    run: RunId,
    next: i64,
    stages: &[StageRecord],
) -> rusqlite::Result<Vec<String>> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO stage_record (run, position, name, definition, outcome, execution, key, reasons, started,
                                   duration, exit_code, error, log)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (name, run) DO UPDATE SET definition = excluded.definition, outcome = excluded.outcome,
           execution = excluded.execution, key = excluded.key, reasons = excluded.reasons,
           started = excluded.started, duration = excluded.duration, exit_code = excluded.exit_code,
           error = excluded.error, log = excluded.log",
    )?;
    let mut text = Vec::new();
    let mut unknown = Vec::new();
    for (position, stage) in (next..).zip(stages) {
        let definition = definition(conn, stage, &mut text)?;
        let execution = match &stage.execution {
            Some(id) => {
                let number = complete_execution(conn, id)?;
                if number.is_none() {
                    unknown.push(id.clone());
                }
                number
            }
            None => None,
        };
        let was_found = stage.outcome == Outcome::Cached;
        let says_no_more = was_found && matches!(stage.reasons.as_slice(), [] | [Reason::Satisfied { .. }]);
        let reasons = (!says_no_more)
            .then(|| serde_json::to_string(&stage.reasons).expect("reasons serialize to JSON"));
        let log = match stage.log.as_str() {
            "" => None,
            log => Some(packed::keep_by_hash(conn, log.as_bytes())?),
        };
        insert.execute(params![
            run.0,
            position,
            stage.stage,
            definition,
            stage.outcome.word(),
            execution,
            stage.key.filter(|_| execution.is_none()).map(|key| key.to_string()),
            reasons,
            (!was_found).then(|| time_text(stage.started)),
            (!was_found).then_some(stage.duration),
            stage.exit_code,
            stage.error,
            log,
        ])?;
    }
    Ok(unknown)
}

/// The number of what `stage` was told; `text` is memory to write in.
fn definition(conn: &Connection, stage: &StageRecord, text: &mut Vec<u8>) -> rusqlite::Result<i64> {
    text.clear();
    let told = (&stage.kind, stage.kind_version, stage.seed, &stage.params);
    serde_json::to_writer(&mut *text, &told).expect("plain values serialize to JSON");
    let hash = blake3::hash(text);
    let found = conn
        .prepare_cached("SELECT id FROM definition WHERE hash = ?")?
        .query_row([hash.as_bytes()], |row| row.get(0))
        .optional()?;
    if let Some(number) = found {
        return Ok(number);
    }
    conn.prepare_cached(
        "INSERT INTO definition (hash, kind, kind_version, seed, params) VALUES (?, ?, ?, ?, ?)",
    )?
    .insert((
        hash.as_bytes(),
        &stage.kind,
        stage.kind_version,
        stage.seed.map(|seed| seed as i64),
        stage.params.to_string(),
    ))
}
