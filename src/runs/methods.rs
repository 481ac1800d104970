//! The predictions that a run made and measured.

use std::collections::BTreeMap;

use pipe_stages::contract::{InputName, PortType};
use serde_json::Value;

use super::{LoadedRun, LoadedStage};
use crate::digest::Digest;

/// What one method said of every item of a test set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Method {
    /// What the run calls it: an input of `evaluate`, or an output of the stage that predicts.
    pub name: String,
    /// The hash of the predictions (CSV).
    pub predictions: Digest,
    /// The score that counts as positive, where `evaluate` was told one.
    pub threshold: Option<f64>,
}

/// The kind that measures predictions.
const EVALUATE: &str = "evaluate";

/// The methods that `stage` measured, or else made, in the order of its tables.
///
/// `taken` says which predictions a stage of kind `evaluate` measures: they count there.
pub(super) fn methods(stage: &LoadedStage, taken: &dyn Fn(Digest) -> bool) -> Vec<Method> {
    let Some(execution) = &stage.execution else { return Vec::new() };
    if stage.kind != EVALUATE {
        let made = execution.outputs.iter().filter(|output| output.port_type == PortType::Predictions);
        let own = made.filter(|output| !taken(output.digest));
        return own
            .map(|output| Method { name: output.port.clone(), predictions: output.digest, threshold: None })
            .collect();
    }
    let threshold = stage.params.get("threshold").and_then(Value::as_f64);
    in_order(&execution.hashed, &stage.params)
        .into_iter()
        .map(|(name, predictions)| Method { name: name.to_owned(), predictions, threshold })
        .collect()
}

/// The inputs of an execution of `evaluate`, in the order of its tables.
fn in_order<'a>(hashed: &'a Value, params: &Value) -> Vec<(&'a str, Digest)> {
    let named = params.get("order").and_then(Value::as_array).into_iter().flatten();
    let order: Vec<&str> = named.filter_map(Value::as_str).collect();
    let mut inputs: Vec<_> = input_digests(hashed).into_iter().collect();
    inputs.sort_by_key(|(name, _)| InputName::of(name).place(&order));
    inputs
}

/// Whether a stage of `run` measures these predictions.
pub(super) fn is_measured(run: &LoadedRun, predictions: Digest) -> bool {
    let stages = run.stages.iter().filter(|stage| stage.kind == EVALUATE);
    let executions = stages.filter_map(|stage| stage.execution.as_ref());
    executions
        .into_iter()
        .any(|made| input_digests(&made.hashed).values().any(|digest| *digest == predictions))
}

/// The contents of inputs, from the JSON of a [`crate::fingerprint::Fingerprint`].
pub(super) fn input_digests(hashed: &Value) -> BTreeMap<&str, Digest> {
    let inputs = hashed.get("in").and_then(Value::as_object).into_iter().flatten();
    inputs.filter_map(|(port, digest)| Some((port.as_str(), digest.as_str()?.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn methods_are_in_the_order_of_the_tables() {
        let digest = "0".repeat(64);
        let names = ["a", "lora[rank=16]", "lora[rank=4]", "lora[rank=8]", "zero_shot"];
        let inputs: BTreeMap<_, _> = names.iter().map(|name| (name, &digest)).collect();
        let hashed = json!({ "in": inputs });
        let names =
            |params: Value| in_order(&hashed, &params).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(json!({})), ["a", "lora[rank=4]", "lora[rank=8]", "lora[rank=16]", "zero_shot"]);
        assert_eq!(
            names(json!({ "order": ["zero_shot", "lora[rank=8]", "lora"] })),
            ["zero_shot", "lora[rank=8]", "lora[rank=4]", "lora[rank=16]", "a"]
        );
    }
}
