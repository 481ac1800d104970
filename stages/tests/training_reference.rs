//! Training against PyTorch: 30 updates of the reference values, through `encode` and the loop
//! that the stages run; only the order of rows and the initial values are given.

mod common;

use std::path::Path;

use common::{
    lab::Lab,
    tiny::{Tiny, Values, open_weights},
};
use pipe_stages::{
    contract::StageError,
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

fn reproduce(file: &str, method: Method, micro_batch: usize, blocks: usize) {
    let Some(tiny) = Tiny::open() else { return };
    let (lab, json) = (Lab::new(), tiny.json(&format!("{file}.json")));
    let values = tiny.values(&format!("{file}.safetensors"));
    let path = tiny.weights(&lab);
    let (weights, hidden) = (open_weights(&path), hidden(&lab, &path, &values, blocks));
    let train_blocks = json["train_last_blocks"].as_u64().unwrap() as usize;
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

fn lora() -> Method {
    Method::Lora { rank: 8, alpha: 1.0, targets: vec![LoraTarget::Q, LoraTarget::V] }
}

#[test]
fn fine_tuning_reproduces_the_reference() {
    reproduce("finetune", Method::FineTune, 4, 2);
}

#[test]
fn fine_tuning_in_micro_batches_of_one_reproduces_the_reference() {
    reproduce("finetune", Method::FineTune, 1, 2);
}

#[test]
fn fine_tuning_above_frozen_blocks_reproduces_the_reference() {
    reproduce("finetune", Method::FineTune, 3, 0);
}

#[test]
fn lora_reproduces_the_reference() {
    reproduce("lora", lora(), 2, 2);
}

#[test]
fn lora_above_a_frozen_block_reproduces_the_reference() {
    reproduce("lora", lora(), 4, 1);
}

#[test]
fn the_published_model_has_the_published_numbers_of_trainable_parameters() {
    assert_eq!(trainable_parameters(&Config::GPT2_124M, &Method::FineTune, 2), 14_178_049);
    assert_eq!(trainable_parameters(&Config::GPT2_124M, &lora(), 2), 49_921);
}

#[test]
fn states_too_late_or_of_another_width_are_refused() -> Result<(), StageError> {
    let Some(tiny) = Tiny::open() else { return Ok(()) };
    let lab = Lab::new();
    let path = tiny.weights(&lab);
    let weights = open_weights(&path);
    let format = hidden(&lab, &path, &tiny.values("lora.safetensors"), 3).format();
    Network::new(&weights, format, Method::FineTune, 1, 1)?;
    let late = Network::new(&weights, format, Method::FineTune, 2, 1).unwrap_err();
    assert!(late.to_string().contains("after block 3 of 4, too late to train the last 2"), "{late}");
    let many = Network::new(&weights, format, Method::FineTune, 5, 1).unwrap_err();
    assert_eq!(many.to_string(), "`train_blocks` is 5, but these weights have 4 blocks");
    let format = pipe_stages::data::HiddenFormat { n_embd: 32, ..format };
    let other = Network::new(&weights, format, Method::FineTune, 1, 1).unwrap_err();
    assert!(other.to_string().contains("32 wide, the weights 64"), "{other}");
    Ok(())
}
