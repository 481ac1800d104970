//! The weights of blocks on the device, matrices in the precision of their products.

use std::borrow::Borrow;

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

/// A matrix `[inputs, outputs]` in the precision of its products.
#[derive(Debug)]
pub struct Matrix<M: Machine> {
    numbers: Numbers<M>,
    format: Precision,
    inputs: usize,
    outputs: usize,
}

impl<M: Machine> Matrix<M> {
    /// Copies the matrix of `linear` to the device, rounded to `format`.
    pub fn new(
        kernels: &Kernels<M>,
        linear: &gpt2::Linear<'_>,
        format: Precision,
    ) -> Result<Self, Trouble<M>> {
        let (numbers, outputs) = (kernels.upload(&in_format(linear.weight(), format))?, linear.bias.len());
        Ok(Self { numbers, format, inputs: linear.weight().len() / outputs, outputs })
    }

    /// As products read it.
    pub fn factor(&self, machine: &M) -> Factor<'_> {
        Factor::new(Slice::of(machine, &self.numbers), self.format, self.inputs, self.outputs)
    }
}

/// A matrix, and a bias in f32.
#[derive(Debug)]
pub struct Linear<M: Machine> {
    matrix: Matrix<M>,
    bias: Numbers<M>,
}

impl<M: Machine> Linear<M> {
    /// Copies a map to the device, its matrix rounded to `format`.
    pub fn new(
        kernels: &Kernels<M>,
        linear: &gpt2::Linear<'_>,
        format: Precision,
    ) -> Result<Self, Trouble<M>> {
        let bias = kernels.upload_floats(&linear.bias)?;
        Ok(Self { matrix: Matrix::new(kernels, linear, format)?, bias })
    }

    /// The matrix.
    pub fn matrix(&self, machine: &M) -> Factor<'_> {
        self.matrix.factor(machine)
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
    /// What the stream lacks there.
    pub lacking_1: Numbers<M>,
    /// Queries, keys and values.
    pub attention: Linear<M>,
    /// The projection after attention.
    pub projection: Matrix<M>,
    /// The norm before the MLP.
    pub ln_2: Norm<M>,
    /// What the stream lacks there.
    pub lacking_2: Numbers<M>,
    /// The MLP's first layer.
    pub expand: Linear<M>,
    /// The MLP's second layer.
    pub contract: Matrix<M>,
}

/// Frozen blocks, one after the other.
///
/// The residual stream between them lacks the biases of all products that were added to it: what reads
/// it adds their sum, so that no pass over the stream is for a bias alone.
#[derive(Debug)]
pub struct Blocks<M: Machine> {
    /// The first one reads the stream first.
    pub blocks: Vec<Block<M>>,
    /// What the stream lacks after the last block.
    pub lacking: Numbers<M>,
}

impl<M: Machine> Blocks<M> {
    /// Copies blocks `n_embd` wide to the device.
    pub fn new<'w>(
        kernels: &Kernels<M>,
        blocks: impl IntoIterator<Item = impl Borrow<BlockWeights<'w>>>,
        n_embd: usize,
        precision: Precision,
    ) -> Result<Self, Trouble<M>> {
        let mut lacking = vec![0.0; n_embd];
        let mut on_device = Vec::new();
        for block in blocks {
            let block: &BlockWeights<'_> = block.borrow();
            let lacking_1 = kernels.upload_floats(&lacking)?;
            add(&mut lacking, &block.projection.bias);
            let lacking_2 = kernels.upload_floats(&lacking)?;
            add(&mut lacking, &block.contract.bias);
            on_device.push(Block {
                ln_1: Norm::new(kernels, &block.ln_1)?,
                lacking_1,
                attention: Linear::new(kernels, &block.attention, precision)?,
                projection: Matrix::new(kernels, &block.projection, precision)?,
                ln_2: Norm::new(kernels, &block.ln_2)?,
                lacking_2,
                expand: Linear::new(kernels, &block.expand, precision)?,
                contract: Matrix::new(kernels, &block.contract, precision)?,
            });
        }
        Ok(Self { blocks: on_device, lacking: kernels.upload_floats(&lacking)? })
    }
}

fn add(sums: &mut [f32], summands: &[f32]) {
    for (sum, summand) in sums.iter_mut().zip(summands) {
        *sum += summand;
    }
}
