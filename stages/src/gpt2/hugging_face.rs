//! GPT-2 weights as they are published: safetensors with Hugging Face's names.
//!
//! Any size of GPT-2 is read. Names may have the prefix `transformer.`; the causal masks
//! (`h.N.attn.bias`, `h.N.attn.masked_bias`) are ignored; `lm_head.weight` must equal `wte.weight`,
//! since GPT-2 ties them. Numbers may be F32, F16 or BF16.

use std::{collections::BTreeMap, fs::File, path::Path};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorInfo};

use super::{Config, map, tensor_shapes};
use crate::contract::StageError;

/// A published weights file whose names and shapes are those of a GPT-2.
#[derive(Debug)]
pub struct HuggingFace {
    map: Mmap,
    data: usize,
    tensors: BTreeMap<String, TensorInfo>,
    config: Config,
}

impl HuggingFace {
    /// Maps the file at `path` and checks names, shapes and types, reporting every problem.
    ///
    /// `n_head` is not in the file; all published sizes have heads of width 64, which is what
    /// `None` means.
    pub fn open(path: &Path, n_head: Option<usize>) -> Result<Self, StageError> {
        let file = File::open(path).map_err(|err| StageError::io("open", path, err))?;
        let map = map(&file).map_err(|err| StageError::io("map", path, err))?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|err| {
            StageError::new(format!("`{}` is not a whole safetensors file", path.display())).because(err)
        })?;
        let mut tensors = BTreeMap::new();
        let mut problems = Vec::new();
        for (given, info) in metadata.tensors() {
            let name = given.strip_prefix("transformer.").unwrap_or(&given).to_owned();
            if is_mask(&name) {
                continue;
            }
            if tensors.insert(name.clone(), info.clone()).is_some() {
                problems.push(format!("`{name}` is there twice, with and without `transformer.`"));
            }
        }
        let Some(config) = config_of(&tensors, n_head, &mut problems) else {
            return Err(refusal(path, &problems));
        };
        let mut wanted: BTreeMap<String, Vec<usize>> = tensor_shapes(&config).into_iter().collect();
        for (name, shape) in &wanted {
            match tensors.get(name) {
                None => problems.push(format!("`{name}` {shape:?} is missing")),
                Some(info) if info.shape != *shape => {
                    problems.push(format!("`{name}` has the shape {:?}, not {shape:?}", info.shape));
                }
                Some(_) => {}
            }
        }
        wanted.insert("lm_head.weight".into(), vec![config.vocab_size, config.n_embd]);
        for (name, info) in &tensors {
            if !wanted.contains_key(name) {
                problems.push(format!("`{name}` {:?} is no tensor of a GPT-2", info.shape));
            } else if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                problems.push(format!("`{name}` is {}, not F32, F16 or BF16", info.dtype));
            }
        }
        let loaded = Self { map, data: 8 + header, tensors, config };
        if problems.is_empty() && loaded.tensors.contains_key("lm_head.weight") && !loaded.is_tied() {
            problems.push("`lm_head.weight` differs from `wte.weight`, to which GPT-2 ties it".into());
        }
        if problems.is_empty() { Ok(loaded) } else { Err(refusal(path, &problems)) }
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The values of the tensor called `name`.
    ///
    /// # Panics
    ///
    /// If a GPT-2 of this shape has no such tensor.
    pub fn tensor(&self, name: &str) -> Vec<f32> {
        let bytes = self.bytes(name);
        match self.tensors[name].dtype {
            Dtype::F16 => bytes.as_chunks().0.iter().map(|half| f16::from_le_bytes(*half).to_f32()).collect(),
            Dtype::BF16 => {
                bytes.as_chunks().0.iter().map(|half| bf16::from_le_bytes(*half).to_f32()).collect()
            }
            _ => bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        }
    }

    fn bytes(&self, name: &str) -> &[u8] {
        let (start, end) = self.tensors[name].data_offsets;
        &self.map[self.data + start..self.data + end]
    }

    fn is_tied(&self) -> bool {
        if self.tensors["lm_head.weight"].dtype == self.tensors["wte.weight"].dtype {
            return self.bytes("lm_head.weight") == self.bytes("wte.weight");
        }
        self.tensor("lm_head.weight") == self.tensor("wte.weight")
    }
}

/// Whether `name` is a causal mask that programs keep beside the parameters.
fn is_mask(name: &str) -> bool {
    name.starts_with("h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))
}

/// The shape that the file's embeddings and block numbers say, unless they say none.
fn config_of(
    tensors: &BTreeMap<String, TensorInfo>,
    n_head: Option<usize>,
    problems: &mut Vec<String>,
) -> Option<Config> {
    let mut matrix = |name: &str| match tensors.get(name).map(|info| info.shape.as_slice()) {
        Some(&[rows, columns]) => Some((rows, columns)),
        Some(other) => {
            problems.push(format!("`{name}` has the shape {other:?}, not two axes"));
            None
        }
        None => {
            problems.push(format!("`{name}` is missing"));
            None
        }
    };
    let (of_token, of_position) = (matrix("wte.weight"), matrix("wpe.weight"));
    let block = |name: &String| name.strip_prefix("h.")?.split('.').next()?.parse::<usize>().ok();
    // The number of distinct blocks, not the highest: a name `h.999999999.x` is one stray tensor.
    let blocks: std::collections::BTreeSet<usize> = tensors.keys().filter_map(block).collect();
    if blocks.is_empty() {
        problems.push("there are no blocks: no tensor `h.0.…`".into());
    }
    let ((vocab_size, n_embd), (block_size, _)) = (of_token?, of_position?);
    if n_head.is_none() && n_embd % 64 != 0 {
        problems.push(format!("heads of width 64 do not fit a width of {n_embd}: set `n_head`"));
    }
    let n_head = n_head.unwrap_or(n_embd / 64).max(1);
    let config = Config { n_layer: blocks.len(), n_head, n_embd, block_size, vocab_size };
    if let (Err((_, problem)), false) = (config.check(), blocks.is_empty()) {
        problems.push(problem);
    }
    (!blocks.is_empty()).then_some(config)
}

fn refusal(path: &Path, problems: &[String]) -> StageError {
    let message = format!("`{}` is not the weights of a GPT-2:\n  {}", path.display(), problems.join("\n  "));
    StageError::new(message).help("wanted is `model.safetensors` of a GPT-2 as Hugging Face publishes it")
}
