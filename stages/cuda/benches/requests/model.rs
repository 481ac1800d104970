//! Random weights of some shape.

use pipe_stages::{
    contract::StageError,
    gpt2::{Config, Weights, tensor_shapes, write_weights},
};

/// Weights in a file that is removed with them.
#[derive(Debug)]
pub struct Model {
    /// Norms near one, the rest near zero.
    pub weights: Weights,
    _folder: tempfile::TempDir,
}

impl Model {
    /// Random weights of this shape.
    pub fn new(config: Config) -> Result<Self, StageError> {
        let folder = tempfile::tempdir()
            .map_err(|err| StageError::io("make a folder in", &std::env::temp_dir(), err))?;
        let path = folder.path().join("weights");
        let parts = tensor_shapes(&config).into_iter().enumerate().map(|(index, (name, shape))| {
            let size = shape.iter().product();
            let is_gain = name.contains("ln_") && name.ends_with("weight");
            if is_gain { vec![1.0; size] } else { noise(index as u32, size, 0.02) }
        });
        write_weights(&path, &config, parts)?;
        Ok(Self { weights: Weights::open(&path)?, _folder: folder })
    }
}

/// Numbers spread evenly over `±1.7·scale`.
pub fn noise(seed: u32, length: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state as f32 / u32::MAX as f32 - 0.5) * 3.4 * scale
    };
    (0..length).map(|_| next()).collect()
}
