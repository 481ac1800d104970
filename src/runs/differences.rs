//! What was not the same in runs that are compared.

use std::collections::{BTreeMap, BTreeSet};

use pipe_stages::kinds::shell;
use serde_json::{Value, json};

use super::{
    LoadedRun, LoadedStage, RunInfo,
    compare::{Difference, What},
    pairing::Pair,
};
use crate::{
    fingerprint::{is_told_below, leaves},
    names::split_stage,
};

pub(super) fn differences(runs: &[LoadedRun], pairs: &[Pair<'_>]) -> Vec<Difference> {
    let mut found = Found { count: runs.len(), list: Vec::new() };
    let mut run_value = |what, value: &dyn Fn(&RunInfo) -> Option<Value>| {
        found.add(what, None, "", runs.iter().map(|run| value(&run.info)).collect());
    };
    run_value(What::State, &|run| Some(json!(run.state)));
    run_value(What::File, &|run| Some(json!(run.file)));
    run_value(What::Pipeline, &|run| Some(json!(run.pipeline)));
    run_value(What::Seed, &|run| Some(json!(run.seed)));
    for pair in pairs {
        stage_differences(&mut found, runs, pairs, pair);
    }
    devices(&mut found, pairs);
    let mut run_value = |what, value: &dyn Fn(&RunInfo) -> Option<Value>| {
        found.add(what, None, "", runs.iter().map(|run| value(&run.info)).collect());
    };
    run_value(What::Commit, &|run| run.git.as_ref().map(|git| json!(git.commit)));
    run_value(What::Patch, &|run| run.git.as_ref().and_then(|git| git.patch).map(|patch| json!(patch)));
    run_value(What::Version, &|run| Some(json!(run.version)));
    run_value(What::Host, &|run| Some(json!(run.host)));
    run_value(What::Cpus, &|run| Some(json!(run.cpus)));
    found.list
}

struct Found {
    count: usize,
    list: Vec<Difference>,
}

impl Found {
    /// Notes `values` unless they are all the same.
    fn add(&mut self, what: What, stage: Option<&str>, name: &str, values: Vec<Option<Value>>) {
        debug_assert_eq!(values.len(), self.count);
        if values.iter().any(|value| *value != values[0]) {
            let stage = stage.map(Into::into);
            self.list.push(Difference { what, stage, name: name.into(), values });
        }
    }
}

fn stage_differences(found: &mut Found, runs: &[LoadedRun], pairs: &[Pair<'_>], pair: &Pair<'_>) {
    let name = Some(pair.name());
    let values = |value: &dyn Fn(&LoadedStage) -> Option<Value>| -> Vec<Option<Value>> {
        pair.stages.iter().map(|stage| stage.and_then(value)).collect()
    };
    found.add(What::Stage, name, "", values(&|stage| Some(json!(stage.stage))));
    if pair.stages.iter().flatten().count() < 2 {
        return;
    }
    // Where a stage is missing, that is said once; its parameters are not listed one by one.
    let alike = |values: Vec<Option<Value>>| -> Vec<Option<Value>> {
        let first = values.iter().zip(&pair.stages).find(|(_, stage)| stage.is_some());
        let first = first.and_then(|(value, _)| value.clone());
        let filled = values.into_iter().zip(&pair.stages);
        filled.map(|(value, stage)| if stage.is_some() { value } else { first.clone() }).collect()
    };
    let mut add = |what, part: &str, raw: Vec<Option<Value>>| {
        if alike(raw.clone()).windows(2).any(|two| two[0] != two[1]) {
            found.add(what, name, part, raw);
        }
    };
    let kinds = values(&|stage| Some(json!(stage.kind)));
    let same_kind = pair.stages.iter().flatten().all(|stage| stage.kind == pair.kind());
    add(What::Kind, "", kinds);
    if same_kind {
        add(What::KindVersion, "", values(&|stage| Some(json!(stage.kind_version))));
        let flat: Vec<_> = pair.stages.iter().map(|stage| stage.map(|stage| leaves(&stage.params))).collect();
        let paths: BTreeSet<&String> = flat.iter().flatten().flat_map(BTreeMap::keys).collect();
        let sides: Vec<&BTreeMap<String, Value>> = flat.iter().flatten().collect();
        let decides =
            |path: &&String| !shell::decides_nothing(pair.kind(), path) && !is_told_below(path, &sides);
        for path in paths.into_iter().filter(decides) {
            let of = |params: &Option<BTreeMap<String, Value>>| params.as_ref()?.get(path).cloned();
            add(What::Parameter, path, flat.iter().map(of).collect());
        }
        // The pipeline's seed, which most stages take, is listed once.
        let follows = |(stage, run): (Option<&LoadedStage>, &LoadedRun)| {
            stage.is_none_or(|stage| stage.seed.is_none_or(|seed| seed == run.info.seed))
        };
        if !pair.stages.iter().copied().zip(runs).all(follows) {
            add(What::StageSeed, "", values(&|stage| stage.seed.map(|seed| json!(seed))));
        }
    }
    inputs(runs, pairs, pair, &mut add);
    if pair.stages.iter().flatten().any(|stage| stage.execution.is_none()) {
        add(What::Outcome, "", values(&|stage| Some(json!(stage.outcome))));
    }
}

/// Inputs from outside by content, and inputs that take the output of another stage than before.
fn inputs(
    runs: &[LoadedRun],
    pairs: &[Pair<'_>],
    pair: &Pair<'_>,
    add: &mut impl FnMut(What, &str, Vec<Option<Value>>),
) {
    if pair.stages.iter().flatten().any(|stage| stage.hashed().is_none()) {
        return;
    }
    let digests: Vec<BTreeMap<&str, &Value>> =
        pair.stages.iter().map(|stage| input_digests(*stage)).collect();
    let ports: BTreeSet<&str> = digests.iter().flat_map(BTreeMap::keys).copied().collect();
    for port in ports {
        let contents: Vec<Option<Value>> =
            digests.iter().map(|inputs| inputs.get(port).map(|digest| (*digest).clone())).collect();
        if contents.windows(2).all(|two| two[0] == two[1]) {
            continue;
        }
        let sources: Vec<Option<&Value>> =
            runs.iter().zip(&pair.stages).map(|(run, stage)| source(run, (*stage)?, port)).collect();
        if sources.iter().flatten().any(|source| source.is_object()) {
            let path =
                sources.iter().flatten().find_map(|source| source.as_object()?.values().next()?.as_str());
            let name = path.map_or_else(|| port.to_owned(), |path| format!("{port} ({path})"));
            add(What::Input, &name, contents);
        } else {
            let named = |(at, source): (usize, Option<&Value>)| {
                source.and_then(Value::as_str).map(|text| json!(as_first_run_says(text, pairs, at)))
            };
            add(What::Source, port, sources.iter().copied().enumerate().map(named).collect());
        }
    }
}

/// The digests of a stage's inputs, from the JSON of its [`crate::fingerprint::Fingerprint`].
fn input_digests(stage: Option<&LoadedStage>) -> BTreeMap<&str, &Value> {
    let inputs = stage.and_then(|stage| stage.hashed()?.get("in")?.as_object());
    inputs.into_iter().flatten().map(|(port, digest)| (port.as_str(), digest)).collect()
}

/// What the pipeline of `run` says after `in:` for `port`: `stage.port`, or a map with a path.
pub(super) fn source<'a>(run: &'a LoadedRun, stage: &LoadedStage, port: &str) -> Option<&'a Value> {
    run.resolved.get("stages")?.get(&stage.stage)?.get("in")?.get(port)
}

/// `stage.port` with the name that the stage of the run `at` has in the first run.
fn as_first_run_says(source: &str, pairs: &[Pair<'_>], at: usize) -> String {
    let (stage, port) = split_stage(source);
    let pair = pairs.iter().find(|pair| pair.stages[at].is_some_and(|found| found.stage == stage));
    let stage = pair.map_or(stage, Pair::name);
    port.map_or_else(|| stage.to_owned(), |port| format!("{stage}.{port}"))
}

/// One difference for all stages that went from the same devices to the same.
fn devices(found: &mut Found, pairs: &[Pair<'_>]) {
    let mut stages: BTreeMap<Vec<Option<&str>>, Vec<&str>> = BTreeMap::new();
    for pair in pairs {
        let executions = pair.stages.iter().map(|stage| stage.and_then(|stage| stage.execution.as_ref()));
        let devices: Vec<_> = executions.map(|execution| execution?.device.as_deref()).collect();
        if devices.iter().all(Option::is_some) {
            stages.entry(devices).or_default().push(pair.name());
        }
    }
    for (devices, stages) in stages {
        let values = devices.iter().map(|device| device.map(Value::from)).collect();
        found.add(What::Device, None, &stages.join(", "), values);
    }
}
