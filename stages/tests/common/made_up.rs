//! A small made-up GPT-2 and prompts for it, for tests that need no reference values.

use std::path::PathBuf;

use pipe_stages::{
    data::{Rows, Tokens},
    gpt2::{Config, tensor_shapes, write_weights},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::lab::Lab;

/// The shape of the small model.
pub const SMALL: Config = Config { n_layer: 4, n_head: 4, n_embd: 64, block_size: 64, vocab_size: 512 };

/// `count` numbers uniform in ±1.
pub fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| generator.next_u32() as f32 / 2f32.powi(31) - 1.0).collect()
}

/// A weights file of the shape `config`, spread so that every layer works at its usual scale.
pub fn weights(lab: &Lab, config: &Config) -> PathBuf {
    let path = lab.path("weights");
    let parts = tensor_shapes(config).into_iter().enumerate().map(|(i, (name, shape))| {
        let (middle, reach) = match name.rsplit('.').next() {
            Some("weight") if shape.len() == 1 => (1.0, 0.3),
            Some("weight") if !name.starts_with('w') => (0.0, 1.2 / (shape[0] as f32).sqrt()),
            _ => (0.0, 0.5),
        };
        let spread = numbers(i as u64, shape.iter().product());
        spread.into_iter().map(|value| middle + reach * value).collect::<Vec<f32>>()
    });
    write_weights(&path, config, parts).unwrap();
    path
}

/// Prompts of 1 to 60 tokens of the small model, positive when the first token is in the lower half.
pub fn prompts(count: usize) -> Tokens {
    let mut rows = Rows { offsets: vec![0], ..Rows::default() };
    let mut tokens = Vec::new();
    for row in 0..count {
        let length = 1 + (row * 37) % 60;
        let ids = numbers(1000 + row as u64, length).into_iter();
        tokens.extend(ids.map(|value| ((value + 1.0) * 255.9) as u32));
        rows.ids.push(format!("row_{row}"));
        rows.lengths.push(length as u32);
        rows.labels.push(u8::from(tokens[tokens.len() - length] < 256));
        rows.offsets.push(tokens.len());
    }
    Tokens { rows, tokens }
}
