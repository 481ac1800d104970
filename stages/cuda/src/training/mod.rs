//! Training on a [`Machine`](crate::machine::Machine), as `pipe_stages::gpt2::training` does it on the
//! processor.
//!
//! `dfdx`'s tape orders the backward pass and its gradients hold those of the parameters; the
//! operations on the tape start our kernels. Activations, parameters and moments stay on the device:
//! an update waits for it once, at its end, for the loss and the norm.

mod adapter;
mod attention;
mod learner;
mod mlp;
mod parameters;
mod pass;
mod rounded;
mod states;
mod stream;

pub use learner::DeviceLearner;
