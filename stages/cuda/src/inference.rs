//! What stages without gradients ask of a device.

use pipe_stages::{
    data::{HiddenFormat, HiddenType, States},
    gpt2::{self, Activation, BlockWeights, Config, Encoded, Failure, Precision, Weights},
};

use crate::{
    buffer::Buffer,
    forward::Forward,
    launch::Kernels,
    machine::{Machine, Numbers, Trouble},
    prompts::Prompts,
    weights::{Blocks, Norm},
};

/// Most positions of a batch: beyond, products are no faster.
const MOST_POSITIONS: usize = 32 * 1024;
/// Fewest positions of a batch to begin with.
const FEWEST_POSITIONS: usize = 256;

/// Positions to compute together where `free` bytes of memory are free: half of it for the buffers of
/// a batch, the rest for weights.
pub fn batch_positions(config: &Config, free: usize) -> usize {
    // Stream, last, normal, mixed; qkv; inner: numbers a position, each 4 bytes at most.
    let bytes = 4 * (4 + 3 + 4) * config.n_embd;
    let fitting = free / 2 / bytes;
    let power = if fitting.is_power_of_two() { fitting } else { fitting.next_power_of_two() / 2 };
    power.clamp(FEWEST_POSITIONS, MOST_POSITIONS)
}

/// The embeddings and the first blocks on a machine.
#[derive(Debug)]
pub struct Encoder<M: Machine> {
    forward: Forward<M>,
    of_token: Numbers<M>,
    of_position: Numbers<M>,
    config: Config,
    blocks: Blocks<M>,
    dtype: HiddenType,
    /// The batch that was started, and the largest magnitude in the states of each prompt.
    started: Option<(Prompts<M>, Buffer<M>)>,
}

impl<M: Machine> Encoder<M> {
    /// Copies the weights to the device.
    pub fn new(
        kernels: &Kernels<M>,
        weights: &Weights,
        format: HiddenFormat,
        precision: Precision,
    ) -> Result<Self, Failure> {
        let config = *weights.config();
        let blocks = (0..format.blocks).map(|block| BlockWeights::of(weights, block));
        let new = || {
            Ok(Self {
                forward: Forward::new(kernels.clone(), &config, format.activation, precision),
                of_token: kernels.upload_floats(weights.tensor("wte.weight"))?,
                of_position: kernels.upload_floats(weights.tensor("wpe.weight"))?,
                config,
                blocks: Blocks::new(kernels, blocks, config.n_embd, precision)?,
                dtype: format.dtype,
                started: None,
            })
        };
        new().map_err(M::failure)
    }

    fn begin(&mut self, tokens: &[u32], offsets: &[usize]) -> Result<(), Trouble<M>> {
        assert!(tokens.iter().all(|token| (*token as usize) < self.config.vocab_size), "tokens of the model");
        let kernels = self.forward.kernels().clone();
        self.forward.room(tokens.len())?;
        let prompts = Prompts::new(&kernels, offsets)?;
        let ids = kernels.upload(bytemuck::cast_slice(tokens))?;
        let of_token = (kernels.slice(&self.of_token), self.config.vocab_size);
        let of_position = (kernels.slice(&self.of_position), self.config.block_size);
        let stream = self.forward.stream();
        kernels.embed(&stream, of_token, of_position, kernels.slice(&ids), &prompts, self.config.n_embd)?;
        self.forward.blocks(&self.blocks, &prompts)?;
        let mut magnitudes = kernels.buffer(prompts.count())?;
        let (to, states) = (kernels.slice_mut(&mut magnitudes), self.forward.states());
        kernels.largest_magnitudes(&to, states, &prompts, self.config.n_embd)?;
        self.started = Some((prompts, magnitudes));
        Ok(())
    }

    fn finish(&mut self) -> Result<Encoded, Trouble<M>> {
        let kernels = self.forward.kernels().clone();
        let (prompts, magnitudes) = self.started.take().expect("a batch was started");
        let count = prompts.positions() * self.config.n_embd;
        let stored = self.forward.stored(self.dtype, prompts.positions())?;
        Ok(Encoded {
            bytes: kernels.fetch(stored, self.dtype.bytes() * count)?,
            magnitudes: kernels.floats(kernels.slice(&magnitudes), prompts.count())?,
        })
    }
}

impl<M: Machine> gpt2::Encoder for Encoder<M> {
    fn start(&mut self, tokens: &[u32], offsets: &[usize]) -> Result<(), Failure> {
        self.begin(tokens, offsets).map_err(M::failure)
    }

    fn take(&mut self) -> Result<Encoded, Failure> {
        self.finish().map_err(M::failure)
    }
}

/// The last blocks and the final norm on a machine.
#[derive(Debug)]
pub struct Finisher<M: Machine> {
    forward: Forward<M>,
    n_embd: usize,
    blocks: Blocks<M>,
    norm: Norm<M>,
    /// Prompts of the batch that was started.
    started: usize,
}

impl<M: Machine> Finisher<M> {
    /// Copies the weights to the device.
    pub fn new(
        kernels: &Kernels<M>,
        config: &Config,
        blocks: &[BlockWeights<'_>],
        norm: &gpt2::Norm<'_>,
        activation: Activation,
        precision: Precision,
    ) -> Result<Self, Failure> {
        let new = || {
            Ok(Self {
                forward: Forward::new(kernels.clone(), config, activation, precision),
                n_embd: config.n_embd,
                blocks: Blocks::new(kernels, blocks, config.n_embd, precision)?,
                norm: Norm::new(kernels, norm)?,
                started: 0,
            })
        };
        new().map_err(M::failure)
    }

    fn begin(&mut self, hidden: &States, offsets: &[usize]) -> Result<(), Trouble<M>> {
        let kernels = self.forward.kernels().clone();
        self.forward.room(hidden.len() / self.n_embd)?;
        let prompts = Prompts::new(&kernels, offsets)?;
        kernels.write_states(hidden, self.forward.stream())?;
        self.forward.last_states(&self.blocks, &self.norm, &prompts)?;
        self.started = prompts.count();
        Ok(())
    }
}

impl<M: Machine> gpt2::Finisher for Finisher<M> {
    fn start(&mut self, hidden: States, offsets: &[usize]) -> Result<(), Failure> {
        self.begin(&hidden, offsets).map_err(M::failure)
    }

    fn take(&mut self) -> Result<Vec<f32>, Failure> {
        let count = self.started * self.n_embd;
        self.forward.kernels().floats(self.forward.final_states(), count).map_err(M::failure)
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, batch_positions};

    #[test]
    fn a_batch_is_a_power_of_two_that_takes_at_most_half_of_what_is_free() {
        let config = Config::GPT2_124M;
        assert_eq!(batch_positions(&config, 80 << 30), 32 * 1024);
        assert_eq!(batch_positions(&config, 1 << 30), 8192);
        assert_eq!(batch_positions(&config, 0), 256);
    }
}
