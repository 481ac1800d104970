//! Ways out: what `pipe export` writes is what `pipe show` says.

#[path = "../lab/mod.rs"]
mod lab;

mod get;
mod matrix;
mod mlflow;
mod plot;
mod rows;
mod tensorboard;
mod transformers;

use std::sync::OnceLock;

use lab::{EXPERIMENT, Lab};
use serde_json::Value;

/// A project with one run of every kind that trains.
fn trained() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let lab = Lab::new(EXPERIMENT);
        lab.run(&[]).success();
        lab
    })
}

fn shown(lab: &Lab, run: &str) -> Value {
    serde_json::from_str(&lab.pipe(&["show", run, "--json"]).success().stdout).unwrap()
}

/// Every final value that `pipe show --json` tells, by stage and metric.
fn finals(shown: &Value) -> Vec<(String, String, Option<f64>)> {
    let stages = shown["stages"].as_array().unwrap();
    let of = |stage: &Value| {
        let name = stage["stage"].as_str().unwrap().to_owned();
        let metrics = stage["execution"]["metrics"].as_object().unwrap().clone();
        metrics
            .into_iter()
            .map(move |(metric, value)| (name.clone(), metric, value.as_f64()))
            .collect::<Vec<_>>()
    };
    let found: Vec<_> = stages.iter().flat_map(of).collect();
    assert!(found.len() > 50, "the run measured something");
    found
}

/// The values of `stage.metric` at steps, from `runs.db`.
fn steps(lab: &Lab, metric: &str) -> Vec<(u64, f64)> {
    let database = rusqlite::Connection::open(lab.path("runs.db")).unwrap();
    let sql =
        "SELECT step, value FROM metric WHERE run = 1 AND metric = ? AND step IS NOT NULL ORDER BY step";
    let mut query = database.prepare(sql).unwrap();
    let rows = query.query_map([metric], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))).unwrap();
    let found: Vec<_> = rows.map(Result::unwrap).collect();
    assert!(!found.is_empty(), "{metric} has steps");
    found
}
