//! One run with its stages, what they computed and what they said.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{RunInfo, RunsDb, RunsError, State, packed, read, words::outcome_from};
use crate::{
    digest::ActionKey,
    meant,
    names::RunId,
    record::{Artifact, Outcome, Reason},
};

/// One run with its stages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadedRun {
    /// The run as a whole.
    #[serde(flatten)]
    pub info: RunInfo,
    /// Its stages, in the order they were recorded.
    pub stages: Vec<LoadedStage>,
    /// The pipeline after profiles, `--set` and variables.
    #[serde(skip)]
    pub resolved: Value,
}

/// What a run did about one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadedStage {
    /// The stage's name in this run.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// The kind's version.
    pub kind_version: u32,
    /// Its seed, for kinds that draw.
    pub seed: Option<u64>,
    /// Resolved parameters, a JSON object.
    pub params: Value,
    /// Its key, where the inputs became known.
    pub key: Option<ActionKey>,
    /// What was done.
    pub outcome: Outcome,
    /// Why it ran; empty for a stage that was found.
    pub reasons: Vec<Reason>,
    /// When it started in this run; `None` for a stage that was found.
    pub started: Option<Timestamp>,
    /// Wall time in this run, seconds; `None` for a stage that was found.
    pub duration: Option<f64>,
    /// Exit code of a failed process.
    pub exit_code: Option<i32>,
    /// What went wrong.
    pub error: Option<String>,
    /// The execution whose results it has.
    pub execution: Option<Origin>,
    /// The JSON that was hashed into its key, of one that began and gave no result.
    #[serde(skip)]
    pub begun: Option<Value>,
}

impl LoadedStage {
    /// The JSON that was hashed into its key, where that is recorded.
    pub fn hashed(&self) -> Option<&Value> {
        self.execution.as_ref().map(|execution| &execution.hashed).or(self.begun.as_ref())
    }
}

/// The execution that satisfies a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Origin {
    /// Its name, 32 hexadecimal digits.
    pub id: String,
    /// The run that computed it; `None` if it came with a cache from elsewhere.
    pub run: Option<RunId>,
    /// What the stage was called then.
    pub stage: String,
    /// When it started.
    pub started: Timestamp,
    /// Wall time, seconds.
    pub duration: f64,
    /// User and system time, seconds.
    pub cpu: f64,
    /// Largest resident set, bytes.
    pub peak_memory: u64,
    /// What it computed on.
    pub device: Option<String>,
    /// The JSON that was hashed into its key.
    pub hashed: Value,
    /// What it wrote.
    pub outputs: Vec<Artifact>,
    /// Its final metrics, without the stage's name.
    pub metrics: BTreeMap<String, Option<f64>>,
}

/// What a stage wrote to its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageLog {
    /// The end of the log, at most 64 KiB; `None` if it was not kept here.
    pub text: Option<String>,
    /// What the asked run did about the stage.
    pub outcome: Outcome,
    /// The run and the stage's name in it that wrote this log, if not the asked one.
    pub from: Option<(RunId, String)>,
}

/// One start of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its name, 32 hexadecimal digits.
    pub id: String,
    /// The key that it computes.
    pub key: ActionKey,
}

impl RunsDb {
    /// Everything known of `run` but its logs and values at steps.
    pub fn load(&self, run: RunId) -> Result<LoadedRun, RunsError> {
        let info = self.run(run)?;
        let resolved = self.resolved(run)?;
        let stages = self.read(|conn| stages(conn, run))?;
        Ok(LoadedRun { info, stages, resolved })
    }

    /// The log of `stage` in `run`; for a stage that was found, of the execution that made it.
    pub fn log(&self, run: RunId, stage: &str) -> Result<StageLog, RunsError> {
        let found = self.read(|conn| log(conn, run, stage))?;
        match found {
            Some(log) => Ok(log),
            None => Err(self.unknown_stage(run, stage)?),
        }
    }

    /// The latest attempt at `stage` that `run` has begun.
    pub fn latest_attempt(&self, run: RunId, stage: &str) -> Result<Option<Attempt>, RunsError> {
        self.read(|conn| {
            conn.prepare_cached(
                "SELECT name, key FROM execution WHERE run = ? AND stage = ? ORDER BY started DESC LIMIT 1",
            )?
            .query_row((run.0, stage), |row| {
                let key = row.get::<_, String>(1)?.parse().map_err(read::damaged)?;
                Ok(Attempt { id: row.get(0)?, key })
            })
            .optional()
        })
    }

    /// The names of the stages of `run`: those that it has recorded, and of one that has not said how it
    /// ended all others of its pipeline.
    pub fn stage_names(&self, run: RunId) -> Result<Vec<String>, RunsError> {
        let mut names = self.read(|conn| {
            conn.prepare_cached("SELECT stage FROM stage WHERE run = ? ORDER BY position")?
                .query_map([run.0], |row| row.get(0))?
                .collect::<Result<Vec<String>, _>>()
        })?;
        if matches!(self.run(run)?.state, State::Running | State::Killed) {
            let resolved = self.resolved(run)?;
            let all = resolved.get("stages").and_then(Value::as_object).into_iter().flat_map(Map::keys);
            let others: Vec<String> = all.filter(|name| !names.contains(name)).cloned().collect();
            names.extend(others);
        }
        Ok(names)
    }

    fn unknown_stage(&self, run: RunId, stage: &str) -> Result<RunsError, RunsError> {
        let names = self.stage_names(run)?;
        let known = names.iter().map(String::as_str);
        let help = meant::help(stage, "it has", known).unwrap_or_else(|| stages_in_words(run, &names));
        Ok(RunsError::UnknownStage { run, stage: stage.into(), help })
    }
}

/// The `names` of the stages of `run` in a few words.
pub fn stages_in_words(run: RunId, names: &[String]) -> String {
    let stages = meant::of_file(names.iter().map(String::as_str));
    match stages.as_slice() {
        [] => format!("{run} recorded no stage"),
        stages if stages.len() > 20 => format!("`pipe show {run}` lists its {} stages", stages.len()),
        stages => format!("it has {}", stages.join(", ")),
    }
}

fn stages(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<LoadedStage>> {
    let mut artifacts = artifacts(conn, run)?;
    let mut metrics = metrics(conn, run)?;
    conn.prepare_cached(
        "SELECT record.name, definition.kind, definition.kind_version, definition.seed, definition.params,
                coalesce(record.key, execution.key), record.outcome, record.reasons, record.started,
                record.duration, record.exit_code, record.error, execution.id, execution.name, execution.run,
                execution.stage, execution.started, execution.duration, execution.cpu, execution.peak_memory,
                execution.device, execution.hashed,
                CASE WHEN record.execution IS NULL
                  THEN (SELECT begun.hashed FROM execution AS begun WHERE begun.key = record.key LIMIT 1) END
         FROM run
         JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
         JOIN definition ON definition.id = record.definition
         LEFT JOIN execution ON execution.id = record.execution
         WHERE run.id = ? ORDER BY record.position",
    )?
    .query_map([run.0], |row| {
        let number: Option<i64> = row.get(12)?;
        let execution = number.map(|number| {
            // Two stages of a run may be satisfied by the same execution.
            let outputs = artifacts.get_mut(&number).cloned().unwrap_or_default();
            let metrics = metrics.get_mut(&number).cloned().unwrap_or_default();
            origin(row, outputs, metrics)
        });
        Ok(LoadedStage {
            stage: row.get(0)?,
            kind: row.get(1)?,
            kind_version: row.get(2)?,
            seed: row.get::<_, Option<i64>>(3)?.map(|seed| seed as u64),
            params: read::json(row, 4)?,
            key: row
                .get::<_, Option<String>>(5)?
                .map(|hex| hex.parse().map_err(read::damaged))
                .transpose()?,
            outcome: outcome(row, 6)?,
            reasons: if row.get_ref(7)?.as_str_or_null()?.is_some() {
                read::json(row, 7)?
            } else {
                Vec::new()
            },
            started: read::optional_time(row, 8)?,
            duration: row.get(9)?,
            exit_code: row.get(10)?,
            error: row.get(11)?,
            execution: execution.transpose()?,
            begun: if row.get_ref(22)?.as_str_or_null()?.is_some() {
                Some(read::json(row, 22)?)
            } else {
                None
            },
        })
    })?
    .collect()
}

fn origin(
    row: &Row<'_>,
    outputs: Vec<Artifact>,
    metrics: BTreeMap<String, Option<f64>>,
) -> rusqlite::Result<Origin> {
    Ok(Origin {
        id: row.get(13)?,
        run: row.get::<_, Option<i64>>(14)?.map(RunId),
        stage: row.get(15)?,
        started: read::time(row, 16)?,
        duration: row.get::<_, Option<f64>>(17)?.unwrap_or_default(),
        cpu: row.get::<_, Option<f64>>(18)?.unwrap_or_default(),
        peak_memory: row.get::<_, Option<i64>>(19)?.unwrap_or_default() as u64,
        device: row.get(20)?,
        hashed: read::json(row, 21)?,
        outputs,
        metrics,
    })
}

fn outcome(row: &Row<'_>, column: usize) -> rusqlite::Result<Outcome> {
    outcome_from(row.get_ref(column)?.as_str()?).ok_or_else(|| read::damaged("an unknown outcome"))
}

fn metrics(conn: &Connection, run: RunId) -> rusqlite::Result<BTreeMap<i64, BTreeMap<String, Option<f64>>>> {
    let mut by_execution: BTreeMap<i64, BTreeMap<String, Option<f64>>> = BTreeMap::new();
    let mut query = conn.prepare_cached(
        "SELECT DISTINCT final_value.execution, metric_name.name, final_value.value
         FROM run
         JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
         JOIN final_value ON final_value.execution = record.execution
         JOIN metric_name ON metric_name.id = final_value.name
         WHERE run.id = ?",
    )?;
    let mut rows = query.query([run.0])?;
    while let Some(row) = rows.next()? {
        by_execution.entry(row.get(0)?).or_default().insert(row.get(1)?, row.get(2)?);
    }
    Ok(by_execution)
}

fn artifacts(conn: &Connection, run: RunId) -> rusqlite::Result<BTreeMap<i64, Vec<Artifact>>> {
    let mut by_execution: BTreeMap<i64, Vec<Artifact>> = BTreeMap::new();
    let mut query = conn.prepare_cached(
        "SELECT DISTINCT artifact.execution, artifact.port, artifact.type, artifact.digest, artifact.bytes
         FROM run
         JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
         JOIN artifact_record AS artifact ON artifact.execution = record.execution
         WHERE run.id = ? ORDER BY artifact.execution, artifact.port",
    )?;
    let mut rows = query.query([run.0])?;
    while let Some(row) = rows.next()? {
        let port_type = Value::from(row.get::<_, String>(2)?);
        by_execution.entry(row.get(0)?).or_default().push(Artifact {
            port: row.get(1)?,
            port_type: serde_json::from_value(port_type).map_err(read::damaged)?,
            digest: row.get::<_, String>(3)?.parse().map_err(read::damaged)?,
            bytes: row.get::<_, i64>(4)? as u64,
        });
    }
    Ok(by_execution)
}

fn log(conn: &Connection, run: RunId, stage: &str) -> rusqlite::Result<Option<StageLog>> {
    let found = conn
        .prepare_cached(
            "SELECT record.outcome, record.log, record.execution FROM run
             JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
             WHERE run.id = ? AND record.name = ?",
        )?
        .query_row((run.0, stage), |row| {
            Ok((outcome(row, 0)?, row.get::<_, Option<String>>(1)?, row.get::<_, Option<i64>>(2)?))
        })
        .optional()?;
    let Some((outcome, own, execution)) = found else { return Ok(None) };
    let text = |digest: &str| -> rusqlite::Result<Option<String>> {
        Ok(packed::find(conn, digest)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    if outcome != Outcome::Cached || own.is_some() {
        let text = own.as_deref().map_or(Ok(Some(String::new())), text)?;
        return Ok(Some(StageLog { text, outcome, from: None }));
    }
    let maker = conn
        .prepare_cached(
            "SELECT run, name, log FROM stage_record WHERE execution = ? AND outcome = 'ran' ORDER BY run LIMIT 1",
        )?
        .query_row([execution], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<String>>(2)?))
        })
        .optional()?;
    Ok(Some(match maker {
        None => StageLog { text: None, outcome, from: None },
        Some((run, name, digest)) => {
            let text = digest.as_deref().map_or(Ok(Some(String::new())), text)?;
            StageLog { text, outcome, from: Some((RunId(run), name)) }
        }
    }))
}
