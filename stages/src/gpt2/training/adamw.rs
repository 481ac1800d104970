//! `AdamW` over plain slices, with its moments in the open so that a checkpoint can hold them.

use rayon::prelude::*;

/// Values that one task updates.
const CHUNK: usize = 1 << 14;
/// Sums that are kept side by side: one alone would wait for each addition.
const SUMS: usize = 16;

/// The constants of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the two moments, each in `0.0..1.0`.
    pub betas: [f64; 2],
    /// Added to the root of the second moment; above 0.
    pub epsilon: f64,
    /// Decoupled decay of tensors that decay, times the learning rate.
    pub weight_decay: f64,
}

/// The moments of one tensor.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Vec<f32>,
    /// Running mean of its square.
    pub second: Vec<f32>,
}

impl Moments {
    /// Zero moments of `size` values.
    pub fn new(size: usize) -> Self {
        Self { first: vec![0.0; size], second: vec![0.0; size] }
    }
}

impl AdamW {
    /// Updates `values` in place with `gradients` times `scale`.
    ///
    /// `step` counts updates from 0. Where `decays`, `values` first shrink by
    /// `rate · weight_decay`; then `w -= rate · m̂ / (√v̂ + epsilon)` with bias-corrected moments.
    /// Values are updated independently of each other, so threads change nothing.
    ///
    /// # Panics
    ///
    /// If the four slices differ in length.
    #[allow(clippy::too_many_arguments)]
    pub fn update(
        &self,
        step: u64,
        rate: f64,
        scale: f32,
        decays: bool,
        values: &mut [f32],
        gradients: &[f32],
        moments: &mut Moments,
    ) {
        assert!(values.len() == gradients.len() && values.len() == moments.first.len());
        let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let keep = if decays { (1.0 - rate * self.weight_decay) as f32 } else { 1.0 };
        let [beta1, beta2] = self.betas.map(|beta| beta as f32);
        let [rest1, rest2] = self.betas.map(|beta| (1.0 - beta) as f32);
        let step_size = (rate / (1.0 - self.betas[0].powi(t))) as f32;
        let root = (1.0 - self.betas[1].powi(t)).sqrt().recip() as f32;
        let epsilon = self.epsilon as f32;
        let (first, second) = (moments.first.par_chunks_mut(CHUNK), moments.second.par_chunks_mut(CHUNK));
        let gradients = gradients.par_chunks(CHUNK);
        values.par_chunks_mut(CHUNK).zip(gradients).zip(first.zip(second)).for_each(
            |((values, gradients), (first, second))| {
                for (((w, g), m), v) in values.iter_mut().zip(gradients).zip(first).zip(second) {
                    let g = g * scale;
                    *m = beta1 * *m + rest1 * g;
                    *v = beta2 * *v + rest2 * g * g;
                    *w = *w * keep - step_size * *m / (v.sqrt() * root + epsilon);
                }
            },
        );
    }
}

/// Returns the sum of the squares of `values`, the same whatever the number of threads.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let of_chunk = |chunk: &[f32]| {
        let mut sums = [0.0; SUMS];
        let (lanes, rest) = chunk.as_chunks::<SUMS>();
        for lane in lanes {
            for i in 0..SUMS {
                sums[i] += square(lane[i]);
            }
        }
        sums.iter().sum::<f64>() + rest.iter().map(|value| square(*value)).sum::<f64>()
    };
    let parts: Vec<f64> = values.par_chunks(CHUNK).map(of_chunk).collect();
    parts.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::{AdamW, Moments, sum_of_squares};

    const ADAMW: AdamW = AdamW { betas: [0.9, 0.95], epsilon: 1e-8, weight_decay: 0.1 };

    #[test]
    fn the_first_update_moves_every_value_by_the_rate_whatever_the_gradient() {
        let mut values = vec![1.0, 1.0];
        ADAMW.update(0, 0.01, 1.0, false, &mut values, &[3.0, -0.001], &mut Moments::new(2));
        assert!((values[0] - 0.99).abs() < 1e-6 && (values[1] - 1.01).abs() < 1e-5, "{values:?}");
    }

    #[test]
    fn a_decaying_tensor_shrinks_without_a_gradient_and_another_does_not() {
        let (mut decaying, mut other) = (vec![2.0], vec![2.0]);
        ADAMW.update(0, 0.5, 1.0, true, &mut decaying, &[0.0], &mut Moments::new(1));
        ADAMW.update(0, 0.5, 1.0, false, &mut other, &[0.0], &mut Moments::new(1));
        assert!((decaying[0] - 1.9).abs() < 1e-6);
        assert!((other[0] - 2.0).abs() < 1e-9);
    }

    #[test]
    fn two_updates_equal_the_formula_in_double_precision() {
        let (mut values, mut moments) = (vec![0.5], Moments::new(1));
        let (mut w, mut m, mut v) = (0.5f64, 0.0f64, 0.0f64);
        for (step, g) in [(0u64, 0.3f64), (1, -0.2)] {
            let g32 = [g as f32];
            ADAMW.update(step, 0.01, 0.5, true, &mut values, &g32, &mut moments);
            let (g, t) = (g * 0.5, step as i32 + 1);
            m = 0.9 * m + 0.1 * g;
            v = 0.95 * v + 0.05 * g * g;
            w *= 1.0 - 0.01 * 0.1;
            w -= 0.01 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-8);
        }
        assert!((f64::from(values[0]) - w).abs() < 1e-6, "{} {w}", values[0]);
    }

    #[test]
    fn squares_are_summed_over_all_chunks() {
        let values = vec![2.0f32; 100_003];
        assert!((sum_of_squares(&values) - 400_012.0).abs() < 1e-6);
    }
}
