//! Hidden states in memory as their file stores them.

use half::{f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

use super::HiddenType;

/// Numbers that one task converts.
const PER_TASK: usize = 1 << 16;

/// The states of some prompts, `[positions, n_embd]`.
///
/// They stay in 16 bits where the file has 16, so that a device is given half the bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum States {
    /// 16 bits a number.
    F16(Vec<f16>),
    /// 32 bits a number.
    F32(Vec<f32>),
}

impl States {
    /// `states` as `dtype` stores them, rounded to nearest on all threads of the pool.
    pub fn new(states: Vec<f32>, dtype: HiddenType) -> Self {
        match dtype {
            HiddenType::F32 => States::F32(states),
            HiddenType::F16 => {
                let mut halves = vec![f16::ZERO; states.len()];
                let parts = states.par_chunks(PER_TASK).zip(halves.par_chunks_mut(PER_TASK));
                parts.for_each(|(states, halves)| halves.convert_from_f32_slice(states));
                States::F16(halves)
            }
        }
    }

    /// Numbers: positions times width.
    pub fn len(&self) -> usize {
        match self {
            States::F16(states) => states.len(),
            States::F32(states) => states.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The states in f32, converted on all threads of the pool where they are not.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            States::F32(states) => states,
            States::F16(halves) => {
                let mut states = vec![0.0; halves.len()];
                let parts = halves.par_chunks(PER_TASK).zip(states.par_chunks_mut(PER_TASK));
                parts.for_each(|(halves, states)| halves.convert_to_f32_slice(states));
                states
            }
        }
    }
}

/// The bytes of a file of states.
impl AsRef<[u8]> for States {
    fn as_ref(&self) -> &[u8] {
        match self {
            States::F16(states) => bytemuck::cast_slice(states),
            States::F32(states) => bytemuck::cast_slice(states),
        }
    }
}
