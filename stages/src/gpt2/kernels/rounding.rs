//! Rounding of factors to the precision of their product.

use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

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
        Precision::Bf16 => values.par_chunks_mut(PER_TASK).for_each(|values| {
            let mut halves = [bf16::ZERO; CHUNK];
            for values in values.chunks_mut(CHUNK) {
                let halves = &mut halves[..values.len()];
                halves.convert_from_f32_slice(values);
                halves.convert_to_f32_slice(values);
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_the_nearest_of_the_precision() {
        let values: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) / 7.0).chain([1e-7, 7e4]).collect();
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            let mut rounded = values.clone();
            round(precision, &mut rounded);
            let wanted: Vec<f32> = values.iter().map(|value| precision.round(*value)).collect();
            assert_eq!(rounded, wanted, "{precision}");
        }
        assert!((Precision::F16.round(0.1) - 0.1).abs() < 3e-5);
        assert!((Precision::Bf16.round(0.1) - 0.1).abs() > 9e-5);
    }
}
