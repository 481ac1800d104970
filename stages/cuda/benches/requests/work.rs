//! What is repeated.

use half::f16;
use pipe_cuda::{
    forward::Forward,
    launch::Kernels,
    machine::{Numbers, Trouble},
    profile::{Clock, Profiled},
    prompts::Prompts,
    slice::Factor,
    training::DeviceLearner,
    weights::{Blocks, Norm},
};
use pipe_stages::{
    contract::StageError,
    data::{HiddenFormat, HiddenType, States},
    gpt2::{
        Activation, Config, Method, Precision, Weights,
        kernels::dropout::Draws,
        training::{AdamW, Batch, Given, Learner, Moments, Network, Progress, Update},
    },
};

use super::{failed, model::noise};

/// Work that can be done again and again.
pub trait Work<M: Clock> {
    /// Starts all of it; the device may still be at it afterwards.
    fn run(&mut self) -> Result<(), StageError>;

    /// Whether what it gave are numbers.
    fn check(&self) -> Result<(), StageError>;
}

/// The forward pass over states on the device. Each begins with what the one before has left.
pub struct Pass<'a, M: Clock> {
    forward: Forward<Profiled<M>>,
    blocks: &'a Blocks<Profiled<M>>,
    /// Where only last positions are wanted.
    norm: Option<Norm<Profiled<M>>>,
    prompts: Prompts<Profiled<M>>,
    /// Numbers of one prompt's result that are looked at.
    width: usize,
}

impl<'a, M: Clock> Pass<'a, M> {
    /// Copies `states` of so many prompts, all of one length, to the device.
    pub fn new(
        kernels: &Kernels<Profiled<M>>,
        config: &Config,
        format: Precision,
        blocks: &'a Blocks<Profiled<M>>,
        norm: Option<Norm<Profiled<M>>>,
        states: &[f32],
        prompts: usize,
    ) -> Result<Self, Trouble<M>> {
        let positions = states.len() / config.n_embd;
        let offsets: Vec<usize> = (0..=prompts).map(|prompt| prompt * positions / prompts).collect();
        let mut forward = Forward::new(kernels.clone(), config, Activation::GeluNew, format);
        forward.room(positions)?;
        kernels.write(bytemuck::cast_slice(states), forward.stream())?;
        let prompts = Prompts::new(kernels, &offsets)?;
        Ok(Self { forward, blocks, norm, prompts, width: config.n_embd })
    }
}

impl<M: Clock> Work<M> for Pass<'_, M> {
    fn run(&mut self) -> Result<(), StageError> {
        let done = match &self.norm {
            None => self.forward.blocks(self.blocks, &self.prompts),
            Some(norm) => self.forward.last_states(self.blocks, norm, &self.prompts),
        };
        done.map_err(failed::<M>)
    }

    fn check(&self) -> Result<(), StageError> {
        let states = if self.norm.is_some() { self.forward.final_states() } else { self.forward.states() };
        let states = self.forward.kernels().floats(states, self.width).map_err(failed::<M>)?;
        let are_numbers = states.iter().all(|value| value.is_finite());
        if are_numbers { Ok(()) } else { Err(StageError::new("the states are not finite")) }
    }
}

/// Blocks that are trained.
const TRAINED: usize = 2;

/// Updates as stages make them, each of the same prompts.
pub struct Updates<M: Clock> {
    learner: DeviceLearner<Profiled<M>>,
    network: Network,
    moments: Vec<Moments>,
    dropout: f64,
    batch: Batch,
    labels: Vec<u8>,
    /// Of all prompts, for the first update; they stay on the device where there is room.
    states: States,
    /// Updates made.
    step: u64,
    loss: f64,
}

impl<M: Clock> Updates<M> {
    /// Of prompts of these lengths.
    pub fn new(
        kernels: &Kernels<Profiled<M>>,
        weights: &Weights,
        method: Method,
        format: Precision,
        dropout: f64,
        lengths: &[usize],
    ) -> Result<Self, StageError> {
        let config = weights.config();
        let (blocks, dtype) = (config.n_layer - TRAINED, HiddenType::F16);
        let hidden = HiddenFormat { blocks, n_embd: config.n_embd, activation: Activation::GeluNew, dtype };
        let network = Network::new(weights, hidden, method, TRAINED, 1)?.in_precision(format);
        let moments = Progress::start(&network).moments;
        let states = noise(1, lengths.iter().sum::<usize>() * config.n_embd, 1.0);
        Ok(Self {
            learner: DeviceLearner::new(kernels, &network, &moments)?,
            network,
            moments,
            dropout,
            batch: Batch::new(lengths.iter().copied()),
            labels: (0..lengths.len()).map(|row| (row % 2) as u8).collect(),
            states: States::F16(states.into_iter().map(f16::from_f32).collect()),
            step: 0,
            loss: f64::NAN,
        })
    }
}

impl<M: Clock> Work<M> for Updates<M> {
    fn run(&mut self) -> Result<(), StageError> {
        let draws = Draws::new(1, self.step, self.dropout, 0.0);
        let batch = self.batch.clone().dropping(draws, 0);
        let rows: Vec<usize> = (0..batch.len()).collect();
        let is_held = rows.iter().all(|row| self.learner.holds(*row));
        let given = if is_held {
            Given { rows, lacked: Vec::new(), states: States::F16(Vec::new()) }
        } else {
            Given { lacked: rows.clone(), rows, states: self.states.clone() }
        };
        self.learner.begin()?;
        let share = 1.0 / self.labels.len() as f32;
        self.learner.add(&self.network, given, batch, &self.labels, share)?;
        let adamw = AdamW { betas: [0.9, 0.95], epsilon: 1e-8, weight_decay: 0.1 };
        let update = Update { step: self.step, rate: 1e-4, adamw, clip: 5.0 };
        (self.loss, _) = self.learner.update(&mut self.network, &mut self.moments, &update)?;
        self.step += 1;
        Ok(())
    }

    fn check(&self) -> Result<(), StageError> {
        if self.loss.is_finite() { Ok(()) } else { Err(StageError::new("the loss is not finite")) }
    }
}

/// Work for the device that is started before a profile, so that what is profiled waits in a row.
pub struct HeadStart<M: Clock> {
    factor: Numbers<Profiled<M>>,
    product: Numbers<Profiled<M>>,
    side: usize,
    count: usize,
}

impl<M: Clock> HeadStart<M> {
    /// So many products of matrices with so many rows and columns.
    pub fn new(kernels: &Kernels<Profiled<M>>, (side, count): (usize, usize)) -> Result<Self, Trouble<M>> {
        let zeros = || kernels.zeros(side * side);
        Ok(Self { factor: zeros()?, product: zeros()?, side, count })
    }

    /// Starts the products.
    pub fn give(&mut self, kernels: &Kernels<Profiled<M>>) -> Result<(), Trouble<M>> {
        let factor = Factor::new(kernels.slice(&self.factor), Precision::F32, self.side, self.side);
        for _ in 0..self.count {
            let product = kernels.slice_mut(&mut self.product);
            kernels.multiply(1.0, factor, factor, 0.0, product, self.side)?;
        }
        Ok(())
    }
}

/// Multiplications and additions of all blocks on so many prompts: matrices, and attention with the keys
/// needed; where only last positions leave the last block, it has keys and values of all.
pub fn operations(config: &Config, prompts: usize, tokens: usize, is_last: bool) -> f64 {
    let (c, tokens) = (config.n_embd as f64, tokens as f64);
    let of_block = 24.0 * c * c * tokens + 4.0 * c * tokens * (tokens + 1.0) / 2.0;
    let of_last = 4.0 * c * c * tokens + 20.0 * c * c + 4.0 * c * tokens;
    let last = if is_last { of_last } else { of_block };
    prompts as f64 * ((config.n_layer - 1) as f64 * of_block + last)
}
