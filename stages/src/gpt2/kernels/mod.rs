//! Kernels over plain slices, which inference and training share.
//!
//! A result depends on the numbers of its own row alone and on the instruction set, never on
//! the other rows of a batch or on the number of threads: sums run in a fixed order.

pub mod attention;
pub mod gelu;
pub mod gemm;
pub mod layer_norm;
pub mod vector;

/// Rows that one task takes, for kernels that go row by row.
const ROWS_PER_TASK: usize = 32;
