//! What the kernels run on: a GPU, or in tests the processor in its place.

use std::fmt;

use dfdx::prelude::{Gradients, HasErr, OwnedTape, Rank0, Storage, Tensor, ZerosTensor};
use pipe_stages::gpt2::{Failure, Precision};

/// A buffer of the machine's device, in which numbers are counted as f32.
pub type Numbers<M> = <<M as Machine>::Device as Storage<f32>>::Vec;
/// What goes wrong on the machine's device.
pub type Trouble<M> = <<M as Machine>::Device as HasErr>::Err;

/// A tensor at the end of a tape.
pub type Loss<M> = Tensor<Rank0, f32, <M as Machine>::Device, OwnedTape<f32, <M as Machine>::Device>>;

/// Bytes that came from the device.
pub type Fetched = Box<dyn AsRef<[u8]>>;

/// A device of `dfdx` that also starts kernels and multiplies matrices.
///
/// What is started runs in order, and is done when [`Self::download`] has returned.
#[allow(unsafe_code, reason = "kernels read and write whatever address they are given")]
pub trait Machine: fmt::Debug + Clone + 'static {
    /// Holds buffers and gradients.
    type Device: Storage<f32> + ZerosTensor<f32>;

    /// The device.
    fn device(&self) -> &Self::Device;

    /// Where `numbers` begin.
    fn address(numbers: &Numbers<Self>) -> u64;

    /// A buffer of `count` zeros; frees what is kept for later and tries again where there is no room.
    fn zeros(&self, count: usize) -> Result<Numbers<Self>, Trouble<Self>>;

    /// A buffer of `count` numbers with whatever was in it before.
    fn scratch(&self, count: usize) -> Result<Numbers<Self>, Trouble<Self>>;

    /// Keeps a buffer of [`Self::scratch`] for later.
    fn recycle(&self, numbers: Numbers<Self>);

    /// Frees what is kept for later where little memory is left.
    fn trim(&self) -> Result<(), Trouble<Self>>;

    /// Whether more than half of the memory is free, so that what is needed again may stay in it.
    fn has_room(&self) -> Result<bool, Trouble<Self>>;

    /// Starts a kernel.
    ///
    /// # Safety
    ///
    /// `arguments` are those of the kernel, and what it reads and writes by them lies in buffers that
    /// live until the machine is done.
    unsafe fn launch(&self, launch: &Launch, arguments: &[Argument]) -> Result<(), Trouble<Self>>;

    /// Starts a matrix product.
    ///
    /// # Safety
    ///
    /// As for [`Self::launch`]: both factors and the result lie in living buffers.
    unsafe fn multiply(&self, product: &RawProduct) -> Result<(), Trouble<Self>>;

    /// Copies `bytes` to the device; they are read before this returns.
    ///
    /// # Safety
    ///
    /// `to` is the address of a buffer of at least as many bytes.
    unsafe fn upload(&self, bytes: &[u8], to: u64) -> Result<(), Trouble<Self>>;

    /// Copies from the device when all before is done.
    ///
    /// # Safety
    ///
    /// `from` is the address of a buffer of at least as many bytes.
    unsafe fn download(&self, from: u64, into: &mut [u8]) -> Result<(), Trouble<Self>>;

    /// As [`Self::download`], into memory of the machine's own, which a GPU writes to by itself: for much
    /// that is read once.
    ///
    /// # Safety
    ///
    /// `from` is the address of a buffer of at least as many `bytes`.
    unsafe fn fetch(&self, from: u64, bytes: usize) -> Result<Fetched, Trouble<Self>>;

    /// Runs the operations on the tape of `loss` backwards.
    fn backward(&self, loss: Loss<Self>) -> Result<Gradients<f32, Self::Device>, Trouble<Self>>;

    /// What went wrong, as a stage tells it.
    fn failure(trouble: Trouble<Self>) -> Failure;
}

/// The kernels in the source.
pub const KERNELS: &[&str] = &[
    "embed",
    "add_bias",
    "add_branch",
    "drop_f32",
    "drop_f16",
    "drop_bf16",
    "gather_last",
    "scatter_last",
    "convert_f16",
    "convert_bf16",
    "largest_magnitudes",
    "gather_states_f32",
    "gather_states_f16",
    "widen_f16",
    "f16_to_bf16",
    "column_sums_f32",
    "column_sums_f16",
    "column_sums_bf16",
    "add_parts",
    "layer_norm_f32",
    "layer_norm_f16",
    "layer_norm_bf16",
    "layer_norm_gradient",
    "layer_norm_column_sums",
    "gelu_f32",
    "gelu_f16",
    "gelu_bf16",
    "gelu_gradient_f32",
    "gelu_gradient_f16",
    "gelu_gradient_bf16",
    "attention_f32",
    "attention_f16",
    "attention_bf16",
    "attention_wide_f16",
    "attention_wide_bf16",
    "attention_dots",
    "attention_gradient_q_f32",
    "attention_gradient_q_f16",
    "attention_gradient_q_bf16",
    "attention_gradient_kv_f32",
    "attention_gradient_kv_f16",
    "attention_gradient_kv_bf16",
    "attention_last_f32",
    "attention_last_f16",
    "attention_last_bf16",
    "attention_last_wide_f16",
    "attention_last_wide_bf16",
    "attention_last_gradient_f32",
    "attention_last_gradient_f16",
    "attention_last_gradient_bf16",
    "head_logits",
    "cross_entropy",
    "head_gradient",
    "squares",
    "total_of",
    "adamw",
];

/// The size that a buffer of `count` numbers gets: at most an eighth more, so that ragged batches share
/// a few sizes and the cache of allocations stays small.
pub fn size_class(count: usize) -> usize {
    const LEAST: usize = 64;
    let step = (count.max(1).next_power_of_two() / 16).max(LEAST);
    count.max(1).next_multiple_of(step)
}

/// Which kernel, on how many threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// The name in the source.
    pub kernel: &'static str,
    /// Blocks along three axes, each at least 1.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory beside what the kernel declares.
    pub shared: u32,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// A pointer or an unsigned number of 64 bits.
    Wide(u64),
    /// An unsigned number of 32 bits.
    Count(u32),
    /// A number of 32 bits.
    Single(f32),
    /// A number of 64 bits.
    Double(f64),
}

impl Argument {
    /// Where the value lies, for a list of arguments.
    pub fn place(&self) -> *mut std::ffi::c_void {
        let place: *const std::ffi::c_void = match self {
            Self::Wide(value) => std::ptr::from_ref(value).cast(),
            Self::Count(value) => std::ptr::from_ref(value).cast(),
            Self::Single(value) => std::ptr::from_ref(value).cast(),
            Self::Double(value) => std::ptr::from_ref(value).cast(),
        };
        place.cast_mut()
    }
}

impl From<u64> for Argument {
    fn from(value: u64) -> Self {
        Self::Wide(value)
    }
}

impl From<u32> for Argument {
    fn from(value: u32) -> Self {
        Self::Count(value)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Single(value)
    }
}

impl From<f64> for Argument {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

/// A factor of a product: a row-major matrix whose rows begin `stride` numbers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFactor {
    /// Of the first number.
    pub address: u64,
    /// Numbers from row to row.
    pub stride: usize,
    /// Whether rows are taken as columns.
    pub transposed: bool,
}

/// `c = alpha · a·b + beta · c`, with `c` `[m, n]` and sums in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawProduct {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Products of a sum.
    pub k: usize,
    /// Scales the product.
    pub alpha: f32,
    /// `[m, k]` once transposed where it says so.
    pub a: RawFactor,
    /// `[k, n]` once transposed where it says so.
    pub b: RawFactor,
    /// The format of both factors.
    pub format: Precision,
    /// Scales what the result held; 0 to overwrite it.
    pub beta: f32,
    /// Of the result's first number.
    pub c: u64,
    /// The format of the result: f32 or that of the factors.
    pub c_format: Precision,
    /// Numbers from row to row of the result.
    pub c_stride: usize,
}

/// A product as BLAS counts, along columns: `c = alpha · op(a)·op(b) + beta · c`, where `op` transposes
/// or does not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlasProduct {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Products of a sum.
    pub k: usize,
    /// The first factor; its stride is from column to column.
    pub a: RawFactor,
    /// The second factor; its stride is from column to column.
    pub b: RawFactor,
}

impl RawProduct {
    /// To BLAS our rows are columns, so that it sees `cᵀ = bᵀ·aᵀ`.
    pub fn along_columns(&self) -> BlasProduct {
        BlasProduct { m: self.n, n: self.m, k: self.k, a: self.b, b: self.a }
    }
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn sizes_are_few_and_at_most_an_eighth_too_large() {
        let classes: std::collections::BTreeSet<usize> = (1..=1 << 20).map(size_class).collect();
        assert!(classes.len() < 140, "{}", classes.len());
        for count in [1, 63, 64, 65, 1025, 70_000, 999_999] {
            let class = size_class(count);
            assert!(class >= count && class <= (count + count / 8).max(count + 64), "{count}: {class}");
        }
    }
}
