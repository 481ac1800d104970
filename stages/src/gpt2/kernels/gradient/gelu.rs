//! The derivative of GELU.

use rayon::prelude::*;

use crate::gpt2::{
    Activation,
    kernels::{
        gelu::erf,
        vector::{Instructions, exp, mul_add, vectorized},
    },
};

/// Numbers that one task takes.
const PER_TASK: usize = 1 << 14;

/// Multiplies `gradient` by the derivative of `activation` at `x`, on all threads of the pool.
///
/// # Panics
///
/// If the two differ in length.
pub fn multiply_derivative(
    instructions: Instructions,
    activation: Activation,
    x: &[f32],
    gradient: &mut [f32],
) {
    assert_eq!(x.len(), gradient.len(), "one gradient a number");
    x.par_chunks(PER_TASK).zip(gradient.par_chunks_mut(PER_TASK)).for_each(
        |(x, gradient)| match activation {
            Activation::GeluNew => tanh_form(instructions, x, gradient),
            Activation::Gelu => erf_form(instructions, x, gradient),
        },
    );
}

#[inline(always)]
fn tanh_form_body<const FMA: bool>(x: &[f32], gradient: &mut [f32]) {
    /// 2·√(2/π): `(1 + tanh u)/2` is the logistic function of `2u`.
    const TWICE_SCALE: f32 = 1.595_769;
    for (x, gradient) in x.iter().zip(gradient) {
        let t = *x;
        let square = 0.044_715 * t * t;
        let logistic = 1.0 / (1.0 + exp::<FMA>(-TWICE_SCALE * mul_add::<FMA>(square, t, t)));
        let slope = TWICE_SCALE * mul_add::<FMA>(3.0, square, 1.0);
        *gradient *= mul_add::<FMA>(t * slope, logistic * (1.0 - logistic), logistic);
    }
}

vectorized! {
    /// The tanh form.
    pub fn tanh_form(x: &[f32], gradient: &mut [f32]) = tanh_form_body
}

#[inline(always)]
fn erf_form_body<const FMA: bool>(x: &[f32], gradient: &mut [f32]) {
    /// 1/√(2π).
    const DENSITY: f32 = 0.398_942_3;
    for (x, gradient) in x.iter().zip(gradient) {
        let t = *x;
        let below = 0.5 * (1.0 + erf::<FMA>(t * std::f32::consts::FRAC_1_SQRT_2));
        *gradient *= mul_add::<FMA>(t * DENSITY, exp::<FMA>(-0.5 * t * t), below);
    }
}

vectorized! {
    /// The exact form.
    pub fn erf_form(x: &[f32], gradient: &mut [f32]) = erf_form_body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt2::kernels::gelu::activate;

    #[test]
    fn the_derivative_is_the_slope_of_the_function() {
        let points: Vec<f32> = (-500..=500).map(|i| i as f32 / 100.0).collect();
        for instructions in Instructions::available() {
            for activation in [Activation::GeluNew, Activation::Gelu] {
                let at = |shift: f32| {
                    let mut x: Vec<f32> = points.iter().map(|x| x + shift).collect();
                    activate(instructions, activation, &mut x);
                    x
                };
                let (above, below) = (at(0.01), at(-0.01));
                let mut gradient = vec![2.0; points.len()];
                multiply_derivative(instructions, activation, &points, &mut gradient);
                for (i, gradient) in gradient.iter().enumerate() {
                    let slope = (above[i] - below[i]) / 0.02;
                    assert!((gradient / 2.0 - slope).abs() < 3e-4, "{activation} at {}", points[i]);
                }
            }
        }
    }
}
