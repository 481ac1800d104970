//! Training against PyTorch: 30 updates of the reference values, through `encode` and the loop
//! that the stages run; only the order of rows and the initial values are given.

mod common;

use std::path::Path;

use common::{
    lab::Lab,
    tiny::{Tiny, Values, open_weights},
};
use pipe_stages::{
    data::Hidden,
    gpt2::{
        Config, LoraTarget, Method,
        training::{
            AdamW, Data, Length, Network, Order, Progress, Step, TrainSettings, Watch, train,
            trainable_parameters,
        },
    },
};
use serde_json::{Value, json};

/// What the loop showed.
#[derive(Default)]
struct Seen {
    losses: Vec<f64>,
    norms: Vec<f64>,
    rates: Vec<f64>,
    first_gradients: Vec<Vec<f32>>,
}

impl Watch for Seen {
    fn step(&mut self, step: &Step<'_>) {
        self.losses.push(step.loss);
        self.norms.push(step.gradient_norm);
        self.rates.push(step.learning_rate);
        if step.number == 1 {
            self.first_gradients = step.gradients.to_vec();
        }
    }
}

/// Hidden states after `blocks` blocks of the prompts in `values`, with its labels.
fn hidden(lab: &Lab, weights: &Path, values: &Values, blocks: usize) -> Hidden {
    let mut tokens = values.prompts();
    tokens.rows.labels = values.floats("labels").iter().map(|label| *label as u8).collect();
    let path = lab.path("tokens");
    tokens.write(&path).unwrap();
    let with = json!({ "blocks": blocks, "dtype": "f32" });
    let ran = lab.run("encode", with, &[("tokens", &path), ("weights", weights)]).unwrap();
    Hidden::open(ran.output("hidden")).unwrap()
}

fn settings(json: &Value, micro_batch: usize) -> TrainSettings {
    let number = |name: &str| json[name].as_f64().unwrap();
    let whole = |name: &str| json[name].as_u64().unwrap();
    TrainSettings {
        lr: number("lr"),
        min_lr: number("min_lr"),
        warmup: whole("warmup_steps"),
        decay: Some(whole("decay_steps")),
        length: Length::Updates(whole("steps")),
        batch: whole("batch") as usize,
        micro_batch,
        adamw: AdamW {
            betas: [json["betas"][0].as_f64().unwrap(), json["betas"][1].as_f64().unwrap()],
            epsilon: number("eps"),
            weight_decay: number("weight_decay"),
        },
        clip: number("clip_norm"),
        dropout: number("dropout"),
        lora_dropout: 0.0,
        eval_every: 1000,
    }
}

fn norm(values: impl IntoIterator<Item = f32>) -> f64 {
    values.into_iter().map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// The norm of the difference of two tensors; the key bias, whose true gradient is 0, is left out.
fn distance(name: &str, a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "{name}");
    let third = a.len() / 3;
    let counts = |i: &usize| !name.ends_with("c_attn.bias") || !(third..2 * third).contains(i);
    norm((0..a.len()).filter(counts).map(|i| a[i] - b[i]))
}

/// Trains above states after `frozen` blocks fewer than could be cached.
fn reproduce(file: &str, micro_batch: usize, frozen: usize) {
    let Some(tiny) = Tiny::open() else { return };
    let (lab, json) = (Lab::new(), tiny.json(&format!("{file}.json")));
    let values = tiny.values(&format!("{file}.safetensors"));
    let path = tiny.weights(&lab);
    let (weights, method) = (open_weights(&path), method(&json));
    let train_blocks = json["train_last_blocks"].as_u64().unwrap() as usize;
    let blocks = (weights.config().n_layer - train_blocks).saturating_sub(frozen);
    let hidden = hidden(&lab, &path, &values, blocks);
    let trainable = trainable_parameters(weights.config(), &method, train_blocks);
    assert_eq!(trainable as u64, json["trainable"].as_u64().unwrap());

    let mut network = Network::new(&weights, hidden.format(), method, train_blocks, 1).unwrap();
    for name in values.names("init.") {
        network.set(&name, &values.floats(&format!("init.{name}")));
    }
    let order: Vec<usize> = values.integers("order").iter().map(|row| *row as usize).collect();
    let order = order.chunks(values.shape("order")[1]).map(<[usize]>::to_vec).collect();
    let data = Data { hidden: &hidden, order: Order::Given(order), validation: Vec::new() };
    let (mut seen, progress) = (Seen::default(), Progress::start(&network));
    train(&mut network, &data, &settings(&json, micro_batch), 1, progress, &mut seen).unwrap();

    let wanted = |name: &str| json[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let (losses, norms): (Vec<f64>, Vec<f64>) = (wanted("loss"), wanted("grad_norm_before_clip"));
    assert_eq!(seen.losses.len(), losses.len());
    for i in 0..losses.len() {
        let (loss, norm) = ((seen.losses[i] - losses[i]).abs(), (seen.norms[i] - norms[i]).abs());
        assert!(loss <= 1e-5 && norm <= 2e-5, "update {i}: loss off by {loss:e}, norm by {norm:e}");
    }
    let parameters = network.parameters();
    assert_eq!(parameters.len(), values.names("grad0.").len());
    for (parameter, gradient) in parameters.iter().zip(&seen.first_gradients) {
        let name = parameter.name();
        let of = |part: &str| values.floats(&format!("{part}.{name}"));
        assert_eq!(parameter.shape(), values.shape(&format!("final.{name}")), "{name}");
        let off = distance(name, gradient, &of("grad0"));
        assert!(off <= 1e-5 * norm(of("grad0")), "gradient of {name} off by {off:e}");
        let (off, moved) =
            (distance(name, parameter.values(), &of("final")), distance(name, &of("final"), &of("init")));
        assert!(off <= 1e-2 * moved, "{name} ends {off:e} off, having moved by {moved:e}");
    }
}

/// What the JSON of a run says under `lora`.
fn method(json: &Value) -> Method {
    let lora = &json["lora"];
    if lora.is_null() {
        return Method::FineTune;
    }
    Method::Lora {
        rank: lora["rank"].as_u64().unwrap() as usize,
        alpha: lora["alpha"].as_f64().unwrap(),
        targets: serde_json::from_value(lora["on"].clone()).unwrap(),
    }
}

#[test]
fn fine_tuning_reproduces_the_reference() {
    reproduce("finetune", 4, 0);
}

#[test]
fn fine_tuning_in_micro_batches_of_one_reproduces_the_reference() {
    reproduce("finetune", 1, 0);
}

#[test]
fn fine_tuning_above_frozen_blocks_reproduces_the_reference() {
    reproduce("finetune", 3, 2);
}

#[test]
fn lora_reproduces_the_reference() {
    reproduce("lora", 2, 0);
}

#[test]
fn lora_above_a_frozen_block_reproduces_the_reference() {
    reproduce("lora", 4, 1);
}

#[test]
fn the_published_model_has_the_published_numbers_of_trainable_parameters() {
    assert_eq!(trainable_parameters(&Config::GPT2_124M, &Method::FineTune, 2), 14_178_049);
    let lora = Method::Lora { rank: 8, alpha: 1.0, targets: vec![LoraTarget::Q, LoraTarget::V] };
    assert_eq!(trainable_parameters(&Config::GPT2_124M, &lora, 2), 49_921);
}
