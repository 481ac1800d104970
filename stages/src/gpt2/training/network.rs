//! The part of a GPT-2 above cached hidden states, with a head, frozen or trained block by block.

use std::sync::Arc;

use dfdx::prelude::{
    Backward, Cache, Cpu, CpuError, NoneTape, OwnedTape, PutTape, Rank0, SplitTape, SumTo, Tape, TensorFrom,
    Trace, TryAdd, TryMatMul,
};
use rand::Rng;

use super::{
    batch::Batch,
    ops::{self, Extent, Pass},
    order::{Stream, generator},
    parameters::{Adapter, Block, Grads, Matrix, Norm, Parameter, exclusive, final_norm},
};
use crate::{
    contract::StageError,
    data::HiddenFormat,
    gpt2::{
        Activation, Config, LoraTarget, Method, ModelFile, Precision, Weights,
        kernels::{matrix_unit::PackingRoom, vector::Instructions},
        tensor_shapes,
    },
};

/// The blocks above cached hidden states, the final norm and a head with one logit.
#[derive(Debug)]
pub struct Network {
    config: Config,
    activation: Activation,
    precision: Precision,
    instructions: Instructions,
    method: Method,
    device: Cpu,
    /// Below the trained blocks; they run without a tape and without dropout.
    frozen: Vec<Arc<Block>>,
    trained: Vec<Arc<Block>>,
    norm: Arc<Norm>,
    head: Head,
}

/// `z = last · weight + bias`.
#[derive(Debug)]
struct Head {
    weight: Parameter,
    bias: Parameter,
}

/// Names and shapes of the tensors that `method` trains in the last `train_blocks` blocks of a
/// GPT-2 of the shape `config`, the head among them.
fn trained_shapes(config: &Config, method: &Method, train_blocks: usize) -> Vec<(String, Vec<usize>)> {
    let first = config.n_layer - train_blocks;
    let mut shapes: Vec<(String, Vec<usize>)> = match method {
        Method::FineTune => {
            let is_trained = |name: &str| {
                name.starts_with("ln_f.")
                    || (first..config.n_layer).any(|n| name.starts_with(&format!("h.{n}.")))
            };
            tensor_shapes(config).into_iter().filter(|(name, _)| is_trained(name)).collect()
        }
        Method::Lora { rank, targets, .. } => (first..config.n_layer)
            .flat_map(|block| targets.iter().map(move |target| (block, target.letter())))
            .flat_map(|(block, target)| {
                let (a, b) = (vec![config.n_embd, *rank], vec![*rank, config.n_embd]);
                [(format!("h.{block}.lora_a_{target}"), a), (format!("h.{block}.lora_b_{target}"), b)]
            })
            .collect(),
    };
    shapes.extend([("head.weight".into(), vec![config.n_embd, 1]), ("head.bias".into(), vec![1])]);
    shapes
}

/// How many parameters `method` trains in the last `train_blocks` blocks of a GPT-2 of the shape
/// `config`, final norm and head included.
pub fn trainable_parameters(config: &Config, method: &Method, train_blocks: usize) -> usize {
    trained_shapes(config, method, train_blocks)
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum()
}

impl Network {
    /// The blocks of `weights` above `hidden`, the last `train_blocks` of them trained.
    ///
    /// Head and low-rank A start uniform in ±1/√`n_embd` by `seed`, the head's bias and low-rank B
    /// at zero.
    pub fn new(
        weights: &Weights,
        hidden: HiddenFormat,
        method: Method,
        train_blocks: usize,
        seed: u64,
    ) -> Result<Self, StageError> {
        let config = *weights.config();
        fits(&config, hidden, train_blocks)?;
        // Ragged rows come in every length, so kept allocations would pile up.
        let device = Cpu::default();
        device.disable_cache();
        let first = config.n_layer - train_blocks;
        let of_blocks = (method == Method::FineTune).then_some(&device);
        // A unit for f32 is one for bf16 too.
        let mut room = PackingRoom::new(Precision::Bf16);
        let frozen = |index| Arc::new(Block::new(weights, index, None, &mut room));
        let frozen = (hidden.blocks..first).map(frozen).collect();
        let trained = |index| {
            let mut block = Block::new(weights, index, of_blocks, &mut room);
            block.adapters = adapters(&config, &method, index, seed, &device);
            Arc::new(block)
        };
        let bound = 1.0 / (config.n_embd as f32).sqrt();
        let head = uniform(&mut generator(seed, Stream::Head, 0), bound, config.n_embd);
        let head = Head {
            weight: Parameter::trained("head.weight", &[config.n_embd, 1], head, &device),
            bias: Parameter::trained("head.bias", &[1], vec![0.0], &device),
        };
        Ok(Self {
            config,
            activation: hidden.activation,
            precision: Precision::F32,
            instructions: Instructions::best(),
            frozen,
            trained: (first..config.n_layer).map(trained).collect(),
            norm: Arc::new(final_norm(weights, of_blocks)),
            head,
            method,
            device,
        })
    }

    /// Rounds the factors of large products to `precision`, in the backward pass to its
    /// [`backward`](Precision::backward).
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The shape of the whole model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The form of GELU.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// The precision of large products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What is trained.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The blocks of the network that are not trained, counted from 0 over the whole model.
    pub fn frozen_blocks(&self) -> Vec<usize> {
        self.frozen.iter().map(|block| block.index).collect()
    }

    /// The blocks above them, which are.
    pub fn trained_blocks(&self) -> Vec<usize> {
        self.trained.iter().map(|block| block.index).collect()
    }

    /// The parameter called `name`, frozen or trained, if the network has one.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        let blocks = self.frozen.iter().chain(&self.trained).flat_map(|block| block.parameters());
        let rest = [&self.norm.weight, &self.norm.bias, &self.head.weight, &self.head.bias];
        blocks.chain(rest).find(|parameter| parameter.name() == name)
    }

    /// Width of a hidden state.
    pub fn n_embd(&self) -> usize {
        self.config.n_embd
    }

    /// The trained parameters, in a fixed order.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let mut all: Vec<&Parameter> = self.trained.iter().flat_map(|block| block.parameters()).collect();
        all.extend([&self.norm.weight, &self.norm.bias, &self.head.weight, &self.head.bias]);
        all.retain(|parameter| parameter.is_trained());
        all
    }

    /// As [`Self::parameters`].
    pub(super) fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        let mut all: Vec<&mut Parameter> =
            self.trained.iter_mut().flat_map(|block| exclusive(block).parameters_mut()).collect();
        let norm = exclusive(&mut self.norm);
        all.extend([&mut norm.weight, &mut norm.bias, &mut self.head.weight, &mut self.head.bias]);
        all.retain(|parameter| parameter.is_trained());
        all
    }

    /// Replaces the numbers of the trained parameter called `name`.
    ///
    /// # Panics
    ///
    /// If no trained parameter has this name and size.
    pub fn set(&mut self, name: &str, values: &[f32]) {
        let mut parameters = self.parameters_mut();
        let parameter = parameters.iter_mut().find(|parameter| parameter.name() == name);
        let parameter = parameter.unwrap_or_else(|| panic!("`{name}` is trained"));
        parameter.change(|old| old.copy_from_slice(values));
    }

    /// Replaces the numbers of all trained parameters, as in [`Self::parameters`].
    ///
    /// # Panics
    ///
    /// If their sizes differ.
    pub fn set_all(&mut self, values: &[Vec<f32>]) {
        let parameters = self.parameters_mut();
        assert_eq!(parameters.len(), values.len(), "values of every parameter");
        for (parameter, values) in parameters.into_iter().zip(values) {
            parameter.change(|old| old.copy_from_slice(values));
        }
    }

    /// The logit of each prompt of `batch`, whose hidden states are `states` `[positions, n_embd]`.
    pub fn logits(&self, states: Vec<f32>, batch: Batch) -> Result<Vec<f32>, StageError> {
        let pass = self.pass(batch);
        let x = self.input(&pass, states).and_then(|x| self.frozen_part(x, &pass));
        let z = x.and_then(|x| self.trained_part::<NoneTape>(x, &pass)).map_err(failed)?;
        Ok(z.as_vec())
    }

    /// Adds the gradients of `share · Σ loss` over the prompts to `gradients`.
    ///
    /// `labels` are 1 for positive prompts; the loss of a prompt is the binary cross-entropy of its
    /// logit. Returns the logits, too.
    pub(super) fn add_gradients(
        &self,
        states: Vec<f32>,
        batch: Batch,
        labels: &[u8],
        share: f32,
        gradients: Grads,
    ) -> Result<(Vec<f32>, Grads), StageError> {
        let pass = self.pass(batch);
        let labels: Vec<f32> = labels.iter().map(|label| f32::from(*label)).collect();
        let run = || {
            let x = self.input(&pass, states)?;
            let x = self.frozen_part(x, &pass)?.traced(gradients);
            let z = self.trained_part::<OwnedTape<f32, Cpu>>(x, &pass)?;
            let (z, tape) = z.split_tape();
            let logits = z.as_vec();
            let count = labels.len();
            let labels: Matrix = self.device.try_tensor((labels, (count, 1)))?;
            let losses = z.put_tape(tape).try_bce_with_logits(labels)?;
            let loss = losses.try_sum::<Rank0, _>()? * share;
            Ok((logits, loss.try_backward()?))
        };
        run().map_err(failed)
    }

    /// Takes the gradient of every trained parameter out of `gradients`, as in
    /// [`Self::parameters`].
    pub(super) fn gradients(&self, mut gradients: Grads) -> Result<Vec<Vec<f32>>, StageError> {
        let take = |parameter: &Parameter| {
            let tensor = parameter.tensor().expect("only trained parameters are listed");
            gradients.get_or_alloc_mut(tensor).map(|gradient| std::mem::take(&mut **gradient))
        };
        self.parameters().into_iter().map(take).collect::<Result<_, _>>().map_err(failed)
    }

    /// What the network changed or added to the weights.
    pub fn model_file(&self) -> ModelFile {
        let tensor = |parameter: &&Parameter| {
            (parameter.name().to_owned(), (parameter.shape().to_vec(), parameter.values().to_vec()))
        };
        ModelFile { method: self.method.clone(), tensors: self.parameters().iter().map(tensor).collect() }
    }

    fn pass(&self, batch: Batch) -> Pass {
        Pass {
            batch: Arc::new(batch),
            instructions: self.instructions,
            activation: self.activation,
            precision: self.precision,
            n_head: self.config.n_head,
            n_embd: self.config.n_embd,
            device: self.device.clone(),
        }
    }

    fn input(&self, pass: &Pass, states: Vec<f32>) -> Result<Matrix, CpuError> {
        self.device.try_tensor((states, (pass.batch.positions(), self.config.n_embd)))
    }

    fn frozen_part(&self, mut x: Matrix, pass: &Pass) -> Result<Matrix, CpuError> {
        let still = Pass { batch: Arc::new(pass.batch.without_dropout()), ..pass.clone() };
        for block in &self.frozen {
            let extent = Extent { last: false, input_gradient: false };
            x = ops::mlp(ops::attention(x, &still, block, extent)?, &still, block, false)?;
        }
        Ok(x)
    }

    fn trained_part<T: Tape<f32, Cpu>>(&self, mut x: Matrix<T>, pass: &Pass) -> Result<Matrix<T>, CpuError> {
        for (depth, block) in self.trained.iter().enumerate() {
            let last = block.index + 1 == self.config.n_layer;
            let extent = Extent { last, input_gradient: depth > 0 };
            x = ops::mlp(ops::attention(x, pass, block, extent)?, pass, block, last)?;
        }
        let last = ops::norm(x, pass, &self.norm)?;
        let ones: Matrix = self.device.try_tensor((vec![1.0; pass.batch.len()], (pass.batch.len(), 1)))?;
        let tensor = |parameter: &Parameter| parameter.tensor().expect("the head is trained").retaped::<T>();
        let bias = ones.retaped::<T>().try_matmul(tensor(&self.head.bias))?; // (B, 1)
        last.try_matmul(tensor(&self.head.weight))?.try_add(bias)
    }
}

/// Says whether training the last `train_blocks` blocks can start from `hidden`.
fn fits(config: &Config, hidden: HiddenFormat, train_blocks: usize) -> Result<(), StageError> {
    if hidden.n_embd != config.n_embd {
        let message = format!(
            "the hidden states are {} wide, the weights {}: they belong to different models",
            hidden.n_embd, config.n_embd
        );
        return Err(StageError::new(message).help("feed the same `weights` to `encode` and to this stage"));
    }
    if train_blocks > config.n_layer {
        let message =
            format!("`train_blocks` is {train_blocks}, but these weights have {} blocks", config.n_layer);
        return Err(
            StageError::new(message).help(format!("set `train_blocks` to at most {}", config.n_layer))
        );
    }
    if hidden.blocks + train_blocks > config.n_layer {
        let message = format!(
            "the hidden states are those after block {} of {}, too late to train the last {train_blocks}",
            hidden.blocks, config.n_layer
        );
        let most = config.n_layer - train_blocks;
        return Err(StageError::new(message)
            .help(format!("set `blocks` of `encode` to at most {most}, or lower `train_blocks`")));
    }
    Ok(())
}

/// The low-rank additions of block `index`, in the order of their targets.
fn adapters(config: &Config, method: &Method, index: usize, seed: u64, device: &Cpu) -> Vec<Adapter> {
    let Method::Lora { rank, alpha, targets } = method else { return Vec::new() };
    let (c, rank) = (config.n_embd, *rank);
    let all = LoraTarget::ALL.iter().enumerate().filter(|(_, target)| targets.contains(target));
    all.map(|(number, target)| {
        let mut generator = generator(seed, Stream::Lora, (index * LoraTarget::ALL.len() + number) as u64);
        let a = uniform(&mut generator, 1.0 / (c as f32).sqrt(), c * rank);
        let name = |part: char| format!("h.{index}.lora_{part}_{}", target.letter());
        Adapter {
            target: *target,
            scale: (alpha / rank as f64) as f32,
            a: Parameter::trained(&name('a'), &[c, rank], a, device),
            b: Parameter::trained(&name('b'), &[rank, c], vec![0.0; rank * c], device),
        }
    })
    .collect()
}

/// `count` numbers uniform in ±`bound`, each from 24 random bits.
fn uniform(generator: &mut impl Rng, bound: f32, count: usize) -> Vec<f32> {
    let unit = |bits: u32| (bits >> 8) as f32 / (1 << 24) as f32;
    (0..count).map(|_| bound * (2.0 * unit(generator.next_u32()) - 1.0)).collect()
}

fn failed(err: CpuError) -> StageError {
    StageError::new("the processor cannot hold a tensor").because(err).help("lower `micro_batch`")
}
