//! The machines that run the tests, and what several test files share.
//!
//! A test is a function over the machine. `tests_of!` runs it with the kernels compiled for the
//! processor and, with the feature `cuda` and where it is asked for, on a GPU.
#![allow(dead_code)] // each test file uses its part

pub mod emulated;
pub mod model;
pub mod values;

use pipe_cuda::{launch::Kernels, machine::Machine};

/// A machine that tests run on.
pub trait Tested: Machine {
    /// Times the tolerance of a test: another processor sums and rounds functions otherwise.
    const SLACK: f32;
    /// The machines, ready; none, with a message, where there is none.
    fn all() -> Vec<Kernels<Self>>;
}

#[cfg(feature = "cuda")]
impl Tested for pipe_cuda::Gpu {
    const SLACK: f32 = 10.0;

    fn all() -> Vec<Kernels<Self>> {
        vec![Kernels::new(pipe_cuda::Gpu::open(0).expect("a GPU"))]
    }
}

/// Makes tests of functions over a machine.
macro_rules! tests_of {
    ($($test:ident),* $(,)?) => {
        mod on_the_processor {
            $(#[test]
            fn $test() {
                super::$test::<crate::machines::emulated::Emulated>();
            })*
        }
        #[cfg(feature = "cuda")]
        mod on_a_gpu {
            $(#[test]
            #[ignore = "needs cuda"]
            fn $test() {
                super::$test::<pipe_cuda::Gpu>();
            })*
        }
    };
}
pub(crate) use tests_of;

/// Numbers that look drawn, in ±`size`.
pub fn noise(seed: usize, count: usize, size: f32) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed as u64 + 1);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            size * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
        })
        .collect()
}

/// Where prompts of these lengths begin, and where the last one ends.
pub fn offsets(lengths: &[usize]) -> Vec<usize> {
    let mut offsets = vec![0];
    offsets.extend(lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    }));
    offsets
}

/// Asserts that no two numbers differ by more than `tolerance`, with the slack of the machine, times
/// the larger of 1 and the wanted one.
#[track_caller]
pub fn assert_close<M: Tested>(got: &[f32], wanted: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let tolerance = tolerance * M::SLACK;
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let error = (got - wanted).abs() / wanted.abs().max(1.0);
        assert!(error <= tolerance, "{what} at {i}: {got}, not {wanted}");
    }
}
