//! Training on `dfdx`: its tensors hold the parameters, its tape orders the backward pass, and
//! the kernels enter as operations of its own ([`ops`]).
//!
//! [`Network`] gives loss and gradients of a micro-batch, [`train`] is the one training loop.
//! [`Stock`](super::Stock) is the same model in `dfdx`'s own operations, to compare with.

mod adamw;
mod batch;
mod checkpoint;
mod learner;
mod network;
mod ops;
mod order;
mod parameters;
mod schedule;
mod settings;
mod trainer;

pub use adamw::{AdamW, Moments};
pub use batch::Batch;
pub use checkpoint::{read_progress, write_progress};
pub use learner::{Given, Learner, ProcessorLearner, Update};
pub use network::{Network, trainable_parameters};
pub use order::{Order, Split};
pub use parameters::Parameter;
pub use schedule::Schedule;
pub use settings::{Length, TrainSettings};
pub use trainer::{
    Best, Data, Evaluation, Outcome, Progress, Step, Validation, Watch, loss_and_gradients, train, train_with,
};
