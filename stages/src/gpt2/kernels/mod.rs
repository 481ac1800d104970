//! Kernels over plain slices, which inference and training share.
//!
//! A result depends on the numbers of its own row alone and on the instruction set, never on
//! the other rows of a batch or on the number of threads: sums run in a fixed order.

// Bodies must be inlined into the function that enables the instructions; indexed loops over
// arrays of lanes are what the compiler turns into vector instructions.
#![allow(clippy::inline_always, clippy::needless_range_loop)]

pub mod attention;
pub mod dropout;
pub mod gelu;
pub mod gemm;
pub mod gradient;
pub mod layer_norm;
pub mod matrix_unit;
pub mod rounding;
pub mod vector;

/// Rows that one task takes, for kernels that go row by row.
const ROWS_PER_TASK: usize = 32;
