//! Speed of the forward pass at the 124M shape: `cargo bench -p pipe-stages --bench forward`.
//!
//! Prints tokens a second for 12 blocks at 256 tokens a prompt, and which share of the speed of
//! a large matrix product (measured beside it, on the same threads) that is.

use std::{borrow::Cow, time::Instant};

use pipe_stages::gpt2::{
    Activation, BlockWeights, Config, Forward,
    kernels::{
        gemm::{Matrix, MatrixMut, Target, Threads, multiply},
        vector::Instructions,
    },
};

const CONFIG: Config = Config::GPT2_124M;
const TOKENS: usize = 256;
/// Each measurement is repeated for this long, in seconds; the best time counts.
const SECONDS: f64 = 4.0;

fn main() {
    let blocks: Vec<_> = (0..CONFIG.n_layer as u32).map(random_block).collect();
    println!("{} threads, row kernels: {}", rayon::current_num_threads(), Instructions::best());
    for prompts in [1, 4, 8, 16] {
        let offsets: Vec<usize> = (0..=prompts).map(|prompt| prompt * TOKENS).collect();
        let mut states = noise(7, prompts * TOKENS * CONFIG.n_embd, 1.0);
        let mut forward = Forward::new(&CONFIG, Activation::GeluNew);
        let (mut fastest, mut peak) = (f64::INFINITY, 0.0f64);
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < SECONDS {
            let pass = Instant::now();
            for block in &blocks {
                forward.block(block, &mut states, &offsets);
            }
            fastest = fastest.min(pass.elapsed().as_secs_f64());
            peak = peak.max(product_speed());
        }
        let tokens = (prompts * TOKENS) as f64;
        println!(
            "batch {prompts:2}: {:6.0} tokens/s, {:5.1} GFLOP/s, {:3.0} % of the product's {peak:5.1}",
            tokens / fastest,
            operations(prompts) / fastest / 1e9,
            100.0 * operations(prompts) / fastest / 1e9 / peak,
        );
    }
}

/// Multiplications and additions of 12 blocks: matrices, and attention with the keys needed.
fn operations(prompts: usize) -> f64 {
    let (c, tokens) = (CONFIG.n_embd as f64, TOKENS as f64);
    let matrices = 2.0 * 12.0 * c * c * tokens;
    let attention = 2.0 * 2.0 * c * tokens * (tokens + 1.0) / 2.0;
    prompts as f64 * CONFIG.n_layer as f64 * (matrices + attention)
}

/// Billions of operations a second of one large product on all threads.
fn product_speed() -> f64 {
    const SIZE: usize = 1536;
    thread_local! {
        static FACTOR: Vec<f32> = noise(1, SIZE * SIZE, 1.0);
    }
    FACTOR.with(|factor| {
        let mut product = vec![0.0; SIZE * SIZE];
        let matrix = Matrix::new(factor, SIZE, SIZE);
        let start = Instant::now();
        let target = MatrixMut::new(&mut product, SIZE, SIZE);
        multiply(Threads::All, 1.0, matrix, matrix, Target::Replace, target);
        2.0 * (SIZE * SIZE * SIZE) as f64 / start.elapsed().as_secs_f64() / 1e9
    })
}

fn random_block(block: u32) -> BlockWeights<'static> {
    let (c, inner) = (CONFIG.n_embd, CONFIG.n_inner());
    BlockWeights::from_tensors(|name| {
        Cow::Owned(match name {
            "ln_1.weight" | "ln_2.weight" => vec![1.0; c],
            "attn.c_attn.bias" => vec![0.0; 3 * c],
            "mlp.c_fc.bias" => vec![0.0; inner],
            "attn.c_attn.weight" => noise(block, 3 * c * c, 0.02),
            "attn.c_proj.weight" => noise(block + 100, c * c, 0.02),
            "mlp.c_fc.weight" => noise(block + 200, inner * c, 0.02),
            "mlp.c_proj.weight" => noise(block + 300, inner * c, 0.02),
            _ => vec![0.0; c],
        })
    })
}

/// Numbers spread evenly over `±1.7·scale`.
fn noise(seed: u32, length: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state as f32 / u32::MAX as f32 - 0.5) * 3.4 * scale
    };
    (0..length).map(|_| next()).collect()
}
