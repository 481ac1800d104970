//! Kind `classify`: what a trained model says of each review.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{device::Device, last_states::predict};
use crate::{
    contract::{MetricDoc, PortType, Ports, Stage, StageCx, StageError},
    data::{Hidden, write_predictions},
    gpt2::{ModelFile, Precision, Weights},
};

/// Predicts reviews with a trained model.
pub struct Classify;

/// Parameters of `classify`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// To what the factors of products with the matrices of blocks are rounded: `f32` (not at all), `f16` or
    /// `bf16`; sums are f32, and so is everything else. The same on every device, and many times as
    /// fast on a GPU; on a processor `bf16` is faster where docs/gpus.md says so.
    pub precision: Precision,
}

impl Stage for Classify {
    type Params = Params;
    const KIND: &'static str = "classify";
    const SUMMARY: &'static str = "Predicts reviews with a trained model";
    const VERSION: u32 = 1;
    const RUNS_MODEL: bool = true;

    fn ports(_: &Params) -> Ports {
        Ports::new()
            .input(
                "hidden",
                PortType::Hidden,
                "the states of the prompts after the blocks that were not trained",
            )
            .input("weights", PortType::Weights, "the model that training started from")
            .input("model", PortType::Model, "what training changed")
            .output("predictions", PortType::Predictions, "score: the head's logit as a probability")
    }

    fn metrics() -> &'static [MetricDoc] {
        super::last_states::METRICS
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let weights = Weights::open(cx.input("weights"))?;
        let hidden = Hidden::open(cx.input("hidden"))?;
        let model = ModelFile::read(cx.input("model"), weights.config())?;
        let of_head = |name| model.tensor(name).expect("a model that was read has a head");
        let (weight, bias) = (of_head("head.weight"), of_head("head.bias")[0]);
        let device = Device::open(cx, params.precision)?;
        let predictions = device.run(|| {
            predict(cx, &device, &hidden, &weights, Some(&model), |forward, last| {
                let logits = forward.head(weight, bias, last);
                logits
                    .into_iter()
                    .map(|logit| {
                        let score = 1.0 / (1.0 + (-f64::from(logit)).exp());
                        (score, score >= 0.5)
                    })
                    .collect()
            })
        })?;
        write_predictions(cx.output("predictions"), &predictions)
    }
}
