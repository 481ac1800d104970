//! Gradients of layer norm.

use rayon::prelude::*;

use crate::gpt2::kernels::{
    ROWS_PER_TASK,
    layer_norm::mean_and_scale,
    vector::{Instructions, LANES, mul_add, sum_lanes, vectorized},
};

/// What a layer norm adds its gradients to; what is `None` is not computed.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// As the input, `[rows, n_embd]`.
    pub input: Option<&'a mut [f32]>,
    /// Weight and bias, `[n_embd]` each.
    pub parameters: Option<(&'a mut [f32], &'a mut [f32])>,
}

/// Adds the gradients of the layer norm of `x` with `weight`, given that of its output.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn layer_norm(
    instructions: Instructions,
    x: &[f32],
    weight: &[f32],
    upstream: &[f32],
    into: Gradients<'_>,
) {
    let width = weight.len();
    let size = ROWS_PER_TASK * width;
    assert_eq!(x.len(), upstream.len(), "one gradient a number");
    if let Some(input) = into.input {
        assert_eq!(x.len(), input.len(), "one gradient a number");
        x.par_chunks(size)
            .zip(upstream.par_chunks(size))
            .zip(input.par_chunks_mut(size))
            .for_each(|((x, upstream), input)| input_rows(instructions, x, weight, upstream, input));
    }
    if let Some((of_weight, of_bias)) = into.parameters {
        let parts: Vec<Vec<f32>> = x
            .par_chunks(size)
            .zip(upstream.par_chunks(size))
            .map(|(x, upstream)| {
                let mut part = vec![0.0; 2 * width];
                parameter_rows(instructions, x, upstream, &mut part);
                part
            })
            .collect();
        for part in parts {
            let (weight_part, bias_part) = part.split_at(width);
            of_weight.iter_mut().zip(weight_part).for_each(|(gradient, part)| *gradient += part);
            of_bias.iter_mut().zip(bias_part).for_each(|(gradient, part)| *gradient += part);
        }
    }
}

#[inline(always)]
fn input_rows_body<const FMA: bool>(x: &[f32], weight: &[f32], upstream: &[f32], input: &mut [f32]) {
    let width = weight.len();
    let rows = x.chunks_exact(width).zip(upstream.chunks_exact(width)).zip(input.chunks_exact_mut(width));
    for ((x, upstream), input) in rows {
        let (mean, scale) = mean_and_scale::<FMA>(x);
        let (x_chunks, x_rest) = x.as_chunks::<LANES>();
        let (w_chunks, w_rest) = weight.as_chunks::<LANES>();
        let (u_chunks, u_rest) = upstream.as_chunks::<LANES>();
        let (mut plain, mut along) = ([0.0; LANES], [0.0; LANES]);
        for ((x, w), u) in x_chunks.iter().zip(w_chunks).zip(u_chunks) {
            for i in 0..LANES {
                let g = u[i] * w[i];
                plain[i] += g;
                along[i] = mul_add::<FMA>(g, (x[i] - mean) * scale, along[i]);
            }
        }
        let (mut plain, mut along) = (sum_lanes(plain), sum_lanes(along));
        for ((x, w), u) in x_rest.iter().zip(w_rest).zip(u_rest) {
            plain += u * w;
            along += u * w * (x - mean) * scale;
        }
        let (plain, along) = (plain / width as f32, along / width as f32);
        for i in 0..width {
            let normal = (x[i] - mean) * scale;
            input[i] += scale * (mul_add::<FMA>(upstream[i], weight[i], -plain) - normal * along);
        }
    }
}

vectorized! {
    /// The gradient of the input rows, on this thread.
    pub fn input_rows(x: &[f32], weight: &[f32], upstream: &[f32], input: &mut [f32]) = input_rows_body
}

#[inline(always)]
fn parameter_rows_body<const FMA: bool>(x: &[f32], upstream: &[f32], part: &mut [f32]) {
    let width = part.len() / 2;
    let (of_weight, of_bias) = part.split_at_mut(width);
    for (x, upstream) in x.chunks_exact(width).zip(upstream.chunks_exact(width)) {
        let (mean, scale) = mean_and_scale::<FMA>(x);
        for i in 0..width {
            of_weight[i] = mul_add::<FMA>(upstream[i], (x[i] - mean) * scale, of_weight[i]);
            of_bias[i] += upstream[i];
        }
    }
}

vectorized! {
    /// The gradients of weight and bias, one after the other in `part`, on this thread.
    pub fn parameter_rows(x: &[f32], upstream: &[f32], part: &mut [f32]) = parameter_rows_body
}
