//! The parameters of a network, frozen or trained.

use std::sync::{Arc, OnceLock};

use dfdx::prelude::{Cpu, CpuError, Gradients, Tensor, TensorFrom};

use crate::gpt2::{
    LoraTarget, Precision, Weights,
    kernels::{
        gemm,
        matrix_unit::{self, Packed, PackingRoom},
        rounding::round,
    },
};

/// A matrix on `dfdx`'s tape, `(rows, columns)`.
pub(super) type Matrix<T = dfdx::prelude::NoneTape> = Tensor<(usize, usize), f32, Cpu, T>;
/// Gradients of one update, by tensor.
pub(super) type Grads = Gradients<f32, Cpu>;

/// One parameter tensor.
///
/// Kernels read `values`. A trained parameter is a `dfdx` tensor too, which the tape knows its
/// gradient by; both hold the same numbers.
#[derive(Debug)]
pub struct Parameter {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
    /// `values` in f16 and in bf16, when first needed.
    rounded: [OnceLock<Vec<f32>>; 2],
    tensor: Option<Matrix>,
}

impl Parameter {
    /// A parameter that stays as it is.
    pub(super) fn frozen(name: &str, shape: &[usize], values: Vec<f32>) -> Self {
        Self { name: name.into(), shape: shape.into(), values, rounded: Default::default(), tensor: None }
    }

    /// A parameter that is trained.
    pub(super) fn trained(name: &str, shape: &[usize], values: Vec<f32>, device: &Cpu) -> Self {
        let rows = shape[0];
        let tensor = Some(device.tensor((values.clone(), (rows, values.len() / rows))));
        Self { name: name.into(), shape: shape.into(), values, rounded: Default::default(), tensor }
    }

    /// The name in the weights or model file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape in the weights or model file.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The numbers in `precision`.
    pub(super) fn rounded(&self, precision: Precision) -> &[f32] {
        let kept = match precision {
            Precision::F32 => return &self.values,
            Precision::F16 => &self.rounded[0],
            Precision::Bf16 => &self.rounded[1],
        };
        kept.get_or_init(|| {
            let mut values = self.values.clone();
            round(precision, &mut values);
            values
        })
    }

    /// Whether weight decay applies: to tensors of two or more dimensions.
    pub fn decays(&self) -> bool {
        self.shape.len() >= 2
    }

    /// Lets `change` alter the numbers.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut [f32])) {
        change(&mut self.values);
        self.rounded = Default::default();
        if let Some(tensor) = &mut self.tensor {
            tensor.copy_from(&self.values);
        }
    }

    /// Whether it is trained.
    pub fn is_trained(&self) -> bool {
        self.tensor.is_some()
    }

    pub(super) fn tensor(&self) -> Option<&Matrix> {
        self.tensor.as_ref()
    }

    /// The gradient of a trained parameter, zeros at first; `None` for a frozen one.
    pub(super) fn gradient<'a>(&self, gradients: &'a mut Grads) -> Result<Option<&'a mut [f32]>, CpuError> {
        let Some(tensor) = &self.tensor else { return Ok(None) };
        Ok(Some(gradients.get_or_alloc_mut(tensor)?.as_mut_slice()))
    }
}

/// `x·weight + bias`.
#[derive(Debug)]
pub(super) struct Linear {
    pub weight: Parameter,
    pub bias: Parameter,
    packs: Option<Packs>,
}

/// A frozen weight and its transpose as they are packed for the matrix unit, when first needed.
#[derive(Debug, Default)]
struct Packs {
    weight: OnceLock<Packed>,
    transposed: OnceLock<Packed>,
}

impl Linear {
    /// The weight is packed once if it is frozen and there is `room`.
    fn new(weight: Parameter, bias: Parameter, room: &mut PackingRoom) -> Self {
        let mut linear = Self { weight, bias, packs: None };
        let matrix = linear.matrix(Precision::F32);
        let bytes = |side| Packed::bytes(side, Precision::F32);
        let keeps = !linear.weight.is_trained() && room.take(bytes(matrix) + bytes(matrix.transposed()));
        linear.packs = keeps.then(Packs::default);
        linear
    }

    fn matrix(&self, precision: Precision) -> gemm::Matrix<'_> {
        gemm::Matrix::new(self.weight.rounded(precision), self.weight.shape()[0], self.weight.shape()[1])
    }

    /// The weight in `precision`, the same in each pass, for products with rows of inputs.
    pub fn factor(&self, precision: Precision) -> gemm::Factor<'_> {
        let weight = self.matrix(precision);
        let packs = self.packs(precision);
        let packed = packs.map(|packs| packs.weight.get_or_init(|| Packed::new(weight, precision)));
        gemm::Factor::new(weight, precision, packed)
    }

    /// The transposed weight in `precision`, the same in each pass, for products with rows of outputs.
    pub fn transposed_factor(&self, precision: Precision) -> gemm::Factor<'_> {
        let weight = self.matrix(precision).transposed();
        let packs = self.packs(precision);
        let packed = packs.map(|packs| packs.transposed.get_or_init(|| Packed::new(weight, precision)));
        gemm::Factor::new(weight, precision, packed)
    }

    /// What is packed once, where a unit takes it.
    fn packs(&self, precision: Precision) -> Option<&Packs> {
        self.packs.as_ref().filter(|_| matrix_unit::is_available(precision))
    }
}

/// Weight and bias of a layer norm.
#[derive(Debug)]
pub(super) struct Norm {
    pub weight: Parameter,
    pub bias: Parameter,
}

/// A low-rank addition `scale · (x·a)·b` to one of the projections of attention.
#[derive(Debug)]
pub(super) struct Adapter {
    pub target: LoraTarget,
    pub scale: f32,
    pub a: Parameter,
    pub b: Parameter,
}

impl Adapter {
    pub fn rank(&self) -> usize {
        self.a.shape[1]
    }
}

/// One transformer block.
#[derive(Debug)]
pub(super) struct Block {
    /// Counted from 0 over the whole model.
    pub index: usize,
    pub norm_1: Norm,
    /// Columns q | k | v.
    pub qkv: Linear,
    pub output: Linear,
    pub norm_2: Norm,
    pub up: Linear,
    pub down: Linear,
    pub adapters: Vec<Adapter>,
}

impl Block {
    /// Block `index` of `weights`; `device` is given when it is trained. Otherwise its matrices are
    /// packed once where there is `room`.
    pub fn new(weights: &Weights, index: usize, device: Option<&Cpu>, room: &mut PackingRoom) -> Self {
        let parameter = |name: &str| read(weights, &format!("h.{index}.{name}"), device);
        let mut linear = |name: &str| {
            Linear::new(parameter(&format!("{name}.weight")), parameter(&format!("{name}.bias")), room)
        };
        let norm = |name: &str| Norm {
            weight: parameter(&format!("{name}.weight")),
            bias: parameter(&format!("{name}.bias")),
        };
        Self {
            index,
            norm_1: norm("ln_1"),
            qkv: linear("attn.c_attn"),
            output: linear("attn.c_proj"),
            norm_2: norm("ln_2"),
            up: linear("mlp.c_fc"),
            down: linear("mlp.c_proj"),
            adapters: Vec::new(),
        }
    }

    /// All parameters, in a fixed order.
    pub fn parameters(&self) -> Vec<&Parameter> {
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
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
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
}

/// The final norm of `weights`; `device` is given when it is trained.
pub(super) fn final_norm(weights: &Weights, device: Option<&Cpu>) -> Norm {
    Norm { weight: read(weights, "ln_f.weight", device), bias: read(weights, "ln_f.bias", device) }
}

fn read(weights: &Weights, name: &str, device: Option<&Cpu>) -> Parameter {
    let (shape, values) = (weights.shape(name), weights.tensor(name).to_vec());
    match device {
        Some(device) => Parameter::trained(name, shape, values, device),
        None => Parameter::frozen(name, shape, values),
    }
}

/// What no tape holds any longer, to change.
///
/// # Panics
///
/// If a tape still holds it.
pub(super) fn exclusive<P>(part: &mut Arc<P>) -> &mut P {
    Arc::get_mut(part).expect("tapes end with their backward pass")
}
