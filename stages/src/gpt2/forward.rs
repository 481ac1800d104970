//! The forward pass on the processor.
//!
//! Prompts of any lengths lie one after the other, `[positions, n_embd]`, without padding;
//! `offsets` (one more than prompts, from 0) say where each begins. In the last block only the
//! last position of a prompt is needed: queries, MLP and final norm are computed for it alone,
//! keys and values for all. A prompt's result does not depend on the others of its batch, nor
//! on the number of threads.

use rayon::prelude::*;

use super::{
    Activation, BlockWeights, Config, Norm, Precision, Weights,
    kernels::{
        attention, gelu,
        gemm::{Target, linear},
        layer_norm::{layer_norm, layer_norm_rows},
        rounding::round,
        vector::{Instructions, dot},
    },
};

/// Applies blocks to batches of prompts, on all threads of the pool; buffers are kept between calls.
#[derive(Debug)]
pub struct Forward {
    n_embd: usize,
    n_head: usize,
    activation: Activation,
    precision: Precision,
    instructions: Instructions,
    normal: Vec<f32>,
    qkv: Vec<f32>,
    mixed: Vec<f32>,
    inner: Vec<f32>,
}

impl Forward {
    /// For a model of the shape `config`, with the fastest instructions of this processor.
    pub fn new(config: &Config, activation: Activation) -> Self {
        Self::with_instructions(config, activation, Instructions::best())
    }

    /// For a model of the shape `config`; row kernels use `instructions`.
    pub fn with_instructions(config: &Config, activation: Activation, instructions: Instructions) -> Self {
        Self {
            n_embd: config.n_embd,
            n_head: config.n_head,
            activation,
            precision: Precision::F32,
            instructions,
            normal: Vec::new(),
            qkv: Vec::new(),
            mixed: Vec::new(),
            inner: Vec::new(),
        }
    }

    /// Rounds the rows that meet a matrix to `precision`; blocks are to be
    /// [`rounded`](BlockWeights::rounded) to the same.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Applies `block` to all positions of `hidden`, in place.
    ///
    /// # Panics
    ///
    /// If `offsets` does not cut `hidden`.
    pub fn block(&mut self, block: &BlockWeights<'_>, hidden: &mut [f32], offsets: &[usize]) {
        let (c, positions) = (self.n_embd, self.positions(hidden, offsets));
        self.normal.resize(positions * c, 0.0);
        self.qkv.resize(positions * 3 * c, 0.0);
        self.mixed.resize(positions * c, 0.0);
        let norm = &block.ln_1;
        layer_norm(self.instructions, hidden, &norm.weight, &norm.bias, &mut self.normal);
        round(self.precision, &mut self.normal);
        linear(&self.normal, block.attention.factor(), &block.attention.bias, Target::Replace, &mut self.qkv);
        round(self.precision, &mut self.qkv);
        attention::causal(self.instructions, &self.qkv, offsets, self.n_head, &mut self.mixed);
        round(self.precision, &mut self.mixed);
        linear(&self.mixed, block.projection.factor(), &block.projection.bias, Target::Add, hidden);
        self.mlp(block, hidden);
    }

    /// Applies `block` and returns the states of the last position of each prompt,
    /// `[prompts, n_embd]`; the other positions are not computed further than needed.
    ///
    /// # Panics
    ///
    /// If `offsets` does not cut `hidden`, or a prompt is empty.
    pub fn last_block(&mut self, block: &BlockWeights<'_>, hidden: &[f32], offsets: &[usize]) -> Vec<f32> {
        let (c, positions) = (self.n_embd, self.positions(hidden, offsets));
        self.normal.resize(positions * c, 0.0);
        self.qkv.resize(positions * 2 * c, 0.0);
        let norm = &block.ln_1;
        layer_norm(self.instructions, hidden, &norm.weight, &norm.bias, &mut self.normal);
        round(self.precision, &mut self.normal);
        let (weight, bias) = (block.attention.factor(), &block.attention.bias);
        linear(&self.normal, weight.columns(c..3 * c), &bias[c..], Target::Replace, &mut self.qkv);
        round(self.precision, &mut self.qkv);
        let last_normal = self.last_positions(&self.normal, offsets);
        let mut q = vec![0.0; last_normal.len()];
        linear(&last_normal, weight.columns(0..c), &bias[..c], Target::Replace, &mut q);
        round(self.precision, &mut q);
        let mut mixed = last_normal;
        attention::last(self.instructions, &q, &self.qkv, offsets, self.n_head, &mut mixed);
        round(self.precision, &mut mixed);
        let mut last = self.last_positions(hidden, offsets);
        linear(&mixed, block.projection.factor(), &block.projection.bias, Target::Add, &mut last);
        self.mlp(block, &mut last);
        last
    }

    /// Applies `blocks`, all but the last in place, and the final norm; returns the result at the
    /// last position of each prompt, `[prompts, n_embd]`.
    ///
    /// # Panics
    ///
    /// If `offsets` does not cut `hidden`, or a prompt is empty.
    pub fn last_hidden(
        &mut self,
        blocks: &[BlockWeights<'_>],
        final_norm: &Norm<'_>,
        hidden: &mut [f32],
        offsets: &[usize],
    ) -> Vec<f32> {
        let last = match blocks.split_last() {
            None => self.last_positions(hidden, offsets),
            Some((last, before)) => {
                for block in before {
                    self.block(block, hidden, offsets);
                }
                self.last_block(last, hidden, offsets)
            }
        };
        let mut out = vec![0.0; last.len()];
        layer_norm_rows(self.instructions, &last, &final_norm.weight, &final_norm.bias, &mut out);
        out
    }

    /// The logits of the tokens `wanted` for final states `[prompts, n_embd]`: `[prompts, wanted]`.
    ///
    /// # Panics
    ///
    /// If a token is not below the vocabulary's size.
    pub fn logits(&self, weights: &Weights, last: &[f32], wanted: &[u32]) -> Vec<f32> {
        let (c, table) = (self.n_embd, weights.tensor("wte.weight"));
        last.chunks_exact(c)
            .flat_map(|state| {
                wanted.iter().map(|token| dot(self.instructions, state, &table[*token as usize * c..][..c]))
            })
            .collect()
    }

    /// The values of a one-column head for final states `[prompts, n_embd]`: `[prompts]`.
    pub fn head(&self, weight: &[f32], bias: f32, last: &[f32]) -> Vec<f32> {
        last.chunks_exact(self.n_embd).map(|state| dot(self.instructions, state, weight) + bias).collect()
    }

    /// Adds the MLP's output to `hidden`.
    fn mlp(&mut self, block: &BlockWeights<'_>, hidden: &mut [f32]) {
        self.normal.resize(hidden.len(), 0.0);
        self.inner.resize(hidden.len() / self.n_embd * block.expand.bias.len(), 0.0);
        let norm = &block.ln_2;
        layer_norm(self.instructions, hidden, &norm.weight, &norm.bias, &mut self.normal);
        round(self.precision, &mut self.normal);
        linear(&self.normal, block.expand.factor(), &block.expand.bias, Target::Replace, &mut self.inner);
        gelu::activate(self.instructions, self.activation, &mut self.inner);
        round(self.precision, &mut self.inner);
        linear(&self.inner, block.contract.factor(), &block.contract.bias, Target::Add, hidden);
    }

    fn last_positions(&self, hidden: &[f32], offsets: &[usize]) -> Vec<f32> {
        let c = self.n_embd;
        let ends = offsets.windows(2).inspect(|prompt| assert!(prompt[0] < prompt[1], "no prompt is empty"));
        ends.flat_map(|prompt| &hidden[(prompt[1] - 1) * c..prompt[1] * c]).copied().collect()
    }

    fn positions(&self, hidden: &[f32], offsets: &[usize]) -> usize {
        let positions = offsets.last().copied().unwrap_or_default();
        assert_eq!(hidden.len(), positions * self.n_embd, "one state a position");
        positions
    }
}

/// The states before the first block, `[positions, n_embd]`: embeddings of `tokens` and of their
/// positions.
///
/// # Panics
///
/// If `offsets` does not cut `tokens`, a token is not below the vocabulary's size, or a prompt is
/// longer than the model has positions.
pub fn embed(weights: &Weights, tokens: &[u32], offsets: &[usize]) -> Vec<f32> {
    let c = weights.config().n_embd;
    let (of_token, of_position) = (weights.tensor("wte.weight"), weights.tensor("wpe.weight"));
    assert_eq!(offsets.last().copied().unwrap_or_default(), tokens.len(), "the prompts are the tokens");
    let places: Vec<usize> = offsets.windows(2).flat_map(|prompt| 0..prompt[1] - prompt[0]).collect();
    let mut hidden = vec![0.0; tokens.len() * c];
    hidden.par_chunks_mut(c).zip(tokens).zip(places).for_each(|((state, token), place)| {
        let (token, position) = (&of_token[*token as usize * c..][..c], &of_position[place * c..][..c]);
        for i in 0..c {
            state[i] = token[i] + position[i];
        }
    });
    hidden
}
