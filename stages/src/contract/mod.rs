//! What a stage is, and all it may know: its parameters, its inputs, where to write.
//!
//! A kind of stage is a unit struct that implements [`Stage`] and one line in
//! [`crate::kinds()`]. From that one definition come the check of the YAML, the output of
//! `pipe stages KIND`, the JSON Schema, the key that decides a rerun, and the worker.
//!
//! Nothing here knows the scheduler: the package `pipe` depends on this one, never the
//! other way round.

mod context;
mod devices;
mod error;
mod event;
mod job;
mod kind;
mod port;
mod worker;

pub use context::StageCx;
pub use devices::{DEVICES, Gpu, Probe, ProbeFailure, ProbeFailureKind};
pub use error::StageError;
pub use event::{Event, read_events};
pub use job::{Device, Hello, Job, PROTOCOL};
pub use kind::{ParamProblem, Resolved, StageKind};
pub use port::{AxisValue, InputName, Inputs, Needed, Port, PortType, Ports};
pub use worker::worker;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A kind of stage: typed parameters, typed ports, and the code between them.
pub trait Stage: 'static {
    /// The parameters as the pipeline file writes them under `with`.
    ///
    /// Derive `Serialize`, `Deserialize` and `JsonSchema`, with
    /// `#[serde(deny_unknown_fields)]`; a field without a default is required. The doc
    /// comment of each field is what `pipe stages KIND` prints: unit, range, meaning.
    type Params: Serialize + DeserializeOwned + JsonSchema;

    /// The name that `kind:` takes in a pipeline file.
    const KIND: &'static str;
    /// One line on what the kind does.
    const SUMMARY: &'static str;
    /// Raise when the same inputs would give other bytes.
    const VERSION: u32;
    /// Whether the stage may draw random numbers.
    const DRAWS: bool = false;
    /// Whether the stage runs a model: it takes all cores, and a GPU where one is given.
    const RUNS_MODEL: bool = false;

    /// The inputs and outputs, which may depend on the parameters.
    fn ports(params: &Self::Params) -> Ports;

    /// Whether it draws with these parameters, so that its seed is part of the key.
    fn draws(_params: &Self::Params) -> bool {
        Self::DRAWS
    }

    /// Ranges and combinations that the types cannot express.
    fn check(_params: &Self::Params) -> Vec<ParamProblem> {
        Vec::new()
    }

    /// The parameters that decide the bytes written: all of them unless overridden.
    ///
    /// `fetch` leaves out its URL, since a mirror gives the same bytes.
    fn hashed(params: &Self::Params) -> Value {
        serde_json::to_value(params).expect("parameters serialize to JSON")
    }

    /// The metrics that the stage reports, with the direction that is better.
    fn metrics() -> &'static [MetricDoc] {
        &[]
    }

    /// Reads the inputs, writes every declared output, reports metrics.
    fn run(params: Self::Params, cx: &mut StageCx<'_>) -> Result<(), StageError>;
}

/// What a metric means and which way it should move.
#[derive(Debug, Clone, Copy)]
pub struct MetricDoc {
    /// Dotted name after the stage; a `*` segment stands for any one segment. Dots in brackets, as in
    /// `lora[lr=0.001].accuracy`, are of a segment.
    pub name: &'static str,
    /// Unit and meaning, one line.
    pub doc: &'static str,
    /// Which direction is an improvement, where there is one.
    pub better: Better,
}

/// The direction in which a metric improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Larger values are better.
    Higher,
    /// Smaller values are better.
    Lower,
    /// The metric describes; no direction is better.
    Neither,
}

impl MetricDoc {
    /// A metric whose larger values are better.
    pub const fn higher(name: &'static str, doc: &'static str) -> Self {
        Self { name, doc, better: Better::Higher }
    }
    /// A metric whose smaller values are better.
    pub const fn lower(name: &'static str, doc: &'static str) -> Self {
        Self { name, doc, better: Better::Lower }
    }
    /// A metric that describes and has no better direction.
    pub const fn neutral(name: &'static str, doc: &'static str) -> Self {
        Self { name, doc, better: Better::Neither }
    }
    /// Whether `name`, a dotted path without the stage, is this metric.
    pub fn matches(&self, name: &str) -> bool {
        let (mut wanted, mut given) = (self.name.split('.'), segments(name));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(w), Some(g)) if w == "*" || w == g => {}
                _ => return false,
            }
        }
    }
}

/// The parts of a dotted name; dots in brackets part nothing.
fn segments(name: &str) -> impl Iterator<Item = &str> {
    let mut is_in_brackets = false;
    name.split(move |letter| {
        match letter {
            '[' => is_in_brackets = true,
            ']' => is_in_brackets = false,
            _ => {}
        }
        letter == '.' && !is_in_brackets
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_in_brackets_part_no_segments() {
        let bin = MetricDoc::neutral("*.bin.*.tp", "");
        for name in ["lora.bin.0_256.tp", "lora[lr=0.001].bin.0_256.tp", "lora[lr=0.1,p=1.5].bin.x[a.b].tp"] {
            assert!(bin.matches(name), "{name}");
        }
        for name in ["lora[lr=0.001].tp", "lora.bin.0.256.tp", "lora[a].b.bin.0_256.tp", "lora[bin.0].tp"] {
            assert!(!bin.matches(name), "{name}");
        }
    }
}
