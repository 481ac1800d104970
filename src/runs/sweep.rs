//! The instances of a stage's `matrix` as one table: which is best, and whether by more than seeds give.
//!
//! Question                    | Answer
//! ----------------------------|----------------------------------------------------------------
//! what is a row               | a combination of values on the axes that are no seed axes
//! what is a seed axis         | instances that differ on it alone are equal but for seeds: their own, or those of the stages of the run that they come from
//! what is a value of a row    | mean ± standard deviation (n − 1) over its executions; one that several instances share counts once
//! what is best                | the row whose mean is best; none where several are equal
//! is it better than another   | Welch's t-test, corrected by Holm for all pairs of rows, at 5 %
//!
//! All pairs count, and not only those with the best row, since that row was chosen by the same figures: of
//! nine rows that are equal in truth, nine comparisons would call one better far more often than once in twenty.
//! Over two seed axes executions share seeds and are not independent: then nothing is tested.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use indexmap::{IndexMap, IndexSet};
use pipe_stages::contract::Better;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    LoadedRun, LoadedStage,
    compare::{Verdict, natural},
    evidence::{LEVEL, holm},
    seeds::{Contrast, Spread},
};
use crate::{
    meant::in_order,
    metrics::is_detail,
    names::{Instance, split_stage},
    record::Outcome,
};

/// A stage with a `matrix`, over its instances in one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    /// What the pipeline file calls the stage.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// Its axes.
    pub axes: Vec<Axis>,
    /// Its combinations of values, in the order of these.
    pub rows: Vec<Row>,
    /// Its final metrics.
    pub metrics: Vec<SweepMetric>,
}

/// One axis of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Axis {
    /// Its name.
    pub name: String,
    /// The values that instances have on it.
    pub values: Vec<String>,
    /// Whether only seeds differ along it: its instances are one row.
    pub is_seed: bool,
}

/// A combination of values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// `rank=8,lr=0.1`; empty where all axes are of seeds.
    pub name: String,
    /// The value on each axis that is no seed axis.
    pub at: BTreeMap<String, String>,
    /// The instances that are equal but for their seeds.
    pub instances: Vec<String>,
    /// What the run did about each of them.
    pub outcomes: Vec<Outcome>,
    /// The execution of each of them, by its place among the different ones of the row.
    #[serde(skip)]
    executions: Vec<Option<usize>>,
}

/// A final metric of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepMetric {
    /// Dotted path after the stage.
    pub name: String,
    /// Which direction is an improvement.
    pub better: Better,
    /// Its value in each instance of each row.
    pub values: Vec<Vec<Option<f64>>>,
    /// How it lies in each row.
    pub spreads: Vec<Option<Spread>>,
    /// The rows whose mean is best, where one direction is better and rows differ.
    pub best: Vec<usize>,
    /// The mean of the one best row less that of each row, and whether that is more than chance.
    pub lead: Vec<Option<Lead>>,
}

/// The best row against another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Lead {
    /// Best less other; the verdict is of the corrected p.
    #[serde(flatten)]
    pub contrast: Contrast,
    /// Holm's p, for all pairs of rows that can be tested.
    pub holm_p: Option<f64>,
}

impl Lead {
    /// Whether the best row is better by more than chance.
    pub fn is_better(&self) -> bool {
        self.contrast.verdict == Verdict::Better
    }
}

/// The sweeps of `run`: stages with instances of which one has a metric.
///
/// `better(kind, params, metric)` says where a metric should go.
pub fn sweeps(run: &LoadedRun, better: impl Fn(&str, &Value, &str) -> Better) -> Vec<Sweep> {
    let mut bases: IndexMap<&str, Vec<(Instance<'_>, &LoadedStage)>> = IndexMap::new();
    for stage in &run.stages {
        let Some(instance) = Instance::parse(&stage.stage).filter(|it| !it.at.is_empty()) else { continue };
        bases.entry(instance.stage).or_default().push((instance, stage));
    }
    // Stages are recorded as they end.
    for instances in bases.values_mut() {
        instances.sort_by(|(_, a), (_, b)| in_order(&a.stage, &b.stage));
    }
    let mut lineages = Lineages::of(run);
    let measured = |(_, stage): &(Instance<'_>, &LoadedStage)| {
        stage.execution.as_ref().is_some_and(|execution| !execution.metrics.is_empty())
    };
    let bases = bases.into_iter().filter(|(_, instances)| instances.iter().any(measured));
    bases.map(|(stage, instances)| sweep(stage, &instances, &mut lineages, &better)).collect()
}

fn sweep(
    stage: &str,
    instances: &[(Instance<'_>, &LoadedStage)],
    lineages: &mut Lineages<'_>,
    better: &impl Fn(&str, &Value, &str) -> Better,
) -> Sweep {
    let names: IndexSet<&str> = instances.iter().flat_map(|(it, _)| &it.at).map(|(axis, _)| *axis).collect();
    let axes: Vec<Axis> = names
        .into_iter()
        .map(|name| {
            let values: IndexSet<&str> = instances.iter().filter_map(|(it, _)| it.value(name)).collect();
            let is_seed = is_seed_axis(name, instances, lineages);
            Axis { name: name.into(), values: values.into_iter().map(Into::into).collect(), is_seed }
        })
        .collect();
    let seeds: Vec<&str> = axes.iter().filter(|axis| axis.is_seed).map(|axis| axis.name.as_str()).collect();
    let mut groups: IndexMap<Vec<(&str, &str)>, Vec<&LoadedStage>> = IndexMap::new();
    for (instance, stage) in instances {
        let at = instance.at.iter().filter(|(axis, _)| !seeds.contains(axis)).copied().collect();
        groups.entry(at).or_default().push(stage);
    }
    let groups: Vec<_> = groups.into_iter().collect();
    let stages = || instances.iter().map(|(_, stage)| *stage);
    let names: BTreeSet<&String> =
        stages().filter_map(|stage| stage.execution.as_ref()).flat_map(|made| made.metrics.keys()).collect();
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by_cached_key(|name| natural(name));
    let rows: Vec<Row> = groups.iter().map(|(at, stages)| Row::new(at, stages)).collect();
    let direction = |metric: &str| {
        let mut told = stages().map(|stage| better(&stage.kind, &stage.params, metric));
        told.find(|told| *told != Better::Neither).unwrap_or(Better::Neither)
    };
    let value = |stage: &LoadedStage, metric: &str| *stage.execution.as_ref()?.metrics.get(metric)?;
    let metrics = names.into_iter().map(|name| {
        let of_row = |(_, stages): &(_, Vec<&LoadedStage>)| stages.iter().map(|it| value(it, name)).collect();
        let values = groups.iter().map(of_row).collect();
        SweepMetric::new(name, direction(name), &rows, values, seeds.len() == 1)
    });
    let metrics = metrics.collect();
    let kind = stages().next().map(|stage| stage.kind.clone()).unwrap_or_default();
    Sweep { stage: stage.into(), kind, axes, rows, metrics }
}

/// Whether instances that differ on `axis` alone are equal but for seeds, and some have other seeds.
fn is_seed_axis(axis: &str, instances: &[(Instance<'_>, &LoadedStage)], lineages: &mut Lineages<'_>) -> bool {
    let mut alike: HashMap<Vec<(&str, &str)>, Lineage> = HashMap::new();
    let mut has_other_seeds = false;
    for (instance, stage) in instances {
        let elsewhere = instance.at.iter().filter(|(name, _)| *name != axis).copied().collect();
        let lineage = lineages.of_stage(&stage.stage);
        let first = alike.entry(elsewhere).or_insert_with(|| lineage.clone());
        if first.without_seeds != lineage.without_seeds {
            return false;
        }
        has_other_seeds |= first.with_seeds != lineage.with_seeds;
    }
    has_other_seeds
}

/// What a stage is and comes from, as hashes: kinds, parameters and wiring, without names of stages.
#[derive(Debug, Clone, PartialEq)]
struct Lineage {
    without_seeds: String,
    with_seeds: String,
}

struct Lineages<'a> {
    resolved: &'a Value,
    stages: HashMap<&'a str, &'a LoadedStage>,
    /// `None` while it is being found.
    known: HashMap<String, Option<Lineage>>,
}

impl<'a> Lineages<'a> {
    fn of(run: &'a LoadedRun) -> Self {
        let stages = run.stages.iter().map(|stage| (stage.stage.as_str(), stage)).collect();
        Self { resolved: &run.resolved, stages, known: HashMap::new() }
    }

    fn of_stage(&mut self, name: &str) -> Lineage {
        match self.known.get(name) {
            Some(Some(lineage)) => return lineage.clone(),
            // No pipeline has a cycle; of a damaged record that names one, names are compared.
            Some(None) => return Lineage { without_seeds: name.into(), with_seeds: name.into() },
            None => drop(self.known.insert(name.into(), None)),
        }
        let written = &self.resolved["stages"][name];
        let inputs = written.get("in").and_then(Value::as_object);
        let (mut plain, mut seeded) = (BTreeMap::new(), BTreeMap::new());
        for (port, source) in inputs.into_iter().flatten() {
            // A file or folder has the same contents wherever one run takes it.
            let Some(source) = source.as_str() else {
                plain.insert(port, source.clone());
                seeded.insert(port, source.clone());
                continue;
            };
            let (stage, output) = split_stage(source);
            let lineage = self.of_stage(stage);
            plain.insert(port, json!([lineage.without_seeds, output]));
            seeded.insert(port, json!([lineage.with_seeds, output]));
        }
        // A stage that the run did not come to is known by what the pipeline says.
        let recorded = self.stages.get(name);
        let kind = recorded.map_or_else(|| written["kind"].clone(), |stage| json!(stage.kind));
        let params = recorded.map_or_else(|| written["with"].clone(), |stage| stage.params.clone());
        let seed = recorded.map_or_else(|| written["seed"].clone(), |stage| json!(stage.seed));
        let hash = |value: Value| blake3::hash(value.to_string().as_bytes()).to_hex().to_string();
        let lineage = Lineage {
            without_seeds: hash(json!([kind, params, plain])),
            with_seeds: hash(json!([kind, params, seeded, seed])),
        };
        self.known.insert(name.into(), Some(lineage.clone()));
        lineage
    }
}

impl Row {
    fn new(at: &[(&str, &str)], stages: &[&LoadedStage]) -> Self {
        let name = at.iter().map(|(axis, value)| format!("{axis}={value}")).collect::<Vec<_>>().join(",");
        let mut different = IndexSet::new();
        let executions = stages
            .iter()
            .map(|stage| Some(different.insert_full(stage.execution.as_ref()?.id.as_str()).0))
            .collect();
        Self {
            name,
            at: at.iter().map(|(axis, value)| ((*axis).to_owned(), (*value).to_owned())).collect(),
            instances: stages.iter().map(|stage| stage.stage.clone()).collect(),
            outcomes: stages.iter().map(|stage| stage.outcome).collect(),
            executions,
        }
    }

    /// The stage with these values: `lora[rank=8,lr=0.1]`.
    pub fn stage(&self, base: &str) -> String {
        if self.name.is_empty() { base.to_owned() } else { format!("{base}[{}]", self.name) }
    }

    /// How many different executions its instances have.
    pub fn executions(&self) -> usize {
        self.executions.iter().flatten().collect::<BTreeSet<_>>().len()
    }

    /// How `values` of its instances lie, each execution once.
    fn spread(&self, values: &[Option<f64>]) -> Option<Spread> {
        let mut seen = BTreeSet::new();
        let own = self.executions.iter().zip(values).filter(|(made, _)| seen.insert(**made));
        Spread::of(&own.filter_map(|(_, value)| *value).collect::<Vec<_>>())
    }
}

impl Sweep {
    /// Whether it has two instances.
    pub fn compares(&self) -> bool {
        self.rows.len() > 1 || self.rows.iter().any(|row| row.instances.len() > 1)
    }

    /// The axes along which only seeds differ.
    pub fn seed_axes(&self) -> impl Iterator<Item = &Axis> {
        self.axes.iter().filter(|axis| axis.is_seed)
    }
}

impl SweepMetric {
    fn new(
        name: &str,
        better: Better,
        rows: &[Row],
        values: Vec<Vec<Option<f64>>>,
        can_be_tested: bool,
    ) -> Self {
        let spreads: Vec<_> = rows.iter().zip(&values).map(|(row, values)| row.spread(values)).collect();
        let best = best(better, &spreads);
        let mut lead = vec![None; rows.len()];
        if let ([best], true) = (best.as_slice(), can_be_tested) {
            lead = leads(better, &spreads, *best);
        }
        Self { name: name.into(), better, values, spreads, best, lead }
    }

    /// Whether it says something of the combinations, by itself and at first sight.
    pub fn is_result(&self) -> bool {
        !is_detail(&self.name) && !self.is_constant()
    }

    /// Whether it has no direction, and is the same in all of several instances.
    pub fn is_constant(&self) -> bool {
        let values: Vec<_> = self.values.iter().flatten().collect();
        self.better == Better::Neither && values.len() > 1 && values.iter().all(|value| *value == values[0])
    }
}

/// The rows whose mean is best; none where no direction is, or all rows are equal.
fn best(better: Better, spreads: &[Option<Spread>]) -> Vec<usize> {
    let sign = match better {
        Better::Higher => 1.0,
        Better::Lower => -1.0,
        Better::Neither => return Vec::new(),
    };
    let mean = |spread: &Option<Spread>| spread.map(|spread| sign * spread.mean);
    let top = spreads.iter().filter_map(mean).fold(f64::NEG_INFINITY, f64::max);
    // The same values in another order have another mean by rounding.
    let least = top - 1e-12 * top.abs();
    let is_top = |at: &usize| mean(&spreads[*at]).is_some_and(|mean| mean >= least);
    let best: Vec<usize> = (0..spreads.len()).filter(is_top).collect();
    if best.len() < spreads.iter().flatten().count() { best } else { Vec::new() }
}

/// The row `best` against each other.
fn leads(better: Better, spreads: &[Option<Spread>], best: usize) -> Vec<Option<Lead>> {
    let contrast = |at: usize| {
        let (own, other) = (spreads[best]?, spreads[at].filter(|_| at != best)?);
        Some(Lead { contrast: Contrast::new(better, other, own), holm_p: None })
    };
    let mut leads: Vec<Option<Lead>> = (0..spreads.len()).map(contrast).collect();
    let mut tested: Vec<&mut Lead> =
        leads.iter_mut().flatten().filter(|lead| lead.contrast.p.is_some()).collect();
    let rows = spreads.iter().flatten().filter(|spread| spread.n > 1).count();
    let p: Vec<f64> = tested.iter().filter_map(|lead| lead.contrast.p).collect();
    let corrected = holm(&p, rows * rows.saturating_sub(1) / 2);
    for (lead, corrected) in tested.iter_mut().zip(corrected) {
        lead.holm_p = Some(corrected);
        lead.contrast.verdict = if corrected < LEVEL { Verdict::Better } else { Verdict::Unknown };
    }
    leads
}
