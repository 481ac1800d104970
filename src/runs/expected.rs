//! What a pipeline expected to come out, beside what did.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::LoadedRun;
use crate::names::split_stage;

/// A value that was published, and ours.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Expected {
    /// The metric: `eval.lora.accuracy`.
    pub metric: String,
    /// The published value.
    pub value: f64,
    /// How far off ours may be.
    pub tolerance: f64,
    /// Where it was published.
    pub source: Option<String>,
    /// Ours, if it was measured.
    pub ours: Option<f64>,
    /// Ours less the published one.
    pub off_by: Option<f64>,
    /// Whether that is within the tolerance; `None` if it was not measured.
    pub reproduced: Option<bool>,
}

/// An expectation as the pipeline states it.
#[derive(Deserialize)]
struct Stated {
    value: f64,
    tolerance: f64,
    source: Option<String>,
}

/// Rounding in the last digits of a difference is no miss.
const ROUNDING: f64 = 1e-12;

/// What the pipeline of `run` expected, in the order of the alphabet.
pub fn expected(run: &LoadedRun) -> Vec<Expected> {
    let stated = run.resolved.get("expect").and_then(Value::as_object).into_iter().flatten();
    stated.filter_map(|(metric, stated)| one(run, metric, stated)).collect()
}

fn one(run: &LoadedRun, metric: &str, stated: &Value) -> Option<Expected> {
    let Stated { value, tolerance, source } = Stated::deserialize(stated).ok()?;
    let (stage, name) = split_stage(metric);
    let name = name?;
    let stage = run.stages.iter().find(|found| found.stage == stage);
    let execution = stage.and_then(|stage| stage.execution.as_ref());
    let ours = execution.and_then(|execution| execution.metrics.get(name).copied().flatten());
    let off_by = ours.map(|ours| ours - value);
    let reproduced = off_by.map(|off| off.abs() <= tolerance + ROUNDING);
    Some(Expected { metric: metric.into(), value, tolerance, source, ours, off_by, reproduced })
}
