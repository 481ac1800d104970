//! Backward passes of the kernels, and the forward passes that keep what they need.
//!
//! Gradients are added to what the target already holds. Sums run in a fixed order, so the number
//! of threads changes nothing.

pub mod attention;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
