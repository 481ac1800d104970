//! Where a model stage computes: on the processor, or on the device beside it that its job names.

use rayon::ThreadPool;

use super::processor::{self, BATCH_POSITIONS, ProcessorEncoder, ProcessorFinisher};
use crate::{
    contract::{StageCx, StageError},
    data::HiddenFormat,
    gpt2::{
        Accelerator, Activation, BlockWeights, Config, Encoder, Finisher, Norm, Precision, Weights,
        training::{Learner, Moments, Network, ProcessorLearner},
    },
};

/// The device of a stage, and the threads of the processor that the stage may use.
pub struct Device {
    pool: ThreadPool,
    accelerator: Option<Box<dyn Accelerator>>,
    precision: Precision,
}

impl Device {
    /// Opens the device that the job names; says in the stage's events what it is.
    pub fn open(cx: &StageCx<'_>, precision: Precision) -> Result<Self, StageError> {
        let accelerator = cx.accelerator()?;
        let pool = match &accelerator {
            None => processor::pool(cx)?,
            Some(accelerator) => {
                cx.computes_on(&accelerator.name());
                processor::threads(cx)?
            }
        };
        Ok(Self { pool, accelerator, precision })
    }

    /// Runs `stage` on the threads of the stage.
    pub fn run<R: Send>(&self, stage: impl FnOnce() -> R + Send) -> R {
        self.pool.install(stage)
    }

    /// What must be equal for two attempts to compute the same bits.
    pub fn decides_bits(&self) -> String {
        match &self.accelerator {
            Some(accelerator) => format!("{}, {}", accelerator.decides_bits(), self.precision),
            None => processor::decides_bits(self.precision),
        }
    }

    /// Positions of a batch without gradients, to begin with.
    pub fn batch_positions(&self, config: &Config) -> usize {
        match &self.accelerator {
            Some(accelerator) => accelerator.batch_positions(config),
            None => BATCH_POSITIONS,
        }
    }

    /// The embeddings and the first blocks of `weights`, as many as `format` says.
    pub fn encoder<'a>(
        &self,
        weights: &'a Weights,
        format: HiddenFormat,
    ) -> Result<Box<dyn Encoder + 'a>, StageError> {
        Ok(match &self.accelerator {
            Some(accelerator) => accelerator.encoder(weights, format, self.precision)?,
            None => Box::new(ProcessorEncoder::new(weights, format, self.precision)),
        })
    }

    /// `blocks` above hidden states, and the norm after them.
    pub fn finisher<'a>(
        &self,
        config: &Config,
        blocks: Vec<BlockWeights<'a>>,
        norm: Norm<'a>,
        activation: Activation,
    ) -> Result<Box<dyn Finisher + 'a>, StageError> {
        Ok(match &self.accelerator {
            Some(accelerator) => accelerator.finisher(config, &blocks, &norm, activation, self.precision)?,
            None => Box::new(ProcessorFinisher::new(config, blocks, norm, activation, self.precision)),
        })
    }

    /// What computes the updates of `network`, whose optimizer has these moments.
    pub fn learner(&self, network: &Network, moments: &[Moments]) -> Result<Box<dyn Learner>, StageError> {
        Ok(match &self.accelerator {
            Some(accelerator) => accelerator.learner(network, moments)?,
            None => Box::new(ProcessorLearner::default()),
        })
    }
}
