//! The weights of blocks on the device, matrices in the precision of their products.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pipe_stages::gpt2::{self, BlockWeights, Precision};

use crate::{
    launch::{Kernels, NormSlices},
    machine::{Machine, Numbers, Trouble},
    slice::{Factor, Slice},
};

/// A norm's weight and bias.
#[derive(Debug)]
pub struct Norm<M: Machine> {
    weight: Numbers<M>,
    bias: Numbers<M>,
}

impl<M: Machine> Norm<M> {
    /// Copies a norm to the device.
    pub fn new(kernels: &Kernels<M>, norm: &gpt2::Norm<'_>) -> Result<Self, Trouble<M>> {
        Ok(Self { weight: kernels.upload_floats(&norm.weight)?, bias: kernels.upload_floats(&norm.bias)? })
    }

    /// As kernels read it.
    pub fn slices(&self, machine: &M) -> NormSlices<'_> {
        NormSlices { weight: Slice::of(machine, &self.weight), bias: Slice::of(machine, &self.bias) }
    }
}

/// A matrix `[inputs, outputs]` in the precision of its products, and a bias in f32.
#[derive(Debug)]
pub struct Linear<M: Machine> {
    weight: Numbers<M>,
    bias: Numbers<M>,
    format: Precision,
    inputs: usize,
    outputs: usize,
}

impl<M: Machine> Linear<M> {
    /// Copies a map to the device, its matrix rounded to `format`.
    pub fn new(
        kernels: &Kernels<M>,
        linear: &gpt2::Linear<'_>,
        format: Precision,
    ) -> Result<Self, Trouble<M>> {
        let outputs = linear.bias.len();
        Ok(Self {
            weight: kernels.upload(&in_format(linear.weight(), format))?,
            bias: kernels.upload_floats(&linear.bias)?,
            format,
            inputs: linear.weight().len() / outputs,
            outputs,
        })
    }

    /// The matrix.
    pub fn matrix(&self, machine: &M) -> Factor<'_> {
        Factor::new(Slice::of(machine, &self.weight), self.format, self.inputs, self.outputs)
    }

    /// The bias, `[outputs]`.
    pub fn bias(&self, machine: &M) -> Slice<'_> {
        Slice::of(machine, &self.bias)
    }
}

/// `values` in `format`, as bytes.
pub fn in_format(values: &[f32], format: Precision) -> Vec<u8> {
    match format {
        Precision::F32 => bytemuck::cast_slice(values).to_vec(),
        Precision::F16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            bytemuck::cast_slice(&halves).to_vec()
        }
        Precision::Bf16 => {
            let mut halves = vec![bf16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            bytemuck::cast_slice(&halves).to_vec()
        }
    }
}

/// A frozen block.
#[derive(Debug)]
pub struct Block<M: Machine> {
    /// The norm before attention.
    pub ln_1: Norm<M>,
    /// Queries, keys and values.
    pub attention: Linear<M>,
    /// The projection after attention.
    pub projection: Linear<M>,
    /// The norm before the MLP.
    pub ln_2: Norm<M>,
    /// The MLP's first layer.
    pub expand: Linear<M>,
    /// The MLP's second layer.
    pub contract: Linear<M>,
}

impl<M: Machine> Block<M> {
    /// Copies a block to the device.
    pub fn new(
        kernels: &Kernels<M>,
        block: &BlockWeights<'_>,
        precision: Precision,
    ) -> Result<Self, Trouble<M>> {
        let linear = |linear: &gpt2::Linear<'_>| Linear::new(kernels, linear, precision);
        Ok(Self {
            ln_1: Norm::new(kernels, &block.ln_1)?,
            attention: linear(&block.attention)?,
            projection: linear(&block.projection)?,
            ln_2: Norm::new(kernels, &block.ln_2)?,
            expand: linear(&block.expand)?,
            contract: linear(&block.contract)?,
        })
    }
}
