//! Random weights as GPT-2's training started from.
//!
//! Normal with deviation 0.02 for matrices and both embeddings, with `0.02/√(2·n_layer)` for the two
//! projections back into the residual stream; biases 0, norms 1. This is what Hugging Face's
//! `initializer_range` and nanoGPT do; OpenAI's code drew `wpe` with 0.01.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use rayon::prelude::*;

use super::Config;

/// Deviation of all that is drawn, before the projections are scaled down.
const DEVIATION: f64 = 0.02;
/// Numbers drawn from one stream of the generator, so that threads do not matter.
const PER_STREAM: usize = 1 << 16;

/// The initial values of the tensor called `name`, number `index` in the file, of `length` numbers.
///
/// Draws on all threads of the pool; the values depend on `seed`, `index` and the shape alone. The
/// logarithm and the sine are in Rust, so no system's C library matters either.
pub fn initial_tensor(config: &Config, seed: u64, index: usize, name: &str, length: usize) -> Vec<f32> {
    if name.split('.').next_back() == Some("bias") {
        return vec![0.0; length];
    }
    if name.contains("ln_") {
        return vec![1.0; length];
    }
    let projection = name.ends_with("c_proj.weight");
    let layers = if projection { 2.0 * config.n_layer as f64 } else { 1.0 };
    let deviation = DEVIATION / layers.sqrt();
    let mut values = vec![0.0; length];
    values.par_chunks_mut(PER_STREAM).enumerate().for_each(|(part, values)| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(((index as u64) << 32) | part as u64);
        draw_normal(&mut rng, deviation, values);
    });
    values
}

/// Fills `values` with normal draws of mean 0, two at a time (Box and Muller).
fn draw_normal(rng: &mut ChaCha8Rng, deviation: f64, values: &mut [f32]) {
    const STEP: f64 = 1.0 / 4_294_967_296.0;
    for pair in values.chunks_mut(2) {
        let radius = deviation * (-2.0 * libm::log((f64::from(rng.next_u32()) + 1.0) * STEP)).sqrt();
        let (sine, cosine) = libm::sincos(std::f64::consts::TAU * STEP * f64::from(rng.next_u32()));
        pair[0] = (radius * cosine) as f32;
        if let Some(second) = pair.get_mut(1) {
            *second = (radius * sine) as f32;
        }
    }
}
