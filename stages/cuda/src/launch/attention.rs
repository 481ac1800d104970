//! Attention and its gradients.

use pipe_stages::gpt2::Precision;

use super::{Kernels, THREADS, named, warps};
use crate::{
    machine::{Argument, Machine, Trouble},
    prompts::{Dropped, Prompts},
    slice::{Slice, SliceMut, bytes_of, extent},
};

/// Queries of a block; queries or keys of a block of the gradients on tensor cores.
const QUERIES: usize = 64;
/// Queries or keys of a block of the gradients in f32.
const TILE: usize = 32;
/// Threads of a block on tensor cores.
const TENSOR_THREADS: u32 = 128;
/// Threads of a block for last positions.
const LAST_THREADS: u32 = 128;

/// How the width of a row is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Heads.
    pub count: usize,
    /// Width of one.
    pub width: usize,
}

impl Heads {
    /// The widest head that the kernels take.
    pub const WIDEST: usize = 64;
    /// The longest prompt whose last position has gradients: a block has 48 KiB of shared memory, for two
    /// numbers a position and one a channel of each warp.
    pub const LONGEST: usize = (48 * 1024 - 4 * LAST_THREADS as usize / 32 * Self::WIDEST) / 8;

    /// Width of all.
    pub fn all(self) -> usize {
        self.count * self.width
    }
}

/// Number formats of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    /// To what queries, keys, values and weights are rounded.
    pub products: Precision,
    /// In what queries, keys and values are read and the result is written: as `products`, or f32.
    pub stored: Precision,
}

impl Formats {
    /// Everything in one format.
    pub fn all(format: Precision) -> Self {
        Self { products: format, stored: format }
    }

    /// Products in `format` of numbers in f32, with a result in f32.
    pub fn wide(format: Precision) -> Self {
        Self { products: format, stored: Precision::F32 }
    }

    /// The kernel, from those where all is in one format and from those that read and write f32.
    fn kernel(self, all: [&'static str; 3], wide: [&'static str; 3]) -> &'static str {
        assert!([self.products, Precision::F32].contains(&self.stored), "formats that the kernels take");
        named(if self.stored == self.products { all } else { wide }, self.products)
    }
}

/// Threads of a block of attention at every position.
fn threads(format: Precision) -> u32 {
    if format == Precision::F32 { THREADS } else { TENSOR_THREADS }
}

/// Keys and values as columns of wider rows, and their biases where these are still to be added.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a> {
    /// Keys, `[positions, ·]`.
    pub k: Slice<'a>,
    /// Values, `[positions, ·]`.
    pub v: Slice<'a>,
    /// Width of the rows that they are columns of.
    pub stride: usize,
    /// Biases of queries, keys and values, `[width]` each.
    pub biases: Option<[Slice<'a>; 3]>,
}

impl Keys<'_> {
    fn checked(&self, stored: Precision, positions: usize, width: usize) -> [u64; 2] {
        let bytes = bytes_of(stored) * extent(positions, width, self.stride);
        [self.k.checked(bytes), self.v.checked(bytes)]
    }

    fn biases(&self, width: usize) -> [Argument; 3] {
        match self.biases {
            None => [Argument::Wide(0); 3],
            Some(biases) => biases.map(|bias| bias.checked(4 * width).into()),
        }
    }
}

impl<M: Machine> Kernels<M> {
    /// Kernel `attention`: `out` `[positions, width]` for queries that are columns of rows `q_stride`
    /// wide; `denominators` receives `[positions, heads]`.
    ///
    /// # Panics
    ///
    /// If a head is wider than [`Heads::WIDEST`].
    #[allow(clippy::too_many_arguments)]
    pub fn attention(
        &self,
        formats: Formats,
        out: &SliceMut<'_>,
        denominators: Option<&SliceMut<'_>>,
        (q, q_stride): (Slice<'_>, usize),
        keys: Keys<'_>,
        dropped: Dropped<'_>,
        prompts: &Prompts<M>,
        heads: Heads,
    ) -> Result<(), Trouble<M>> {
        assert!(heads.width <= Heads::WIDEST, "heads that the kernels take");
        let (positions, width) = (prompts.positions(), heads.all());
        let [k, v] = keys.checked(formats.stored, positions, width);
        let [q_bias, k_bias, v_bias] = keys.biases(width);
        let bytes = bytes_of(formats.stored);
        let arguments = [
            out.checked(bytes * positions * width).into(),
            denominators.map_or(0, |numbers| numbers.checked(4 * positions * heads.count)).into(),
            q.checked(bytes * extent(positions, width, q_stride)).into(),
            k.into(),
            v.into(),
            (q_stride as u32).into(),
            (keys.stride as u32).into(),
            q_bias,
            k_bias,
            v_bias,
            self.offsets_of(prompts),
            dropped.keys.map_or(0, |keys| keys.checked(8 * prompts.count())).into(),
            dropped.threshold.into(),
            dropped.kept.into(),
            (heads.width as u32).into(),
        ];
        let kernel = formats.kernel(
            ["attention_f32", "attention_f16", "attention_bf16"],
            ["attention_f32", "attention_wide_f16", "attention_wide_bf16"],
        );
        let grid = grid(prompts, heads, QUERIES);
        self.launch(kernel, grid, threads(formats.products), 0, &arguments)
    }

    /// Gradients of `attention` with products in `format`, numbers in f32 and no biases: `of_q`
    /// `[positions, width]`, `of_k` and `of_v` as columns of rows `keys.stride` wide. `result` and
    /// `denominators` are what it gave; `dots` is scratch of the size of `denominators`. Products in
    /// f16 have gradients in bf16.
    ///
    /// # Panics
    ///
    /// As [`Self::attention`].
    #[allow(clippy::too_many_arguments)]
    pub fn attention_gradient(
        &self,
        format: Precision,
        of_q: &SliceMut<'_>,
        [of_k, of_v]: [&SliceMut<'_>; 2],
        q: Slice<'_>,
        keys: Keys<'_>,
        (result, denominators): (Slice<'_>, Slice<'_>),
        dots: &SliceMut<'_>,
        upstream: Slice<'_>,
        dropped: Dropped<'_>,
        prompts: &Prompts<M>,
        heads: Heads,
    ) -> Result<(), Trouble<M>> {
        assert!(heads.width <= Heads::WIDEST, "heads that the kernels take");
        let (positions, width) = (prompts.positions(), heads.all());
        let rows = 4 * positions * width;
        let (head_width, count) = (heads.width as u32, 4 * positions * heads.count);
        let arguments = [
            dots.checked(count).into(),
            upstream.checked(rows).into(),
            result.checked(rows).into(),
            (positions as u32).into(),
            (heads.count as u32).into(),
            head_width.into(),
        ];
        self.launch("attention_dots", warps(positions * heads.count), THREADS, 0, &arguments)?;
        let [k, v] = keys.checked(Precision::F32, positions, width);
        let shared = [
            q.checked(rows).into(),
            k.into(),
            v.into(),
            (keys.stride as u32).into(),
            upstream.checked(rows).into(),
            denominators.checked(count).into(),
            dots.checked(count).into(),
            self.offsets_of(prompts),
            dropped.keys.map_or(0, |keys| keys.checked(8 * prompts.count())).into(),
            dropped.threshold.into(),
            dropped.kept.into(),
            head_width.into(),
        ];
        let grid = grid(prompts, heads, if format == Precision::F32 { TILE } else { QUERIES });
        let arguments: Vec<Argument> = [of_q.checked(rows).into()].into_iter().chain(shared).collect();
        let names = ["attention_gradient_q_f32", "attention_gradient_q_f16", "attention_gradient_q_bf16"];
        self.launch(named(names, format), grid, threads(format), 0, &arguments)?;
        let bytes = 4 * extent(positions, width, keys.stride);
        let outputs = [of_k.checked(bytes).into(), of_v.checked(bytes).into()];
        let arguments: Vec<Argument> = outputs.into_iter().chain(shared).collect();
        let names = ["attention_gradient_kv_f32", "attention_gradient_kv_f16", "attention_gradient_kv_bf16"];
        self.launch(named(names, format), grid, threads(format), 0, &arguments)
    }

    /// Kernel `attention_last`: `out` `[prompts, width]` for `q` `[prompts, width]`.
    ///
    /// # Panics
    ///
    /// As [`Self::attention`].
    #[allow(clippy::too_many_arguments)]
    pub fn attention_last(
        &self,
        formats: Formats,
        out: &SliceMut<'_>,
        q: Slice<'_>,
        keys: Keys<'_>,
        dropped: Dropped<'_>,
        prompts: &Prompts<M>,
        heads: Heads,
    ) -> Result<(), Trouble<M>> {
        assert!(heads.width <= Heads::WIDEST, "heads that the kernels take");
        assert!(prompts.longest() <= Heads::LONGEST, "prompts that the kernels take");
        let (count, width) = (prompts.count(), heads.all());
        let [k, v] = keys.checked(formats.stored, prompts.positions(), width);
        let [q_bias, k_bias, v_bias] = keys.biases(width);
        let bytes = bytes_of(formats.stored) * count * width;
        let arguments = [
            out.checked(bytes).into(),
            q.checked(bytes).into(),
            k.into(),
            v.into(),
            (keys.stride as u32).into(),
            q_bias,
            k_bias,
            v_bias,
            self.offsets_of(prompts),
            dropped.keys.map_or(0, |keys| keys.checked(8 * count)).into(),
            dropped.threshold.into(),
            dropped.kept.into(),
            (heads.width as u32).into(),
        ];
        let kernel = formats.kernel(
            ["attention_last_f32", "attention_last_f16", "attention_last_bf16"],
            ["attention_last_f32", "attention_last_wide_f16", "attention_last_wide_bf16"],
        );
        let grid = [heads.count as u32, count as u32, 1];
        self.launch(kernel, grid, LAST_THREADS, 4 * prompts.longest(), &arguments)
    }

    /// Kernel `attention_last_gradient`: `of_q` `[prompts, width]`, `of_k` and `of_v` at every
    /// position as columns of rows `keys.stride` wide; formats as for [`Self::attention_gradient`].
    ///
    /// # Panics
    ///
    /// As [`Self::attention`].
    #[allow(clippy::too_many_arguments)]
    pub fn attention_last_gradient(
        &self,
        format: Precision,
        of_q: &SliceMut<'_>,
        [of_k, of_v]: [&SliceMut<'_>; 2],
        q: Slice<'_>,
        keys: Keys<'_>,
        upstream: Slice<'_>,
        dropped: Dropped<'_>,
        prompts: &Prompts<M>,
        heads: Heads,
    ) -> Result<(), Trouble<M>> {
        assert!(heads.width <= Heads::WIDEST, "heads that the kernels take");
        assert!(prompts.longest() <= Heads::LONGEST, "prompts that the kernels take");
        let (count, width) = (prompts.count(), heads.all());
        let [k, v] = keys.checked(Precision::F32, prompts.positions(), width);
        let bytes = 4 * extent(prompts.positions(), width, keys.stride);
        let arguments = [
            of_q.checked(4 * count * width).into(),
            of_k.checked(bytes).into(),
            of_v.checked(bytes).into(),
            q.checked(4 * count * width).into(),
            k.into(),
            v.into(),
            (keys.stride as u32).into(),
            upstream.checked(4 * count * width).into(),
            self.offsets_of(prompts),
            dropped.keys.map_or(0, |keys| keys.checked(8 * count)).into(),
            dropped.threshold.into(),
            dropped.kept.into(),
            (heads.width as u32).into(),
        ];
        let grid = [heads.count as u32, count as u32, 1];
        let names =
            ["attention_last_gradient_f32", "attention_last_gradient_f16", "attention_last_gradient_bf16"];
        self.launch(named(names, format), grid, LAST_THREADS, 8 * prompts.longest(), &arguments)
    }
}

/// (tiles of the longest prompt, heads, prompts)
fn grid<M: Machine>(prompts: &Prompts<M>, heads: Heads, tile: usize) -> [u32; 3] {
    [prompts.longest().div_ceil(tile) as u32, heads.count as u32, prompts.count() as u32]
}
