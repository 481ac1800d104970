//! Trained models as `transformers` and `peft` load them.
//!
//! Fine-tuning gives a checkpoint of `GPT2ForSequenceClassification` with one label, LoRA an adapter
//! of such a model; the label's logit is what `classify` computes.
//!
//! Here                  | there                       | why that is the same
//! ----------------------|-----------------------------|------------------------------------------
//! `head.weight`         | `score.weight`              | `[n_embd, 1]` and `[1, n_embd]`: the same bytes
//! `head.bias`           | in `ln_f.bias`              | `score` has no bias, see [`Head`]
//! LoRA on `q`, `k`, `v` | one addition to `c_attn`    | A beside A, B in its own columns, see [`adapter`]
//! LoRA on `o`           | an addition to `c_proj`     | A and B, transposed

mod adapter;
mod checkpoint;

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

use safetensors::Dtype;
use serde_json::Value;

use super::{Activation, ModelFile, Weights};
use crate::{
    contract::StageError,
    data::tensor_file::{self, FORMAT, RawTensor},
};

pub use adapter::Base;

/// A trained model with what it was trained from.
#[derive(Debug, Clone, Copy)]
pub struct Classifier<'a> {
    /// The model that training started from.
    pub weights: &'a Weights,
    /// What training changed or added.
    pub model: &'a ModelFile,
    /// The form of GELU it was trained with.
    pub activation: Activation,
    /// What the metadata of its safetensors say, such as the run it comes from.
    pub origin: &'a BTreeMap<String, String>,
}

/// The head of a classifier without a bias: `score · (normal ∘ ln_f.weight + ln_f_bias)` is its logit.
///
/// `score` of `transformers` has no bias, and nothing but `score` reads what `ln_f` gives. So the head's
/// bias `b` moves into the norm's: `ln_f.bias + b/(w·w) · w`, of which `w` sees `w·ln_f.bias + b`.
struct Head<'a> {
    score: &'a [f32],
    ln_f_weight: &'a [f32],
    ln_f_bias: Vec<f32>,
}

impl<'a> Head<'a> {
    fn new(weights: &'a Weights, model: &'a ModelFile) -> Result<Self, StageError> {
        let of_head = |name| model.tensor(name).expect("a model that was read has a head");
        let (score, bias) = (of_head("head.weight"), f64::from(of_head("head.bias")[0]));
        let square: f64 = score.iter().map(|w| f64::from(*w) * f64::from(*w)).sum();
        if square == 0.0 && bias != 0.0 {
            let message = "the weights of the head are all 0, so that its bias has no place in this form";
            return Err(StageError::new(message));
        }
        let factor = if bias == 0.0 { 0.0 } else { bias / square };
        let ln_f = |name| model.tensor(name).unwrap_or_else(|| weights.tensor(name));
        let moved = |(shift, w): (&f32, &f32)| (f64::from(*shift) + factor * f64::from(*w)) as f32;
        let ln_f_bias = ln_f("ln_f.bias").iter().zip(score).map(moved).collect();
        Ok(Self { score, ln_f_weight: ln_f("ln_f.weight"), ln_f_bias })
    }
}

/// A tensor by its name there: shape and values.
type Tensor<'a> = (String, Vec<usize>, Cow<'a, [f32]>);

impl Classifier<'_> {
    /// Writes a safetensors file that PyTorch programs accept.
    fn write_tensors(&self, path: &Path, tensors: &[Tensor<'_>]) -> Result<(), StageError> {
        let mut metadata = self.origin.clone();
        metadata.insert(FORMAT.to_owned(), "pt".to_owned());
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, shape, values)| {
                let bytes = Cow::Borrowed(bytemuck::cast_slice(values));
                (name.as_str(), RawTensor { dtype: Dtype::F32, shape: shape.clone(), bytes })
            })
            .collect();
        tensor_file::write(path, &metadata, &tensors)
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), StageError> {
    let text = serde_json::to_string_pretty(value).expect("plain values serialize to JSON") + "\n";
    fs::write(path, text).map_err(|err| StageError::io("write", path, err))
}
