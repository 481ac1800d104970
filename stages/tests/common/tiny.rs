//! The tiny GPT-2 of the reference values: its weights, prompts and what PyTorch made of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pipe_stages::{
    data::{Rows, Tokens},
    gpt2::{Method, Weights, tensor_shapes, write_weights},
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::{lab::Lab, reference};

/// The folder `tiny-gpt2`.
pub struct Tiny {
    folder: PathBuf,
    /// What `config.json` says.
    pub config: Value,
}

/// A safetensors file of reference values.
pub struct Values(Vec<u8>);

impl Tiny {
    /// Opens the folder; nothing, with a message, where there is none.
    pub fn open() -> Option<Self> {
        let folder = reference("tiny-gpt2")?;
        let config = json_file(&folder.join("config.json"));
        Some(Self { folder, config })
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A safetensors file of the folder.
    pub fn values(&self, name: &str) -> Values {
        Values(fs::read(self.path(name)).unwrap())
    }

    /// A JSON file of the folder.
    pub fn json(&self, name: &str) -> Value {
        json_file(&self.path(name))
    }

    /// The weights, made by the stage `gpt2`, at a path in `lab`.
    pub fn weights(&self, lab: &Lab) -> PathBuf {
        let with = json!({ "n_head": self.config["n_head"] });
        let ran = lab.run("gpt2", with, &[("file", &self.path("model.safetensors"))]).unwrap();
        ran.output("weights").to_owned()
    }

    /// Blocks of the model.
    pub fn n_layer(&self) -> usize {
        self.config["n_layer"].as_u64().unwrap() as usize
    }

    /// A training of the folder: `finetune` or `lora`.
    pub fn training(&self, name: &str) -> Training {
        Training {
            values: self.values(&format!("{name}.safetensors")),
            settings: self.json(&format!("{name}.json")),
            n_layer: self.n_layer(),
        }
    }
}

/// What `finetune.*` or `lora.*` hold.
pub struct Training {
    /// Prompts, labels, order, and tensors before and after.
    pub values: Values,
    /// How it was trained, loss and gradient norm of each step.
    pub settings: Value,
    n_layer: usize,
}

impl Training {
    /// The method that `lora` in the settings says.
    pub fn method(&self) -> Method {
        let lora = &self.settings["lora"];
        if lora.is_null() {
            return Method::FineTune;
        }
        let mut targets: Vec<_> = serde_json::from_value(lora["on"].clone()).unwrap();
        targets.sort_unstable();
        let rank = lora["rank"].as_u64().unwrap() as usize;
        Method::Lora { rank, alpha: lora["alpha"].as_f64().unwrap(), targets }
    }

    /// Blocks that were trained, at the end of the model.
    pub fn trained_blocks(&self) -> usize {
        self.settings["train_last_blocks"].as_u64().unwrap() as usize
    }

    /// Blocks below those.
    pub fn frozen_blocks(&self) -> usize {
        self.n_layer - self.trained_blocks()
    }

    /// The prompts with their labels.
    pub fn prompts(&self) -> Tokens {
        let mut tokens = self.values.prompts();
        tokens.rows.labels = self.values.floats("labels").iter().map(|label| *label as u8).collect();
        tokens
    }

    /// The prompts' states after `blocks` blocks, in f32: what `encode` writes.
    pub fn encode(&self, lab: &Lab, weights: &Path, blocks: usize) -> PathBuf {
        let activation = &self.settings["activation"];
        encode(
            lab,
            &self.prompts(),
            weights,
            json!({ "blocks": blocks, "dtype": "f32", "activation": activation }),
        )
    }
}

/// What `encode` with the parameters `with` writes of `tokens`.
pub fn encode(lab: &Lab, tokens: &Tokens, weights: &Path, with: Value) -> PathBuf {
    let path = lab.path("tokens");
    tokens.write(&path).unwrap();
    lab.run("encode", with, &[("tokens", &path), ("weights", weights)]).unwrap().output("hidden").to_owned()
}

/// A copy of `weights` with `factor` on what feeds the states after `blocks` blocks last: the
/// projection out of that block's MLP, or the positions when there is no block.
pub fn scaled(lab: &Lab, weights: &Weights, blocks: usize, factor: f32) -> PathBuf {
    let path = lab.path("scaled");
    let prefix = match blocks {
        0 => "wpe.".to_owned(),
        _ => format!("h.{}.mlp.c_proj.", blocks - 1),
    };
    let parts = tensor_shapes(weights.config()).into_iter().map(|(name, _)| {
        let factor = if name.starts_with(&prefix) { factor } else { 1.0 };
        weights.tensor(&name).iter().map(|value| value * factor).collect::<Vec<_>>()
    });
    write_weights(&path, weights.config(), parts).unwrap();
    path
}

/// As [`scaled`], so that the states of `prompts` after `blocks` blocks reach about `magnitude`, in
/// the thousands or above.
pub fn scaled_to(lab: &Lab, weights: &Weights, prompts: &Tokens, blocks: usize, magnitude: f64) -> PathBuf {
    let probe = 1e5;
    let (weights_path, tokens) = (scaled(lab, weights, blocks, probe), lab.path("tokens"));
    prompts.write(&tokens).unwrap();
    let inputs = [("tokens", tokens.as_path()), ("weights", weights_path.as_path())];
    let ran = lab.run("encode", json!({ "blocks": blocks, "dtype": "f32" }), &inputs).unwrap();
    let reached = ran.metric("largest_magnitude").unwrap();
    scaled(lab, weights, blocks, (f64::from(probe) * magnitude / reached) as f32)
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

impl Values {
    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    /// Names of all tensors that begin with `prefix`, without it.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<_> = self
            .file()
            .names()
            .iter()
            .filter_map(|name| Some(name.strip_prefix(prefix)?.to_owned()))
            .collect();
        names.sort();
        names
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.file().tensor(name).unwrap().shape().to_vec()
    }

    /// An F32 tensor.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let file = self.file();
        let data = file.tensor(name).unwrap().data().as_chunks().0.to_vec();
        data.into_iter().map(f32::from_le_bytes).collect()
    }

    /// An I32 tensor.
    pub fn integers(&self, name: &str) -> Vec<u32> {
        let file = self.file();
        let data = file.tensor(name).unwrap().data().as_chunks().0.to_vec();
        data.into_iter().map(|bytes| i32::from_le_bytes(bytes) as u32).collect()
    }

    /// `ids` and `lens` as prompts without padding; the ids of rows are `row_0`, `row_1`, …
    pub fn prompts(&self) -> Tokens {
        let (ids, width) = (self.integers("ids"), self.shape("ids")[1]);
        let lengths = self.integers("lens");
        let mut rows = Rows { offsets: vec![0], ..Rows::default() };
        let mut tokens = Vec::new();
        for (row, length) in lengths.iter().enumerate() {
            tokens.extend_from_slice(&ids[row * width..][..*length as usize]);
            rows.ids.push(format!("row_{row}"));
            rows.lengths.push(*length);
            rows.labels.push((row % 2) as u8);
            rows.offsets.push(tokens.len());
        }
        Tokens { rows, tokens }
    }

    /// The first `positions` states of row `row` of `[rows, positions, n_embd]`.
    pub fn states(&self, name: &str, row: usize, positions: usize) -> Vec<f32> {
        let shape = self.shape(name);
        let start = row * shape[1] * shape[2];
        self.floats(name)[start..start + positions * shape[2]].to_vec()
    }
}

/// The weights of a file that the stage `gpt2` wrote.
pub fn open_weights(path: &Path) -> Weights {
    Weights::open(path).unwrap()
}

/// The largest difference between two lists of numbers.
///
/// # Panics
///
/// If they differ in length, or a difference is no number.
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.inspect(|difference| assert!(!difference.is_nan())).fold(0.0, f32::max)
}
