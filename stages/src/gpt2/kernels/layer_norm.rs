//! Layer norm over rows.

use rayon::prelude::*;

use super::{
    ROWS_PER_TASK,
    vector::{Instructions, LANES, mul_add, sum_lanes, vectorized},
};

/// Added to the variance.
pub const EPSILON: f32 = 1e-5;

/// Normalizes the rows of `x`, each as wide as `weight`, into `out`, on all threads of the pool.
///
/// # Panics
///
/// If `out` has not the length of `x`, or `bias` not that of `weight`.
pub fn layer_norm(instructions: Instructions, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len() && weight.len() == bias.len(), "rows in, rows out");
    let size = ROWS_PER_TASK * weight.len();
    x.par_chunks(size)
        .zip(out.par_chunks_mut(size))
        .for_each(|(x, out)| layer_norm_rows(instructions, x, weight, bias, out));
}

vectorized! {
    /// Normalizes the rows of `x`, each as wide as `weight`, into `out`, on this thread.
    pub fn layer_norm_rows(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) = layer_norm_body
}

#[inline(always)]
fn layer_norm_body<const FMA: bool>(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let (mean, scale) = mean_and_scale::<FMA>(x);
        for i in 0..width {
            out[i] = mul_add::<FMA>((x[i] - mean) * scale, weight[i], bias[i]);
        }
    }
}

/// The mean of `x` and one over its standard deviation.
#[inline(always)]
fn mean_and_scale<const FMA: bool>(x: &[f32]) -> (f32, f32) {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += chunk[i];
        }
    }
    let mean = (sum_lanes(sums) + rest.iter().sum::<f32>()) / x.len() as f32;
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            let d = chunk[i] - mean;
            sums[i] = mul_add::<FMA>(d, d, sums[i]);
        }
    }
    let rest = rest.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>();
    let variance = (sum_lanes(sums) + rest) / x.len() as f32;
    (mean, 1.0 / (variance + EPSILON).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_normalized_under_every_instruction_set_and_any_width() {
        for width in [5, 16, 37] {
            let x: Vec<f32> = (0..3 * width).map(|i| 100.0 + (i * i % 17) as f32).collect();
            let weight: Vec<f32> = (0..width).map(|i| 1.0 + i as f32).collect();
            let bias: Vec<f32> = (0..width).map(|i| -(i as f32)).collect();
            for instructions in Instructions::available() {
                let mut out = vec![f32::NAN; x.len()];
                layer_norm(instructions, &x, &weight, &bias, &mut out);
                for (i, out) in out.iter().enumerate() {
                    let row: Vec<f64> =
                        x[i / width * width..][..width].iter().map(|x| f64::from(*x)).collect();
                    let mean = row.iter().sum::<f64>() / width as f64;
                    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                    let normal = (row[i % width] - mean) / (variance + 1e-5).sqrt();
                    let wanted = normal * f64::from(weight[i % width]) + f64::from(bias[i % width]);
                    assert!((f64::from(*out) - wanted).abs() < 1e-4, "{instructions} {width} {i}");
                }
            }
        }
    }
}
