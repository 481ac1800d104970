//! The trained models of a run, as its record names them.

use pipe_stages::{
    contract::PortType,
    gpt2::{Activation, transformers::Base},
};
use serde_json::Value;

use crate::{
    digest::Digest,
    fingerprint::Fingerprint,
    runs::{LoadedRun, LoadedStage},
};

/// A model that a stage of a run trained, and what it was trained from.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained<'a> {
    /// The stage's name in the run.
    pub stage: &'a str,
    /// What training changed or added.
    pub model: Digest,
    /// The weights it started from.
    pub weights: Digest,
    /// Whether a stage of the run made them; a file from outside is not in the cache.
    pub weights_are_kept: bool,
    /// The states it was trained on.
    pub hidden: Digest,
    /// The form of GELU, where the run tells it; the states always do.
    pub activation: Option<Activation>,
    /// Share of the input of LoRA's additions that was dropped in training.
    pub lora_dropout: f64,
    /// Where `transformers` finds the same weights, if they were fetched from huggingface.co.
    pub published: Option<Base>,
}

/// The models that the stages of `run` trained, in its order.
pub fn trained(run: &LoadedRun) -> Vec<Trained<'_>> {
    run.stages.iter().filter_map(|stage| of_stage(run, stage)).collect()
}

fn of_stage<'a>(run: &'a LoadedRun, stage: &'a LoadedStage) -> Option<Trained<'a>> {
    let outputs = &stage.execution.as_ref()?.outputs;
    let model = outputs.iter().find(|output| output.port_type == PortType::Model)?.digest;
    let (weights, hidden) = (input(stage, "weights")?, input(stage, "hidden")?);
    let encoded = maker(run, hidden).and_then(|encode| encode.params.get("activation"));
    Some(Trained {
        stage: &stage.stage,
        model,
        weights,
        weights_are_kept: maker(run, weights).is_some(),
        hidden,
        activation: encoded.and_then(Value::as_str).and_then(|word| word.parse().ok()),
        lora_dropout: stage.params.get("lora_dropout").and_then(Value::as_f64).unwrap_or_default(),
        published: published(run, weights),
    })
}

/// The repository and commit that `weights` were fetched from.
///
/// Weights that were given a number of heads are not taken for the published ones: it is in no file.
fn published(run: &LoadedRun, weights: Digest) -> Option<Base> {
    let gpt2 = maker(run, weights)?;
    if gpt2.params.get("n_head").is_some_and(|heads| !heads.is_null()) {
        return None;
    }
    let fetched = maker(run, input(gpt2, "file")?)?;
    let url = fetched.params.get("url")?.as_str()?;
    let (name, rest) = url.strip_prefix("https://huggingface.co/")?.split_once("/resolve/")?;
    let (revision, file) = rest.split_once('/')?;
    (file == "model.safetensors").then(|| Base { name: name.to_owned(), revision: Some(revision.to_owned()) })
}

/// The stage of `run` that wrote these bytes.
fn maker(run: &LoadedRun, digest: Digest) -> Option<&LoadedStage> {
    run.stages.iter().find(|stage| {
        let outputs = stage.execution.iter().flat_map(|made| &made.outputs);
        outputs.into_iter().any(|output| output.digest == digest)
    })
}

/// The bytes that `stage` was given at `port`.
fn input(stage: &LoadedStage, port: &str) -> Option<Digest> {
    let hashed = &stage.execution.as_ref()?.hashed;
    let fingerprint: Fingerprint = serde_json::from_value(hashed.clone()).ok()?;
    fingerprint.inputs.get(port).copied()
}
