//! Computes recorded results again, aside from the cache, and compares.
//!
//! Each stage is given the inputs that its record names, so that one difference is found once and
//! not in everything behind it. What would not be the same computation now is not computed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use pipe_stages::{
    contract::{Device, Job, PortType, StageKind},
    data::{
        difference::{Comparison, compare, deviation},
        folder,
    },
};

use super::{
    Tools,
    attempt_log::{EVENTS, OUTPUT},
    decide::look_outside,
    loans::{self, Loans},
    perform::{Ending, Log, attempt_id, exit_failure, note, told_error},
};
use crate::{
    cache::{CacheError, Claim, Outside},
    digest::{ActionKey, Digest},
    exec::{ExecError, Exit, Launch, OutOfMemory},
    fingerprint::{Fingerprint, changes},
    names::{RunId, split_stage},
    pipeline::Source,
    record::{Artifact, Execution, Metric, Reason},
    runs::{LoadedRun, LoadedStage, Origin},
};

/// Why a result is not computed again.
#[derive(Debug, Clone, PartialEq)]
pub enum Unchecked {
    /// The run has no result of the stage.
    NoResult,
    /// The recorded result itself was found, so that nothing was computed.
    Found,
    /// Its kind or its parameters are not understood by this `pipe`.
    Unknown(String),
    /// What would be computed now has another key.
    Changed(Vec<Reason>),
    /// An input is not there any more; the text says how.
    Input {
        /// The input's name.
        port: String,
        /// Such as `missing from the cache`.
        what: String,
    },
}

/// A recorded result that can be computed again.
#[derive(Debug)]
pub struct Ready<'a> {
    stage: &'a LoadedStage,
    runs_model: bool,
    origin: &'a Origin,
    fingerprint: Fingerprint,
    key: ActionKey,
    inputs: BTreeMap<String, PathBuf>,
    objects: Vec<(String, Digest)>,
    /// Those of them that are packed folders.
    folders: Vec<String>,
    outside: Vec<(String, Outside, Source)>,
}

impl Ready<'_> {
    /// The stage's name in the run.
    pub fn name(&self) -> &str {
        &self.stage.stage
    }

    /// Where it is computed again.
    pub fn device(&self, how: &Verification<'_>) -> Device {
        if !self.runs_model || how.gpu.is_none() {
            return Device::Cpu;
        }
        how.device.unwrap_or_else(|| self.origin.device.as_deref().map_or(Device::Cpu, Device::of_name))
    }
}

/// How results are computed again and compared.
pub struct Verification<'a> {
    /// Where models compute; `None` for where the record says that they did.
    pub device: Option<Device>,
    /// The GPU that they compute on, as `CUDA_VISIBLE_DEVICES` names it; without one they compute on the
    /// processor.
    pub gpu: Option<String>,
    /// Threads that a stage may use.
    pub threads: usize,
    /// How far numbers may be apart; 0 for not at all.
    pub tolerance: f64,
    /// Outputs that are kept outside the cache, by their digest.
    pub kept: &'a dyn Fn(Digest) -> Option<Vec<u8>>,
}

/// What came of computing a result again.
#[derive(Debug, Clone, PartialEq)]
pub enum Verified {
    /// The same bytes and the same metrics.
    Identical,
    /// The same within the tolerance; the largest deviation.
    Within(f64),
    /// Something differs.
    Different(Vec<Difference>),
    /// It failed this time; the text says how.
    Failed(String),
    /// It was not computed, or what it read changed meanwhile.
    Unchecked(Unchecked),
    /// It was stopped.
    Interrupted,
}

/// An output or a metric that is not as recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// What differs.
    pub subject: Subject,
    /// The first place and both values.
    pub detail: String,
    /// The largest deviation, where numbers could be compared.
    pub largest: Option<f64>,
}

/// What can differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An output, by its name.
    Output(String),
    /// A metric, by its name.
    Metric(String),
}

/// Says for one stage of `run` whether it can be computed again. Touches nothing but the stat cache.
pub fn prepare<'a>(
    run: &'a LoadedRun,
    stage: &'a LoadedStage,
    tools: &Tools<'_>,
    kinds: &[StageKind],
) -> Result<Ready<'a>, Unchecked> {
    let (Some(origin), Some(key)) = (&stage.execution, stage.key) else {
        return Err(Unchecked::NoResult);
    };
    let fingerprint: Fingerprint = serde_json::from_value(origin.hashed.clone())
        .map_err(|err| Unchecked::Unknown(format!("its record is not understood: {err}")))?;
    let kind = kinds.iter().find(|kind| kind.name == fingerprint.kind);
    let kind = kind.ok_or_else(|| Unchecked::Unknown(format!("there is no kind `{}`", fingerprint.kind)))?;
    let resolved = kind.resolve(stage.params.clone()).map_err(|problems| {
        let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
        Unchecked::Unknown(format!("its parameters do not fit any more: {}", messages.join("; ")))
    })?;
    let mut now = Fingerprint { version: kind.version, with: resolved.hashed, ..fingerprint.clone() };
    let (mut inputs, mut objects, mut outside) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (port, digest) in &fingerprint.inputs {
        let lost = |what: String| Unchecked::Input { port: port.clone(), what };
        if let Some(source) = Source::outside(&run.resolved, &stage.stage, port) {
            let found = look_outside(tools, &source).map_err(|err| lost(told_error(&err)))?;
            now.inputs.insert(port.clone(), found.digest);
            inputs.insert(port.clone(), found.path.clone());
            outside.push((port.clone(), found, source));
        } else {
            if let Some(damage) = tools.cache.flaw(*digest) {
                return Err(lost(format!("{} in the cache", damage.word())));
            }
            objects.push((port.clone(), *digest));
            inputs.insert(port.clone(), tools.cache.object(*digest));
        }
    }
    let mut changed = changes(&fingerprint, &now);
    for reason in &mut changed {
        if let Reason::Input { port, from, .. } = reason
            && let Some((.., source)) = outside.iter().find(|(name, ..)| name == port)
        {
            *from = source.to_string();
        }
    }
    if !changed.is_empty() {
        return Err(Unchecked::Changed(changed));
    }
    let folders = objects.iter().map(|(port, _)| port);
    let folders = folders.filter(|port| is_folder(run, kinds, &stage.stage, port)).cloned().collect();
    let runs_model = kind.runs_model;
    Ok(Ready { stage, runs_model, origin, fingerprint, key, inputs, objects, folders, outside })
}

/// Whether an input of `stage` that another stage wrote is a folder, as the pipeline of `run` has it.
fn is_folder(run: &LoadedRun, kinds: &[StageKind], stage: &str, port: &str) -> bool {
    let stages = &run.resolved["stages"];
    let Some(written) = stages[stage]["in"][port].as_str() else { return false };
    let (from, output) = split_stage(written);
    let kind = kinds.iter().find(|kind| stages[from]["kind"] == kind.name);
    let ports = kind.and_then(|kind| kind.ports(stages[from]["with"].clone()));
    ports.is_some_and(|ports| {
        let mut outputs = ports.outputs.iter();
        outputs.any(|it| it.port_type == PortType::Folder && output.is_none_or(|output| output == it.name))
    })
}

/// Computes a result again in a folder of its own, which is removed afterwards, and compares.
pub fn verify(ready: &Ready<'_>, tools: &Tools<'_>, how: &Verification<'_>) -> Result<Verified, CacheError> {
    let id = attempt_id();
    let claim = tools.cache.bench(&id).claim(&id, &format!("process {}", std::process::id()))?;
    let claim = claim.expect("nobody else knows a new place");
    let verified = compute(ready, tools, how, &claim, &id);
    claim.finish();
    match verified {
        Err(CacheError::Halted { .. }) => Ok(Verified::Interrupted),
        verified => verified,
    }
}

fn compute(
    ready: &Ready<'_>,
    tools: &Tools<'_>,
    how: &Verification<'_>,
    claim: &Claim,
    id: &str,
) -> Result<Verified, CacheError> {
    let loans = match Loans::of(&ready.objects, tools.cache) {
        Ok(loans) => loans,
        Err(flawed) => {
            let what = format!("{} in the cache", flawed.damage.word());
            return Ok(Verified::Unchecked(Unchecked::Input { port: flawed.port, what }));
        }
    };
    let job = job(ready, tools, claim, how)?;
    let gpus: Vec<String> = how.gpu.iter().filter(|_| job.device == Device::Cuda).cloned().collect();
    let launch = Launch {
        job: &job,
        root: tools.root,
        output: claim.folder().join(OUTPUT),
        lock: claim.lock(),
        timeout: None,
        gpus: &gpus,
    };
    let Fingerprint { kind, .. } = &ready.fingerprint;
    let hashed = ready.fingerprint.hashed();
    let mut again = Execution::begun(id, ready.key, hashed, kind, &ready.stage.stage, RunId(0));
    let mut failure = None;
    let memory = OutOfMemory::watch();
    let finished = tools.executor.execute(&launch, tools.stop, &mut |event| {
        note(&mut again, &event, &mut Log::default(), &mut failure);
    });
    let written = loans.written(tools.cache)?;
    if !written.is_empty() {
        let written: Vec<String> = written.into_iter().map(|port| format!("`{port}`")).collect();
        return Ok(Verified::Failed(loans::told(&written)));
    }
    match finished {
        Err(ref err @ (ExecError::Io { .. } | ExecError::Unfit { .. })) => {
            return Ok(Verified::Failed(told_error(err)));
        }
        Ok(finished) if finished.exit != Exit::Code(0) => {
            return Ok(match exit_failure(finished.exit, failure, &memory) {
                Ending::Failed { error, .. } => Verified::Failed(error),
                _ => Verified::Interrupted,
            });
        }
        Ok(_) => {}
    }
    if let Some((port, ..)) = ready.outside.iter().find(|(_, outside, _)| outside.has_changed()) {
        let what = "changed while the stage ran".to_owned();
        return Ok(Verified::Unchecked(Unchecked::Input { port: port.clone(), what }));
    }
    let mut found = Vec::new();
    for output in &ready.origin.outputs {
        found.extend(outcome_of(output, &job.outputs[&output.port], tools, how, &claim.folder())?);
    }
    let stored = tools.cache.execution(ready.key).filter(|stored| stored.id == ready.origin.id);
    found.extend(metrics(ready.origin, stored.as_ref(), &again.metrics, how.tolerance));
    Ok(verdict(found))
}

/// What differences mean, of which those within the tolerance have no detail.
pub(super) fn verdict(found: Vec<Difference>) -> Verified {
    let (within, different): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|difference| difference.detail.is_empty());
    let largest = within.iter().filter_map(|difference| difference.largest).reduce(f64::max);
    match (different.is_empty(), largest) {
        (true, None) => Verified::Identical,
        (true, Some(largest)) => Verified::Within(largest),
        (false, _) => Verified::Different(different),
    }
}

fn job(
    ready: &Ready<'_>,
    tools: &Tools<'_>,
    claim: &Claim,
    how: &Verification<'_>,
) -> Result<Job, CacheError> {
    let mut inputs = ready.inputs.clone();
    for (port, outside, _) in &ready.outside {
        inputs.insert(port.clone(), claim.input(port, outside)?);
    }
    for port in &ready.folders {
        inputs.insert(port.clone(), claim.folder_input(port, &inputs[port], &tools.stop.halt())?);
    }
    let outputs = ready.origin.outputs.iter();
    Ok(Job {
        stage: ready.stage.stage.clone(),
        key: ready.key.to_string(),
        kind: ready.fingerprint.kind.clone(),
        version: ready.fingerprint.version,
        params: ready.stage.params.clone(),
        seed: ready.fingerprint.seed.unwrap_or(0),
        inputs,
        outputs: outputs.map(|output| (output.port.clone(), claim.outputs().join(&output.port))).collect(),
        events: claim.folder().join(EVENTS),
        checkpoint: claim.checkpoint(),
        device: ready.device(how),
        threads: how.threads,
    })
}

/// How an output differs from the recorded one, if it does; within the tolerance without a detail.
pub(super) fn outcome_of(
    recorded: &Artifact,
    now: &Path,
    tools: &Tools<'_>,
    how: &Verification<'_>,
    scratch: &Path,
) -> Result<Option<Difference>, CacheError> {
    if tools.cache.digest(now)? == recorded.digest {
        return Ok(None);
    }
    let (detail, largest) = match recorded_bytes(recorded, tools, how, scratch)? {
        None => ("other bytes; the recorded ones are no longer in the cache".to_owned(), None),
        Some(before) => match compared(recorded.port_type, &before, now, how.tolerance, scratch) {
            Ok(Comparison::Identical) => return Ok(None),
            Ok(Comparison::Within { largest }) => (String::new(), Some(largest)),
            Ok(Comparison::Different { place, largest }) => (place, largest),
            Err(source) => return Err(CacheError::Io { what: "read", path: now.to_owned(), source }),
        },
    };
    Ok(Some(Difference { subject: Subject::Output(recorded.port.clone()), detail, largest }))
}

fn compared(
    port_type: PortType,
    before: &Path,
    now: &Path,
    tolerance: f64,
    scratch: &Path,
) -> io::Result<Comparison> {
    match port_type {
        PortType::Folder => folder::compare(before, now, tolerance, scratch),
        _ => compare(before, now, tolerance),
    }
}

/// A file with the recorded bytes, if they are still somewhere.
fn recorded_bytes(
    recorded: &Artifact,
    tools: &Tools<'_>,
    how: &Verification<'_>,
    scratch: &Path,
) -> Result<Option<PathBuf>, CacheError> {
    if tools.cache.flaw(recorded.digest).is_none() {
        return Ok(Some(tools.cache.object(recorded.digest)));
    }
    let Some(bytes) = (how.kept)(recorded.digest) else { return Ok(None) };
    let path = scratch.join(format!("recorded-{}", recorded.port));
    match fs::write(&path, bytes) {
        Ok(()) => Ok(Some(path)),
        Err(source) => Err(CacheError::Io { what: "write", path, source }),
    }
}

/// Metrics that differ: final ones as `runs.db` has them, and values at steps where the cache does.
pub(super) fn metrics(
    origin: &Origin,
    stored: Option<&Execution>,
    again: &[Metric],
    tolerance: f64,
) -> Vec<Difference> {
    let finals: BTreeMap<(String, Option<u64>), Option<f64>> =
        origin.metrics.iter().map(|(name, value)| ((name.clone(), None), *value)).collect();
    let mut before = finals;
    let of = |metrics: &[Metric]| -> BTreeMap<(String, Option<u64>), Option<f64>> {
        metrics.iter().map(|metric| ((metric.name.clone(), metric.step), metric.value)).collect()
    };
    let now = of(again);
    // A training that went on from a checkpoint has not all its steps in one record.
    let steps = stored.map(|stored| of(&stored.metrics)).unwrap_or_default();
    before.extend(steps.into_iter().filter(|(at, _)| at.1.is_some() && now.contains_key(at)));
    let mut named = BTreeSet::new();
    let mut found = Vec::new();
    let places: BTreeSet<_> = before.keys().chain(now.keys().filter(|(_, step)| step.is_none())).collect();
    for at @ (name, step) in places {
        let (old, new) = (before.get(at), now.get(at));
        if old == new {
            continue;
        }
        let apart = match (old, new) {
            (Some(Some(old)), Some(Some(new))) => Some(deviation(*old, *new)),
            _ => None,
        };
        let is_within = apart.is_some_and(|apart| apart <= tolerance && tolerance > 0.0);
        if !is_within && !named.insert(name) {
            continue;
        }
        let word = |value: Option<&Option<f64>>| match value {
            None => "none".to_owned(),
            Some(None) => "undefined".to_owned(),
            Some(Some(value)) => value.to_string(),
        };
        let at_step = step.map(|step| format!("step {step}: ")).unwrap_or_default();
        let detail =
            if is_within { String::new() } else { format!("{at_step}{} → {}", word(old), word(new)) };
        found.push(Difference { subject: Subject::Metric(name.clone()), detail, largest: apart });
    }
    found
}
