//! Kinds `zero_shot` and `classify`: their scores against PyTorch's logits and losses.

mod common;

use std::{collections::BTreeMap, path::Path};

use common::{
    lab::{Lab, problems},
    made_up,
    tiny::{Tiny, Training, encode, open_weights, scaled_to},
};
use pipe_stages::{
    data::{Hidden, Prediction, read_predictions},
    gpt2::{Config, LoraTarget, Method, ModelFile, tensor_shapes},
};
use serde_json::{Value, json};

/// Two words whose tokens are in any vocabulary.
const POSITIVE: (&str, usize) = ("!", 0);
const NEGATIVE: (&str, usize) = ("#", 2);

fn words() -> Value {
    json!({ "positive": POSITIVE.0, "negative": NEGATIVE.0 })
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

/// The tensors `init.*` or `final.*` of a training as a model file.
fn model(training: &Training, moment: &str) -> ModelFile {
    let tensor = |name: String| {
        let full = format!("{moment}{name}");
        (name, (training.values.shape(&full), training.values.floats(&full)))
    };
    let tensors = training.values.names(moment).into_iter().map(tensor).collect();
    ModelFile { method: training.method(), tensors }
}

/// The largest magnitude in a file of states.
fn largest_state(hidden: &Path) -> f32 {
    let hidden = Hidden::open(hidden).unwrap();
    let rows: Vec<usize> = (0..hidden.rows().len()).collect();
    hidden.states(&rows).unwrap().into_f32().iter().fold(0.0, |largest, state| largest.max(state.abs()))
}

#[test]
fn zero_shot_scores_are_the_softmax_of_two_logits_of_pytorch() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let (weights, values) = (tiny.weights(&lab), tiny.values("forward.safetensors"));
    let prompts = values.prompts();
    for (activation, logits) in [("gelu_new", "logits_tanh"), ("gelu", "logits_erf")] {
        let (vocabulary, logits) = (values.shape(logits)[1], values.floats(logits));
        for blocks in [0, tiny.n_layer() / 2, tiny.n_layer()] {
            let with = json!({ "blocks": blocks, "dtype": "f32", "activation": activation });
            let predictions = zero_shot(&lab, &encode(&lab, &prompts, &weights, with), &weights);
            assert_eq!(predictions.len(), prompts.rows.len());
            for (row, found) in predictions.iter().enumerate() {
                let logit = |token| f64::from(logits[row * vocabulary + token]);
                let (positive, negative) = (logit(POSITIVE.1), logit(NEGATIVE.1));
                let score = positive.exp() / (positive.exp() + negative.exp());
                assert!((found.score - score).abs() < 1e-5, "{activation} {blocks} {row}: {}", found.score);
                let is_close = (positive - negative).abs() < 2e-5;
                assert!(is_close || (found.prediction == 1) == (positive > negative), "{row}");
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
        let reference = tiny.training(method);
        let (values, settings) = (&reference.values, &reference.settings);
        let hidden = reference.encode(&lab, &weights, reference.frozen_blocks());
        let predictions = classify(&lab, &hidden, &weights, &model(&reference, "init."));
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
    let reference = tiny.training("lora");
    let blocks = reference.frozen_blocks();
    let hidden = reference.encode(&lab, &weights, blocks);
    let mut lora = model(&reference, "final.");
    let targets = LoraTarget::ALL;
    let Method::Lora { rank, alpha, targets: trained } = &mut lora.method else { panic!("a LoRA reference") };
    let trained = std::mem::replace(trained, targets.to_vec());
    let scale = (*alpha / *rank as f64) as f32;
    let (rank, width) = (*rank, open_weights(&weights).config().n_embd);
    for block in blocks..open_weights(&weights).config().n_layer {
        for (i, new) in targets.iter().filter(|target| !trained.contains(target)).enumerate() {
            let old = trained[i % trained.len()].letter();
            for part in ['a', 'b'] {
                let tensor = lora.tensors[&format!("h.{block}.lora_{part}_{old}")].clone();
                lora.tensors.insert(format!("h.{block}.lora_{part}_{}", new.letter()), tensor);
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
        for target in targets {
            let letter = target.letter();
            let (tensor, column, columns) = match target {
                LoraTarget::O => ("attn.c_proj.weight", 0, width),
                _ => ("attn.c_attn.weight", target as usize * width, 3 * width),
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
    let second = untrained.tensors.iter_mut().filter(|(name, _)| name.contains(".lora_b_"));
    second.for_each(|(_, (_, values))| values.fill(0.0));
    let without = classify(&lab, &hidden, &weights, &untrained);
    for (found, wanted) in lora_scores.iter().zip(classify(&lab, &hidden, &weights, &merged)) {
        assert!((found.score - wanted.score).abs() < 1e-6, "{} {}", found.score, wanted.score);
    }
    let differs = |(found, without): (&Prediction, Prediction)| (found.score - without.score).abs() > 1e-5;
    assert!(lora_scores.iter().zip(without).any(differs), "the products matter");
}

#[test]
fn f16_states_in_the_thousands_keep_scores_within_2e_3() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let weights = open_weights(&tiny.weights(&lab));
    for method in ["finetune", "lora"] {
        let reference = tiny.training(method);
        let (prompts, blocks) = (reference.prompts(), reference.frozen_blocks());
        let weights = scaled_to(&lab, &weights, &prompts, blocks, 5000.0);
        let model = model(&reference, "final.");
        let scores = |dtype: &str| {
            let hidden = encode(&lab, &prompts, &weights, json!({ "blocks": blocks, "dtype": dtype }));
            let largest = largest_state(&hidden);
            assert!((3000.0..65504.0).contains(&largest), "{largest}");
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
    let lab = Lab::new();
    let Config { n_layer, n_embd, .. } = made_up::SMALL;
    let weights = made_up::weights(&lab, &made_up::SMALL);
    let prompts = made_up::prompts(4);
    let method = Method::Lora { rank: 1, alpha: 1.0, targets: vec![LoraTarget::Q] };
    let zeros = |shape: [usize; 2]| (shape.to_vec(), vec![0.0; shape[0] * shape[1]]);
    let mut tensors = BTreeMap::from([
        ("head.weight".to_owned(), zeros([n_embd, 1])),
        ("head.bias".to_owned(), (vec![1], vec![0.0])),
    ]);
    for block in 2..n_layer {
        tensors.insert(format!("h.{block}.lora_a_q"), zeros([n_embd, 1]));
        tensors.insert(format!("h.{block}.lora_b_q"), zeros([1, n_embd]));
    }
    let model = ModelFile { method, tensors };
    let refusal = |kind: &str, hidden: &Path, weights: &Path| {
        let path = lab.path("model");
        model.write(&path).unwrap();
        let mut inputs = vec![("hidden", hidden), ("weights", weights)];
        if kind == "classify" {
            inputs.push(("model", &path));
        }
        lab.run(kind, json!({}), &inputs).expect_err("a refusal").to_string()
    };
    let hidden = encode(&lab, &prompts, &weights, json!({ "blocks": 2 }));
    let message = refusal("zero_shot", &hidden, &weights);
    assert!(message.contains("` Positive` is token 33733, past the 512 tokens"), "{message}");

    let random = json!({ "init": "random", "n_layer": 1, "n_embd": 64 });
    let other = lab.run("gpt2", random, &[]).unwrap();
    let message = refusal("zero_shot", &hidden, other.output("weights"));
    assert!(message.contains("after 2 blocks, width 64) are not of these weights (1 blocks"), "{message}");

    let too_deep = encode(&lab, &prompts, &weights, json!({ "blocks": 3 }));
    let message = refusal("classify", &too_deep, &weights);
    assert!(message.contains("the model changed block 3, but the hidden states already have 3"), "{message}");
}
