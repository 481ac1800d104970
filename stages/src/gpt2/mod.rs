//! GPT-2: its shape, its weights, its forward pass.

mod activation;
mod config;
mod weights;

pub use activation::Activation;
pub use config::Config;
pub(crate) use weights::map;
pub use weights::{Weights, tensor_shapes, write_weights};
