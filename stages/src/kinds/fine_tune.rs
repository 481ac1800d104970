//! Kind `fine_tune`: trains the last blocks, the final norm and a head.

use super::training::{self, training_params};
use crate::{
    contract::{MetricDoc, ParamProblem, Ports, Stage, StageCx, StageError},
    gpt2::Method,
};

/// Trains the last blocks of GPT-2 and a classifying head.
pub struct FineTune;

training_params! {
    /// Parameters of `fine_tune`; the defaults are the published run's.
    pub struct Params {
        lora_dropout: |_| 0.0,
    }
}

impl Stage for FineTune {
    type Params = Params;
    const KIND: &'static str = "fine_tune";
    const SUMMARY: &'static str = "Trains the last blocks of GPT-2, its final norm and a classifying head";
    const VERSION: u32 = 1;
    const DRAWS: bool = true;
    const RUNS_MODEL: bool = true;

    fn ports(_: &Params) -> Ports {
        training::ports()
    }

    fn check(params: &Params) -> Vec<ParamProblem> {
        params.shared().check()
    }

    fn metrics() -> &'static [MetricDoc] {
        training::METRICS
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        training::run(cx, &Method::FineTune, &params.shared())
    }
}
