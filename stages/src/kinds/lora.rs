//! Kind `lora`: trains low-rank additions to the projections of attention, and a head.

use super::training::{self, training_params};
use crate::{
    contract::{MetricDoc, ParamProblem, Ports, Stage, StageCx, StageError},
    gpt2::{LoraTarget, Method},
};

/// Trains low-rank additions and a classifying head.
pub struct Lora;

training_params! {
    /// Parameters of `lora`; the defaults are the published run's.
    pub struct Params {
        lora_dropout: |params| params.lora_dropout,
        /// Columns of A and rows of B, at least 1.
        pub rank: usize = 8,
        /// The addition is `alpha / rank · A·B`; above 0.
        pub alpha: f64 = 1.0,
        /// Which projections of attention get an addition, some of `q`, `k`, `v`, `o`.
        pub targets: Vec<LoraTarget> = vec![LoraTarget::Q, LoraTarget::V],
        /// Share of an addition's input dropped, from 0 to below 1; beside `dropout`.
        pub lora_dropout: f64 = 0.0,
    }
}

impl Stage for Lora {
    type Params = Params;
    const KIND: &'static str = "lora";
    const SUMMARY: &'static str =
        "Trains low-rank additions to the last blocks of GPT-2 and a classifying head";
    const VERSION: u32 = 1;
    const DRAWS: bool = true;
    const RUNS_MODEL: bool = true;

    fn ports(_: &Params) -> Ports {
        training::ports()
    }

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = params.shared().check();
        let Params { rank, alpha, targets, lora_dropout, .. } = params;
        if *rank == 0 {
            problems.push(ParamProblem::new("rank", "`rank` must be at least 1"));
        }
        if !(*alpha > 0.0 && alpha.is_finite()) {
            problems.push(ParamProblem::new("alpha", format!("`alpha` must be above 0, not {alpha}")));
        }
        if targets.is_empty() {
            let problem = ParamProblem::new("targets", "`targets` must name at least one projection");
            problems.push(problem.help("some of q, k, v, o"));
        }
        for (i, target) in targets.iter().enumerate() {
            if targets[..i].contains(target) {
                let message = format!("the target `{}` is named twice", target.letter());
                problems.push(ParamProblem::new(&format!("targets.{i}"), message));
            }
        }
        if !(0.0..1.0).contains(lora_dropout) {
            let message =
                format!("`lora_dropout` must lie between 0 and 1, 1 excluded, not be {lora_dropout}");
            problems.push(ParamProblem::new("lora_dropout", message));
        }
        problems
    }

    /// The order in which `targets` are named decides nothing.
    fn hashed(params: &Params) -> serde_json::Value {
        serde_json::to_value(params.sorted()).expect("parameters serialize to JSON")
    }

    fn metrics() -> &'static [MetricDoc] {
        training::METRICS
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let Params { rank, alpha, targets, .. } = params.sorted();
        training::run(cx, &Method::Lora { rank, alpha, targets }, &params.shared())
    }
}

impl Params {
    /// The same with `targets` in their own order.
    fn sorted(&self) -> Self {
        let mut params = self.clone();
        params.targets.sort_unstable();
        params
    }
}
