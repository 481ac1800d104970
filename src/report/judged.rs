//! What methods decided: counts from metrics, and predictions item by item.
//!
//! A method is found by its metrics: any stage with `NAME.tp`, `.fp`, `.fn` and `.tn` has one,
//! whatever its kind. Methods with the same numbers in several runs are one.

use std::{cmp::Ordering, collections::BTreeMap};

use pipe_stages::{
    contract::InputName,
    data::Prediction,
    evaluation::{Counts, decide},
};
use serde_json::Value;

use super::Subject;
use crate::{
    digest::Digest,
    runs::{LoadedStage, compare::natural},
};

/// What one method decided, from the metrics of the stage that counted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Method {
    /// The runs that have exactly this.
    pub runs: Vec<String>,
    /// The stage that counted.
    pub stage: String,
    /// The method's name in its metrics.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// Over all items.
    pub counts: Counts,
    /// By length: the bin's name, its counts, the published accuracy.
    pub bins: Vec<(String, Counts, Option<f64>)>,
}

/// What one classifier said of each item.
pub(super) struct Judged<'a> {
    /// The runs that have exactly this.
    pub runs: Vec<String>,
    /// What people call it.
    pub title: String,
    /// From which score on an item was called positive, if that was set.
    pub threshold: Option<f64>,
    /// The items.
    pub rows: &'a [Prediction],
}

/// The methods of all subjects.
pub(super) fn methods(subjects: &[Subject]) -> Vec<Method> {
    let mut found: Vec<Method> = Vec::new();
    for subject in subjects {
        let run = subject.run.info.run.to_string();
        for stage in &subject.run.stages {
            for method in methods_of(subject, stage) {
                let same = |other: &&mut Method| {
                    (&other.stage, &other.name, &other.counts, &other.bins)
                        == (&method.stage, &method.name, &method.counts, &method.bins)
                };
                match found.iter_mut().find(same) {
                    Some(same) => same.runs.push(run.clone()),
                    None => found.push(Method { runs: vec![run.clone()], ..method }),
                }
            }
        }
    }
    found
}

fn methods_of(subject: &Subject, stage: &LoadedStage) -> Vec<Method> {
    let Some(execution) = &stage.execution else { return Vec::new() };
    let metrics = &execution.metrics;
    let names = metrics.keys().filter_map(|name| name.strip_suffix(".tp")).filter(|name| !is_bin(name));
    let mut methods: Vec<Method> = names
        .filter_map(|name| {
            let prefix = format!("{name}.bin.");
            let bins = metrics.keys().filter_map(|key| key.strip_prefix(&prefix)?.strip_suffix(".tp"));
            let mut bins: Vec<_> = bins
                .filter_map(|bin| {
                    let counts = counts(metrics, &format!("{prefix}{bin}"))?;
                    let published = subject.published(&format!("{}.{prefix}{bin}.accuracy", stage.stage));
                    Some((bin.to_owned(), counts, published))
                })
                .collect();
            bins.sort_by_cached_key(|(bin, ..)| natural(bin));
            Some(Method {
                runs: Vec::new(),
                stage: stage.stage.clone(),
                name: name.into(),
                title: title(stage, name),
                counts: counts(metrics, name)?,
                bins,
            })
        })
        .collect();
    let order = order(stage);
    methods.sort_by(|a, b| in_order(&a.name, &b.name, &order));
    methods
}

fn is_bin(name: &str) -> bool {
    name.split('.').any(|part| part == "bin")
}

fn counts(metrics: &BTreeMap<String, Option<f64>>, prefix: &str) -> Option<Counts> {
    let count = |figure: &str| {
        let value = metrics.get(&format!("{prefix}.{figure}")).copied().flatten();
        value.filter(|value| *value >= 0.0).map(|value| value as u64)
    };
    Some(Counts { tp: count("tp")?, fp: count("fp")?, fn_: count("fn")?, tn: count("tn")? })
}

/// The title of a method or an input of `stage`, as its tables have it.
fn title(stage: &LoadedStage, name: &str) -> String {
    let titles = stage.params.get("titles");
    InputName::of(name).title(|name| titles.and_then(|titles| titles.get(name)).and_then(Value::as_str))
}

/// The order of methods or inputs in the tables.
fn in_order(a: &str, b: &str, order: &[&str]) -> Ordering {
    InputName::of(a).place(order).cmp(&InputName::of(b).place(order))
}

fn order(stage: &LoadedStage) -> Vec<&str> {
    let order = stage.params.get("order").and_then(Value::as_array);
    order.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The predictions of all subjects: those that a stage evaluated under the names it gives them.
pub(super) fn judged(subjects: &[Subject]) -> Vec<Judged<'_>> {
    let mut found: Vec<(Digest, Judged<'_>)> = Vec::new();
    for subject in subjects {
        let run = subject.run.info.run.to_string();
        let mut add = |digest: Digest, title: String, threshold: Option<f64>| {
            let Some(rows) = subject.predictions.get(&digest).filter(|rows| !rows.is_empty()) else { return };
            let same = |(known, other): &&mut (Digest, Judged<'_>)| {
                *known == digest && (other.threshold == threshold || other.runs.contains(&run))
            };
            match found.iter_mut().find(same) {
                Some((_, same)) if same.runs.contains(&run) => {}
                Some((_, same)) => same.runs.push(run.clone()),
                None => found.push((digest, Judged { runs: vec![run.clone()], title, threshold, rows })),
            }
        };
        let executed =
            || subject.run.stages.iter().filter_map(|stage| Some((stage, stage.execution.as_ref()?)));
        for (stage, execution) in executed() {
            let inputs = execution.hashed.get("in").and_then(Value::as_object);
            let threshold = stage.params.get("threshold").and_then(Value::as_f64);
            let mut inputs: Vec<(&String, Digest)> = inputs
                .into_iter()
                .flatten()
                .filter_map(|(name, digest)| Some((name, digest.as_str()?.parse().ok()?)))
                .collect();
            let order = order(stage);
            inputs.sort_by(|(a, _), (b, _)| in_order(a, b, &order));
            inputs.into_iter().for_each(|(name, digest)| add(digest, title(stage, name), threshold));
        }
        for (stage, execution) in executed() {
            execution.outputs.iter().for_each(|output| add(output.digest, stage.stage.clone(), None));
        }
    }
    found.into_iter().map(|(_, judged)| judged).collect()
}

/// The items that were called wrong, those of the surest scores first, at most `limit`.
pub(super) fn surest_mistakes<'a>(judged: &Judged<'a>, limit: usize) -> Vec<&'a Prediction> {
    let mut wrong: Vec<&Prediction> =
        judged.rows.iter().filter(|row| decide(row, judged.threshold) != row.label).collect();
    wrong.sort_by(|a, b| confidence(b).total_cmp(&confidence(a)).then_with(|| a.id.cmp(&b.id)));
    wrong.truncate(limit);
    wrong
}

/// The probability that the classifier gave to the wrong label.
pub(super) fn confidence(row: &Prediction) -> f64 {
    if row.label == 1 { 1.0 - row.score } else { row.score }
}
