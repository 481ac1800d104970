//! GPT-2: its shape, its weights, its forward pass.

mod activation;
mod config;
mod model_file;
mod weights;

pub use activation::Activation;
pub use config::Config;
pub use model_file::{LoraTarget, Method, ModelFile};
pub(crate) use weights::map;
pub use weights::{Weights, tensor_shapes, write_weights};
