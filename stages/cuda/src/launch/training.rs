//! Gradients of norms and biases, the head, and the loss.

use super::{Kernels, THREADS, WARP, named, warps};
use crate::{
    buffer::Buffer,
    machine::{Machine, Trouble},
    slice::{Factor, Slice, SliceMut, extent},
};

/// Rows that one block of a column sum takes.
const SUM_ROWS: usize = 256;

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
}
