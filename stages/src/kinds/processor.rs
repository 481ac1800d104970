//! The processor as one of the devices that a model stage computes on.

use gemm_common::cache::CACHE_INFO;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{
    contract::{StageCx, StageError},
    data::{HiddenFormat, States},
    gpt2::{
        Activation, BlockWeights, Config, Encoded, Encoder, Failure, Finisher, Forward, Norm, Precision,
        Weights, embed,
        kernels::{
            matrix_unit::{self, PackingRoom},
            vector::Instructions,
        },
    },
};

/// Positions of a batch: enough for matrix products at full speed. Prompts lie one after the
/// other without padding, so batches need not be of equal lengths.
pub const BATCH_POSITIONS: usize = 2048;

/// A pool of as many threads as the stage may use.
pub fn threads(cx: &StageCx<'_>) -> Result<ThreadPool, StageError> {
    let threads = cx.threads();
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|err| StageError::new(format!("cannot start {threads} threads")).because(err))
}

/// As [`threads`], for a stage that computes on them; says so in its events.
pub fn pool(cx: &StageCx<'_>) -> Result<ThreadPool, StageError> {
    let pool = threads(cx)?;
    let noun = if cx.threads() == 1 { "thread" } else { "threads" };
    cx.computes_on(&format!("cpu ({}, {} {noun})", instructions(), cx.threads()));
    Ok(pool)
}

/// The instruction set that kernels use, and that products use besides.
fn instructions() -> String {
    let unit = matrix_unit::name(Precision::Bf16).map(|name| format!(", {name}"));
    format!("{}{}", Instructions::best(), unit.unwrap_or_default())
}

/// What of this machine decides the last bits of a result: device, instruction set, precision, and
/// the sizes of caches, by which `gemm` cuts its sums. The number of threads does not.
pub fn decides_bits(precision: Precision) -> String {
    let caches = CACHE_INFO.map(|cache| format!("{}/{}", cache.cache_bytes, cache.associativity));
    format!("cpu, {}, {precision}, caches {}", instructions(), caches.join(" "))
}

/// `blocks` for many products in `precision`.
fn ready<'a>(
    blocks: impl IntoIterator<Item = BlockWeights<'a>>,
    precision: Precision,
) -> Vec<BlockWeights<'a>> {
    let mut room = PackingRoom::new(precision);
    blocks.into_iter().map(|block| block.rounded(precision).packed(&mut room)).collect()
}

/// The embeddings and the first blocks on this processor.
pub struct ProcessorEncoder<'a> {
    weights: &'a Weights,
    blocks: Vec<BlockWeights<'a>>,
    forward: Forward,
    format: HiddenFormat,
    encoded: Option<Encoded>,
}

impl<'a> ProcessorEncoder<'a> {
    /// The first blocks of `weights`, as many as `format` says.
    pub fn new(weights: &'a Weights, format: HiddenFormat, precision: Precision) -> Self {
        let blocks = (0..format.blocks).map(|block| BlockWeights::of(weights, block));
        Self {
            weights,
            blocks: ready(blocks, precision),
            forward: Forward::new(weights.config(), format.activation).in_precision(precision),
            format,
            encoded: None,
        }
    }
}

impl Encoder for ProcessorEncoder<'_> {
    fn start(&mut self, tokens: &[u32], offsets: &[usize]) -> Result<(), Failure> {
        let mut hidden = embed(self.weights, tokens, offsets);
        for block in &self.blocks {
            self.forward.block(block, &mut hidden, offsets);
        }
        self.encoded = Some(Encoded::new(hidden, offsets, self.format));
        Ok(())
    }

    fn take(&mut self) -> Result<Encoded, Failure> {
        Ok(self.encoded.take().expect("a batch was started"))
    }
}

/// The last blocks and the final norm on this processor.
pub struct ProcessorFinisher<'a> {
    blocks: Vec<BlockWeights<'a>>,
    norm: Norm<'a>,
    forward: Forward,
    last: Vec<f32>,
}

impl<'a> ProcessorFinisher<'a> {
    /// `blocks` and `norm` of a model of the shape `config`.
    pub fn new(
        config: &Config,
        blocks: Vec<BlockWeights<'a>>,
        norm: Norm<'a>,
        activation: Activation,
        precision: Precision,
    ) -> Self {
        Self {
            blocks: ready(blocks, precision),
            norm,
            forward: Forward::new(config, activation).in_precision(precision),
            last: Vec::new(),
        }
    }
}

impl Finisher for ProcessorFinisher<'_> {
    fn start(&mut self, hidden: States, offsets: &[usize]) -> Result<(), Failure> {
        let mut hidden = hidden.into_f32();
        self.last = self.forward.last_hidden(&self.blocks, &self.norm, &mut hidden, offsets);
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<f32>, Failure> {
        Ok(std::mem::take(&mut self.last))
    }
}
