//! What differed between runs, and what came of it.
//!
//! Pure: takes loaded runs and returns a value. The first run is what the others are
//! measured against.

use std::collections::BTreeSet;

use pipe_stages::contract::Better;
use serde::Serialize;
use serde_json::Value;

use super::{
    LoadedRun,
    differences::differences,
    evidence::Evidence,
    expected::{Expected, expected},
    methods::{is_measured, methods},
    pairing::{Pair, pair_stages},
    seeds::{Group, GroupRow, groups},
    sweep::{Sweep, sweeps},
};
use crate::{contrast, names::RunId};

/// Runs side by side, or the methods of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The runs, in the order asked for.
    pub runs: Vec<RunId>,
    /// What is side by side: the runs, or the methods of the one run; every list of values below
    /// has one for each.
    pub columns: Vec<String>,
    /// What was not the same.
    pub differences: Vec<Difference>,
    /// Final metrics.
    pub metrics: Vec<MetricRow>,
    /// The runs by configuration, where some differ in their seeds alone.
    pub groups: Vec<Group>,
    /// Final metrics over the seeds of each group.
    pub group_metrics: Vec<GroupRow>,
    /// Pairs of predictions on the same items; filled in from the predictions.
    pub evidence: Vec<Evidence>,
    /// Of one run, the stages with a `matrix`.
    pub sweeps: Vec<Sweep>,
    /// What the pipeline of each run expected to come out, beside what did.
    pub expected: Vec<Vec<Expected>>,
}

/// Something that was not the same in all runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// What it is.
    pub what: What,
    /// The stage it belongs to, as the first run that has it calls it.
    pub stage: Option<String>,
    /// The parameter, input or metric; empty where `what` says it all.
    pub name: String,
    /// Its value in each run; `None` where it does not exist.
    pub values: Vec<Option<Value>>,
}

impl Difference {
    /// The values as people read them, one a run; hashes are short.
    pub fn texts(&self) -> Vec<String> {
        let missing = if self.what == What::Patch { "none" } else { "–" };
        let values: Vec<Option<&Value>> = self.values.iter().map(Option::as_ref).collect();
        let texts = contrast::texts(&values, missing);
        let is_hash = matches!(self.what, What::Commit | What::Input | What::Patch);
        texts.into_iter().map(|text| if is_hash { text.chars().take(12).collect() } else { text }).collect()
    }
}

/// What can differ between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// How the run ended.
    State,
    /// The pipeline file.
    File,
    /// The name of the pipeline.
    Pipeline,
    /// The pipeline's seed.
    Seed,
    /// A stage that some runs do not have, or that has another name in them.
    Stage,
    /// A stage's kind.
    Kind,
    /// The version of a stage's kind.
    KindVersion,
    /// A parameter.
    Parameter,
    /// A stage's own seed.
    StageSeed,
    /// The contents of a file or folder from outside the pipeline, as digests.
    Input,
    /// Which output an input takes.
    Source,
    /// What was done about a stage, where some runs have no result of it.
    Outcome,
    /// What stages computed on.
    Device,
    /// The git commit.
    Commit,
    /// The uncommitted changes, as digests of the patch.
    Patch,
    /// The version of `pipe`.
    Version,
    /// The machine.
    Host,
    /// The cores that stages could use.
    Cpus,
}

impl What {
    /// The words that people read.
    pub fn words(self) -> &'static str {
        match self {
            What::State => "state",
            What::File => "pipeline file",
            What::Pipeline => "pipeline",
            What::Seed | What::StageSeed => "seed",
            What::Stage => "stage",
            What::Kind => "kind",
            What::KindVersion => "kind version",
            What::Parameter => "parameter",
            What::Input => "input",
            What::Source => "takes",
            What::Outcome => "outcome",
            What::Device => "device",
            What::Commit => "commit",
            What::Patch => "uncommitted changes",
            What::Version => "pipe",
            What::Host => "host",
            What::Cpus => "cpus",
        }
    }
}

/// A final metric in all runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricRow {
    /// The stage, as the first run that has it calls it.
    pub stage: String,
    /// Dotted path after the stage.
    pub name: String,
    /// Which direction is an improvement.
    pub better: Better,
    /// Its value in each run; `None` where it is undefined or does not exist.
    pub values: Vec<Option<f64>>,
    /// Each value less the first run's.
    pub differences: Vec<Option<f64>>,
    /// What each difference means.
    pub verdicts: Vec<Verdict>,
    /// Whether all runs have it from one execution, so that it cannot differ.
    pub shared: bool,
}

/// What the difference of a metric to the first run's means, taken at its word: whether it is
/// more than chance is another question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The same number.
    Equal,
    /// It moved in the better direction.
    Better,
    /// It moved in the worse direction.
    Worse,
    /// It moved, and no direction is better.
    Changed,
    /// One of the two has no value.
    Unknown,
}

/// Compares `runs` with the first of them; `better(kind, params, metric)` says where a metric should go.
///
/// Of runs that say different things of it, or nothing, the latest that says anything decides.
pub fn compare(runs: &[LoadedRun], better: impl Fn(&str, &Value, &str) -> Better) -> Comparison {
    let pairs = pair_stages(runs);
    let differences = differences(runs, &pairs);
    let groups = groups(runs, &differences);
    let mut metrics = Vec::new();
    let mut group_metrics = Vec::new();
    for pair in &pairs {
        let latest_first = pair.latest_first(runs);
        let direction = |metric: &str| {
            let told = latest_first.iter().map(|stage| better(&stage.kind, &stage.params, metric));
            told.into_iter().find(|told| *told != Better::Neither).unwrap_or(Better::Neither)
        };
        for row in measured(pair, &direction) {
            if !groups.is_empty() && !row.shared {
                let MetricRow { stage, name, better, values, .. } = &row;
                let executions = executions(pair);
                group_metrics.push(GroupRow::new(stage, name, *better, &groups, values, &executions));
            }
            metrics.push(row);
        }
    }
    let ids: Vec<RunId> = runs.iter().map(|run| run.info.run).collect();
    let columns = ids.iter().map(RunId::to_string).collect();
    Comparison {
        runs: ids,
        columns,
        differences,
        metrics,
        groups,
        group_metrics,
        evidence: Vec::new(),
        sweeps: Vec::new(),
        expected: runs.iter().map(expected).collect(),
    }
}

/// Puts the methods that stages of `run` measured side by side, and the instances of its sweeps; nothing if
/// there are not two of either.
///
/// Metrics of a method begin with its name, as those of `evaluate` do.
pub fn compare_methods(run: &LoadedRun, better: impl Fn(&str, &Value, &str) -> Better) -> Option<Comparison> {
    let mut columns = Vec::new();
    let mut metrics = Vec::new();
    for stage in &run.stages {
        let methods = methods(stage, &|digest| is_measured(run, digest));
        let (Some(execution), true) = (&stage.execution, methods.len() > 1) else { continue };
        if columns.is_empty() {
            columns = methods.iter().map(|method| method.name.clone()).collect();
        } else if methods.iter().map(|method| &method.name).ne(&columns) {
            continue;
        }
        let figure = |name: &str| {
            let method = columns
                .iter()
                .find(|method| name.strip_prefix(*method).is_some_and(|it| it.starts_with('.')));
            method.map(|method| name[method.len() + 1..].to_owned())
        };
        let figures: BTreeSet<String> = execution.metrics.keys().filter_map(|name| figure(name)).collect();
        let mut figures: Vec<String> = figures.into_iter().collect();
        figures.sort_by_cached_key(|name| natural(name));
        metrics.extend(figures.iter().map(|figure| {
            let names = columns.iter().map(|method| format!("{method}.{figure}"));
            let values = names.map(|name| execution.metrics.get(&name).copied().flatten()).collect();
            let direction = better(&stage.kind, &stage.params, &format!("{}.{figure}", columns[0]));
            MetricRow::new(&stage.stage, figure, direction, values, false)
        }));
    }
    let sweeps: Vec<Sweep> = sweeps(run, &better).into_iter().filter(Sweep::compares).collect();
    (!columns.is_empty() || !sweeps.is_empty()).then(|| Comparison {
        runs: vec![run.info.run],
        columns,
        differences: Vec::new(),
        metrics,
        groups: Vec::new(),
        group_metrics: Vec::new(),
        evidence: Vec::new(),
        sweeps,
        expected: vec![expected(run)],
    })
}

/// The execution that each run has a stage from.
fn executions<'a>(pair: &Pair<'a>) -> Vec<Option<&'a str>> {
    let executions = pair.stages.iter().map(|stage| stage.and_then(|stage| stage.execution.as_ref()));
    executions.map(|execution| execution.map(|execution| execution.id.as_str())).collect()
}

fn measured<'a>(pair: &'a Pair<'a>, better: &'a impl Fn(&str) -> Better) -> Vec<MetricRow> {
    let executions: Vec<_> =
        pair.stages.iter().map(|stage| stage.and_then(|stage| stage.execution.as_ref())).collect();
    let shared = executions.len() > 1
        && executions.iter().all(|execution| {
            execution.is_some_and(|execution| executions[0].is_some_and(|first| first.id == execution.id))
        });
    let names: BTreeSet<&str> = executions
        .iter()
        .flatten()
        .flat_map(|execution| execution.metrics.keys())
        .map(String::as_str)
        .collect();
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_by_cached_key(|name| natural(name));
    names
        .into_iter()
        .map(|name| {
            let values = |name: &str| -> Vec<Option<f64>> {
                let value = |at: usize| executions[at]?.metrics.get(name).copied().flatten();
                (0..executions.len()).map(value).collect()
            };
            let mut row = MetricRow::new(pair.name(), name, better(name), values(name), shared);
            if let Some(total) = total_of(name) {
                row.leave_open_for_other(&values(&total));
            }
            row
        })
        .collect()
}

impl MetricRow {
    /// A metric of `stage` whose `values` are measured against the first of them.
    pub fn new(stage: &str, name: &str, better: Better, values: Vec<Option<f64>>, shared: bool) -> Self {
        let first = values[0];
        let differences: Vec<_> =
            values.iter().map(|value| value.zip(first).map(|(value, first)| value - first)).collect();
        let verdicts = differences.iter().map(|difference| verdict(better, *difference)).collect();
        Self { stage: stage.into(), name: name.into(), better, values, differences, verdicts, shared }
    }

    /// Calls no value better or worse whose total is not that of the first run.
    fn leave_open_for_other(&mut self, totals: &[Option<f64>]) {
        for (verdict, total) in self.verdicts.iter_mut().zip(totals) {
            if *total != totals[0] && matches!(verdict, Verdict::Better | Verdict::Worse) {
                *verdict = Verdict::Changed;
            }
        }
    }
}

/// The metric that says of how many items `name` is the number of some: more of more is not better.
fn total_of(name: &str) -> Option<String> {
    let (of, part) = name.rsplit_once('.')?;
    matches!(part, "tp" | "fp" | "fn" | "tn").then(|| format!("{of}.count"))
}

fn verdict(better: Better, difference: Option<f64>) -> Verdict {
    match (better, difference) {
        (_, None) => Verdict::Unknown,
        (_, Some(0.0)) => Verdict::Equal,
        (Better::Neither, Some(_)) => Verdict::Changed,
        (Better::Higher, Some(difference)) if difference > 0.0 => Verdict::Better,
        (Better::Lower, Some(difference)) if difference < 0.0 => Verdict::Better,
        _ => Verdict::Worse,
    }
}

/// A key that sorts `bin.64-128` before `bin.1024-`: runs of digits count as numbers.
pub fn natural(name: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number = rest[..digits].parse().unwrap_or(0);
        rest = &rest[digits..];
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        parts.push((number, rest[..text].to_owned()));
        rest = &rest[text..];
    }
    parts
}
