//! Gradients of norms and biases, the head, the loss, and the optimizer.

use pipe_stages::gpt2::training::AdamW;

use super::{Kernels, THREADS, WARP, named, warps};
use crate::{
    buffer::Buffer,
    machine::{Machine, Trouble},
    slice::{Factor, Slice, SliceMut, extent},
};

/// Rows that one block of a column sum takes.
const SUM_ROWS: usize = 256;
/// Blocks, at most, that sum the squares of a tensor.
const SQUARE_BLOCKS: usize = 256;

/// The constants of one update, as [`pipe_stages::gpt2::training::AdamW`] computes them.
#[derive(Debug, Clone, Copy)]
pub struct AdamWArguments {
    /// Largest norm of all gradients; 0 for no limit.
    pub clip: f64,
    /// 1 less the decay of this tensor.
    pub keep: f32,
    /// Decay of the moments.
    pub betas: [f32; 2],
    /// 1 less each.
    pub rests: [f32; 2],
    /// The rate over the first correction.
    pub step_size: f32,
    /// One over the root of the second correction.
    pub root: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
}

impl<M: Machine> Kernels<M> {
    /// `gradient[c] +=` the sum of column `c` of `x`.
    pub fn add_column_sums(&self, gradient: &SliceMut<'_>, x: Factor<'_>) -> Result<(), Trouble<M>> {
        let ((rows, width), raw) = (x.shape(), x.raw());
        assert!(!raw.transposed, "columns of numbers that lie row after row");
        let chunks = rows.div_ceil(SUM_ROWS);
        let mut parts = self.buffer(chunks * width)?;
        let parts = self.slice_mut(&mut parts);
        let arguments = [
            parts.checked(4 * chunks * width).into(),
            raw.address.into(),
            (rows as u32).into(),
            (width as u32).into(),
            (raw.stride as u32).into(),
        ];
        let grid = [(width as u32).div_ceil(WARP), chunks as u32, 1];
        let kernel = named(["column_sums_f32", "column_sums_f16", "column_sums_bf16"], x.format());
        self.launch(kernel, grid, THREADS, 0, &arguments)?;
        self.add_parts(gradient, parts.read(), chunks, width, width)
    }

    /// `gradient[c] +=` the sum of column `c` of `parts` `[chunks, width]`, part of rows `stride` wide.
    fn add_parts(
        &self,
        gradient: &SliceMut<'_>,
        parts: Slice<'_>,
        chunks: usize,
        width: usize,
        stride: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            gradient.checked(4 * width).into(),
            parts.checked(4 * extent(chunks, width, stride)).into(),
            (chunks as u32).into(),
            (width as u32).into(),
            (stride as u32).into(),
        ];
        self.each("add_parts", width, &arguments)
    }

    /// Adds the gradient of the norm of `x` `[rows, width]` to `input`, where it is given; returns what
    /// [`Self::add_norm_sums`] needs.
    pub fn layer_norm_gradient(
        &self,
        input: Option<&SliceMut<'_>>,
        x: Slice<'_>,
        weight: Slice<'_>,
        upstream: Slice<'_>,
        rows: usize,
        width: usize,
    ) -> Result<Buffer<M>, Trouble<M>> {
        let bytes = 4 * rows * width;
        let mut stats = self.buffer(2 * rows)?;
        let arguments = [
            input.map_or(0, |input| input.checked(bytes)).into(),
            self.slice_mut(&mut stats).checked(8 * rows).into(),
            x.checked(bytes).into(),
            weight.checked(4 * width).into(),
            upstream.checked(bytes).into(),
            (rows as u32).into(),
            (width as u32).into(),
        ];
        self.launch("layer_norm_gradient", warps(rows), THREADS, 0, &arguments)?;
        Ok(stats)
    }

    /// Sums over the rows of the norm of `x`, whose `stats` [`Self::layer_norm_gradient`] gave, for
    /// [`Self::add_norm_sums`].
    pub fn norm_sums(
        &self,
        stats: Slice<'_>,
        x: Slice<'_>,
        upstream: Slice<'_>,
        rows: usize,
        width: usize,
    ) -> Result<Buffer<M>, Trouble<M>> {
        let (bytes, chunks) = (4 * rows * width, rows.div_ceil(SUM_ROWS));
        let mut parts = self.buffer(chunks * 2 * width)?;
        let arguments = [
            self.slice_mut(&mut parts).checked(8 * chunks * width).into(),
            stats.checked(8 * rows).into(),
            x.checked(bytes).into(),
            upstream.checked(bytes).into(),
            (rows as u32).into(),
            (width as u32).into(),
        ];
        let grid = [(width as u32).div_ceil(WARP), chunks as u32, 1];
        self.launch("layer_norm_column_sums", grid, THREADS, 0, &arguments)?;
        Ok(parts)
    }

    /// Adds a gradient that is in `sums` of `rows` rows: of the weight, or of the `bias`.
    pub fn add_norm_sums(
        &self,
        gradient: &SliceMut<'_>,
        sums: Slice<'_>,
        bias: bool,
        rows: usize,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let parts = sums.skip(if bias { 4 * width } else { 0 });
        self.add_parts(gradient, parts, rows.div_ceil(SUM_ROWS), width, 2 * width)
    }

    /// Kernel `head_logits`: `logits` `[prompts]` of `last` `[prompts, width]`.
    pub fn head_logits(
        &self,
        logits: &SliceMut<'_>,
        last: Slice<'_>,
        weight: Slice<'_>,
        bias: Slice<'_>,
        prompts: usize,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            logits.checked(4 * prompts).into(),
            last.checked(4 * prompts * width).into(),
            weight.checked(4 * width).into(),
            bias.checked(4).into(),
            (prompts as u32).into(),
            (width as u32).into(),
        ];
        self.launch("head_logits", warps(prompts), THREADS, 0, &arguments)
    }

    /// Kernel `cross_entropy`: adds the loss of the prompts to `loss`, an f64; `of_logits` receives
    /// `share` times its slope.
    pub fn cross_entropy(
        &self,
        of_logits: &SliceMut<'_>,
        loss: &SliceMut<'_>,
        logits: Slice<'_>,
        labels: Slice<'_>,
        share: f32,
        prompts: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            of_logits.checked(4 * prompts).into(),
            loss.checked(8).into(),
            logits.checked(4 * prompts).into(),
            labels.checked(4 * prompts).into(),
            share.into(),
            (prompts as u32).into(),
        ];
        self.launch("cross_entropy", [1, 1, 1], WARP, 0, &arguments)
    }

    /// Kernel `head_gradient`: `of_last` is overwritten, the other two are added to.
    #[allow(clippy::too_many_arguments)]
    pub fn head_gradient(
        &self,
        of_last: &SliceMut<'_>,
        of_weight: &SliceMut<'_>,
        of_bias: &SliceMut<'_>,
        of_logits: Slice<'_>,
        last: Slice<'_>,
        weight: Slice<'_>,
        prompts: usize,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            of_last.checked(4 * prompts * width).into(),
            of_weight.checked(4 * width).into(),
            of_bias.checked(4).into(),
            of_logits.checked(4 * prompts).into(),
            last.checked(4 * prompts * width).into(),
            weight.checked(4 * width).into(),
            (prompts as u32).into(),
            (width as u32).into(),
        ];
        self.each("head_gradient", width, &arguments)
    }

    /// The sum of the squares of all `tensors`, as an f64 in a buffer.
    pub fn sum_of_squares(&self, tensors: &[(Slice<'_>, usize)]) -> Result<Buffer<M>, Trouble<M>> {
        let blocks = |count: usize| count.div_ceil(4 * THREADS as usize).clamp(1, SQUARE_BLOCKS);
        let all: usize = tensors.iter().map(|(_, count)| blocks(*count)).sum();
        let (mut parts, mut total) = (self.buffer(2 * all)?, self.buffer(2)?);
        let mut at = 0;
        for (tensor, count) in tensors {
            let parts = self.slice_mut(&mut parts).skip(8 * at);
            let arguments = [
                parts.checked(8 * blocks(*count)).into(),
                tensor.checked(4 * count).into(),
                (*count as u64).into(),
            ];
            self.launch("squares", [blocks(*count) as u32, 1, 1], THREADS, 0, &arguments)?;
            at += blocks(*count);
        }
        let arguments = [
            self.slice_mut(&mut total).checked(8).into(),
            self.slice(&parts).checked(8 * all).into(),
            (all as u64).into(),
        ];
        self.launch("total_of", [1, 1, 1], THREADS, 0, &arguments)?;
        Ok(total)
    }

    /// Kernel `adamw`: an update of `count` values; `total` is what [`Self::sum_of_squares`] gave.
    #[allow(clippy::too_many_arguments)]
    pub fn adamw(
        &self,
        values: &SliceMut<'_>,
        first: &SliceMut<'_>,
        second: &SliceMut<'_>,
        gradients: Slice<'_>,
        count: usize,
        total: Slice<'_>,
        loss: Slice<'_>,
        with: AdamWArguments,
    ) -> Result<(), Trouble<M>> {
        let bytes = 4 * count;
        let arguments = [
            values.checked(bytes).into(),
            first.checked(bytes).into(),
            second.checked(bytes).into(),
            gradients.checked(bytes).into(),
            (count as u64).into(),
            total.checked(8).into(),
            loss.checked(8).into(),
            with.clip.into(),
            with.keep.into(),
            with.betas[0].into(),
            with.rests[0].into(),
            with.betas[1].into(),
            with.rests[1].into(),
            with.step_size.into(),
            with.root.into(),
            with.epsilon.into(),
        ];
        self.each("adamw", count.div_ceil(4), &arguments)
    }
}

impl AdamWArguments {
    /// The constants of update `step`, counted from 0, at the learning rate `rate`.
    pub fn new(adamw: &AdamW, step: u64, rate: f64, decays: bool, clip: f64) -> Self {
        let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
        Self {
            clip,
            keep: if decays { (1.0 - rate * adamw.weight_decay) as f32 } else { 1.0 },
            betas: adamw.betas.map(|beta| beta as f32),
            rests: adamw.betas.map(|beta| (1.0 - beta) as f32),
            step_size: (rate / (1.0 - adamw.betas[0].powi(t))) as f32,
            root: (1.0 - adamw.betas[1].powi(t)).sqrt().recip() as f32,
            epsilon: adamw.epsilon as f32,
        }
    }
}
