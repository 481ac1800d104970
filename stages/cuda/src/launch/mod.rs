//! Starts kernels with arguments whose bounds are checked: the safe face of a [`Machine`].
//!
//! Shapes are given in rows and columns as the documentation of each kernel in `kernels/` says.

mod attention;
mod optimizer;
mod rows;
mod training;

use pipe_stages::gpt2::Precision;

pub use attention::{Formats, Heads, Keys};
pub use optimizer::{AdamWArguments, Tensor, Tensors};
pub use rows::NormSlices;

use crate::{
    buffer::Buffer,
    machine::{Argument, Fetched, Launch, Machine, Numbers, RawProduct, Trouble},
    prompts::Prompts,
    slice::{Factor, Slice, SliceMut, bytes_of, extent},
};

/// Threads of a block where a kernel does not say.
const THREADS: u32 = 256;
/// Most blocks of a kernel that steps over its elements: enough to fill any GPU.
const MOST_BLOCKS: u64 = 4096;
/// Threads of a warp.
const WARP: u32 = 32;

/// The kernels of a machine.
#[derive(Debug, Clone)]
pub struct Kernels<M> {
    machine: M,
}

/// The name of a kernel in the format of what it writes.
fn named(names: [&'static str; 3], format: Precision) -> &'static str {
    names[format as usize]
}

/// A grid for one thread an element, or more elements a thread.
fn over(count: usize) -> [u32; 3] {
    let blocks = (count as u64).div_ceil(u64::from(THREADS)).clamp(1, MOST_BLOCKS);
    [blocks as u32, 1, 1]
}

/// A grid for a thread four channels, or more: blocks of a row along x, rows along y; and the threads of
/// a block.
fn over_rows(rows: usize, width: usize) -> ([u32; 3], u32) {
    let fours = (width as u64).div_ceil(4).max(1);
    let blocks = fours.div_ceil(u64::from(THREADS)).min(MOST_BLOCKS);
    let threads = fours.div_ceil(blocks).next_multiple_of(u64::from(WARP)).min(u64::from(THREADS));
    let along_rows = (rows as u64).clamp(1, MOST_BLOCKS / blocks);
    ([blocks as u32, along_rows as u32, 1], threads as u32)
}

/// A grid for a warp a row.
fn warps(rows: usize) -> [u32; 3] {
    [(rows as u32).div_ceil(THREADS / WARP).max(1), 1, 1]
}

impl<M: Machine> Kernels<M> {
    /// The kernels of `machine`.
    pub fn new(machine: M) -> Self {
        Self { machine }
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// A buffer of `count` zeros.
    pub fn zeros(&self, count: usize) -> Result<Numbers<M>, Trouble<M>> {
        self.machine.zeros(count)
    }

    /// A buffer of `count` numbers that are written before they are read.
    pub fn buffer(&self, count: usize) -> Result<Buffer<M>, Trouble<M>> {
        Buffer::new(&self.machine, count)
    }

    /// A buffer with `bytes`, filled up with zeros.
    pub fn upload(&self, bytes: &[u8]) -> Result<Numbers<M>, Trouble<M>> {
        let mut numbers = self.zeros(bytes.len().div_ceil(4))?;
        self.write(bytes, SliceMut::of(&self.machine, &mut numbers))?;
        Ok(numbers)
    }

    /// A buffer with `values`.
    pub fn upload_floats(&self, values: &[f32]) -> Result<Numbers<M>, Trouble<M>> {
        self.upload(bytemuck::cast_slice(values))
    }

    /// Copies `bytes` to the start of `to`.
    ///
    /// # Panics
    ///
    /// If there are more than fit.
    #[allow(unsafe_code, reason = "bounds are checked here")]
    pub fn write(&self, bytes: &[u8], to: SliceMut<'_>) -> Result<(), Trouble<M>> {
        let to = to.checked(bytes.len());
        // SAFETY: the buffer has as many bytes and lives, since its slice does.
        unsafe { self.machine.upload(bytes, to) }
    }

    /// Copies the first `bytes` of `from`, when all before is done.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[allow(unsafe_code, reason = "bounds are checked here")]
    pub fn read(&self, from: Slice<'_>, bytes: &mut [u8]) -> Result<(), Trouble<M>> {
        let from = from.checked(bytes.len());
        // SAFETY: the buffer has as many bytes and lives, since its slice does.
        unsafe { self.machine.download(from, bytes) }
    }

    /// As [`Self::read`], into memory of the machine's own.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[allow(unsafe_code, reason = "bounds are checked here")]
    pub fn fetch(&self, from: Slice<'_>, bytes: usize) -> Result<Fetched, Trouble<M>> {
        let from = from.checked(bytes);
        // SAFETY: the buffer has as many bytes and lives, since its slice does.
        unsafe { self.machine.fetch(from, bytes) }
    }

    /// The first `count` numbers of `from`, when all before is done.
    pub fn floats(&self, from: Slice<'_>, count: usize) -> Result<Vec<f32>, Trouble<M>> {
        let mut values = vec![0.0; count];
        self.read(from, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// `numbers` to read.
    pub fn slice<'a>(&self, numbers: &'a Numbers<M>) -> Slice<'a> {
        Slice::of(&self.machine, numbers)
    }

    /// `numbers` to write.
    pub fn slice_mut<'a>(&self, numbers: &'a mut Numbers<M>) -> SliceMut<'a> {
        SliceMut::of(&self.machine, numbers)
    }

    /// Where the prompts begin and the last one ends, as an argument.
    fn offsets_of(&self, prompts: &Prompts<M>) -> Argument {
        prompts.offsets(&self.machine).checked(4 * (prompts.count() + 1)).into()
    }

    /// `c = alpha · a·b + beta · c`, for `c` in f32 of rows `stride` wide.
    ///
    /// # Panics
    ///
    /// If shapes, formats or bounds do not fit.
    pub fn multiply(
        &self,
        alpha: f32,
        a: Factor<'_>,
        b: Factor<'_>,
        beta: f32,
        c: SliceMut<'_>,
        stride: usize,
    ) -> Result<(), Trouble<M>> {
        self.product(alpha, a, b, beta, (c, Precision::F32), stride)
    }

    /// `c = a·b`, for `c` in the format of the factors, of rows `stride` wide.
    ///
    /// # Panics
    ///
    /// As [`Self::multiply`].
    pub fn multiply_rounded(
        &self,
        a: Factor<'_>,
        b: Factor<'_>,
        c: SliceMut<'_>,
        stride: usize,
    ) -> Result<(), Trouble<M>> {
        self.product(1.0, a, b, 0.0, (c, a.format()), stride)
    }

    #[allow(unsafe_code, reason = "shapes and bounds are checked here")]
    fn product(
        &self,
        alpha: f32,
        a: Factor<'_>,
        b: Factor<'_>,
        beta: f32,
        (c, c_format): (SliceMut<'_>, Precision),
        stride: usize,
    ) -> Result<(), Trouble<M>> {
        let ((m, k), (rows_of_b, n)) = (a.shape(), b.shape());
        assert!(k == rows_of_b && n <= stride, "shapes of a product");
        assert_eq!(a.format(), b.format(), "factors of one format");
        if m == 0 || n == 0 {
            return Ok(());
        }
        let product = RawProduct {
            m,
            n,
            k,
            alpha,
            a: a.raw(),
            b: b.raw(),
            format: a.format(),
            beta,
            c: c.checked(bytes_of(c_format) * extent(m, n, stride)),
            c_format,
            c_stride: stride,
        };
        // SAFETY: factors and result lie in their buffers, which live: their slices do.
        unsafe { self.machine.multiply(&product) }
    }

    /// Starts `kernel`; the callers of this module have checked the bounds of `arguments`.
    #[allow(unsafe_code, reason = "the functions of this module check bounds before they call it")]
    fn launch(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        threads: u32,
        shared: usize,
        arguments: &[Argument],
    ) -> Result<(), Trouble<M>> {
        let launch = Launch { kernel, grid, threads, shared: shared as u32 };
        // SAFETY: each function of this module passes the arguments that its kernel declares, with
        // addresses from slices whose lengths it has checked.
        unsafe { self.machine.launch(&launch, arguments) }
    }

    /// As [`Self::launch`] for a kernel over the channels of rows.
    fn each_of_rows(
        &self,
        kernel: &'static str,
        rows: usize,
        width: usize,
        arguments: &[Argument],
    ) -> Result<(), Trouble<M>> {
        if rows * width == 0 {
            return Ok(());
        }
        let (grid, threads) = over_rows(rows, width);
        self.launch(kernel, grid, threads, 0, arguments)
    }

    /// As [`Self::launch`] with a thread an element, or a thread four where the caller counts fours.
    fn each(&self, kernel: &'static str, count: usize, arguments: &[Argument]) -> Result<(), Trouble<M>> {
        if count == 0 {
            return Ok(());
        }
        self.launch(kernel, over(count), THREADS, 0, arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::{over, over_rows, warps};

    #[test]
    fn grids_cover_every_element_and_stay_within_bounds() {
        assert_eq!(over(1), [1, 1, 1]);
        assert_eq!(over(256), [1, 1, 1]);
        assert_eq!(over(257), [2, 1, 1]);
        assert_eq!(over(usize::MAX), [4096, 1, 1]);
        assert_eq!(over_rows(1, 5), ([1, 1, 1], 32));
        assert_eq!(over_rows(100, 768), ([1, 100, 1], 192));
        assert_eq!(over_rows(40_000, 1536), ([2, 2048, 1], 192));
        assert_eq!(over_rows(7, 3072), ([3, 7, 1], 256));
        assert_eq!(over_rows(usize::MAX, u32::MAX as usize), ([4096, 1, 1], 256));
        assert_eq!(warps(1), [1, 1, 1]);
        assert_eq!(warps(17), [3, 1, 1]);
    }
}
