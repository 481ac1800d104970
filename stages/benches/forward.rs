//! Speed of the forward pass at the 124M shape: `cargo bench -p pipe-stages --bench forward`.
//!
//! Prints tokens a second for 12 blocks at 256 tokens a prompt, and which share of the speed of
//! a large matrix product (measured beside it, on the same threads) that is.

use std::time::Instant;

use pipe_stages::gpt2::{Activation, Forward, Precision, kernels::vector::Instructions};

// Every benchmark uses a part of it.
#[allow(dead_code)]
mod shape;

const TOKENS: usize = 256;
/// Each measurement is repeated for this long, in seconds; the best time counts.
const SECONDS: f64 = 4.0;

fn main() {
    println!("{} threads, row kernels: {}", rayon::current_num_threads(), Instructions::best());
    [Precision::F32, Precision::Bf16].into_iter().for_each(measure);
}

fn measure(precision: Precision) {
    let blocks = shape::blocks(precision);
    for prompts in [1, 4, 8, 16] {
        let offsets: Vec<usize> = (0..=prompts).map(|prompt| prompt * TOKENS).collect();
        let mut states = shape::noise(7, prompts * TOKENS * shape::CONFIG.n_embd, 1.0);
        let mut forward = Forward::new(&shape::CONFIG, Activation::GeluNew).in_precision(precision);
        let (mut fastest, mut peak) = (f64::INFINITY, 0.0f64);
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < SECONDS {
            let pass = Instant::now();
            for block in &blocks {
                forward.block(block, &mut states, &offsets);
            }
            fastest = fastest.min(pass.elapsed().as_secs_f64());
            peak = peak.max(shape::product_speed(precision));
        }
        let tokens = (prompts * TOKENS) as f64;
        println!(
            "{precision:4}, batch {prompts:2}: {:6.0} tokens/s, {:5.1} GFLOP/s, {:3.0} % of the product's {peak:5.1}",
            tokens / fastest,
            shape::operations(prompts, TOKENS) / fastest / 1e9,
            100.0 * shape::operations(prompts, TOKENS) / fastest / 1e9 / peak,
        );
    }
}
