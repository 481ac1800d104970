//! From a stage and the contents of its inputs to its key, and what the cache says of it.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use pipe_stages::{
    contract::{PortType, Stage},
    kinds::shell::Shell,
};
use serde_json::Value;

use super::{Earlier, Explainer, Request, Tools};
use crate::{
    cache::{CacheError, Lookup, Outside},
    digest::{ActionKey, Digest},
    fingerprint::{Fingerprint, action_key, changes},
    pipeline::{Source, StageSpec},
    record::{Artifact, Reason},
};

/// The outputs of stages whose results are known.
pub(super) type Known = HashMap<String, Vec<Artifact>>;

/// A stage whose inputs are known.
#[derive(Debug)]
pub(super) struct Decided {
    /// The JSON that was hashed.
    pub hashed: String,
    /// Its key.
    pub key: ActionKey,
    /// Where the bytes of every input lie.
    pub inputs: BTreeMap<String, PathBuf>,
    /// Inputs that stages wrote, by what their bytes are.
    pub objects: Vec<(String, Digest)>,
    /// Those of them that are packed folders.
    pub folders: Vec<String>,
    /// Inputs that no stage wrote, to be looked at again once the stage has run.
    pub outside: Vec<(String, Outside)>,
}

/// Whether a stage has to run.
#[derive(Debug)]
pub(super) enum Decision {
    /// It need not: there is this result.
    Cached(crate::cache::Hit),
    /// It has to, for these reasons.
    Run(Vec<Reason>),
}

/// Hashes the inputs of `spec` and looks its key up. `known` holds every stage it takes from.
pub(super) fn decide(
    request: &Request<'_>,
    tools: &Tools<'_>,
    explainer: &Explainer<'_>,
    spec: &StageSpec,
    known: &Known,
) -> Result<(Decided, Decision), CacheError> {
    let mut digests = BTreeMap::new();
    let mut inputs = BTreeMap::new();
    let (mut objects, mut folders, mut outside) = (Vec::new(), Vec::new(), Vec::new());
    for (port, source) in &spec.inputs {
        let (digest, path) = match source {
            Source::Output { stage, port: from } => {
                let output =
                    output(known, stage, from).expect("a stage is decided once its inputs are known");
                objects.push((port.clone(), output.digest));
                if output.port_type == PortType::Folder {
                    folders.push(port.clone());
                }
                (output.digest, tools.cache.object(output.digest))
            }
            other => {
                let found = look_outside(tools, other)?;
                let place = (found.digest, found.path.clone());
                outside.push((port.clone(), found));
                place
            }
        };
        digests.insert(port.clone(), digest);
        inputs.insert(port.clone(), path);
    }
    let fingerprint = fingerprint(spec, digests);
    let hashed = fingerprint.hashed();
    let key = action_key(&hashed);
    let decision = match tools.cache.get(key)? {
        _ if request.forces(&spec.name) => Decision::Run(vec![Reason::Forced]),
        Lookup::Hit(mut hit) => {
            hit.run = (explainer.computed_in)(key, &hit);
            Decision::Cached(hit)
        }
        Lookup::Lost(what) => Decision::Run(vec![Reason::ResultLost { what }]),
        Lookup::Miss => match (explainer.previous)(spec) {
            None => Decision::Run(vec![Reason::NeverRun]),
            Some(old) => {
                let mut reasons = changed(request, tools, spec, &old, &fingerprint, &outside);
                if reasons.is_empty() {
                    reasons.push(Reason::ResultLost { what: "it is no longer in the cache".into() });
                }
                Decision::Run(reasons)
            }
        },
    };
    Ok((Decided { hashed, key, inputs, objects, folders, outside }, decision))
}

/// The reasons that can be given for `spec` while stages it takes from have yet to run.
pub(super) fn explain_pending(
    request: &Request<'_>,
    tools: &Tools<'_>,
    explainer: &Explainer<'_>,
    spec: &StageSpec,
    known: &Known,
    pending: Vec<String>,
) -> Vec<Reason> {
    if request.forces(&spec.name) {
        return vec![Reason::Forced];
    }
    let mut reasons = vec![Reason::NeverRun];
    if let Some(old) = (explainer.previous)(spec) {
        // What is not known yet counts as unchanged, so that only what is certain is told.
        let mut inputs = BTreeMap::new();
        let mut outside = Vec::new();
        for (port, source) in &spec.inputs {
            let now = match source {
                Source::Output { stage, port } => output(known, stage, port).map(|output| output.digest),
                other => look_outside(tools, other).ok().map(|found| {
                    let digest = found.digest;
                    outside.push((port.clone(), found));
                    digest
                }),
            };
            if let Some(digest) = now.or_else(|| old.fingerprint.inputs.get(port).copied()) {
                inputs.insert(port.clone(), digest);
            }
        }
        reasons = changed(request, tools, spec, &old, &fingerprint(spec, inputs), &outside);
    }
    reasons.push(Reason::Upstream { stages: pending });
    reasons
}

/// What `stage` wrote to `port`, if that is known.
fn output<'a>(known: &'a Known, stage: &str, port: &str) -> Option<&'a Artifact> {
    known.get(stage)?.iter().find(|artifact| artifact.port == port)
}

fn fingerprint(spec: &StageSpec, inputs: BTreeMap<String, Digest>) -> Fingerprint {
    Fingerprint {
        kind: spec.kind.name.to_owned(),
        version: spec.kind.version,
        with: spec.hashed.clone(),
        inputs,
        seed: spec.seed,
    }
}

/// What is different from an earlier result, with places, runs and names of files.
fn changed(
    request: &Request<'_>,
    tools: &Tools<'_>,
    spec: &StageSpec,
    old: &Earlier,
    new: &Fingerprint,
    outside: &[(String, Outside)],
) -> Vec<Reason> {
    let places = &request.pipeline.places;
    let run = Some(old.run);
    let mut reasons = changes(&old.fingerprint, new);
    for reason in &mut reasons {
        match reason {
            Reason::Parameter { path, old, new, place, since } => {
                let variable = path.strip_prefix("env.").filter(|_| spec.kind.name == Shell::KIND);
                if let Some(variable) = variable {
                    let text = |value: &Option<Value>| value.as_ref()?.as_str().map(str::to_owned);
                    *reason = Reason::Environment {
                        variable: variable.to_owned(),
                        old: text(old),
                        new: text(new),
                        declared: (old.is_some() != new.is_some()).then_some(new.is_some()),
                        place: places.param(&spec.name, "env"),
                        since: run,
                    };
                } else {
                    *place = places.param(&spec.name, path);
                    *since = run;
                }
            }
            Reason::Input { port, from, old, files, since, .. } => {
                *from = spec.inputs.get(port).map(ToString::to_string).unwrap_or_default();
                let found = outside.iter().find(|(outside, _)| outside == port);
                *files = found.zip(*old).and_then(|((_, now), old)| tools.cache.file_changes(old, now));
                *since = run;
            }
            Reason::Seed { place, since, .. } => {
                *place = places.seed(&spec.name);
                *since = run;
            }
            Reason::Version { since, .. } | Reason::Kind { since, .. } => *since = run,
            _ => {}
        }
    }
    reasons
}

/// Looks at an input that no stage wrote.
pub(super) fn look_outside(tools: &Tools<'_>, source: &Source) -> Result<Outside, CacheError> {
    match source {
        Source::File(path) => tools.cache.file(tools.root, path),
        Source::Dir(path) => tools.cache.folder(tools.root, path),
        Source::Glob(pattern) => tools.cache.glob(tools.root, pattern),
        Source::Output { .. } => unreachable!("outputs of stages are not outside"),
    }
}
