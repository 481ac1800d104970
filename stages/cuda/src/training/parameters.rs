//! The parameters of a network on the device.

use std::{cell::RefCell, collections::BTreeMap, fmt, ops::Range};

use dfdx::prelude::{Gradients, Tensor, ZerosTensor};
use pipe_stages::gpt2::{
    LoraTarget, Method, Precision,
    training::{Moments, Network},
};

use super::rounded::Rounded;
use crate::{
    launch::{Kernels, NormSlices},
    machine::{Machine, Numbers, Trouble},
    slice::{Factor, Slice, SliceMut},
};

/// Gradients of one update, by tensor.
pub type Grads<M> = Gradients<f32, <M as Machine>::Device>;

/// Where `dfdx` keeps the gradient of one tensor.
pub struct Slot<M: Machine> {
    place: Box<Place<M>>,
    /// Stands in the place while the gradient is taken out.
    stand_in: RefCell<Option<Numbers<M>>>,
}

type Place<M> = dyn for<'g> Fn(&'g mut Grads<M>) -> Result<&'g mut Numbers<M>, Trouble<M>>;

impl<M: Machine> fmt::Debug for Slot<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

impl<M: Machine> Slot<M> {
    /// A place for `count` numbers.
    pub fn new(machine: &M, count: usize) -> Result<Self, Trouble<M>> {
        let tensor: Tensor<(usize,), f32, M::Device> = machine.device().try_zeros_like(&(count,))?;
        let ghost = tensor.ghost();
        Ok(Self {
            place: Box::new(move |gradients| gradients.get_or_alloc_mut(&ghost)),
            stand_in: RefCell::new(Some(machine.zeros(1)?)),
        })
    }

    /// The gradient, zeros at first.
    pub fn of<'g>(&self, gradients: &'g mut Grads<M>) -> Result<&'g mut Numbers<M>, Trouble<M>> {
        (self.place)(gradients)
    }

    /// Takes the gradient out of its place, until [`Self::put`].
    ///
    /// # Panics
    ///
    /// If it is out already.
    pub fn take(&self, gradients: &mut Grads<M>) -> Result<Numbers<M>, Trouble<M>> {
        let stand_in = self.stand_in.take().expect("the gradient is in its place");
        Ok(std::mem::replace(self.of(gradients)?, stand_in))
    }

    /// Puts the gradient back.
    pub fn put(&self, gradients: &mut Grads<M>, gradient: Numbers<M>) -> Result<(), Trouble<M>> {
        self.stand_in.replace(Some(std::mem::replace(self.of(gradients)?, gradient)));
        Ok(())
    }
}

/// What a trained parameter has beside its values.
#[derive(Debug)]
pub struct Trained<M: Machine> {
    /// Of its gradient.
    pub slot: Slot<M>,
    /// Running mean of the gradient, and of its square.
    pub moments: [Numbers<M>; 2],
    /// Whether weight decay applies.
    pub decays: bool,
}

/// One parameter tensor in f32.
#[derive(Debug)]
pub struct Parameter<M: Machine> {
    /// The numbers, row after row.
    pub values: Numbers<M>,
    /// How many there are.
    pub count: usize,
    /// `None` where it is frozen.
    pub trained: Option<Trained<M>>,
}

impl<M: Machine> Parameter<M> {
    /// The values to read.
    pub fn slice(&self, machine: &M) -> Slice<'_> {
        Slice::of(machine, &self.values)
    }

    /// The gradient of a trained parameter, zeros at first; `None` for a frozen one.
    pub fn gradient<'g>(
        &self,
        machine: &M,
        gradients: &'g mut Grads<M>,
    ) -> Result<Option<SliceMut<'g>>, Trouble<M>> {
        let Some(trained) = &self.trained else { return Ok(None) };
        Ok(Some(SliceMut::of(machine, trained.slot.of(gradients)?)))
    }
}

/// Copies parameters of a network to the device.
pub struct Source<'a, M: Machine> {
    /// Of the machine to copy to.
    pub kernels: &'a Kernels<M>,
    /// The network.
    pub network: &'a Network,
    /// The moments of its trained parameters by name.
    pub moments: BTreeMap<&'a str, &'a Moments>,
}

impl<'a, M: Machine> Source<'a, M> {
    /// `moments` are those of [`Network::parameters`].
    pub fn new(kernels: &'a Kernels<M>, network: &'a Network, moments: &'a [Moments]) -> Self {
        let names = network.parameters().into_iter().map(pipe_stages::gpt2::training::Parameter::name);
        Self { kernels, network, moments: names.zip(moments).collect() }
    }

    /// The parameter called `name`.
    pub fn parameter(&self, name: &str) -> Result<Parameter<M>, Trouble<M>> {
        let parameter = self.network.parameter(name).expect("a parameter of the network");
        let (count, kernels) = (parameter.values().len(), self.kernels);
        let trained = match self.moments.get(name) {
            None => None,
            Some(moments) => Some(Trained {
                slot: Slot::new(kernels.machine(), count)?,
                moments: [kernels.upload_floats(&moments.first)?, kernels.upload_floats(&moments.second)?],
                decays: parameter.decays(),
            }),
        };
        Ok(Parameter { values: kernels.upload_floats(parameter.values())?, count, trained })
    }

    fn norm(&self, name: &str) -> Result<Norm<M>, Trouble<M>> {
        Ok(Norm {
            weight: self.parameter(&format!("{name}.weight"))?,
            bias: self.parameter(&format!("{name}.bias"))?,
        })
    }

    fn linear(&self, name: &str) -> Result<Linear<M>, Trouble<M>> {
        let weight = self.parameter(&format!("{name}.weight"))?;
        let bias = self.parameter(&format!("{name}.bias"))?;
        let (inputs, outputs) = (weight.count / bias.count, bias.count);
        let forward = self.network.precision();
        let mut copies = Vec::new();
        for format in [forward, forward.backward()] {
            let is_there = copies.iter().any(|(there, _)| *there == format);
            if format != Precision::F32 && !is_there {
                copies.push((format, self.kernels.zeros(weight.count.div_ceil(2))?));
            }
        }
        let mut linear = Linear { weight, bias, inputs, outputs, copies };
        linear.refresh(self.kernels)?;
        Ok(linear)
    }

    /// Block `index` of the network, counted from 0 over the whole model.
    pub fn block(&self, index: usize) -> Result<Block<M>, Trouble<M>> {
        let name = |part: &str| format!("h.{index}.{part}");
        let mut adapters = Vec::new();
        if let Method::Lora { rank, alpha, targets } = self.network.method()
            && self.network.trained_blocks().contains(&index)
        {
            for target in targets {
                let part = |part: char| name(&format!("lora_{part}_{}", target.letter()));
                adapters.push(Adapter {
                    target: *target,
                    scale: (alpha / *rank as f64) as f32,
                    rank: *rank,
                    a: self.parameter(&part('a'))?,
                    b: self.parameter(&part('b'))?,
                });
            }
        }
        Ok(Block {
            index,
            norm_1: self.norm(&name("ln_1"))?,
            qkv: self.linear(&name("attn.c_attn"))?,
            output: self.linear(&name("attn.c_proj"))?,
            norm_2: self.norm(&name("ln_2"))?,
            up: self.linear(&name("mlp.c_fc"))?,
            down: self.linear(&name("mlp.c_proj"))?,
            adapters,
        })
    }

    /// The norm after the last block.
    pub fn final_norm(&self) -> Result<Norm<M>, Trouble<M>> {
        self.norm("ln_f")
    }
}

/// Weight and bias of a layer norm.
#[derive(Debug)]
pub struct Norm<M: Machine> {
    /// Factors.
    pub weight: Parameter<M>,
    /// Summands.
    pub bias: Parameter<M>,
}

impl<M: Machine> Norm<M> {
    /// As kernels read it.
    pub fn slices(&self, machine: &M) -> NormSlices<'_> {
        NormSlices { weight: self.weight.slice(machine), bias: self.bias.slice(machine) }
    }

    /// Adds the gradients of the norm of `x` `[rows, width]` to those of its trained parameters, and
    /// to `input`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        kernels: &Kernels<M>,
        gradients: &mut Grads<M>,
        x: Slice<'_>,
        upstream: Slice<'_>,
        input: Option<&SliceMut<'_>>,
        rows: usize,
        width: usize,
    ) -> Result<(), Trouble<M>> {
        let (machine, weight) = (kernels.machine(), self.weight.slice(kernels.machine()));
        let stats = kernels.layer_norm_gradient(input, x, weight, upstream, rows, width)?;
        if self.weight.trained.is_none() {
            return Ok(());
        }
        let sums = kernels.norm_sums(kernels.slice(&stats), x, upstream, rows, width)?;
        for (parameter, bias) in [(&self.weight, false), (&self.bias, true)] {
            if let Some(gradient) = parameter.gradient(machine, gradients)? {
                kernels.add_norm_sums(&gradient, kernels.slice(&sums), bias, rows, width)?;
            }
        }
        Ok(())
    }
}

/// `x·weight + bias`, with copies of the weight in the formats of its products.
#[derive(Debug)]
pub struct Linear<M: Machine> {
    /// `[inputs, outputs]`.
    pub weight: Parameter<M>,
    /// `[outputs]`.
    pub bias: Parameter<M>,
    inputs: usize,
    outputs: usize,
    copies: Vec<(Precision, Numbers<M>)>,
}

impl<M: Machine> Linear<M> {
    /// Columns of the weight.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Rounds the weight anew, after it has changed.
    pub fn refresh(&mut self, kernels: &Kernels<M>) -> Result<(), Trouble<M>> {
        for (format, copy) in &mut self.copies {
            let from = Slice::of(kernels.machine(), &self.weight.values);
            kernels.convert(*format, &kernels.slice_mut(copy), from, self.weight.count)?;
        }
        Ok(())
    }

    fn matrix(&self, machine: &M, format: Precision) -> Factor<'_> {
        let copy = self.copies.iter().find(|(there, _)| *there == format);
        let numbers = copy.map_or(&self.weight.values, |(_, numbers)| numbers);
        Factor::new(Slice::of(machine, numbers), format, self.inputs, self.outputs)
    }

    /// The product of `x` `[rows, inputs]` and the given columns, without the bias, into the start of
    /// `out`.
    pub fn forward(
        &self,
        kernels: &Kernels<M>,
        format: Precision,
        x: &Rounded<'_, M>,
        columns: Range<usize>,
        out: SliceMut<'_>,
    ) -> Result<(), Trouble<M>> {
        let width = columns.len();
        let matrix = self.matrix(kernels.machine(), format).columns(columns.start, width);
        kernels.multiply(1.0, x.in_format(kernels, format)?, matrix, 0.0, out, width)
    }

    /// As [`Self::forward`] for all columns, with `out` in `format`.
    pub fn forward_rounded(
        &self,
        kernels: &Kernels<M>,
        format: Precision,
        x: &Rounded<'_, M>,
        out: SliceMut<'_>,
    ) -> Result<(), Trouble<M>> {
        let matrix = self.matrix(kernels.machine(), format);
        kernels.multiply_rounded(x.in_format(kernels, format)?, matrix, out, self.outputs)
    }

    /// Adds the gradients of trained parameters, given that of the output in the given columns; `x` is
    /// there where the weight is trained.
    pub fn parameters_backward(
        &self,
        kernels: &Kernels<M>,
        gradients: &mut Grads<M>,
        format: Precision,
        x: Option<&Rounded<'_, M>>,
        upstream: &Rounded<'_, M>,
        columns: Range<usize>,
    ) -> Result<(), Trouble<M>> {
        let machine = kernels.machine();
        if let Some(of_weight) = self.weight.gradient(machine, gradients)? {
            let x = x.expect("the input of a trained weight was kept");
            let x = x.in_format(kernels, format)?.transposed();
            let upstream = upstream.in_format(kernels, format)?;
            let into = of_weight.skip(4 * columns.start);
            kernels.multiply(1.0, x, upstream, 1.0, into, self.outputs)?;
        }
        if let Some(of_bias) = self.bias.gradient(machine, gradients)? {
            kernels.add_column_sums(&of_bias.skip(4 * columns.start), upstream.given())?;
        }
        Ok(())
    }

    /// The gradient of the input from that of the output in the given columns, plus `beta` times what
    /// was there.
    pub fn input_backward(
        &self,
        kernels: &Kernels<M>,
        format: Precision,
        upstream: &Rounded<'_, M>,
        columns: Range<usize>,
        beta: f32,
        of_input: SliceMut<'_>,
    ) -> Result<(), Trouble<M>> {
        let matrix = self.matrix(kernels.machine(), format).columns(columns.start, columns.len());
        let upstream = upstream.in_format(kernels, format)?;
        kernels.multiply(1.0, upstream, matrix.transposed(), beta, of_input, self.inputs)
    }

    /// As [`Self::input_backward`] from all columns, with `of_input` in `format` and overwritten.
    pub fn input_backward_rounded(
        &self,
        kernels: &Kernels<M>,
        format: Precision,
        upstream: &Rounded<'_, M>,
        of_input: SliceMut<'_>,
    ) -> Result<(), Trouble<M>> {
        let matrix = self.matrix(kernels.machine(), format).transposed();
        kernels.multiply_rounded(upstream.in_format(kernels, format)?, matrix, of_input, self.inputs)
    }
}

/// A low-rank addition `scale · (x·a)·b` to one of the projections of attention.
#[derive(Debug)]
pub struct Adapter<M: Machine> {
    /// The projection.
    pub target: LoraTarget,
    /// Times the product.
    pub scale: f32,
    /// Columns of A, rows of B.
    pub rank: usize,
    /// `[n_embd, rank]`.
    pub a: Parameter<M>,
    /// `[rank, n_embd]`.
    pub b: Parameter<M>,
}

/// One transformer block.
#[derive(Debug)]
pub struct Block<M: Machine> {
    /// Counted from 0 over the whole model.
    pub index: usize,
    /// Before attention.
    pub norm_1: Norm<M>,
    /// Columns q | k | v.
    pub qkv: Linear<M>,
    /// After attention.
    pub output: Linear<M>,
    /// Before the MLP.
    pub norm_2: Norm<M>,
    /// The MLP's first layer.
    pub up: Linear<M>,
    /// The MLP's second layer.
    pub down: Linear<M>,
    /// In the order of their targets.
    pub adapters: Vec<Adapter<M>>,
}

impl<M: Machine> Block<M> {
    /// All parameters, in the order of the network's.
    pub fn parameters(&self) -> Vec<&Parameter<M>> {
        let Self { norm_1, qkv, output, norm_2, up, down, adapters, .. } = self;
        let mut all = vec![
            &norm_1.weight,
            &norm_1.bias,
            &qkv.weight,
            &qkv.bias,
            &output.weight,
            &output.bias,
            &norm_2.weight,
            &norm_2.bias,
            &up.weight,
            &up.bias,
            &down.weight,
            &down.bias,
        ];
        all.extend(adapters.iter().flat_map(|adapter| [&adapter.a, &adapter.b]));
        all
    }

    /// As [`Self::parameters`].
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter<M>> {
        let Self { norm_1, qkv, output, norm_2, up, down, adapters, .. } = self;
        let mut all = vec![
            &mut norm_1.weight,
            &mut norm_1.bias,
            &mut qkv.weight,
            &mut qkv.bias,
            &mut output.weight,
            &mut output.bias,
            &mut norm_2.weight,
            &mut norm_2.bias,
            &mut up.weight,
            &mut up.bias,
            &mut down.weight,
            &mut down.bias,
        ];
        all.extend(adapters.iter_mut().flat_map(|adapter| [&mut adapter.a, &mut adapter.b]));
        all
    }

    /// Rounds trained weights anew, after they have changed.
    pub fn refresh(&mut self, kernels: &Kernels<M>) -> Result<(), Trouble<M>> {
        let Self { qkv, output, up, down, .. } = self;
        let linears = [qkv, output, up, down].into_iter();
        linears
            .filter(|linear| linear.weight.trained.is_some())
            .try_for_each(|linear| linear.refresh(kernels))
    }
}
