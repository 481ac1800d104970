//! Whether any run has a metric or parameter that is asked for by name.

use std::collections::BTreeSet;

use pipe_stages::nearest;
use rusqlite::Connection;
use serde_json::Value;

use super::{
    RunsDb, RunsError,
    column::{Column, json_path},
    read::damaged,
};
use crate::fingerprint::leaves;

/// The definitions and executions of a stage whose names are suggested: the latest.
const LATEST: u32 = 50;
/// The stages of the latest run whose names are suggested for one that begins with none.
const STAGES: u32 = 100;

impl RunsDb {
    /// Refuses a metric or parameter that no run has, removed ones included; where nothing was ever run, any
    /// may come.
    pub fn check_columns(&self, columns: &[&Column]) -> Result<(), RunsError> {
        for column in columns {
            let Column::Of { stage, name } = column else { continue };
            let unknown = self.read(|conn| {
                let is_empty = !conn.prepare_cached("SELECT 1 FROM run")?.exists([])?;
                if is_empty || is_known(conn, stage, name)? {
                    return Ok(None);
                }
                near(conn, stage, name).map(Some)
            })?;
            if let Some(help) = unknown {
                return Err(RunsError::UnknownColumn { name: format!("{stage}.{name}"), help });
            }
        }
        Ok(())
    }
}

fn is_known(conn: &Connection, stage: &str, name: &str) -> rusqlite::Result<bool> {
    let is_parameter = conn
        .prepare_cached(
            "SELECT 1 FROM stage_record AS record JOIN definition ON definition.id = record.definition
             WHERE record.name = ? AND json_type(params, ?) IS NOT NULL LIMIT 1",
        )?
        .exists((stage, json_path(name)))?;
    let is_metric = || {
        conn.prepare_cached(
            "SELECT 1 FROM stage_record AS record
             JOIN final_value ON final_value.execution = record.execution
             WHERE record.name = ?1 AND final_value.name = (SELECT id FROM metric_name WHERE name = ?2) LIMIT 1",
        )?
        .exists((stage, name))
    };
    Ok(is_parameter || is_metric()?)
}

/// What may have been meant by a metric or parameter that no run has.
fn near(conn: &Connection, stage: &str, name: &str) -> rusqlite::Result<String> {
    let stages: Vec<String> = conn
        .prepare_cached("SELECT DISTINCT name FROM stage_record")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if !stages.iter().any(|known| known == stage) {
        if let Some(meant) = ending_with(conn, stage, name)? {
            return Ok(format!("did you mean `{meant}`?"));
        }
        return Ok(match nearest(stage, stages.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}.{name}`?"),
            None => "it begins with the name of a stage, such as `eval.accuracy`".into(),
        });
    }
    let names = names_of(conn, stage)?;
    Ok(match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{stage}.{near}`?"),
        None => {
            format!("`pipe show RUN --all` lists the metrics of `{stage}`, `pipe stages KIND` parameters")
        }
    })
}

/// A metric or parameter of the latest run that ends as one which begins with no stage: `train.params.lr` for
/// the variable `vars.lr`, `eval.test.accuracy` for `test.accuracy`.
fn ending_with(conn: &Connection, first: &str, rest: &str) -> rusqlite::Result<Option<String>> {
    let end = if first == "vars" { format!(".{rest}") } else { format!(".{first}.{rest}") };
    let stages: Vec<String> = conn
        .prepare_cached(
            "SELECT name FROM stage_record WHERE run = (SELECT max(run) FROM stage_record)
             ORDER BY position LIMIT ?",
        )?
        .query_map([STAGES], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for stage in stages {
        let names = names_of(conn, &stage)?.into_iter().map(|name| format!("{stage}.{name}"));
        if let Some(meant) = names.into_iter().find(|name| name.ends_with(&end)) {
            return Ok(Some(meant));
        }
    }
    Ok(None)
}

/// The metrics and parameters of a stage in runs of late.
fn names_of(conn: &Connection, stage: &str) -> rusqlite::Result<BTreeSet<String>> {
    let texts = |sql: &str| -> rusqlite::Result<Vec<String>> {
        conn.prepare_cached(sql)?.query_map((stage, LATEST), |row| row.get(0))?.collect()
    };
    let mut names: BTreeSet<String> = texts(
        "SELECT DISTINCT metric_name.name FROM metric_name JOIN final_value ON final_value.name = metric_name.id
         WHERE final_value.execution IN (SELECT DISTINCT execution FROM stage_record
           WHERE name = ?1 AND execution IS NOT NULL ORDER BY run DESC LIMIT ?2)",
    )?
    .into_iter()
    .collect();
    let params = texts(
        "SELECT params FROM definition WHERE id IN (SELECT DISTINCT definition FROM stage_record
           WHERE name = ?1 ORDER BY run DESC LIMIT ?2)",
    )?;
    for params in params {
        let params: Value = serde_json::from_str(&params).map_err(damaged)?;
        names.extend(leaves(&params).into_keys());
    }
    Ok(names)
}
