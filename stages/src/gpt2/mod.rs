//! GPT-2: its shape, its weights, its forward pass.

mod accelerator;
mod activation;
mod block;
mod config;
mod forward;
mod hugging_face;
mod initial;
pub mod kernels;
mod model_file;
mod precision;
mod stock;
pub mod training;
pub mod transformers;
mod weights;

pub use accelerator::{Accelerator, Encoded, Encoder, Failure, Finisher, OpenAccelerator};
pub use activation::Activation;
pub use block::{BlockWeights, Linear, Norm, blocks_from, final_norm};
pub use config::Config;
pub use forward::{Forward, embed};
pub use hugging_face::HuggingFace;
pub use initial::initial_tensor;
pub use model_file::{LoraTarget, Method, ModelFile};
pub use precision::Precision;
pub use stock::Stock;
pub(crate) use weights::map;
pub use weights::{Weights, tensor_shapes, write_weights};
