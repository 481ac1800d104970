//! Numbers on a machine, and how they are compared with those of Rust.

use half::{bf16, f16};
use pipe_cuda::{launch::Kernels, machine::Numbers, prompts::Dropped, weights::in_format};
use pipe_stages::gpt2::{
    Precision,
    kernels::{
        dropout::{Draws, Mask, Site},
        vector::Instructions,
    },
};

use super::Tested;

/// All formats of numbers.
pub const FORMATS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Bf16];

/// The instructions that the Rust kernels are given.
pub fn best() -> Instructions {
    Instructions::best()
}

/// A buffer with `values`.
pub fn up<M: Tested>(kernels: &Kernels<M>, values: &[f32]) -> Numbers<M> {
    kernels.upload_floats(values).unwrap()
}

/// A buffer of zeros.
pub fn zeros<M: Tested>(kernels: &Kernels<M>, count: usize) -> Numbers<M> {
    kernels.zeros(count).unwrap()
}

/// The first `count` numbers of `format` in a buffer.
pub fn down<M: Tested>(
    kernels: &Kernels<M>,
    numbers: &Numbers<M>,
    format: Precision,
    count: usize,
) -> Vec<f32> {
    let slice = kernels.slice(numbers);
    if format == Precision::F32 {
        return kernels.floats(slice, count).unwrap();
    }
    let mut bytes = vec![0; 2 * count];
    kernels.read(slice, &mut bytes).unwrap();
    let (halves, _) = bytes.as_chunks::<2>();
    match format {
        Precision::F16 => halves.iter().map(|bytes| f16::from_ne_bytes(*bytes).to_f32()).collect(),
        _ => halves.iter().map(|bytes| bf16::from_ne_bytes(*bytes).to_f32()).collect(),
    }
}

/// How far a rounded number may lie from another whose f32 was a little different: one step.
pub fn tolerance(format: Precision) -> f32 {
    match format {
        Precision::F32 => 2e-6,
        Precision::F16 => 1.0 / 1024.0,
        Precision::Bf16 => 1.0 / 128.0,
    }
}

/// `x` rounded to `format`.
pub fn rounded(format: Precision, x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| format.round(*x)).collect()
}

/// Puts `values` into a buffer in `format`.
pub fn up_in<M: Tested>(kernels: &Kernels<M>, format: Precision, values: &[f32]) -> Numbers<M> {
    kernels.upload(&in_format(values, format)).unwrap()
}

/// `x` with `bias` added to each of its rows.
pub fn with_bias(x: &[f32], bias: &[f32]) -> Vec<f32> {
    x.iter().enumerate().map(|(i, x)| x + bias[i % bias.len()]).collect()
}

/// Masks of prompts at a site, and their keys on the device.
pub fn masks<M: Tested>(
    kernels: &Kernels<M>,
    prompts: usize,
    site: Site,
    share: f64,
) -> (Vec<Option<Mask>>, Numbers<M>) {
    let draws = Draws::new(5, 7, share, share);
    let masks: Vec<_> = (0..prompts as u64).map(|slot| draws.mask(slot, 1, site)).collect();
    let keys: Vec<u8> = masks.iter().flat_map(|mask| mask.map_or(0, |mask| mask.key).to_ne_bytes()).collect();
    (masks, kernels.upload(&keys).unwrap())
}

/// What is dropped by these masks.
pub fn dropped<'a, M: Tested>(
    kernels: &Kernels<M>,
    masks: &[Option<Mask>],
    keys: &'a Numbers<M>,
) -> Dropped<'a> {
    match masks[0] {
        None => Dropped::NOTHING,
        Some(Mask { threshold, kept, .. }) => Dropped { keys: Some(kernels.slice(keys)), threshold, kept },
    }
}
