//! Updates of a network on a machine.

use std::sync::Arc;

use dfdx::prelude::Gradients;
use pipe_stages::gpt2::{
    Config, Failure, Precision,
    training::{Batch, Given, Learner, Moments, Network, Update},
};

use super::{
    attention::{Extent, attention},
    mlp::{final_norm, mlp},
    parameters::{Block, Grads, Norm, Parameter, Source},
    pass::{Draws, Pass},
    states::HeldStates,
    stream::{Recorder, Stream},
};
use crate::{
    buffer::Buffer,
    launch::{AdamWArguments, Heads, Kernels, Tensor},
    machine::{Machine, Numbers, Trouble},
    prompts::Prompts,
};

/// Reviews of an evaluation that are computed together.
const EVALUATION_BATCH: usize = 64;

/// A network's parameters and moments on a machine, and the gradients of an update.
#[derive(Debug)]
pub struct DeviceLearner<M: Machine> {
    kernels: Kernels<M>,
    config: Config,
    activation: pipe_stages::gpt2::Activation,
    precision: Precision,
    frozen: Vec<Arc<Block<M>>>,
    trained: Vec<Arc<Block<M>>>,
    norm: Arc<Norm<M>>,
    head: Arc<Head<M>>,
    held: HeldStates<M>,
    /// Of the update that was begun, then of the one that was made.
    gradients: Option<Grads<M>>,
    /// The sum of its losses, one f64.
    loss: Numbers<M>,
    fetched: Vec<Vec<f32>>,
    /// Whether parameters or moments have changed since they were last fetched.
    has_changed: bool,
}

/// `z = last · weight + bias`.
#[derive(Debug)]
struct Head<M: Machine> {
    weight: Parameter<M>,
    bias: Parameter<M>,
}

impl<M: Machine> DeviceLearner<M> {
    /// Copies the parameters of `network` and their `moments` to the device.
    pub fn new(kernels: &Kernels<M>, network: &Network, moments: &[Moments]) -> Result<Self, Failure> {
        let new = || {
            let source = Source::new(kernels, network, moments);
            let blocks = |indices: Vec<usize>| -> Result<Vec<Arc<Block<M>>>, Trouble<M>> {
                indices.into_iter().map(|index| source.block(index).map(Arc::new)).collect()
            };
            Ok(Self {
                kernels: kernels.clone(),
                config: *network.config(),
                activation: network.activation(),
                precision: network.precision(),
                frozen: blocks(network.frozen_blocks())?,
                trained: blocks(network.trained_blocks())?,
                norm: Arc::new(source.final_norm()?),
                head: Arc::new(Head {
                    weight: source.parameter("head.weight")?,
                    bias: source.parameter("head.bias")?,
                }),
                held: HeldStates::new(),
                gradients: None,
                loss: kernels.zeros(2)?,
                fetched: Vec::new(),
                has_changed: false,
            })
        };
        new().map_err(M::failure)
    }

    fn pass(&self, batch: &Batch) -> Result<Arc<Pass<M>>, Trouble<M>> {
        let blocks: Vec<usize> = self.trained.iter().map(|block| block.index).collect();
        Ok(Arc::new(Pass {
            kernels: self.kernels.clone(),
            prompts: Prompts::new(&self.kernels, batch.offsets())?,
            draws: Draws::new(&self.kernels, batch, &blocks)?,
            heads: Heads { count: self.config.n_head, width: self.config.head_width() },
            n_embd: self.config.n_embd,
            activation: self.activation,
            forward: self.precision,
            backward: self.precision.backward(),
        }))
    }

    /// The final states of last positions, `[prompts, n_embd]`; trained blocks are on the tape.
    fn last_states(
        &self,
        tape: &mut Recorder<M>,
        pass: &Arc<Pass<M>>,
        states: Buffer<M>,
    ) -> Result<Stream<M>, Trouble<M>> {
        let mut x = Stream::new(states);
        for block in &self.frozen {
            let nothing = &mut Recorder::nothing();
            let extent = Extent { last: false, input_gradient: false };
            x = attention(nothing, &x, pass, block, extent)?;
            x = mlp(nothing, &x, pass, block, false)?;
        }
        for (depth, block) in self.trained.iter().enumerate() {
            let last = block.index + 1 == self.config.n_layer;
            let extent = Extent { last, input_gradient: depth > 0 };
            x = attention(tape, &x, pass, block, extent)?;
            x = mlp(tape, &x, pass, block, last)?;
        }
        final_norm(tape, &x, pass, &self.norm)
    }

    fn head_logits(&self, last: &Stream<M>, prompts: usize) -> Result<Buffer<M>, Trouble<M>> {
        let (kernels, machine) = (&self.kernels, self.kernels.machine());
        let mut logits = kernels.buffer(prompts)?;
        let (to, x) = (kernels.slice_mut(&mut logits), kernels.slice(&last.values));
        let (weight, bias) = (self.head.weight.slice(machine), self.head.bias.slice(machine));
        kernels.head_logits(&to, x, weight, bias, prompts, self.config.n_embd)?;
        Ok(logits)
    }

    fn add_batch(
        &mut self,
        given: &Given,
        batch: &Batch,
        labels: &[u8],
        share: f32,
    ) -> Result<(), Trouble<M>> {
        let (kernels, prompts, c) = (self.kernels.clone(), batch.len(), self.config.n_embd);
        let pass = self.pass(batch)?;
        let states = self.held.complete(&kernels, given, &pass.prompts, batch.offsets(), c)?;
        let gradients = self.gradients.take().expect("an update was begun");
        let mut tape = Recorder::new(kernels.machine(), gradients)?;
        let last = self.last_states(&mut tape, &pass, states)?;
        let logits = self.head_logits(&last, prompts)?;
        let labels: Vec<f32> = labels.iter().map(|label| f32::from(*label)).collect();
        let labels = kernels.upload_floats(&labels)?;
        let mut of_logits = kernels.buffer(prompts)?;
        {
            let (to, loss) = (kernels.slice_mut(&mut of_logits), kernels.slice_mut(&mut self.loss));
            let (z, y) = (kernels.slice(&logits), kernels.slice(&labels));
            kernels.cross_entropy(&to, &loss, z, y, share, prompts)?;
        }
        let (head, on) = (Arc::clone(&self.head), kernels.clone());
        tape.record(move |gradients| {
            let machine = on.machine();
            let slot = |parameter: &Parameter<M>, gradients: &mut Grads<M>| {
                parameter.trained.as_ref().expect("the head is trained").slot.take(gradients)
            };
            // Two gradients of one map cannot be borrowed at once: they are taken out and put back.
            let mut of_weight = slot(&head.weight, gradients)?;
            let mut of_bias = slot(&head.bias, gradients)?;
            let mut of_last = on.buffer(prompts * c)?;
            {
                let (of_last, of_weight) = (on.slice_mut(&mut of_last), on.slice_mut(&mut of_weight));
                let (of_bias, from) = (on.slice_mut(&mut of_bias), on.slice(&of_logits));
                let (x, weight) = (on.slice(&last.values), head.weight.slice(machine));
                on.head_gradient(&of_last, &of_weight, &of_bias, from, x, weight, prompts, c)?;
            }
            last.gradient.replace(Some(of_last));
            for (parameter, gradient) in [(&head.weight, of_weight), (&head.bias, of_bias)] {
                parameter.trained.as_ref().expect("the head is trained").slot.put(gradients, gradient)?;
            }
            Ok(())
        });
        self.gradients = Some(tape.backward(kernels.machine())?);
        Ok(())
    }

    /// The trained parameters, in the order of the network's.
    fn parameters(&self) -> Vec<&Parameter<M>> {
        let mut all: Vec<&Parameter<M>> = self.trained.iter().flat_map(|block| block.parameters()).collect();
        all.extend([&self.norm.weight, &self.norm.bias, &self.head.weight, &self.head.bias]);
        all.retain(|parameter| parameter.trained.is_some());
        all
    }

    /// As [`Self::parameters`].
    fn parameters_mut(&mut self) -> Vec<&mut Parameter<M>> {
        let mut all: Vec<&mut Parameter<M>> =
            self.trained.iter_mut().flat_map(|block| exclusive(block).parameters_mut()).collect();
        let (norm, head) = (exclusive(&mut self.norm), exclusive(&mut self.head));
        all.extend([&mut norm.weight, &mut norm.bias, &mut head.weight, &mut head.bias]);
        all.retain(|parameter| parameter.trained.is_some());
        all
    }

    fn apply(&mut self, update: &Update) -> Result<(f64, f64), Trouble<M>> {
        let kernels = self.kernels.clone();
        let mut gradients = self.gradients.take().expect("an update was begun");
        // Each gradient is taken out while it is used, since a map lends one at a time.
        let mut taken = Vec::new();
        for parameter in self.parameters() {
            let trained = parameter.trained.as_ref().expect("only trained parameters are listed");
            taken.push(trained.slot.take(&mut gradients)?);
        }
        let loss = std::mem::replace(&mut self.loss, kernels.zeros(2)?);
        let Update { step, rate, adamw, clip } = update;
        let decayed = 1.0 - rate * adamw.weight_decay;
        let total = {
            let parameters = self.parameters_mut().into_iter().zip(&taken);
            let tensors = kernels.tensors(
                parameters.map(|(parameter, gradient)| tensor(&kernels, parameter, gradient, decayed)),
            )?;
            let total = kernels.sum_of_squares(&tensors)?;
            let with = AdamWArguments::new(adamw, *step, *rate, *clip);
            kernels.adamw(&tensors, kernels.slice(&total), kernels.slice(&loss), with)?;
            total
        };
        for block in &mut self.trained {
            exclusive(block).refresh(&kernels)?;
        }
        self.has_changed = true;
        let (mut of_loss, mut of_norm) = ([0; 8], [0; 8]);
        kernels.read(kernels.slice(&loss), &mut of_loss)?;
        kernels.read(kernels.slice(&total), &mut of_norm)?;
        for (parameter, gradient) in self.parameters().into_iter().zip(taken) {
            let trained = parameter.trained.as_ref().expect("only trained parameters are listed");
            trained.slot.put(&mut gradients, gradient)?;
        }
        self.gradients = Some(gradients);
        Ok((f64::from_ne_bytes(of_loss), f64::from_ne_bytes(of_norm).sqrt()))
    }
}

impl<M: Machine> Learner for DeviceLearner<M> {
    /// The whole batch where it fits: the device computes many reviews at once.
    fn micro_batch(&self, _: usize, batch: usize) -> usize {
        batch
    }

    fn evaluation_batch(&self, usual: usize) -> usize {
        EVALUATION_BATCH.max(usual)
    }

    fn is_elsewhere(&self) -> bool {
        true
    }

    fn holds(&self, row: usize) -> bool {
        self.held.has(row)
    }

    fn forget(&mut self) -> bool {
        self.held.clear()
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.gradients = Some(Gradients::leaky());
        self.fetched.clear();
        let begin = || {
            self.kernels.machine().trim()?;
            self.kernels.zeros(2)
        };
        self.loss = begin().map_err(M::failure)?;
        Ok(())
    }

    fn add(
        &mut self,
        _: &Network,
        given: Given,
        batch: Batch,
        labels: &[u8],
        share: f32,
    ) -> Result<(), Failure> {
        self.add_batch(&given, &batch, labels, share).map_err(M::failure)
    }

    fn update(&mut self, _: &mut Network, _: &mut [Moments], update: &Update) -> Result<(f64, f64), Failure> {
        self.apply(update).map_err(M::failure)
    }

    fn logits(&mut self, _: &Network, given: Given, batch: Batch) -> Result<Vec<f32>, Failure> {
        let (batch, prompts, c) = (batch.without_dropout(), batch.len(), self.config.n_embd);
        let mut run = || {
            let pass = self.pass(&batch)?;
            let states = self.held.complete(&self.kernels, &given, &pass.prompts, batch.offsets(), c)?;
            let last = self.last_states(&mut Recorder::nothing(), &pass, states)?;
            let logits = self.head_logits(&last, prompts)?;
            self.kernels.floats(self.kernels.slice(&logits), prompts)
        };
        run().map_err(M::failure)
    }

    fn gradients(&mut self, wanted: bool) -> Result<&[Vec<f32>], Failure> {
        if wanted
            && self.fetched.is_empty()
            && let Some(mut gradients) = self.gradients.take()
        {
            let kernels = &self.kernels;
            let mut fetch = || {
                let get = |parameter: &Parameter<M>, gradients: &mut Grads<M>| {
                    let trained = parameter.trained.as_ref().expect("only trained parameters are listed");
                    let gradient = trained.slot.of(gradients)?;
                    kernels.floats(kernels.slice(gradient), parameter.count)
                };
                self.parameters().into_iter().map(|parameter| get(parameter, &mut gradients)).collect()
            };
            let fetched: Result<_, Trouble<M>> = fetch();
            self.fetched = fetched.map_err(M::failure)?;
            self.gradients = Some(gradients);
        }
        Ok(&self.fetched)
    }

    fn fetch(&mut self, network: &mut Network, moments: &mut [Moments]) -> Result<(), Failure> {
        if !self.has_changed {
            return Ok(());
        }
        let kernels = self.kernels.clone();
        let fetch = |numbers: &Numbers<M>, count| kernels.floats(kernels.slice(numbers), count);
        let mut values = Vec::new();
        for (parameter, moments) in self.parameters().into_iter().zip(moments) {
            let trained = parameter.trained.as_ref().expect("only trained parameters are listed");
            let [first, second] = &trained.moments;
            values.push(fetch(&parameter.values, parameter.count).map_err(M::failure)?);
            moments.first = fetch(first, parameter.count).map_err(M::failure)?;
            moments.second = fetch(second, parameter.count).map_err(M::failure)?;
        }
        network.set_all(&values);
        self.has_changed = false;
        Ok(())
    }
}

/// What an update changes; where it decays, the values are multiplied by `decayed`.
fn tensor<'a, M: Machine>(
    kernels: &Kernels<M>,
    parameter: &'a mut Parameter<M>,
    gradient: &'a Numbers<M>,
    decayed: f64,
) -> Tensor<'a> {
    let trained = parameter.trained.as_mut().expect("only trained parameters are listed");
    let [first, second] = &mut trained.moments;
    Tensor {
        values: kernels.slice_mut(&mut parameter.values),
        first: kernels.slice_mut(first),
        second: kernels.slice_mut(second),
        gradients: kernels.slice(gradient),
        count: parameter.count,
        keep: if trained.decays { decayed } else { 1.0 },
    }
}

/// What no tape holds any longer, to change.
///
/// # Panics
///
/// If a tape still holds it.
fn exclusive<P>(part: &mut Arc<P>) -> &mut P {
    Arc::get_mut(part).expect("tapes end with their backward pass")
}
