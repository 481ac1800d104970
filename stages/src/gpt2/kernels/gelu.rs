//! GELU, in place.

use rayon::prelude::*;

use super::vector::{Instructions, exp, mul_add, vectorized};
use crate::gpt2::Activation;

/// Numbers that one task takes.
const PER_TASK: usize = 1 << 15;

/// Applies `activation` to every number of `x`, on all threads of the pool.
pub fn activate(instructions: Instructions, activation: Activation, x: &mut [f32]) {
    x.par_chunks_mut(PER_TASK).for_each(|x| match activation {
        Activation::GeluNew => gelu_new(instructions, x),
        Activation::Gelu => gelu(instructions, x),
    });
}

#[inline(always)]
fn gelu_new_body<const FMA: bool>(x: &mut [f32]) {
    /// 2·√(2/π): `(1 + tanh u)/2` is the logistic function of `2u`.
    const TWICE_SCALE: f32 = 1.595_769_2;
    for value in x {
        let t = *value;
        let u = TWICE_SCALE * mul_add::<FMA>(0.044_715 * t * t, t, t);
        *value = t / (1.0 + exp::<FMA>(-u));
    }
}

vectorized! {
    /// The tanh form, in place.
    pub fn gelu_new(x: &mut [f32]) = gelu_new_body
}

#[inline(always)]
fn gelu_body<const FMA: bool>(x: &mut [f32]) {
    for value in x {
        let t = *value;
        *value = 0.5 * t * (1.0 + erf::<FMA>(t * std::f32::consts::FRAC_1_SQRT_2));
    }
}

vectorized! {
    /// The exact form, in place.
    pub fn gelu(x: &mut [f32]) = gelu_body
}

/// The error function to 3e-7: a rational function of degrees 13 and 8, with the coefficients
/// that Eigen and XLA use.
#[inline(always)]
fn erf<const FMA: bool>(x: f32) -> f32 {
    let x = if -4.0 > x { -4.0 } else { x };
    let x = if 4.0 < x { 4.0 } else { x };
    let square = x * x;
    let p = mul_add::<FMA>(square, -2.726_142_3e-10, 2.770_681_4e-8);
    let p = mul_add::<FMA>(square, p, -2.101_024e-6);
    let p = mul_add::<FMA>(square, p, -5.692_506_5e-5);
    let p = mul_add::<FMA>(square, p, -7.349_906_3e-4);
    let p = mul_add::<FMA>(square, p, -2.954_6e-3);
    let p = mul_add::<FMA>(square, p, -1.609_603_3e-2);
    let q = mul_add::<FMA>(square, -1.456_607_2e-5, -2.133_740_6e-4);
    let q = mul_add::<FMA>(square, q, -1.682_827e-3);
    let q = mul_add::<FMA>(square, q, -7.373_329e-3);
    let q = mul_add::<FMA>(square, q, -1.426_473_9e-2);
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its Taylor series in f64, exact enough for magnitudes up to 5.
    fn exact_erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    fn inputs() -> Vec<f32> {
        (-6000..=6000).map(|i| i as f32 / 1000.0).chain([-1e30, -90.0, 90.0, 1e30]).collect()
    }

    #[test]
    fn both_forms_meet_their_definition_under_every_instruction_set() {
        for instructions in Instructions::available() {
            let (mut tanh_form, mut erf_form) = (inputs(), inputs());
            gelu_new(instructions, &mut tanh_form);
            gelu(instructions, &mut erf_form);
            for ((x, tanh_form), erf_form) in inputs().into_iter().zip(tanh_form).zip(erf_form) {
                let x = f64::from(x);
                let tolerance = 4e-7 * x.abs().max(1.0);
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                let wanted = 0.5 * x * (1.0 + u.tanh());
                assert!((f64::from(tanh_form) - wanted).abs() <= tolerance, "{instructions} tanh at {x}");
                let erf = if x.abs() > 5.0 { x.signum() } else { exact_erf(x * 0.5f64.sqrt()) };
                let wanted = 0.5 * x * (1.0 + erf);
                assert!((f64::from(erf_form) - wanted).abs() <= tolerance, "{instructions} erf at {x}");
            }
        }
    }

    #[test]
    fn not_a_number_stays_so() {
        for instructions in Instructions::available() {
            let mut x = [f32::NAN; 2];
            gelu_new(instructions, &mut x[..1]);
            gelu(instructions, &mut x[1..]);
            assert!(x.iter().all(|x| x.is_nan()));
        }
    }
}
