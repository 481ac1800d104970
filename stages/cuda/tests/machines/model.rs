//! A small GPT-2 and hidden states.

use std::path::Path;

use pipe_stages::{
    data::{Hidden, HiddenFormat, HiddenType, HiddenWriter, Rows},
    gpt2::{Activation, Config, Weights, tensor_shapes, write_weights},
};

use super::{noise, offsets};

/// Its shape.
pub const CONFIG: Config = Config { n_layer: 3, n_head: 3, n_embd: 36, block_size: 80, vocab_size: 50 };
/// Lengths of prompts.
pub const LENGTHS: [usize; 6] = [1, 33, 5, 70, 12, 9];

/// Weights with numbers as large as trained ones.
pub fn weights(folder: &Path) -> Weights {
    let path = folder.join("weights");
    let tensors = tensor_shapes(&CONFIG).into_iter().enumerate().map(|(i, (name, shape))| {
        let values = noise(i, shape.iter().product(), 0.3);
        let one = if name.contains("ln_") && name.ends_with("weight") { 1.0 } else { 0.0 };
        values.into_iter().map(|value| value + one).collect::<Vec<_>>()
    });
    write_weights(&path, &CONFIG, tensors).unwrap();
    Weights::open(&path).unwrap()
}

/// States after no block, one prompt a length, with labels that alternate.
pub fn hidden(folder: &Path, activation: Activation) -> Hidden {
    let path = folder.join(format!("hidden-{activation}"));
    let rows = Rows {
        ids: (0..LENGTHS.len()).map(|row| row.to_string()).collect(),
        lengths: LENGTHS.iter().map(|length| *length as u32).collect(),
        labels: (0..LENGTHS.len()).map(|row| (row % 2) as u8).collect(),
        offsets: offsets(&LENGTHS),
    };
    let format = HiddenFormat { blocks: 0, n_embd: CONFIG.n_embd, activation, dtype: HiddenType::F32 };
    let writer = HiddenWriter::create(&path, &rows, format).unwrap();
    for (row, length) in LENGTHS.iter().enumerate() {
        writer.write_row(row, &noise(100 + row, length * CONFIG.n_embd, 1.0)).unwrap();
    }
    Hidden::open(&path).unwrap()
}
