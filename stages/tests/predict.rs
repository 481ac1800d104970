//! Kinds `zero_shot` and `classify`: their scores against PyTorch's logits and losses.

mod common;

use std::path::{Path, PathBuf};

use common::{
    lab::{Lab, problems},
    tiny::{Tiny, open_weights},
};
use pipe_stages::{
    data::{Prediction, Tokens, read_predictions},
    gpt2::{LoraTarget, Method, ModelFile, Weights, tensor_shapes, write_weights},
};
use serde_json::{Value, json};

/// Two words whose tokens are in the vocabulary of the tiny model.
const POSITIVE: (&str, usize) = (" good", 922);
const NEGATIVE: (&str, usize) = (" not", 407);

fn words() -> Value {
    json!({ "positive": POSITIVE.0, "negative": NEGATIVE.0 })
}

/// A file of states after `blocks` blocks.
fn encode(lab: &Lab, tokens: &Tokens, weights: &Path, with: Value) -> PathBuf {
    let path = lab.path("tokens");
    tokens.write(&path).unwrap();
    let ran = lab.run("encode", with, &[("tokens", &path), ("weights", weights)]).unwrap();
    ran.output("hidden").to_owned()
}

fn zero_shot(lab: &Lab, hidden: &Path, weights: &Path) -> Vec<Prediction> {
    let ran = lab.run("zero_shot", words(), &[("hidden", hidden), ("weights", weights)]).unwrap();
    read_predictions(ran.output("predictions")).unwrap()
}

fn classify(lab: &Lab, hidden: &Path, weights: &Path, model: &ModelFile) -> Vec<Prediction> {
    let path = lab.path("model");
    model.write(&path).unwrap();
    let inputs = [("hidden", hidden), ("weights", weights), ("model", path.as_path())];
    read_predictions(lab.run("classify", json!({}), &inputs).unwrap().output("predictions")).unwrap()
}

/// The tensors `init.*` or `final.*` of a training reference as a model file.
fn model(tiny: &Tiny, method: &str, moment: &str) -> ModelFile {
    let values = tiny.values(&format!("{method}.safetensors"));
    let settings = tiny.json(&format!("{method}.json"));
    let tensors = values
        .names(moment)
        .into_iter()
        .map(|name| {
            let full = format!("{moment}{name}");
            (name, (values.shape(&full), values.floats(&full)))
        })
        .collect();
    let lora = &settings["lora"];
    let method = match lora["rank"].as_u64() {
        None => Method::FineTune,
        Some(rank) => Method::Lora {
            rank: rank as usize,
            alpha: lora["alpha"].as_f64().unwrap(),
            targets: vec![LoraTarget::Q, LoraTarget::V],
        },
    };
    ModelFile { method, tensors }
}

/// The tiny weights with block 1's output scaled by `factor`: states in the thousands.
fn scaled(lab: &Lab, weights: &Weights, factor: f32) -> PathBuf {
    let path = lab.path("scaled");
    let parts = tensor_shapes(weights.config()).into_iter().map(|(name, _)| {
        let is_scaled = name.starts_with("h.1.mlp.c_proj.");
        let factor = if is_scaled { factor } else { 1.0 };
        weights.tensor(&name).iter().map(|value| value * factor).collect::<Vec<_>>()
    });
    write_weights(&path, weights.config(), parts).unwrap();
    path
}

fn blocks_before_training(tiny: &Tiny) -> usize {
    let n_layer = tiny.config["n_layer"].as_u64().unwrap();
    (n_layer - tiny.json("finetune.json")["train_last_blocks"].as_u64().unwrap()) as usize
}

#[test]
fn zero_shot_scores_are_the_softmax_of_two_logits_of_pytorch() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let (weights, values) = (tiny.weights(&lab), tiny.values("forward.safetensors"));
    let prompts = values.prompts();
    for (activation, logits) in [("gelu_new", "logits_tanh"), ("gelu", "logits_erf")] {
        let (vocabulary, logits) = (values.shape(logits)[1], values.floats(logits));
        for blocks in [0, 2, tiny.config["n_layer"].as_u64().unwrap()] {
            let with = json!({ "blocks": blocks, "dtype": "f32", "activation": activation });
            let predictions = zero_shot(&lab, &encode(&lab, &prompts, &weights, with), &weights);
            assert_eq!(predictions.len(), prompts.rows.len());
            for (row, found) in predictions.iter().enumerate() {
                let logit = |token| f64::from(logits[row * vocabulary + token]);
                let (positive, negative) = (logit(POSITIVE.1), logit(NEGATIVE.1));
                let score = positive.exp() / (positive.exp() + negative.exp());
                assert!((found.score - score).abs() < 1e-5, "{activation} {blocks} {row}: {}", found.score);
                assert_eq!(found.prediction == 1, positive > negative);
                assert_eq!(found.id, prompts.rows.ids[row]);
                assert_eq!(found.length, prompts.rows.lengths[row]);
                assert_eq!(found.label, prompts.rows.labels[row]);
            }
        }
    }
}

#[test]
fn untrained_models_score_as_pytorchs_first_loss_says() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let weights = tiny.weights(&lab);
    for method in ["finetune", "lora"] {
        let (values, settings) =
            (tiny.values(&format!("{method}.safetensors")), tiny.json(&format!("{method}.json")));
        let with = json!({ "blocks": blocks_before_training(&tiny), "dtype": "f32" });
        let hidden = encode(&lab, &values.prompts(), &weights, with);
        let predictions = classify(&lab, &hidden, &weights, &model(&tiny, method, "init."));
        let (labels, order) = (values.floats("labels"), values.integers("order"));
        let first_step = &order[..values.shape("order")[1]];
        let losses = first_step.iter().map(|row| {
            let score = predictions[*row as usize].score;
            if labels[*row as usize] > 0.5 { -score.ln() } else { -(1.0 - score).ln() }
        });
        let loss = losses.sum::<f64>() / first_step.len() as f64;
        assert!((loss - settings["loss"][0].as_f64().unwrap()).abs() < 1e-5, "{method}: {loss}");
    }
}

#[test]
fn lora_scores_are_those_of_the_matrices_with_the_products_added() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let weights = tiny.weights(&lab);
    let values = tiny.values("lora.safetensors");
    let blocks = blocks_before_training(&tiny);
    let hidden = encode(&lab, &values.prompts(), &weights, json!({ "blocks": blocks, "dtype": "f32" }));
    let mut lora = model(&tiny, "lora", "final.");
    let targets = [LoraTarget::Q, LoraTarget::K, LoraTarget::V, LoraTarget::O];
    let Method::Lora { rank, alpha, targets: trained } = &mut lora.method else { panic!("a LoRA reference") };
    *trained = targets.to_vec();
    let scale = (*alpha / *rank as f64) as f32;
    let (rank, width) = (*rank, open_weights(&weights).config().n_embd);
    for block in blocks..open_weights(&weights).config().n_layer {
        for (new, old) in [('k', 'q'), ('o', 'v')] {
            for part in ['a', 'b'] {
                let tensor = lora.tensors[&format!("h.{block}.lora_{part}_{old}")].clone();
                lora.tensors.insert(format!("h.{block}.lora_{part}_{new}"), tensor);
            }
        }
    }

    let weights_of_all = open_weights(&weights);
    let mut merged = ModelFile { method: Method::FineTune, tensors: lora.tensors.clone() };
    merged.tensors.retain(|name, _| name.starts_with("head."));
    for (name, shape) in tensor_shapes(weights_of_all.config()) {
        let block = name.strip_prefix("h.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        if block.is_some_and(|block| block < blocks) || (block.is_none() && !name.starts_with("ln_f.")) {
            continue;
        }
        let mut values = weights_of_all.tensor(&name).to_vec();
        for (target, letter) in targets.iter().zip(["q", "k", "v", "o"]) {
            let (tensor, column, columns) = match target {
                LoraTarget::O => ("attn.c_proj.weight", 0, width),
                _ => ("attn.c_attn.weight", *target as usize * width, 3 * width),
            };
            let Some(block) = block.filter(|_| name.ends_with(tensor)) else { continue };
            let a = lora.tensor(&format!("h.{block}.lora_a_{letter}")).unwrap();
            let b = lora.tensor(&format!("h.{block}.lora_b_{letter}")).unwrap();
            for (i, j) in (0..width).flat_map(|i| (0..width).map(move |j| (i, j))) {
                let product: f32 = (0..rank).map(|r| a[i * rank + r] * b[r * width + j]).sum();
                values[i * columns + column + j] += scale * product;
            }
        }
        merged.tensors.insert(name, (shape, values));
    }
    let lora_scores = classify(&lab, &hidden, &weights, &lora);
    let mut untrained = lora.clone();
    untrained.tensors.values_mut().for_each(|(shape, values)| {
        if shape[0] == rank {
            values.fill(0.0);
        }
    });
    let without = classify(&lab, &hidden, &weights, &untrained);
    for ((found, wanted), without) in
        lora_scores.iter().zip(classify(&lab, &hidden, &weights, &merged)).zip(without)
    {
        assert!((found.score - wanted.score).abs() < 1e-6, "{} {}", found.score, wanted.score);
        assert!((found.score - without.score).abs() > 1e-6, "the products matter");
    }
}

#[test]
fn f16_states_in_the_thousands_keep_scores_within_2e_3() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let weights = scaled(&lab, &open_weights(&tiny.weights(&lab)), 8000.0);
    for method in ["finetune", "lora"] {
        let prompts = tiny.values(&format!("{method}.safetensors")).prompts();
        let model = model(&tiny, method, "final.");
        let scores = |dtype: &str| {
            let hidden = encode(&lab, &prompts, &weights, json!({ "blocks": 2, "dtype": dtype }));
            let classified = classify(&lab, &hidden, &weights, &model);
            let zero_shot = zero_shot(&lab, &hidden, &weights);
            classified.into_iter().chain(zero_shot).map(|row| row.score).collect::<Vec<_>>()
        };
        let differences =
            scores("f16").into_iter().zip(scores("f32")).map(|(half, full)| (half - full).abs());
        let largest = differences.fold(0.0, f64::max);
        assert!(largest > 0.0 && largest < 2e-3, "{method}: {largest}");
    }
}

#[test]
fn label_words_must_be_one_token_each() {
    assert_eq!(problems("zero_shot", Value::Null), Vec::<String>::new());
    assert_eq!(
        problems("zero_shot", json!({ "positive": "Positive", "negative": "" })),
        [
            "positive: `Positive` is 2 tokens, not one: `Pos` (21604), `itive` (1800)",
            "negative: a label word cannot be empty"
        ]
    );
    assert_eq!(
        problems("zero_shot", json!({ "positive": " good", "negative": " good" })),
        ["negative: both words are the same"]
    );
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let weights = tiny.weights(&lab);
    let prompts = tiny.values("forward.safetensors").prompts();
    let refusal = |kind: &str, hidden: &Path, weights: &Path, with: Value| {
        let path = lab.path("model");
        model(&tiny, "lora", "final.").write(&path).unwrap();
        let mut inputs = vec![("hidden", hidden), ("weights", weights)];
        if kind == "classify" {
            inputs.push(("model", &path));
        }
        lab.run(kind, with, &inputs).expect_err("a refusal").to_string()
    };
    let hidden = encode(&lab, &prompts, &weights, json!({ "blocks": 2 }));
    let message = refusal("zero_shot", &hidden, &weights, json!({}));
    assert!(message.contains("` Positive` is token 33733, past the 1024 tokens"), "{message}");

    let random = json!({ "init": "random", "n_layer": 1, "n_embd": 64 });
    let other = lab.run("gpt2", random, &[]).unwrap();
    let message = refusal("zero_shot", &hidden, other.output("weights"), json!({}));
    assert!(message.contains("after 2 blocks, width 64) are not of these weights (1 blocks"), "{message}");

    let too_deep = encode(&lab, &prompts, &weights, json!({ "blocks": 3 }));
    let message = refusal("classify", &too_deep, &weights, json!({}));
    assert!(message.contains("the model changed block 3, but the hidden states already have 3"), "{message}");
}
