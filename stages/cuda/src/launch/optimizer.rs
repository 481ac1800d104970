//! The norm of all gradients, and the optimizer.

use std::marker::PhantomData;

use pipe_stages::gpt2::training::AdamW;

use super::{Kernels, MOST_BLOCKS, THREADS};
use crate::{
    buffer::Buffer,
    machine::{Argument, Machine, Numbers, Trouble},
    slice::{Slice, SliceMut},
};

/// Numbers of a tensor that a block takes together.
const CHUNK: usize = 4096;
/// Words of 64 bits by which kernels know a tensor.
const WORDS: usize = 7;

/// A tensor of `count` numbers that an update changes.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// What is trained.
    pub values: SliceMut<'a>,
    /// Running mean of the gradient.
    pub first: SliceMut<'a>,
    /// Running mean of its square.
    pub second: SliceMut<'a>,
    /// The gradient.
    pub gradients: Slice<'a>,
    /// How many numbers.
    pub count: usize,
    /// 1 less the decay of the values.
    pub keep: f64,
}

/// The tensors of an update, as kernels know them.
#[derive(Debug)]
pub struct Tensors<'a, M: Machine> {
    table: Numbers<M>,
    count: usize,
    /// Blocks that work on them.
    blocks: usize,
    /// Borrowed as long as kernels may change them.
    tensors: PhantomData<Tensor<'a>>,
}

/// The constants of one update, as [`pipe_stages::gpt2::training::AdamW`] computes them.
#[derive(Debug, Clone, Copy)]
pub struct AdamWArguments {
    /// Largest norm of all gradients; 0 for no limit.
    pub clip: f64,
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
    /// Lets kernels know `tensors`.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn tensors<'a>(
        &self,
        tensors: impl IntoIterator<Item = Tensor<'a>>,
    ) -> Result<Tensors<'a, M>, Trouble<M>> {
        let (mut words, mut chunks) = (Vec::new(), 0);
        for tensor in tensors {
            let bytes = 4 * tensor.count;
            chunks += tensor.count.div_ceil(CHUNK);
            words.extend([
                tensor.values.checked(bytes),
                tensor.first.checked(bytes),
                tensor.second.checked(bytes),
                tensor.gradients.checked(bytes),
                tensor.count as u64,
                chunks as u64,
                tensor.keep.to_bits(),
            ]);
        }
        assert!(!words.is_empty(), "an update of something");
        Ok(Tensors {
            table: self.upload(bytemuck::cast_slice(&words))?,
            count: words.len() / WORDS,
            blocks: chunks.clamp(1, MOST_BLOCKS as usize),
            tensors: PhantomData,
        })
    }

    /// The sum of the squares of all gradients, as an f64 in a buffer.
    pub fn sum_of_squares(&self, tensors: &Tensors<'_, M>) -> Result<Buffer<M>, Trouble<M>> {
        let (mut parts, mut total) = (self.buffer(2 * tensors.blocks)?, self.buffer(2)?);
        let parts = self.slice_mut(&mut parts);
        let [table, count] = self.table(tensors);
        let arguments = [parts.checked(8 * tensors.blocks).into(), table, count];
        self.launch("squares", [tensors.blocks as u32, 1, 1], THREADS, 0, &arguments)?;
        let arguments = [
            self.slice_mut(&mut total).checked(8).into(),
            parts.checked(8 * tensors.blocks).into(),
            (tensors.blocks as u64).into(),
        ];
        self.launch("total_of", [1, 1, 1], THREADS, 0, &arguments)?;
        Ok(total)
    }

    /// Kernel `adamw`: an update of all `tensors`; `total` is what [`Self::sum_of_squares`] gave.
    pub fn adamw(
        &self,
        tensors: &Tensors<'_, M>,
        total: Slice<'_>,
        loss: Slice<'_>,
        with: AdamWArguments,
    ) -> Result<(), Trouble<M>> {
        let [table, count] = self.table(tensors);
        let arguments = [
            table,
            count,
            total.checked(8).into(),
            loss.checked(8).into(),
            with.clip.into(),
            with.betas[0].into(),
            with.rests[0].into(),
            with.betas[1].into(),
            with.rests[1].into(),
            with.step_size.into(),
            with.root.into(),
            with.epsilon.into(),
        ];
        self.launch("adamw", [tensors.blocks as u32, 1, 1], THREADS, 0, &arguments)
    }

    fn table(&self, tensors: &Tensors<'_, M>) -> [Argument; 2] {
        let bytes = 8 * WORDS * tensors.count;
        [self.slice(&tensors.table).checked(bytes).into(), (tensors.count as u32).into()]
    }
}

impl AdamWArguments {
    /// The constants of update `step`, counted from 0, at the learning rate `rate`.
    pub fn new(adamw: &AdamW, step: u64, rate: f64, clip: f64) -> Self {
        let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
        Self {
            clip,
            betas: adamw.betas.map(|beta| beta as f32),
            rests: adamw.betas.map(|beta| (1.0 - beta) as f32),
            step_size: (rate / (1.0 - adamw.betas[0].powi(t))) as f32,
            root: (1.0 - adamw.betas[1].powi(t)).sqrt().recip() as f32,
            epsilon: adamw.epsilon as f32,
        }
    }
}
