//! GPT-2 on NVIDIA GPUs, for the stages of `pipe`.
//!
//! Without the feature `cuda` this package holds what needs no GPU: the source of the kernels and
//! the order in which they are started, generic over the [`Machine`](machine::Machine) that runs
//! them. The tests run both on the processor. With the feature it links `libcuda` and cuBLAS: only a
//! worker of its own may depend on it then, so that `pipe` starts on any machine.

pub mod buffer;
pub mod forward;
pub mod inference;
pub mod launch;
pub mod machine;
pub mod profile;
pub mod prompts;
pub mod slice;
pub mod training;
pub mod weights;

#[cfg(feature = "cuda")]
mod devices;
#[cfg(feature = "cuda")]
mod event;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(feature = "cuda")]
mod open;
#[cfg(feature = "cuda")]
mod pinned;
#[cfg(feature = "cuda")]
mod toolkit;

#[cfg(feature = "cuda")]
pub use devices::{DeviceInfo, DevicesError, devices};
#[cfg(feature = "cuda")]
pub use event::Event;
#[cfg(feature = "cuda")]
pub use gpu::Gpu;
#[cfg(feature = "cuda")]
pub use open::{LEAST_CAPABILITY, open, open_gpu};
#[cfg(feature = "cuda")]
pub use toolkit::CUDA_VERSION;
