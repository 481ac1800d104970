//! Kind `encode`: what the frozen blocks make of each prompt, computed once for all that follows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    batches::{Batch, Pass, in_batches},
    device::Device,
    partial_states::PartialStates,
};
use crate::{
    contract::{MetricDoc, PortType, Ports, Stage, StageCx, StageError},
    data::{HiddenFormat, HiddenType, TokensFile},
    gpt2::{Activation, BlockWeights, Config, Encoded, Encoder, Failure, Forward, Precision, Weights, embed},
};

/// Applies the first blocks of GPT-2 to prompts.
pub struct Encode;

/// Parameters of `encode`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Blocks to apply, from 0 (the embeddings alone) to all that the weights have. The blocks
    /// after them are what a stage that follows can train.
    pub blocks: usize,
    /// How the states are stored: `f16` takes half the disk and fails on magnitudes past 65,504;
    /// `f32` keeps them as computed.
    pub dtype: HiddenType,
    /// The form of GELU, here and in the stages that follow: `gelu_new` (tanh, what GPT-2 was
    /// trained with) or `gelu` (erf).
    pub activation: Activation,
    /// To what the factors of products with frozen matrices are rounded: `f32` (not at all), `f16` or
    /// `bf16`; sums are f32, and so is everything else. The same on every device, and many times as
    /// fast on a GPU; on a processor `bf16` is faster where docs/gpus.md says so.
    pub precision: Precision,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            blocks: 10,
            dtype: HiddenType::default(),
            activation: Activation::default(),
            precision: Precision::default(),
        }
    }
}

impl Stage for Encode {
    type Params = Params;
    const KIND: &'static str = "encode";
    const SUMMARY: &'static str = "Applies the first blocks of GPT-2 to prompts";
    const VERSION: u32 = 1;
    const RUNS_MODEL: bool = true;

    fn ports(_: &Params) -> Ports {
        Ports::new()
            .input("tokens", PortType::Tokens, "the prompts")
            .input("weights", PortType::Weights, "the model")
            .output("hidden", PortType::Hidden, "the states of every position after the blocks")
    }

    fn metrics() -> &'static [MetricDoc] {
        const METRICS: &[MetricDoc] = &[
            MetricDoc::neutral("largest_magnitude", "largest magnitude in the states"),
            MetricDoc::neutral("tokens", "positions computed"),
            MetricDoc::neutral("reviews", "prompts"),
        ];
        METRICS
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let weights = Weights::open(cx.input("weights"))?;
        let tokens = TokensFile::open(cx.input("tokens"))?;
        check_fit(&params, &tokens, weights.config())?;
        let device = Device::open(cx, params.precision)?;
        device.run(|| encode(&params, cx, &device, &tokens, &weights))
    }
}

/// Whether the model can take these prompts; every kind of problem is named with its first review.
fn check_fit(params: &Params, tokens: &TokensFile, config: &Config) -> Result<(), StageError> {
    let Config { n_layer, block_size, vocab_size, .. } = *config;
    if params.blocks > n_layer {
        let message = format!("`blocks` is {}, but these weights have {n_layer} blocks", params.blocks);
        return Err(StageError::new(message).help(format!("set `blocks` to at most {n_layer}")));
    }
    let mut problems = Vec::new();
    let mut note = |what: String, reviews: Vec<usize>| {
        if let [first, others @ ..] = reviews.as_slice() {
            let also =
                if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
            problems.push(format!("the prompt of review `{}`{also} {what}", tokens.rows.ids[*first]));
        }
    };
    let rows_where = |is_wrong: &dyn Fn(&[u32]) -> bool| -> Vec<usize> {
        (0..tokens.rows.len()).filter(|row| is_wrong(tokens.row(*row))).collect()
    };
    note("is empty".into(), rows_where(&|row| row.is_empty()));
    note(
        format!("is longer than the {block_size} positions of these weights"),
        rows_where(&|row| row.len() > block_size),
    );
    note(
        format!("has a token past the vocabulary of these weights, which is {vocab_size} tokens"),
        rows_where(&|row| row.iter().any(|token| *token as usize >= vocab_size)),
    );
    if problems.is_empty() {
        return Ok(());
    }
    let help = "tokenize with a smaller `max_tokens`, or use weights of GPT-2's vocabulary and positions";
    Err(StageError::new(problems.join("; ")).help(help))
}

fn encode(
    params: &Params,
    cx: &StageCx<'_>,
    device: &Device,
    tokens: &TokensFile,
    weights: &Weights,
) -> Result<(), StageError> {
    let (config, rows) = (weights.config(), &tokens.rows);
    let Params { blocks, dtype, activation, .. } = *params;
    let format = HiddenFormat { blocks, n_embd: config.n_embd, activation, dtype };
    let mut states = PartialStates::open(cx, rows, format, device.decides_bits())?;
    let mut pass = Encoding { encoder: device.encoder(weights, format)?, tokens };
    let (done, limit) = (states.done(), device.batch_positions(config));
    in_batches(cx, &rows.offsets, done, limit, &mut pass, |batch, encoded| {
        let is_wrong = |magnitude: &f32| !magnitude.is_finite() || *magnitude > dtype.largest();
        if let Some(at) = encoded.magnitudes.iter().position(is_wrong) {
            return Err(overflow(params, tokens, batch.rows.start + at, encoded.magnitudes[at], weights));
        }
        states.write(batch.rows.clone(), &encoded)?;
        cx.progress(batch.rows.end as u64, Some(rows.len() as u64), "reviews");
        Ok(())
    })?;
    let largest = states.finish(cx.output("hidden"))?;
    cx.metric("largest_magnitude", f64::from(largest));
    cx.metric("tokens", rows.positions() as f64);
    cx.metric("reviews", rows.len() as f64);
    Ok(())
}

/// The pass from tokens to hidden states.
struct Encoding<'a> {
    encoder: Box<dyn Encoder + 'a>,
    tokens: &'a TokensFile,
}

impl Pass for Encoding<'_> {
    type Result = Encoded;

    fn start(&mut self, batch: &Batch) -> Result<(), Failure> {
        self.encoder.start(self.tokens.ids(batch.positions.clone()), &batch.offsets)
    }

    fn take(&mut self) -> Result<Encoded, Failure> {
        self.encoder.take()
    }
}

/// Says what is wrong with the states of `row`, and after which block it first was.
fn overflow(
    params: &Params,
    tokens: &TokensFile,
    row: usize,
    magnitude: f32,
    weights: &Weights,
) -> StageError {
    let id = &tokens.rows.ids[row];
    if magnitude.is_finite() {
        let message = format!(
            "the states of review `{id}` reach {magnitude} after block {}, past {}, the largest number that `f16` holds",
            params.blocks,
            params.dtype.largest()
        );
        return StageError::new(message).help("set `dtype: f32`");
    }
    let offsets = [0, tokens.row(row).len()];
    let precision = params.precision;
    let mut forward = Forward::new(weights.config(), params.activation).in_precision(precision);
    let mut hidden = embed(weights, tokens.row(row), &offsets);
    let is_finite = |hidden: &[f32]| hidden.iter().all(|state| state.is_finite());
    let mut block = 0;
    while block < params.blocks && is_finite(&hidden) {
        forward.block(&BlockWeights::of(weights, block).rounded(precision), &mut hidden, &offsets);
        block += 1;
    }
    let place = if block == 0 { "in the embeddings".to_owned() } else { format!("after block {block}") };
    let help = match precision {
        Precision::F16 => "a factor may be past 65,504, the largest number of `f16`: set `precision: bf16`",
        _ => "the weights are damaged or far from trained ones",
    };
    StageError::new(format!("the states of review `{id}` are no finite numbers {place}")).help(help)
}
