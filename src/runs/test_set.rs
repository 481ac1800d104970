//! Why two runs were tested on different items: the input or parameter that differs.

use std::collections::BTreeMap;

use pipe_stages::contract::PortType;
use serde_json::Value;

use super::{LoadedRun, LoadedStage, differences::source, methods::input_digests};
use crate::{fingerprint::leaves, names::split_stage};

/// A stage in its run.
type Here<'a> = (&'a LoadedRun, &'a LoadedStage);

/// What makes the items of `a` and `b` differ, as far up as it can be followed; `port` is where to
/// look first, else every input that carries items.
pub(super) fn what_differs(a: Here<'_>, b: Here<'_>, port: Option<&str>) -> Option<String> {
    let (inputs_a, inputs_b) = (inputs(a.1), inputs(b.1));
    let wanted = port.filter(|port| inputs_a.contains_key(port));
    let ports = inputs_a.keys().filter(|name| match wanted {
        Some(port) => **name == port,
        None => carries_items(a.1, name),
    });
    for port in ports {
        if inputs_a.get(port) == inputs_b.get(port) {
            continue;
        }
        let here = format!("{}.{port}", a.1.stage);
        let (source_a, source_b) = (source(a.0, a.1, port)?, source(b.0, b.1, port)?);
        let (Value::String(from_a), Value::String(from_b)) = (source_a, source_b) else {
            let path = source_a.as_object().and_then(|map| map.values().next()).and_then(Value::as_str);
            let path = path.map(|path| format!(" (`{path}`)")).unwrap_or_default();
            return Some(format!("the input `{here}`{path} has other contents"));
        };
        let above = maker(a.0, from_a).zip(maker(b.0, from_b));
        let Some((maker_a, maker_b)) = above else {
            return Some(format!("the input `{here}` is {from_a} in one and {from_b} in the other"));
        };
        if let Some(further) = what_differs((a.0, maker_a), (b.0, maker_b), None) {
            return Some(further);
        }
    }
    own_difference(a.1, b.1)
}

/// What `a` and `b` were told differently.
fn own_difference(a: &LoadedStage, b: &LoadedStage) -> Option<String> {
    if a.kind != b.kind {
        return Some(format!("stage `{}` is of kind {} in one and {} in the other", a.stage, a.kind, b.kind));
    }
    let (before, after) = (leaves(&a.params), leaves(&b.params));
    let changed = before.keys().chain(after.keys()).find(|path| before.get(*path) != after.get(*path));
    if let Some(path) = changed {
        let value = |params: &BTreeMap<String, Value>| {
            params.get(path).map_or_else(|| "absent".to_owned(), Value::to_string)
        };
        let (old, new) = (value(&before), value(&after));
        return Some(format!("`{}.{path}` is {old} in one and {new} in the other", a.stage));
    }
    if a.seed != b.seed {
        return Some(format!("the seed of `{}` differs", a.stage));
    }
    (a.kind_version != b.kind_version).then(|| format!("kind `{}` has another version", a.kind))
}

fn inputs(stage: &LoadedStage) -> BTreeMap<&str, crate::digest::Digest> {
    stage.execution.as_ref().map(|execution| input_digests(&execution.hashed)).unwrap_or_default()
}

/// The stage whose output `source` (`stage` or `stage.port`) is.
fn maker<'a>(run: &'a LoadedRun, source: &str) -> Option<&'a LoadedStage> {
    let name = split_stage(source).0;
    run.stages.iter().find(|stage| stage.stage == name)
}

/// Whether the items of a test set come in at `port`: models and weights are none.
fn carries_items(stage: &LoadedStage, port: &str) -> bool {
    let kind = pipe_stages::kinds().iter().find(|kind| kind.name == stage.kind);
    let ports = kind.and_then(|kind| kind.resolve(stage.params.clone()).ok()).map(|found| found.ports);
    let port_type = ports.and_then(|ports| ports.input_type(port));
    !matches!(port_type, Some(PortType::Model | PortType::Weights))
}
