//! LoRA adapters: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! `peft` keeps A and B as the weights of linear layers, `[rank, in]` and `[out, rank]`: transposed. The
//! queries, keys and values of a block are the columns of one matrix, `c_attn`, to which `peft` gives one
//! addition. With targets q and v of rank r it has the rank 2r, and nothing is added to keys:
//!
//! ```text
//! lora_A = ┌ A_qᵀ ┐        lora_B = ┌ B_qᵀ   0  ┐  n_embd rows of q
//!          └ A_vᵀ ┘                 │  0     0  │  n_embd rows of k
//!           n_embd                  └  0    B_vᵀ┘  n_embd rows of v
//! ```
//!
//! `peft` scales by `lora_alpha / rank`, so alpha grows as the rank does (`rank_pattern`, `alpha_pattern`).

use std::{borrow::Cow, path::Path};

use serde_json::{Map, Value, json};

use super::{Classifier, Head, Tensor, write_json};
use crate::{
    contract::StageError,
    gpt2::{LoraTarget, Method},
};

/// Where the model lies that an adapter belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// A name at huggingface.co, or a folder.
    pub name: String,
    /// The commit there.
    pub revision: Option<String>,
}

/// The additions to one matrix of a block, `peft`'s names for both halves.
struct Addition {
    module: &'static str,
    /// Width of the matrix in `n_embd`.
    parts: usize,
    /// What is adapted, and from which part on it writes.
    targets: Vec<(LoraTarget, usize)>,
}

impl Classifier<'_> {
    /// Writes the folder that `PeftModel.from_pretrained` loads over `base`.
    ///
    /// `dropout` is that of the additions' input, for whoever trains on.
    ///
    /// # Panics
    ///
    /// If the model was not trained by LoRA.
    pub fn write_adapter(&self, folder: &Path, base: &Base, dropout: f64) -> Result<(), StageError> {
        let Method::Lora { rank, alpha, targets } = &self.model.method else {
            panic!("only LoRA gives an adapter");
        };
        let additions = additions(targets);
        let head = Head::new(self.weights, self.model)?;
        let width = self.weights.config().n_embd;
        let mut tensors = vec![
            tensor("score.weight", &[1, width], head.score),
            tensor("transformer.ln_f.weight", &[width], head.ln_f_weight),
            tensor("transformer.ln_f.bias", &[width], &head.ln_f_bias),
        ];
        let mut modules = Vec::new();
        for block in self.model.trained_blocks() {
            for addition in &additions {
                let module = format!("transformer.h.{block}.{}", addition.module);
                let (total, outputs) = (addition.targets.len() * rank, addition.parts * width);
                let (a, b) = self.halves(block, addition, *rank);
                tensors.push(tensor(&format!("{module}.lora_A.weight"), &[total, width], a));
                tensors.push(tensor(&format!("{module}.lora_B.weight"), &[outputs, total], b));
                modules.push(module);
            }
        }
        self.write_tensors(&folder.join("adapter_model.safetensors"), &tensors)?;
        let pattern = |of_one: f64| -> Map<String, Value> {
            let wide = additions.iter().filter(|addition| addition.targets.len() > 1);
            wide.map(|addition| {
                let total = of_one * addition.targets.len() as f64;
                (addition.module.to_owned(), number(total))
            })
            .collect()
        };
        let config = json!({
            "peft_type": "LORA",
            "task_type": "SEQ_CLS",
            "base_model_name_or_path": base.name,
            "revision": base.revision,
            "r": rank,
            "lora_alpha": number(*alpha),
            "rank_pattern": pattern(*rank as f64),
            "alpha_pattern": pattern(*alpha),
            "lora_dropout": dropout,
            "target_modules": modules,
            "fan_in_fan_out": true,
            "bias": "none",
            "modules_to_save": ["ln_f", "score"],
            "inference_mode": true,
        });
        write_json(&folder.join("adapter_config.json"), &config)
    }

    /// `lora_A` `[targets·rank, n_embd]` and `lora_B` `[parts·n_embd, targets·rank]` of one matrix.
    fn halves(&self, block: usize, addition: &Addition, rank: usize) -> (Vec<f32>, Vec<f32>) {
        let width = self.weights.config().n_embd;
        let total = addition.targets.len() * rank;
        let (mut lora_a, mut lora_b) = (vec![0.0; total * width], vec![0.0; addition.parts * width * total]);
        for (place, (target, part)) in addition.targets.iter().enumerate() {
            let half = |half: char| {
                let name = format!("h.{block}.lora_{half}_{}", target.letter());
                self.model.tensor(&name).expect("a model that was read has both halves of every target")
            };
            let (a, b) = (half('a'), half('b'));
            for r in 0..rank {
                let column = place * rank + r;
                for c in 0..width {
                    lora_a[column * width + c] = a[c * rank + r];
                    lora_b[(part * width + c) * total + column] = b[r * width + c];
                }
            }
        }
        (lora_a, lora_b)
    }
}

fn tensor<'a>(name: &str, shape: &[usize], values: impl Into<Cow<'a, [f32]>>) -> Tensor<'a> {
    (format!("base_model.model.{name}"), shape.to_vec(), values.into())
}

/// The matrices that `targets` are in, `c_attn` first.
fn additions(targets: &[LoraTarget]) -> Vec<Addition> {
    let of = |wanted: &[LoraTarget]| -> Vec<(LoraTarget, usize)> {
        wanted
            .iter()
            .copied()
            .enumerate()
            .map(|(part, target)| (target, part))
            .filter(|(target, _)| targets.contains(target))
            .collect()
    };
    let attention = [LoraTarget::Q, LoraTarget::K, LoraTarget::V];
    let both = [
        Addition { module: "attn.c_attn", parts: 3, targets: of(&attention) },
        Addition { module: "attn.c_proj", parts: 1, targets: of(&[LoraTarget::O]) },
    ];
    both.into_iter().filter(|addition| !addition.targets.is_empty()).collect()
}

/// A whole number without its `.0`, as `peft` declares ranks and alphas.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value < 1e15 { (value as u64).into() } else { value.into() }
}
