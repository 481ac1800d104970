//! Low-rank additions.

use dfdx::prelude::CpuError;

use super::{Pass, add, matrix, matrix_mut, parameter_matrix};
use crate::gpt2::{
    kernels::{
        dropout::Site,
        gemm::{Matrix, MatrixMut, Target, Threads, multiply},
    },
    training::parameters::{Adapter, Grads},
};

/// What the backward pass of an adapter needs.
pub(super) struct Saved {
    /// The input times A, `[rows, rank]`.
    down: Vec<f32>,
}

/// The rows that an adapter reads.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub values: &'a [f32],
    pub last: bool,
    pub block: usize,
}

impl Input<'_> {
    /// Runs `compute` with the input after dropout.
    fn with_dropped<R>(self, pass: &Pass, adapter: &Adapter, compute: impl FnOnce(&[f32]) -> R) -> R {
        let site = Site::LoraInput(adapter.target);
        if !pass.batch.drops(self.block, site) {
            return compute(self.values);
        }
        let mut kept = self.values.to_vec();
        pass.batch.apply_dropout(self.last, self.block, site, &mut kept, pass.n_embd);
        compute(&kept)
    }
}

/// Adds `scale · (dropout(x)·a)·b` to `out`.
pub(super) fn forward(pass: &Pass, adapter: &Adapter, x: Input<'_>, out: MatrixMut<'_>) -> Saved {
    let rank = adapter.rank();
    let mut down = vec![0.0; x.values.len() / pass.n_embd * rank];
    x.with_dropped(pass, adapter, |x| {
        let product = matrix_mut(&mut down, rank);
        let a = parameter_matrix(&adapter.a);
        multiply(Threads::All, 1.0, matrix(x, pass.n_embd), a, Target::Replace, product);
    });
    let b = parameter_matrix(&adapter.b);
    multiply(Threads::All, adapter.scale, matrix(&down, rank), b, Target::Add, out);
    Saved { down }
}

/// Adds the gradients of A and B, and of the input where `of_input` is given.
pub(super) fn backward(
    pass: &Pass,
    gradients: &mut Grads,
    adapter: &Adapter,
    x: Input<'_>,
    saved: &Saved,
    upstream: Matrix<'_>,
    of_input: Option<&mut [f32]>,
) -> Result<(), CpuError> {
    let (rank, scale) = (adapter.rank(), adapter.scale);
    if let Some(of_b) = adapter.b.gradient(gradients)? {
        let of_b = matrix_mut(of_b, pass.n_embd);
        multiply(Threads::All, scale, matrix(&saved.down, rank).transposed(), upstream, Target::Add, of_b);
    }
    let mut of_down = vec![0.0; saved.down.len()];
    let b = parameter_matrix(&adapter.b).transposed();
    multiply(Threads::All, scale, upstream, b, Target::Replace, matrix_mut(&mut of_down, rank));
    let of_down = matrix(&of_down, rank);
    if let Some(of_a) = adapter.a.gradient(gradients)? {
        x.with_dropped(pass, adapter, |x| {
            let x = matrix(x, pass.n_embd).transposed();
            multiply(Threads::All, 1.0, x, of_down, Target::Add, matrix_mut(of_a, rank));
        });
    }
    if let Some(of_input) = of_input {
        let mut of_kept = vec![0.0; of_input.len()];
        let a = parameter_matrix(&adapter.a).transposed();
        multiply(Threads::All, 1.0, of_down, a, Target::Replace, matrix_mut(&mut of_kept, pass.n_embd));
        let site = Site::LoraInput(adapter.target);
        pass.batch.apply_dropout(x.last, x.block, site, &mut of_kept, pass.n_embd);
        add(Some(of_input), &of_kept);
    }
    Ok(())
}
