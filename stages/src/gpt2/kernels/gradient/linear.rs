//! Gradients of `y = x·weight + bias`.

use rayon::prelude::*;

use crate::gpt2::kernels::gemm::{Factor, Matrix, MatrixMut, Target, Threads, multiply};

/// Columns that one task sums.
const COLUMNS: usize = 64;

/// `gradient += xᵀ·upstream` for rows `x` `[rows, in]` and `upstream` `[rows, out]`.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn weight(x: Matrix<'_>, upstream: Factor<'_>, gradient: MatrixMut<'_>) {
    multiply(Threads::All, 1.0, x.transposed(), upstream, Target::Add, gradient);
}

/// `gradient = upstream·transposed`, or `+=`, for the transposed weight `[out, in]`.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn input(upstream: Matrix<'_>, transposed: Factor<'_>, target: Target, gradient: MatrixMut<'_>) {
    multiply(Threads::All, 1.0, upstream, transposed, target, gradient);
}

/// Adds the sum of the rows of `upstream`, each as wide as `gradient`.
pub fn bias(upstream: &[f32], gradient: &mut [f32]) {
    let width = gradient.len();
    gradient.par_chunks_mut(COLUMNS).enumerate().for_each(|(chunk, gradient)| {
        let mut sums = [0.0; COLUMNS];
        let sums = &mut sums[..gradient.len()];
        for row in upstream.chunks_exact(width) {
            let row = &row[chunk * COLUMNS..][..sums.len()];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        gradient.iter_mut().zip(sums).for_each(|(gradient, sum)| *gradient += *sum);
    });
}
