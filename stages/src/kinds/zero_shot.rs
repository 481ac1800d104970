//! Kind `zero_shot`: which of two words GPT-2 would rather say next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tiktoken_rs::r50k_base_singleton;

use super::{device::Device, last_states::predict};
use crate::{
    contract::{MetricDoc, ParamProblem, PortType, Ports, Stage, StageCx, StageError},
    data::{Hidden, write_predictions},
    gpt2::{Precision, Weights},
};

/// Asks GPT-2 for the next token: the positive or the negative word.
pub struct ZeroShot;

/// Parameters of `zero_shot`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// The word whose likelihood speaks for positive, exactly one token of GPT-2's vocabulary. A
    /// space before it is part of the token.
    pub positive: String,
    /// The word whose likelihood speaks for negative, exactly one token of GPT-2's vocabulary.
    pub negative: String,
    /// To what the factors of products with frozen matrices are rounded: `f32` (not at all), `f16` or
    /// `bf16`; sums are f32, and so is everything else. The same on every device, and many times as
    /// fast on a GPU; on a processor `bf16` is faster where docs/gpus.md says so.
    pub precision: Precision,
}

impl Default for Params {
    fn default() -> Self {
        Self { positive: " Positive".into(), negative: " Negative".into(), precision: Precision::default() }
    }
}

impl Stage for ZeroShot {
    type Params = Params;
    const KIND: &'static str = "zero_shot";
    const SUMMARY: &'static str = "Asks GPT-2 for the next token: the positive or the negative word";
    const VERSION: u32 = 1;
    const RUNS_MODEL: bool = true;

    fn ports(_: &Params) -> Ports {
        Ports::new()
            .input("hidden", PortType::Hidden, "the states of the prompts after some blocks")
            .input("weights", PortType::Weights, "the model they were computed with")
            .output("predictions", PortType::Predictions, "score: softmax over the two words alone")
    }

    fn check(params: &Params) -> Vec<ParamProblem> {
        let words = [("positive", &params.positive), ("negative", &params.negative)];
        let mut problems: Vec<_> = words
            .into_iter()
            .filter_map(|(name, word)| {
                let help = "compare single tokens: with its space, or the first token of a longer word";
                Some(ParamProblem::new(name, token(word).err()?).help(help))
            })
            .collect();
        if params.positive == params.negative {
            problems.push(ParamProblem::new("negative", "both words are the same"));
        }
        problems
    }

    fn metrics() -> &'static [MetricDoc] {
        super::last_states::METRICS
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let weights = Weights::open(cx.input("weights"))?;
        let hidden = Hidden::open(cx.input("hidden"))?;
        let mut tokens = [0; 2];
        for (place, word) in tokens.iter_mut().zip([&params.positive, &params.negative]) {
            *place = token(word).map_err(StageError::new)?;
            let vocab_size = weights.config().vocab_size;
            if *place as usize >= vocab_size {
                let message =
                    format!("`{word}` is token {place}, past the {vocab_size} tokens of these weights");
                return Err(
                    StageError::new(message).help("use weights of GPT-2's whole vocabulary, 50257 tokens")
                );
            }
        }
        let device = Device::open(cx, params.precision)?;
        let predictions = device.run(|| {
            predict(cx, &device, &hidden, &weights, None, |forward, last| {
                let logits = forward.logits(&weights, last, &tokens);
                let (pairs, _) = logits.as_chunks();
                pairs
                    .iter()
                    .map(|[positive, negative]| {
                        let score = 1.0 / (1.0 + (f64::from(*negative) - f64::from(*positive)).exp());
                        (score, positive > negative)
                    })
                    .collect()
            })
        })?;
        write_predictions(cx.output("predictions"), &predictions)
    }
}

/// The one token that `word` is, or why it is none.
fn token(word: &str) -> Result<u32, String> {
    let tokenizer = r50k_base_singleton();
    match tokenizer.encode_ordinary(word).as_slice() {
        [token] => Ok(*token),
        [] => Err("a label word cannot be empty".into()),
        tokens => {
            let parts: Vec<_> = tokens
                .iter()
                .map(|token| match tokenizer.decode_bytes(&[*token]) {
                    Ok(bytes) => format!("`{}` ({token})", String::from_utf8_lossy(&bytes)),
                    Err(_) => token.to_string(),
                })
                .collect();
            Err(format!("`{word}` is {} tokens, not one: {}", tokens.len(), parts.join(", ")))
        }
    }
}
