//! What a training stage changed or added to the weights.
//!
//! Safetensors, f32, metadata `format` = `pipe.model.1` and `method`:
//!
//! method      | tensors
//! ------------|---------------------------------------------------------------------------
//! `fine_tune` | all of each trained block (`h.N.…`), `ln_f.weight`, `ln_f.bias`, the head
//! `lora`      | `h.N.lora_a_T` `[n_embd, rank]` and `h.N.lora_b_T` `[rank, n_embd]`, the head;
//!             | metadata `rank`, `alpha`, `targets` (T, some of `q`, `k`, `v`, `o`)
//!
//! The head is `head.weight` `[n_embd, 1]` and `head.bias` `[1]`. N counts blocks from 0.

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

use safetensors::Dtype;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, tensor_shapes};
use crate::{
    contract::StageError,
    data::tensor_file::{self, FORMAT, RawTensor},
};

/// The metadata entry `format` of a model file.
const MODEL_FORMAT: &str = "pipe.model.1";

/// A matrix that LoRA adapts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// The projection after attention.
    O,
}

impl LoraTarget {
    /// All of them.
    pub const ALL: [LoraTarget; 4] = [Self::Q, Self::K, Self::V, Self::O];

    /// The letter in tensor names.
    pub fn letter(self) -> char {
        match self {
            Self::Q => 'q',
            Self::K => 'k',
            Self::V => 'v',
            Self::O => 'o',
        }
    }
}

/// How a model was trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    /// Whole blocks, the final norm and the head.
    FineTune,
    /// Low-rank additions to some matrices, and the head.
    Lora {
        /// Columns of A, rows of B.
        rank: usize,
        /// The addition is `alpha / rank · A·B`.
        alpha: f64,
        /// Which matrices, in order and without repetition.
        targets: Vec<LoraTarget>,
    },
}

/// The tensors of a model file, by name: shape and values.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// How the tensors were trained.
    pub method: Method,
    /// Shape and values of each tensor, by name.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl ModelFile {
    /// Writes the file at `path`; the same contents give the same bytes.
    pub fn write(&self, path: &Path) -> Result<(), StageError> {
        let mut metadata = BTreeMap::from([(FORMAT.to_owned(), MODEL_FORMAT.to_owned())]);
        let mut note = |name: &str, value: String| metadata.insert(name.to_owned(), value);
        match &self.method {
            Method::FineTune => {
                note("method", "fine_tune".into());
            }
            Method::Lora { rank, alpha, targets } => {
                let letters: Vec<_> = targets.iter().map(|target| target.letter().to_string()).collect();
                note("method", "lora".into());
                note("rank", rank.to_string());
                note("alpha", alpha.to_string());
                note("targets", letters.join(","));
            }
        }
        let tensors: Vec<(&str, RawTensor<'_>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                let bytes = Cow::Borrowed(bytemuck::cast_slice(values));
                (name.as_str(), RawTensor { dtype: Dtype::F32, shape: shape.clone(), bytes })
            })
            .collect();
        tensor_file::write(path, &metadata, &tensors)
    }

    /// Reads the file at `path` and checks that every tensor fits a GPT-2 of the shape `config`.
    pub fn read(path: &Path, config: &Config) -> Result<Self, StageError> {
        let damaged = |what: String| StageError::new(format!("`{}` is damaged: {what}", path.display()));
        let buffer = fs::read(path).map_err(|err| StageError::io("read", path, err))?;
        let (file, metadata) = tensor_file::open(path, &buffer, MODEL_FORMAT)?;
        let text = |name: &str| metadata.get(name).map(String::as_str).unwrap_or_default();
        let method = match text("method") {
            "fine_tune" => Method::FineTune,
            "lora" => Method::Lora {
                rank: text("rank").parse().map_err(|_| damaged("it does not say its `rank`".into()))?,
                alpha: text("alpha").parse().map_err(|_| damaged("it does not say its `alpha`".into()))?,
                targets: text("targets")
                    .split(',')
                    .map(|letter| {
                        LoraTarget::ALL.into_iter().find(|target| letter == target.letter().to_string())
                    })
                    .collect::<Option<_>>()
                    .ok_or_else(|| damaged("it does not say its `targets`".into()))?,
            },
            other => return Err(damaged(format!("the method `{other}` is unknown"))),
        };
        let mut tensors = BTreeMap::new();
        for (name, tensor) in file.iter() {
            if tensor.dtype() != Dtype::F32 {
                return Err(damaged(format!("`{name}` is {}, not F32", tensor.dtype())));
            }
            let values = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            tensors.insert(name.to_owned(), (tensor.shape().to_vec(), values));
        }
        let model = Self { method, tensors };
        let problems = model.problems(config);
        if problems.is_empty() {
            return Ok(model);
        }
        let message =
            format!("the model in `{}` does not fit these weights: {}", path.display(), problems.join("; "));
        Err(StageError::new(message)
            .help("feed the same `weights` to the stage that trained and to this one"))
    }

    /// The values of the tensor called `name`, if the model has one.
    pub fn tensor(&self, name: &str) -> Option<&[f32]> {
        self.tensors.get(name).map(|(_, values)| values.as_slice())
    }

    /// What a model of this method over a GPT-2 of the shape `config` lacks or has too much.
    fn problems(&self, config: &Config) -> Vec<String> {
        let c = config.n_embd;
        let mut known: BTreeMap<String, Vec<usize>> =
            BTreeMap::from([("head.weight".into(), vec![c, 1]), ("head.bias".into(), vec![1])]);
        match &self.method {
            Method::FineTune => {
                let all = tensor_shapes(config);
                known.extend(
                    all.into_iter().filter(|(name, _)| name.starts_with("h.") || name.starts_with("ln_f.")),
                );
            }
            Method::Lora { rank, targets, .. } => {
                for (block, target) in
                    (0..config.n_layer).flat_map(|n| targets.iter().map(move |t| (n, t.letter())))
                {
                    known.insert(format!("h.{block}.lora_a_{target}"), vec![c, *rank]);
                    known.insert(format!("h.{block}.lora_b_{target}"), vec![*rank, c]);
                }
            }
        }
        let wrong = self.tensors.iter().filter_map(|(name, (shape, _))| match known.get(name) {
            None => Some(format!("`{name}` is none of its tensors")),
            Some(wanted) if wanted != shape => {
                Some(format!("`{name}` has the shape {shape:?}, not {wanted:?}"))
            }
            Some(_) => None,
        });
        let trained = self.trained_blocks();
        let missing = known.keys().filter(|name| match block_of(name) {
            Some(block) => trained.contains(&block),
            None => true,
        });
        let missing = missing
            .filter(|name| !self.tensors.contains_key(*name))
            .map(|name| format!("`{name}` is missing"));
        wrong.chain(missing).collect()
    }

    /// Blocks of which the model has tensors, counted from 0, in order.
    pub fn trained_blocks(&self) -> Vec<usize> {
        let mut blocks: Vec<usize> = self.tensors.keys().filter_map(|name| block_of(name)).collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }
}

/// The block that a tensor belongs to, if to one.
fn block_of(name: &str) -> Option<usize> {
    name.strip_prefix("h.")?.split('.').next()?.parse().ok()
}
