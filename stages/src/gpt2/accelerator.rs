//! A device beside the processor that computes GPT-2.
//!
//! What links such a device is a program of its own: it hands [`worker`](crate::contract::worker)
//! the function that opens its device, and stages find it in their context. The processor computes
//! behind the same traits, so a stage has one way through.

use std::fmt;

use rayon::prelude::*;

use super::{
    Activation, BlockWeights, Config, Norm, Precision, Weights,
    kernels::vector::{Instructions, largest_magnitude},
    training::{Learner, Moments, Network},
};
use crate::{
    contract::StageError,
    data::{HiddenFormat, States},
};

/// A device that is open.
pub trait Accelerator: fmt::Debug + Send + Sync {
    /// What a person calls it, such as `cuda (NVIDIA H100 80GB HBM3)`.
    fn name(&self) -> String;

    /// What of it decides the last bits of a result: kind, model, capability, driver.
    fn decides_bits(&self) -> String;

    /// Positions to compute together without gradients in a GPT-2 of the shape `config`, to begin with.
    fn batch_positions(&self, config: &Config) -> usize;

    /// The embeddings and the first blocks of `weights`, as many as `format` says.
    fn encoder(
        &self,
        weights: &Weights,
        format: HiddenFormat,
        precision: Precision,
    ) -> Result<Box<dyn Encoder>, Failure>;

    /// `blocks` above hidden states, and the norm after them.
    fn finisher(
        &self,
        config: &Config,
        blocks: &[BlockWeights<'_>],
        norm: &Norm<'_>,
        activation: Activation,
        precision: Precision,
    ) -> Result<Box<dyn Finisher>, Failure>;

    /// What computes the updates of `network`, whose optimizer has these moments, one a parameter.
    fn learner(&self, network: &Network, moments: &[Moments]) -> Result<Box<dyn Learner>, Failure>;
}

/// Opens the device that the process may use; the error says what is missing and what to do.
pub type OpenAccelerator = fn() -> Result<Box<dyn Accelerator>, StageError>;

/// The embeddings and some blocks. A batch that was started is taken before the next is started, so
/// that a device computes while the processor writes the batch before.
pub trait Encoder {
    /// Starts on the prompts `tokens`, which `offsets` (one more than prompts, from 0) cut.
    ///
    /// Where it fails for lack of memory, nothing has changed.
    fn start(&mut self, tokens: &[u32], offsets: &[usize]) -> Result<(), Failure>;

    /// The states of every position of the batch that was started.
    fn take(&mut self) -> Result<Encoded, Failure>;
}

/// The states of the prompts of a batch.
pub struct Encoded {
    /// `[positions, n_embd]`, as their file stores them. A number past what can be stored is infinite.
    pub bytes: Box<dyn AsRef<[u8]>>,
    /// The largest magnitude in the states of each prompt as they were computed; not a number if one of
    /// them is not.
    pub magnitudes: Vec<f32>,
}

impl Encoded {
    /// Of `states` in memory, which `offsets` cut.
    pub fn new(states: Vec<f32>, offsets: &[usize], format: HiddenFormat) -> Self {
        let instructions = Instructions::best();
        let of_prompt = |cut: &[usize]| &states[cut[0] * format.n_embd..cut[1] * format.n_embd];
        let magnitudes =
            offsets.par_windows(2).map(|cut| largest_magnitude(instructions, of_prompt(cut))).collect();
        Self { bytes: Box::new(States::new(states, format.dtype)), magnitudes }
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded of {} prompts", self.magnitudes.len())
    }
}

/// The last blocks and the final norm; batches as for [`Encoder`].
pub trait Finisher {
    /// Starts on `hidden` `[positions, n_embd]`, which `offsets` cut.
    ///
    /// Where it fails for lack of memory, nothing has changed.
    fn start(&mut self, hidden: States, offsets: &[usize]) -> Result<(), Failure>;

    /// The final state at the last position of each prompt, `[prompts, n_embd]`.
    fn take(&mut self) -> Result<Vec<f32>, Failure>;
}

/// What a device could not do.
#[derive(Debug)]
pub enum Failure {
    /// It has no room for the batch; a smaller one may fit.
    OutOfMemory,
    /// Anything else.
    Other(StageError),
}

impl From<StageError> for Failure {
    fn from(err: StageError) -> Self {
        Self::Other(err)
    }
}

impl From<Failure> for StageError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::OutOfMemory => StageError::new("the device has too little memory for the model")
                .help("free memory on the GPU, or run with `--device cpu`"),
            Failure::Other(err) => err,
        }
    }
}
