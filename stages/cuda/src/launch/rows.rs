//! Embeddings, norms, GELU, and what moves or adds rows.

use pipe_stages::{
    data::States,
    gpt2::{Activation, Precision},
};

use super::{Kernels, THREADS, named, warps};
use crate::{
    machine::{Machine, Trouble},
    prompts::{Dropped, Prompts},
    slice::{Slice, SliceMut, bytes_of},
};

/// Weight and bias of a norm, `[width]` each.
#[derive(Debug, Clone, Copy)]
pub struct NormSlices<'a> {
    /// Factors.
    pub weight: Slice<'a>,
    /// Summands.
    pub bias: Slice<'a>,
}

/// The number by which kernels know a form of GELU.
fn form(activation: Activation) -> u32 {
    match activation {
        Activation::GeluNew => 0,
        Activation::Gelu => 1,
    }
}

impl<M: Machine> Kernels<M> {
    /// Kernel `embed`: `out` `[positions, width]` for `tokens` `[positions]` below `vocabulary`.
    #[allow(clippy::too_many_arguments)]
    pub fn embed(
        &self,
        out: &SliceMut<'_>,
        of_token: (Slice<'_>, usize),
        of_position: (Slice<'_>, usize),
        tokens: Slice<'_>,
        prompts: &Prompts<M>,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let rows = prompts.positions();
        assert!(prompts.longest() <= of_position.1, "prompts are no longer than the model has positions");
        let arguments = [
            out.checked(4 * rows * width).into(),
            of_token.0.checked(4 * of_token.1 * width).into(),
            of_position.0.checked(4 * of_position.1 * width).into(),
            tokens.checked(4 * rows).into(),
            prompts.places(self.machine(), false).checked(4 * rows).into(),
            (rows as u32).into(),
            (width as u32).into(),
        ];
        self.each_of_rows("embed", rows, width, &arguments)
    }

    /// Kernel `layer_norm`: the norm of each row of `x`, to which the row `added` is added, in `format`
    /// and to `wide` in f32.
    #[allow(clippy::too_many_arguments)]
    pub fn layer_norm(
        &self,
        format: Precision,
        out: &SliceMut<'_>,
        wide: Option<&SliceMut<'_>>,
        x: Slice<'_>,
        added: Option<Slice<'_>>,
        norm: NormSlices<'_>,
        rows: usize,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            out.checked(bytes_of(format) * rows * width).into(),
            wide.map_or(0, |wide| wide.checked(4 * rows * width)).into(),
            x.checked(4 * rows * width).into(),
            added.map_or(0, |added| added.checked(4 * width)).into(),
            norm.weight.checked(4 * width).into(),
            norm.bias.checked(4 * width).into(),
            (rows as u32).into(),
            (width as u32).into(),
        ];
        let kernel = named(["layer_norm_f32", "layer_norm_f16", "layer_norm_bf16"], format);
        self.launch(kernel, warps(rows), THREADS, 0, &arguments)
    }

    /// Kernel `gelu`: `out = gelu(x + bias)`, with `out` and `x` in `format`; they may be the same.
    #[allow(clippy::too_many_arguments)]
    pub fn gelu(
        &self,
        format: Precision,
        activation: Activation,
        out: &SliceMut<'_>,
        x: Slice<'_>,
        bias: Slice<'_>,
        rows: usize,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            out.checked(bytes_of(format) * rows * width).into(),
            x.checked(bytes_of(format) * rows * width).into(),
            bias.checked(4 * width).into(),
            (rows as u32).into(),
            (width as u32).into(),
            form(activation).into(),
        ];
        self.each_of_rows(named(["gelu_f32", "gelu_f16", "gelu_bf16"], format), rows, width, &arguments)
    }

    /// Kernel `gelu_gradient`: `gradient *= gelu'(x + bias)`, with `x` in `format` and `gradient` in that
    /// of its backward pass.
    #[allow(clippy::too_many_arguments)]
    pub fn gelu_gradient(
        &self,
        format: Precision,
        activation: Activation,
        gradient: &SliceMut<'_>,
        x: Slice<'_>,
        bias: Slice<'_>,
        rows: usize,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            gradient.checked(bytes_of(format.backward()) * rows * width).into(),
            x.checked(bytes_of(format) * rows * width).into(),
            bias.checked(4 * width).into(),
            (rows as u32).into(),
            (width as u32).into(),
            form(activation).into(),
        ];
        let kernel = named(["gelu_gradient_f32", "gelu_gradient_f16", "gelu_gradient_bf16"], format);
        self.each_of_rows(kernel, rows, width, &arguments)
    }

    /// Kernel `add_bias`: adds `bias` to each row of `x`.
    pub fn add_bias(
        &self,
        x: &SliceMut<'_>,
        bias: Slice<'_>,
        rows: usize,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            x.checked(4 * rows * width).into(),
            bias.checked(4 * width).into(),
            (rows as u32).into(),
            (width as u32).into(),
        ];
        self.each_of_rows("add_bias", rows, width, &arguments)
    }

    /// Kernel `add_branch`: `branch = residual + dropout(branch + bias)`.
    #[allow(clippy::too_many_arguments)]
    pub fn add_branch(
        &self,
        branch: &SliceMut<'_>,
        residual: Slice<'_>,
        bias: Slice<'_>,
        dropped: Dropped<'_>,
        prompts: &Prompts<M>,
        last: bool,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let rows = [residual, branch.read()];
        self.launch_branch(branch, rows, Some(bias), dropped, prompts, last, width)
    }

    /// Kernel `add_branch`: `to += dropout(x)`.
    pub fn add_dropped(
        &self,
        to: &SliceMut<'_>,
        x: Slice<'_>,
        dropped: Dropped<'_>,
        prompts: &Prompts<M>,
        last: bool,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        self.launch_branch(to, [to.read(), x], None, dropped, prompts, last, width)
    }

    #[allow(clippy::too_many_arguments)]
    fn launch_branch(
        &self,
        out: &SliceMut<'_>,
        [residual, branch]: [Slice<'_>; 2],
        bias: Option<Slice<'_>>,
        dropped: Dropped<'_>,
        prompts: &Prompts<M>,
        last: bool,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let (rows, machine) = (prompts.rows(last), self.machine());
        let arguments = [
            out.checked(4 * rows * width).into(),
            residual.checked(4 * rows * width).into(),
            branch.checked(4 * rows * width).into(),
            bias.map_or(0, |bias| bias.checked(4 * width)).into(),
            prompts.owners(machine, last).checked(4 * rows).into(),
            prompts.places(machine, last).checked(4 * rows).into(),
            dropped.keys.map_or(0, |keys| keys.checked(8 * prompts.count())).into(),
            dropped.threshold.into(),
            dropped.kept.into(),
            (rows as u32).into(),
            (width as u32).into(),
        ];
        self.each_of_rows("add_branch", rows, width, &arguments)
    }

    /// Kernel `drop`: `out = dropout(x)`, with `out` in `format`.
    #[allow(clippy::too_many_arguments)]
    pub fn drop_rows(
        &self,
        format: Precision,
        out: &SliceMut<'_>,
        x: Slice<'_>,
        dropped: Dropped<'_>,
        prompts: &Prompts<M>,
        last: bool,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let (rows, machine) = (prompts.rows(last), self.machine());
        let arguments = [
            out.checked(bytes_of(format) * rows * width).into(),
            x.checked(4 * rows * width).into(),
            prompts.owners(machine, last).checked(4 * rows).into(),
            prompts.places(machine, last).checked(4 * rows).into(),
            dropped.keys.map_or(0, |keys| keys.checked(8 * prompts.count())).into(),
            dropped.threshold.into(),
            dropped.kept.into(),
            (rows as u32).into(),
            (width as u32).into(),
        ];
        let kernel = named(["drop_f32", "drop_f16", "drop_bf16"], format);
        self.each_of_rows(kernel, rows, width, &arguments)
    }

    /// Kernel `gather_last`: the last row of each prompt, `[prompts, width]`.
    pub fn gather_last(
        &self,
        out: &SliceMut<'_>,
        x: Slice<'_>,
        prompts: &Prompts<M>,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            out.checked(4 * prompts.count() * width).into(),
            x.checked(4 * prompts.positions() * width).into(),
            self.offsets_of(prompts),
            (prompts.count() as u32).into(),
            (width as u32).into(),
        ];
        self.each_of_rows("gather_last", prompts.count(), width, &arguments)
    }

    /// Kernel `scatter_last`: adds `rows` `[prompts, width]` to the last row of each prompt.
    pub fn scatter_last(
        &self,
        to: &SliceMut<'_>,
        rows: Slice<'_>,
        prompts: &Prompts<M>,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            to.checked(4 * prompts.positions() * width).into(),
            rows.checked(4 * prompts.count() * width).into(),
            self.offsets_of(prompts),
            (prompts.count() as u32).into(),
            (width as u32).into(),
        ];
        self.each_of_rows("scatter_last", prompts.count(), width, &arguments)
    }

    /// Kernel `convert`: `count` numbers of `x` in `format`, which is not f32.
    pub fn convert(
        &self,
        format: Precision,
        out: &SliceMut<'_>,
        x: Slice<'_>,
        count: usize,
    ) -> Result<(), Trouble<M>> {
        let kernel = match format {
            Precision::F32 => unreachable!("f32 needs no conversion"),
            Precision::F16 => "convert_f16",
            Precision::Bf16 => "convert_bf16",
        };
        let arguments = [out.checked(2 * count).into(), x.checked(4 * count).into(), (count as u64).into()];
        self.each(kernel, count.div_ceil(4), &arguments)
    }

    /// Copies `states` to `to`, in f32 there; kernel `widen_f16` where they have 16 bits.
    pub fn write_states(&self, states: &States, to: SliceMut<'_>) -> Result<(), Trouble<M>> {
        let halves = match states {
            States::F32(states) => return self.write(bytemuck::cast_slice(states), to),
            States::F16(halves) => halves,
        };
        let count = halves.len();
        let mut given = self.buffer(count.div_ceil(2))?;
        self.write(bytemuck::cast_slice(halves), self.slice_mut(&mut given))?;
        let from = self.slice(&given).checked(2 * count);
        let arguments = [to.checked(4 * count).into(), from.into(), (count as u64).into()];
        self.each("widen_f16", count.div_ceil(4), &arguments)
    }

    /// Kernel `largest_magnitudes`: the largest magnitude in the rows of each prompt; not a number if one is not.
    pub fn largest_magnitudes(
        &self,
        out: &SliceMut<'_>,
        x: Slice<'_>,
        prompts: &Prompts<M>,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let arguments = [
            out.checked(4 * prompts.count()).into(),
            x.checked(4 * prompts.positions() * width).into(),
            self.offsets_of(prompts),
            (width as u32).into(),
        ];
        self.launch("largest_magnitudes", [prompts.count() as u32, 1, 1], THREADS, 0, &arguments)
    }

    /// Kernel `gather_states`: the states of prompts, each of which lies at the start of its slice `from`, in
    /// `format` there and in f32 in `to`.
    ///
    /// # Panics
    ///
    /// If `format` is `bf16`, or there is not a slice for each prompt, as `offsets` cuts them.
    pub fn gather_states(
        &self,
        to: &SliceMut<'_>,
        from: &[Slice<'_>],
        format: Precision,
        prompts: &Prompts<M>,
        offsets: &[usize],
        width: usize,
    ) -> Result<(), Trouble<M>> {
        assert!(from.len() == prompts.count() && offsets.len() == from.len() + 1, "a slice for each prompt");
        let bytes = |cut: &[usize]| bytes_of(format) * (cut[1] - cut[0]) * width;
        let addresses: Vec<u64> =
            from.iter().zip(offsets.windows(2)).map(|(prompt, cut)| prompt.checked(bytes(cut))).collect();
        let addresses = self.upload(bytemuck::cast_slice(&addresses))?;
        let (rows, machine) = (prompts.positions(), self.machine());
        let arguments = [
            to.checked(4 * rows * width).into(),
            self.slice(&addresses).checked(8 * from.len()).into(),
            prompts.owners(machine, false).checked(4 * rows).into(),
            prompts.places(machine, false).checked(4 * rows).into(),
            (rows as u32).into(),
            (width as u32).into(),
        ];
        let kernel = match format {
            Precision::F32 => "gather_states_f32",
            Precision::F16 => "gather_states_f16",
            Precision::Bf16 => unreachable!("states are stored as f16 or f32"),
        };
        self.each_of_rows(kernel, rows, width, &arguments)
    }

    /// Kernel `f16_to_bf16`: `count` numbers of `x`.
    pub fn f16_to_bf16(&self, out: &SliceMut<'_>, x: Slice<'_>, count: usize) -> Result<(), Trouble<M>> {
        let arguments = [out.checked(2 * count).into(), x.checked(2 * count).into(), (count as u64).into()];
        self.each("f16_to_bf16", count.div_ceil(4), &arguments)
    }
}
