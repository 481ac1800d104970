//! Rounding of factors to the precision of their product.

use half::{f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

use super::vector::{Instructions, vectorized};
use crate::gpt2::Precision;

/// Numbers that one task takes.
const PER_TASK: usize = 1 << 14;
/// Numbers that are rounded at once.
const CHUNK: usize = 256;

/// Rounds every number of `values` to `precision`, on all threads of the pool.
///
/// In f32 nothing is touched.
pub fn round(precision: Precision, values: &mut [f32]) {
    match precision {
        Precision::F32 => {}
        Precision::F16 => values.par_chunks_mut(PER_TASK).for_each(|values| {
            let mut halves = [f16::ZERO; CHUNK];
            for values in values.chunks_mut(CHUNK) {
                let halves = &mut halves[..values.len()];
                halves.convert_from_f32_slice(values);
                halves.convert_to_f32_slice(values);
            }
        }),
        Precision::Bf16 => {
            let instructions = Instructions::best();
            values.par_chunks_mut(PER_TASK).for_each(|values| round_to_bf16(instructions, values));
        }
    }
}

vectorized! {
    fn round_to_bf16(values: &mut [f32]) = round_to_bf16_body
}

/// As `half` rounds one number: a carry out of the mantissa is right, since the next binade begins there.
#[inline(always)]
fn round_to_bf16_body<const FMA: bool>(values: &mut [f32]) {
    for value in values {
        let bits = value.to_bits();
        let to_nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let quiet = bits | 0x0040_0000;
        *value = f32::from_bits(if value.is_nan() { quiet } else { to_nearest } & 0xffff_0000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_the_nearest_of_the_precision() {
        let values: Vec<f32> = (0..1000)
            .map(|i| (i as f32 - 500.0) / 7.0)
            .chain([
                1e-7,
                7e4,
                f32::MAX,
                f32::INFINITY,
                1.0 + 0.5f32.powi(8),
                1.0 + 1.5 * 0.5f32.powi(7),
                -0.0,
            ])
            .collect();
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            let mut rounded = values.clone();
            round(precision, &mut rounded);
            let wanted: Vec<f32> = values.iter().map(|value| precision.round(*value)).collect();
            assert_eq!(rounded, wanted, "{precision}");
            let mut not_numbers =
                [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0x7fff_ffff)];
            round(precision, &mut not_numbers);
            assert!(not_numbers.iter().all(|value| value.is_nan()), "{precision}");
        }
        assert!((Precision::F16.round(0.1) - 0.1).abs() < 3e-5);
        assert!((Precision::Bf16.round(0.1) - 0.1).abs() > 9e-5);
    }
}
