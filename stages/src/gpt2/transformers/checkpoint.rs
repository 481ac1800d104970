//! Whole models: `config.json` and `model.safetensors`.

use std::path::Path;

use serde_json::{Value, json};

use super::{Classifier, Head, Tensor, write_json};
use crate::{
    contract::StageError,
    gpt2::{Activation, Config, tensor_shapes},
};

/// GPT-2's only special token: what `transformers` pads rows with.
const END_OF_TEXT: usize = 50256;

impl Classifier<'_> {
    /// Writes the folder that `GPT2ForSequenceClassification.from_pretrained` loads.
    ///
    /// The model must have been fine-tuned: what LoRA added is not in it.
    pub fn write_checkpoint(&self, folder: &Path) -> Result<(), StageError> {
        let head = Head::new(self.weights, self.model)?;
        let values = |name: &str| match name {
            "ln_f.bias" => &head.ln_f_bias,
            _ => self.model.tensor(name).unwrap_or_else(|| self.weights.tensor(name)),
        };
        let config = self.weights.config();
        let mut tensors = named("transformer.", config, values);
        tensors.push(("score.weight".to_owned(), vec![1, config.n_embd], head.score.into()));
        self.write_tensors(&folder.join("model.safetensors"), &tensors)?;
        write_json(&folder.join("config.json"), &config_json(config, self.activation))
    }

    /// Writes what training started from as a folder that `transformers` loads, named as GPT-2 is published.
    pub fn write_base(&self, folder: &Path) -> Result<(), StageError> {
        let config = self.weights.config();
        let tensors = named("", config, |name| self.weights.tensor(name));
        self.write_tensors(&folder.join("model.safetensors"), &tensors)?;
        write_json(&folder.join("config.json"), &config_json(config, self.activation))
    }
}

/// The configuration of a classifier of one label.
///
/// `transformers` takes the sigmoid of the logit where there is one label, and this `problem_type`
/// means the loss that it was trained with here, binary cross-entropy.
fn config_json(config: &Config, activation: Activation) -> Value {
    let special = (config.vocab_size > END_OF_TEXT).then_some(END_OF_TEXT);
    json!({
        "architectures": ["GPT2ForSequenceClassification"],
        "model_type": "gpt2",
        "activation_function": activation.to_string(),
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_positions": config.block_size,
        "vocab_size": config.vocab_size,
        "layer_norm_epsilon": 1e-5,
        "id2label": { "0": "POSITIVE" },
        "label2id": { "POSITIVE": 0 },
        "problem_type": "multi_label_classification",
        "bos_token_id": special,
        "eos_token_id": special,
        "pad_token_id": special,
        "torch_dtype": "float32",
    })
}

/// Every tensor of a GPT-2 of the shape `config`, its name behind `prefix`.
fn named<'a>(prefix: &str, config: &Config, values: impl Fn(&str) -> &'a [f32]) -> Vec<Tensor<'a>> {
    let shapes = tensor_shapes(config).into_iter();
    shapes.map(|(name, shape)| (format!("{prefix}{name}"), shape, values(&name).into())).collect()
}
