//! Operations on `dfdx`'s tape that are made of the kernels.
//!
//! Each takes its input's numbers once, computes on plain slices, and records one backward
//! operation. Frozen parameters get no gradient, and neither does an input that nothing trained
//! lies before.

mod adapter;
mod attention;
mod mlp;
mod norm;

pub(super) use attention::{Extent, attention};
pub(super) use mlp::mlp;
pub(super) use norm::norm;

use std::borrow::Cow;

use dfdx::prelude::{Cpu, CpuError, HasShape, Storage, TensorFrom};

use super::{
    batch::Batch,
    parameters::{Grads, Linear, Matrix, Norm, Parameter},
};
use crate::gpt2::{
    Activation, Precision,
    kernels::{
        self,
        gemm::{self, Factor},
        gradient,
        rounding::round,
        vector::Instructions,
    },
};

/// What the operations of one pass share.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    pub batch: std::sync::Arc<Batch>,
    pub instructions: Instructions,
    pub activation: Activation,
    pub precision: Precision,
    pub n_head: usize,
    pub n_embd: usize,
    pub device: Cpu,
}

impl Pass {
    fn normalized(&self, x: &[f32], norm: &Norm) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let (weight, bias) = (norm.weight.values(), norm.bias.values());
        kernels::layer_norm::layer_norm(self.instructions, x, weight, bias, &mut out);
        out
    }

    /// Adds the gradients of the norm of `x` to those of its trained parameters, and to `input`.
    fn norm_backward(
        &self,
        gradients: &mut Grads,
        norm: &Norm,
        x: &[f32],
        upstream: &[f32],
        input: Option<&mut [f32]>,
    ) -> Result<(), CpuError> {
        // Two tensors of one map cannot be borrowed at once, so the sums pass through their own.
        let width = if norm.weight.is_trained() { self.n_embd } else { 0 };
        let (mut of_weight, mut of_bias) = (vec![0.0; width], vec![0.0; width]);
        let parameters =
            norm.weight.is_trained().then_some((of_weight.as_mut_slice(), of_bias.as_mut_slice()));
        let into = gradient::layer_norm::Gradients { input, parameters };
        gradient::layer_norm::layer_norm(self.instructions, x, norm.weight.values(), upstream, into);
        add(norm.weight.gradient(gradients)?, &of_weight);
        add(norm.bias.gradient(gradients)?, &of_bias);
        Ok(())
    }
}

/// Adds `values` to a gradient, if there is one.
fn add(gradient: Option<&mut [f32]>, values: &[f32]) {
    if let Some(gradient) = gradient {
        gradient.iter_mut().zip(values).for_each(|(gradient, value)| *gradient += value);
    }
}

/// A row-major matrix over all of `values`, `columns` wide.
fn matrix(values: &[f32], columns: usize) -> gemm::Matrix<'_> {
    gemm::Matrix::new(values, values.len() / columns, columns)
}

/// A row-major matrix over all of `values`, `columns` wide, to write to.
fn matrix_mut(values: &mut [f32], columns: usize) -> gemm::MatrixMut<'_> {
    let rows = values.len() / columns;
    gemm::MatrixMut::new(values, rows, columns)
}

impl Linear {
    fn width(&self) -> usize {
        self.bias.values().len()
    }

    /// `x·weight + bias` in the given columns.
    fn forward(&self, pass: &Pass, x: &[f32], columns: std::ops::Range<usize>) -> Vec<f32> {
        let (x, weight) = (&rounded(pass.precision, x), self.factor(pass.precision));
        let inputs = self.weight.values().len() / self.width();
        let mut out = vec![0.0; x.len() / inputs * columns.len()];
        let bias = &self.bias.values()[columns.clone()];
        gemm::linear(x, weight.columns(columns), bias, gemm::Target::Replace, &mut out);
        out
    }

    /// Adds the gradients of trained parameters, given that of the output in the given columns.
    fn parameters_backward(
        &self,
        pass: &Pass,
        gradients: &mut Grads,
        x: &[f32],
        upstream: &[f32],
        columns: std::ops::Range<usize>,
    ) -> Result<(), CpuError> {
        let inputs = self.weight.values().len() / self.width();
        if let Some(of_weight) = self.weight.gradient(gradients)? {
            let of_weight = matrix_mut(of_weight, self.width()).columns(columns.clone());
            let precision = pass.precision.backward();
            let (x, upstream) = (&rounded(precision, x), &rounded(precision, upstream));
            let upstream = Factor::new(matrix(upstream, columns.len()), precision, None);
            gradient::linear::weight(matrix(x, inputs), upstream, of_weight);
        }
        if let Some(of_bias) = self.bias.gradient(gradients)? {
            gradient::linear::bias(upstream, &mut of_bias[columns]);
        }
        Ok(())
    }

    /// The gradient of the input from that of the output in the given columns.
    fn input_backward(
        &self,
        pass: &Pass,
        upstream: &[f32],
        columns: std::ops::Range<usize>,
        target: gemm::Target,
        of_input: &mut [f32],
    ) {
        let inputs = self.weight.values().len() / self.width();
        let precision = pass.precision.backward();
        let upstream = &rounded(precision, upstream);
        let (upstream, of_input) = (matrix(upstream, columns.len()), matrix_mut(of_input, inputs));
        let transposed = self.transposed_factor(precision).rows(columns);
        gradient::linear::input(upstream, transposed, target, of_input);
    }
}

/// `values` in `precision`; themselves in f32.
fn rounded(precision: Precision, values: &[f32]) -> Cow<'_, [f32]> {
    if precision == Precision::F32 {
        return Cow::Borrowed(values);
    }
    let mut values = values.to_vec();
    round(precision, &mut values);
    Cow::Owned(values)
}

/// The numbers of `x`, row after row.
fn numbers(x: &Matrix) -> Vec<f32> {
    let &(rows, columns) = x.shape();
    let mut numbers = vec![0.0; rows * columns];
    x.copy_into(&mut numbers);
    numbers
}

/// A tensor of `rows`.
fn tensor(pass: &Pass, rows: Vec<f32>) -> Result<Matrix, CpuError> {
    let count = rows.len() / pass.n_embd;
    pass.device.try_tensor((rows, (count, pass.n_embd)))
}

/// Takes a gradient out of its place, so that it is freed when used up.
fn take(buffer: &mut <Cpu as Storage<f32>>::Vec) -> Vec<f32> {
    std::mem::take(&mut **buffer)
}

/// The values of `parameter` as a matrix, by its shape.
fn parameter_matrix(parameter: &Parameter) -> gemm::Matrix<'_> {
    matrix(parameter.values(), parameter.shape()[1])
}
