//! What `runs.db` knows of runs as wholes, and of the one before.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, types::Type};
use serde::Serialize;
use serde_json::Value;

use super::{Note, RunsDb, RunsError, Selection, packed, tags, words::status_from, write::seen_by};
use crate::{
    digest::{ActionKey, Digest},
    names::RunId,
    process,
    record::{Execution, RunStatus},
};

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its process works on it.
    Running,
    /// Every wanted stage has a result.
    Done,
    /// A stage failed.
    Failed,
    /// Stopped by Ctrl-C or a signal.
    Interrupted,
    /// Its process is gone without having said how the run ended.
    Killed,
}

impl State {
    /// The word that people read.
    pub fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Interrupted => "interrupted",
            State::Killed => "killed",
        }
    }
}

/// One run without its stages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunInfo {
    /// Its number.
    pub run: RunId,
    /// How it stands.
    pub state: State,
    /// When it started.
    pub started: Timestamp,
    /// When it ended, if it said so.
    pub ended: Option<Timestamp>,
    /// From start to end, seconds.
    pub seconds: Option<f64>,
    /// The pipeline file, relative to the project root where it lies below it.
    pub file: PathBuf,
    /// `name:` of the pipeline.
    pub pipeline: String,
    /// The words of the command line, without the program.
    pub command: Vec<String>,
    /// Profiles in the order they were applied.
    pub profiles: Vec<String>,
    /// `--set` in the order they were applied.
    pub sets: Vec<String>,
    /// The pipeline's seed.
    pub seed: u64,
    /// The git checkout, where there was one.
    pub git: Option<Git>,
    /// Version of the `pipe` binary.
    pub version: String,
    /// Name of the machine.
    pub host: String,
    /// Cores that stages could use.
    pub cpus: usize,
    /// How many stages came out in which way.
    pub outcomes: Outcomes,
    /// Its tags, in order of the alphabet.
    pub tags: Vec<String>,
    /// Its notes, oldest first.
    pub notes: Vec<Note>,
}

/// The checkout that a run was started in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Git {
    /// The commit that was checked out.
    pub commit: String,
    /// Whether tracked files had uncommitted changes; [`RunsDb::patch`] has them.
    pub dirty: bool,
    /// The hash of those changes.
    pub patch: Option<Digest>,
}

/// How many stages of a run came out in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Outcomes {
    /// Executed.
    pub ran: u64,
    /// Found.
    pub cached: u64,
    /// Executed and failed.
    pub failed: u64,
    /// Not reached, since one they need failed.
    pub skipped: u64,
    /// Stopped.
    pub interrupted: u64,
}

/// The latest result of a stage, for saying what has changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The latest run that it satisfied.
    pub run: RunId,
    /// The stage's name in that run.
    pub stage: String,
    /// The JSON text that was hashed into its key.
    pub hashed: String,
    /// Its kind.
    pub kind: String,
}

pub(super) const RUN_COLUMNS: &str =
    "id, status, started, ended, file, pipeline, command, profiles, sets, seed, git_commit,
    git_dirty, git_patch, version, host, cpus, process, ran, cached, failed, skipped, interrupted";
pub(super) const RUN_COLUMN_COUNT: usize = 22;

/// From so many runs on, all tags and notes are read at once.
const MANY: usize = 200;

impl RunsDb {
    /// The latest `limit` runs (all without one), latest first; not those that were removed.
    pub fn runs(&self, limit: Option<usize>) -> Result<Vec<RunInfo>, RunsError> {
        let found = self.select(&Selection { limit, ..Selection::default() })?;
        Ok(found.into_iter().map(|(run, _)| run).collect())
    }

    /// The run of this number.
    pub fn run(&self, run: RunId) -> Result<RunInfo, RunsError> {
        let found = self.read(|conn| {
            let sql = format!("SELECT {RUN_COLUMNS} FROM run WHERE id = ?");
            let found = conn.prepare_cached(&sql)?.query_row([run.0], run_info).optional()?;
            found.map(|run| with_labels(conn, run)).transpose()
        })?;
        found.ok_or_else(|| self.unknown_run(&run.to_string()))
    }

    /// The run that computed the execution called `id`; `None` if it was one of another database.
    ///
    /// `recorded` gives what the cache has of it, for one that is not in the database yet.
    pub fn computed_in(
        &self,
        id: &str,
        recorded: impl FnOnce() -> Option<Execution>,
    ) -> Result<Option<RunId>, RunsError> {
        self.read(|conn| {
            let known = conn
                .prepare_cached("SELECT run FROM execution WHERE name = ?")?
                .query_row([id], |row| row.get::<_, Option<i64>>(0))
                .optional()?;
            match known {
                Some(run) => Ok(run.map(RunId)),
                None => recorded().map_or(Ok(None), |execution| seen_by(conn, &execution)),
            }
        })
    }

    /// The latest result that satisfied a stage called `stage` in a run of `file`, else of any file whose
    /// pipeline has this name: it may have been moved.
    ///
    /// `before` leaves out that run and later ones.
    pub fn previous(
        &self,
        file: &Path,
        pipeline: &str,
        stage: &str,
        before: Option<RunId>,
    ) -> Result<Option<Previous>, RunsError> {
        let file = file.to_string_lossy();
        let before = before.map_or(i64::MAX, |run| run.0);
        self.read(|conn| {
            let same_file = previous(conn, "run.file", &file, stage, before)?;
            if same_file.is_some() {
                Ok(same_file)
            } else {
                previous(conn, "run.pipeline", pipeline, stage, before)
            }
        })
    }

    /// The results of the latest run of `file` that had any.
    ///
    /// `before` leaves out that run and later ones.
    pub fn latest_results(&self, file: &Path, before: Option<RunId>) -> Result<Vec<Previous>, RunsError> {
        let file = file.to_string_lossy();
        let before = before.map_or(i64::MAX, |run| run.0);
        self.read(|conn| {
            conn.prepare_cached(
                "SELECT latest.id, record.name, execution.hashed, execution.kind
                 FROM (SELECT max(id) AS id, coalesce(repeats, id) AS records FROM run
                       WHERE file = ? AND id < ? AND ran + cached > 0) AS latest
                 JOIN stage_record AS record ON record.run = latest.records
                 JOIN execution ON execution.id = record.execution",
            )?
            .query_map((file, before), |row| {
                let (run, stage, hashed) = (RunId(row.get(0)?), row.get(1)?, row.get(2)?);
                Ok(Previous { run, stage, hashed, kind: row.get(3)? })
            })?
            .collect()
        })
    }

    /// The latest run that the execution `id` satisfied, and what the stage was called in it.
    pub fn latest_run_of(&self, id: &str) -> Result<Option<(RunId, String)>, RunsError> {
        self.read(|conn| {
            let found = conn
                .prepare_cached(
                    "SELECT run.id, record.name FROM execution
                     JOIN stage_record AS record ON record.execution = execution.id
                     JOIN run ON run.id = record.run OR run.repeats = record.run
                     WHERE execution.name = ? AND coalesce(run.repeats, run.id) = record.run
                     ORDER BY run.id DESC LIMIT 1",
                )?
                .query_row([id], |row| Ok((RunId(row.get(0)?), row.get(1)?)));
            found.optional()
        })
    }

    /// The stages that the output with this digest satisfied, latest run first.
    pub fn users(&self, digest: Digest) -> Result<Vec<(RunId, String)>, RunsError> {
        self.read(|conn| {
            let find = "SELECT DISTINCT run, stage FROM artifact WHERE digest = ? ORDER BY run DESC, stage";
            let mut query = conn.prepare_cached(find)?;
            let users = query.query_map([digest.to_string()], |row| Ok((RunId(row.get(0)?), row.get(1)?)))?;
            users.collect()
        })
    }

    /// The keys of what `run` began to execute, finished or not.
    pub fn begun(&self, run: RunId) -> Result<Vec<ActionKey>, RunsError> {
        self.read(|conn| {
            let mut query = conn.prepare_cached("SELECT key FROM execution WHERE run = ?")?;
            let keys = query.query_map([run.0], |row| row.get::<_, String>(0))?;
            keys.map(|key| key?.parse().map_err(damaged)).collect()
        })
    }

    /// The pipeline of `run` after profiles, `--set` and variables.
    pub fn resolved(&self, run: RunId) -> Result<Value, RunsError> {
        self.read(|conn| {
            let digest: Option<String> = conn
                .prepare_cached("SELECT resolved FROM run WHERE id = ?")?
                .query_row([run.0], |row| row.get(0))
                .optional()?;
            let bytes = digest.map(|digest| packed::find(conn, &digest)).transpose()?.flatten();
            bytes.map_or(Ok(Value::Null), |bytes| serde_json::from_slice(&bytes).map_err(damaged))
        })
    }

    /// The uncommitted changes that `run` was started with, as `git diff HEAD --binary` prints them.
    pub fn patch(&self, run: RunId) -> Result<Option<Vec<u8>>, RunsError> {
        self.read(|conn| {
            let digest: Option<String> = conn
                .prepare_cached("SELECT git_patch FROM run WHERE id = ?")?
                .query_row([run.0], |row| row.get(0))
                .optional()?
                .flatten();
            Ok(digest.map(|digest| packed::find(conn, &digest)).transpose()?.flatten())
        })
    }

    /// The predictions (CSV) of this hash, if they were kept.
    pub fn predictions(&self, digest: Digest) -> Result<Option<Vec<u8>>, RunsError> {
        self.read(|conn| packed::find(conn, &digest.to_string()))
    }
}

/// The latest result of `stage` in a run that has `value` in `column`.
fn previous(
    conn: &Connection,
    column: &str,
    value: &str,
    stage: &str,
    before: i64,
) -> rusqlite::Result<Option<Previous>> {
    // Records are in order of time within a file: see `share_records`.
    let found = conn
        .prepare_cached(&format!(
            "SELECT record.run, execution.hashed, execution.kind FROM stage_record AS record
             JOIN execution ON execution.id = record.execution
             JOIN run ON run.id = record.run
             WHERE record.name = ?1 AND record.run < ?2 AND {column} = ?3
             ORDER BY record.run DESC LIMIT 1",
        ))?
        .query_row((stage, before, value), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    let Some((origin, hashed, kind)) = found else { return Ok(None) };
    let run = conn
        .prepare_cached("SELECT max(id) FROM run WHERE (id = ?1 OR repeats = ?1) AND id < ?2")?
        .query_row((origin, before), |row| row.get(0))?;
    Ok(Some(Previous { run: RunId(run), stage: stage.into(), hashed, kind }))
}

pub(super) fn run_info(row: &Row<'_>) -> rusqlite::Result<RunInfo> {
    let started = time(row, 2)?;
    let ended = optional_time(row, 3)?;
    let commit: Option<String> = row.get(10)?;
    let dirty = row.get::<_, Option<bool>>(11)?.unwrap_or_default();
    let patch = row.get::<_, Option<String>>(12)?.map(|hex| hex.parse().map_err(damaged)).transpose()?;
    let status = status_from(&row.get::<_, String>(1)?).ok_or_else(|| damaged("an unknown status"))?;
    let process: Option<String> = row.get(16)?;
    let count = |column| row.get::<_, i64>(column).map(|count| count as u64);
    Ok(RunInfo {
        run: RunId(row.get(0)?),
        state: match status {
            RunStatus::Running if process.is_some_and(|process| process::has_ended(&process)) => {
                State::Killed
            }
            RunStatus::Running => State::Running,
            RunStatus::Done => State::Done,
            RunStatus::Failed => State::Failed,
            RunStatus::Interrupted => State::Interrupted,
        },
        started,
        ended,
        seconds: ended.map(|ended| ended.duration_since(started).as_secs_f64()),
        file: row.get::<_, String>(4)?.into(),
        pipeline: row.get(5)?,
        command: json(row, 6)?,
        profiles: json(row, 7)?,
        sets: json(row, 8)?,
        seed: row.get::<_, i64>(9)? as u64,
        git: commit.map(|commit| Git { commit, dirty, patch }),
        version: row.get(13)?,
        host: row.get(14)?,
        cpus: row.get::<_, i64>(15)? as usize,
        outcomes: Outcomes {
            ran: count(17)?,
            cached: count(18)?,
            failed: count(19)?,
            skipped: count(20)?,
            interrupted: count(21)?,
        },
        tags: Vec::new(),
        notes: Vec::new(),
    })
}

/// Gives runs their tags and notes.
pub(super) fn label_all<T>(conn: &Connection, runs: &mut [(RunInfo, T)]) -> rusqlite::Result<()> {
    if runs.len() < MANY {
        for (run, _) in runs {
            run.tags = tags::tags_of(conn, run.run)?;
            run.notes = tags::notes_of(conn, run.run)?;
        }
        return Ok(());
    }
    let (mut all_tags, mut all_notes) = tags::all(conn)?;
    for (run, _) in runs {
        run.tags = all_tags.remove(&run.run).unwrap_or_default();
        run.notes = all_notes.remove(&run.run).unwrap_or_default();
    }
    Ok(())
}

fn with_labels(conn: &Connection, mut run: RunInfo) -> rusqlite::Result<RunInfo> {
    run.tags = tags::tags_of(conn, run.run)?;
    run.notes = tags::notes_of(conn, run.run)?;
    Ok(run)
}

/// The time in `column`.
pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get_ref(column)?.as_str()?.parse().map_err(damaged)
}

/// The time in `column`, if any.
pub(super) fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    row.get_ref(column)?.as_str_or_null()?.map(|text| text.parse().map_err(damaged)).transpose()
}

/// The JSON text in `column` as a value.
pub(super) fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(damaged)
}

/// A value in the database that no `pipe` wrote.
pub(super) fn damaged(err: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, err.into())
}
