//! The kinds `fine_tune` and `lora` as stages.

mod common;

use std::{collections::BTreeMap, fs, path::PathBuf};

use common::{
    lab::{Lab, Ran, problems},
    made_up::{SMALL, prompts, weights},
    tiny::open_weights,
};
use pipe_stages::{
    contract::{Event, StageError},
    data::{Hidden, read_predictions},
    gpt2::{
        Config, Method, ModelFile,
        training::{
            AdamW, Data, Length, Network, Order, Progress, Split, TrainSettings, Watch, read_progress, train,
            write_progress,
        },
    },
};
use serde_json::{Value, json};

struct Inputs {
    lab: Lab,
    hidden: PathBuf,
    weights: PathBuf,
}

/// Made-up prompts, which there is something to learn about, after two of four blocks.
fn inputs() -> Inputs {
    let lab = Lab::new();
    let (weights, path) = (weights(&lab, &SMALL), lab.path("tokens"));
    prompts(40).write(&path).unwrap();
    let with = json!({ "blocks": 2, "dtype": "f32" });
    let ran = lab.run("encode", with, &[("tokens", &path), ("weights", &weights)]).unwrap();
    Inputs { hidden: ran.output("hidden").to_owned(), weights, lab }
}

impl Inputs {
    fn run(&self, kind: &str, with: &Value) -> Result<Ran, StageError> {
        let mut short = json!({
            "steps": 20, "warmup": 4, "batch": 6, "micro_batch": 2, "eval_every": 8, "validation": 0.25,
        });
        let with = with.as_object().unwrap();
        short.as_object_mut().unwrap().extend(with.iter().map(|(name, value)| (name.clone(), value.clone())));
        self.lab.run(kind, short, &[("hidden", &self.hidden), ("weights", &self.weights)])
    }
}

/// The values of the metric `name` by step.
fn series(ran: &Ran, name: &str) -> BTreeMap<u64, f64> {
    let points = ran.events.iter().filter_map(|event| match event {
        Event::Metric { name: found, step: Some(step), value: Some(value) } if found == name => {
            Some((*step, *value))
        }
        _ => None,
    });
    points.collect()
}

/// The tensors of the model that a stage wrote.
fn model(ran: &Ran, inputs: &Inputs) -> ModelFile {
    ModelFile::read(ran.output("model"), open_weights(&inputs.weights).config()).unwrap()
}

#[test]
fn a_stage_reports_every_update_and_every_evaluation() {
    let inputs = inputs();
    for (kind, tensors, trainable) in [("fine_tune", 28, 100_161.0), ("lora", 10, 4161.0)] {
        let ran = inputs.run(kind, &json!({})).unwrap();
        for name in ["loss", "learning_rate", "gradient_norm"] {
            assert!(series(&ran, name).keys().copied().eq(1..=20), "{kind} {name}");
        }
        assert!((series(&ran, "learning_rate")[&4] - 6e-4).abs() < 1e-12);
        let losses = series(&ran, "validation_loss");
        assert!(losses.keys().copied().eq([8, 16, 20]));
        let best = losses.iter().min_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        assert_eq!(ran.metric("best_step"), Some(*best.0 as f64));
        assert_eq!(ran.metric("best_validation_loss"), Some(*best.1));
        assert_eq!(ran.metric("trainable_parameters"), Some(trainable));
        assert_eq!((ran.metric("training_rows"), ran.metric("validation_rows")), (Some(30.0), Some(10.0)));
        let norms = series(&ran, "tensor.head.weight.gradient_norm");
        assert!(norms.keys().copied().eq([8, 16, 20]), "{kind}");
        let model = model(&ran, &inputs);
        assert_eq!(model.tensors.len(), tensors, "{kind}");
        for (name, (_, values)) in &model.tensors {
            let counted = ran.events.iter().find_map(|event| match event {
                Event::Histogram { name: found, step: Some(8), counts, .. }
                    if *found == format!("tensor.{name}.gradient") =>
                {
                    Some(counts.iter().sum::<u64>())
                }
                _ => None,
            });
            assert_eq!(counted, Some(values.len() as u64), "{kind} {name}");
        }
    }
}

#[test]
fn the_kept_model_is_the_one_of_the_best_evaluation() {
    let inputs = inputs();
    // A rate this high makes the validation loss rise after the first evaluation.
    let with = json!({ "lr": 0.05, "min_lr": 0.0, "eval_every": 1, "warmup": 10, "dropout": 0.0 });
    let ran = inputs.run("lora", &with).unwrap();
    let best = ran.metric("best_step").unwrap();
    assert!(best < 20.0, "the last evaluation is the best");
    let norm = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let kept = norm(model(&ran, &inputs).tensor("head.weight").unwrap());
    let norms = series(&ran, "tensor.head.weight.parameter_norm");
    assert!((kept - norms[&(best as u64)]).abs() < 1e-9 && (kept - norms[&20]).abs() > 1e-6);

    let with = json!({ "validation": 0.0, "eval_every": 7 });
    let ran = inputs.run("lora", &with).unwrap();
    assert_eq!((ran.metric("best_step"), ran.metric("best_validation_loss")), (Some(20.0), None));
    let kept = norm(model(&ran, &inputs).tensor("head.weight").unwrap());
    assert!((kept - series(&ran, "tensor.head.weight.parameter_norm")[&20]).abs() < 1e-9);
}

/// `classify` computes by other kernels' code and merges low-rank additions into the weights.
#[test]
fn classify_gives_the_validation_figures_that_training_reported() {
    let inputs = inputs();
    for (kind, with) in [
        ("fine_tune", json!({ "lr": 2e-3 })),
        ("fine_tune", json!({ "lr": 2e-3, "train_blocks": 1 })),
        ("lora", json!({ "lr": 2e-2, "rank": 4, "alpha": 3, "targets": ["o", "v", "k", "q"] })),
    ] {
        let ran = inputs.run(kind, &with).unwrap();
        let files =
            [("hidden", &*inputs.hidden), ("weights", &*inputs.weights), ("model", ran.output("model"))];
        let classified = inputs.lab.run("classify", json!({}), &files).unwrap();
        let predictions = read_predictions(classified.output("predictions")).unwrap();
        let labels: Vec<u8> = predictions.iter().map(|prediction| prediction.label).collect();
        let held_out = Split::new(&labels, 0.25, inputs.lab.seed).validation;
        let (mut loss, mut right) = (0.0, 0.0);
        for prediction in held_out.iter().map(|row| &predictions[*row]) {
            let of_label = if prediction.label == 1 { prediction.score } else { 1.0 - prediction.score };
            loss -= of_label.ln() / held_out.len() as f64;
            right += f64::from(u8::from(prediction.prediction == prediction.label)) / held_out.len() as f64;
        }
        let reported = ran.metric("best_validation_loss").unwrap();
        assert!((loss - reported).abs() <= 1e-5, "{kind} {with}: {loss}, training said {reported}");
        assert!((right - ran.metric("best_validation_accuracy").unwrap()).abs() <= 1e-9, "{kind} {with}");
    }
}

#[test]
fn training_learns_what_can_be_learned() {
    let inputs = inputs();
    let with = json!({ "epochs": 40, "steps": null, "batch": 8, "lr": 3e-3, "warmup": 10, "dropout": 0.0,
                       "weight_decay": 0.0, "validation": 0.0, "eval_every": 1000 });
    let losses = series(&inputs.run("fine_tune", &with).unwrap(), "loss");
    assert_eq!(losses.len(), 200, "40 passes over 40 rows by 8");
    let mean = |range: std::ops::RangeInclusive<u64>| range.map(|step| losses[&step]).sum::<f64>() / 5.0;
    assert!(mean(196..=200) < 0.2 * mean(1..=5), "{} {}", mean(1..=5), mean(196..=200));
}

#[test]
fn seed_decides_the_bytes_and_threads_do_not() {
    let mut inputs = inputs();
    for kind in ["fine_tune", "lora"] {
        inputs.lab.seed = 1337;
        inputs.lab.threads = 2;
        let first = inputs.run(kind, &json!({})).unwrap();
        let digest = first.digest("model");
        assert_eq!(digest, inputs.run(kind, &json!({})).unwrap().digest("model"), "{kind}");
        inputs.lab.threads = 1;
        let one = inputs.run(kind, &json!({})).unwrap();
        assert_eq!(digest, one.digest("model"), "{kind} on one thread");
        assert_eq!(series(&one, "gradient_norm"), series(&first, "gradient_norm"));
        inputs.lab.seed = 1338;
        assert_ne!(digest, inputs.run(kind, &json!({})).unwrap().digest("model"), "{kind}");
    }
}

/// Values that these kinds gave when their `VERSION` was last raised, with room for another
/// instruction set.
#[test]
fn the_values_of_version_1_stay() {
    let inputs = inputs();
    let golden =
        [("fine_tune", [0.677_254, 0.909_242, 0.706_409]), ("lora", [0.705_738, 1.014_669, 0.715_039])];
    for (kind, wanted) in golden {
        let ran = inputs.run(kind, &json!({})).unwrap();
        let (loss, norm) = (series(&ran, "loss")[&20], series(&ran, "gradient_norm")[&20]);
        let found = [loss, norm, ran.metric("best_validation_loss").unwrap()];
        let near = found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() <= 2e-4);
        assert!(near, "{kind} gives {found:?}, not {wanted:?}");
    }
}

#[test]
fn wrong_parameters_are_found_before_anything_runs() {
    let text = |kind: &str, with: Value| problems(kind, with).join("\n");
    assert_eq!(text("fine_tune", json!({})), "");
    assert_eq!(text("lora", json!({ "epochs": 5, "decay": null, "targets": ["o", "k"] })), "");
    for (with, wanted) in [
        (json!({ "lr": 0, "min_lr": 0 }), "lr: `lr` must be above 0, not 0"),
        (json!({ "min_lr": 1.0 }), "min_lr: `min_lr` must lie between 0 and `lr` 0.0006, not be 1"),
        (json!({ "warmup": 20, "decay": 10 }), "warmup: `warmup` 20 is longer than `decay` 10"),
        (json!({ "warmup": 20, "steps": 10 }), "warmup: `warmup` 20 is longer than `steps` 10"),
        (json!({ "epochs": 1, "steps": 1000 }), "epochs: exactly one of `epochs` and `steps` can be given"),
        (json!({ "epochs": 0 }), "epochs: `epochs` must be at least 1"),
        (json!({ "micro_batch": 0 }), "micro_batch: `micro_batch` must be at least 1"),
        (json!({ "batch": u64::MAX }), "batch: `batch` can be at most 1000000, not 18446744073709551615"),
        (json!({ "betas": [0.9, 1.0] }), "betas.1: a beta must lie between 0 and 1, 1 excluded, not be 1"),
        (json!({ "dropout": 1 }), "dropout: `dropout` must lie between 0 and 1, 1 excluded, not be 1"),
        (
            json!({ "validation": -0.1 }),
            "validation: `validation` must lie between 0 and 1, 1 excluded, not be -0.1",
        ),
        (json!({ "train_blocks": 0 }), "train_blocks: `train_blocks` must be at least 1"),
        (json!({ "clip": -1 }), "clip: `clip` must be at least 0, not -1"),
    ] {
        assert_eq!(text("fine_tune", with.clone()), wanted);
        assert_eq!(text("lora", with), wanted);
    }
    assert_eq!(text("lora", json!({ "rank": 0, "targets": [] })).lines().count(), 2);
    assert_eq!(
        text("lora", json!({ "rank": 80_000 })),
        "rank: `rank` must lie between 1 and 4096, not be 80000"
    );
    assert_eq!(text("lora", json!({ "targets": ["q", "q"] })), "targets.1: the target `q` is named twice");
    assert!(text("fine_tune", json!({ "rank": 8 })).contains("has no parameter `rank`"));
}

#[test]
fn the_order_of_lora_targets_decides_nothing() {
    let hashed = |targets: Value| {
        let kind = common::lab::kind("lora");
        kind.resolve(json!({ "targets": targets })).unwrap().hashed
    };
    assert_eq!(hashed(json!(["v", "q"])), hashed(json!(["q", "v"])));
}

#[test]
fn a_loss_that_is_not_finite_fails_the_stage_and_names_the_update() {
    let inputs = inputs();
    let with = json!({ "lr": 1e30, "min_lr": 0.0, "warmup": 0, "clip": 0 });
    let message = inputs.run("fine_tune", &with).unwrap_err().to_string();
    assert!(message.contains("of update ") && message.ends_with("is not finite"), "{message}");
}

fn settings() -> TrainSettings {
    TrainSettings {
        lr: 1e-3,
        min_lr: 1e-4,
        warmup: 3,
        decay: None,
        length: Length::Updates(12),
        batch: 4,
        micro_batch: 3,
        adamw: AdamW { betas: [0.9, 0.95], epsilon: 1e-8, weight_decay: 0.1 },
        clip: 1.0,
        dropout: 0.1,
        lora_dropout: 0.0,
        eval_every: 5,
    }
}

/// Writes a checkpoint after update `at` and stops there, as a kill would.
struct KilledAt {
    at: u64,
    path: PathBuf,
}

impl Watch for KilledAt {
    fn reached(&mut self, progress: &Progress, network: &Network) -> Result<(), StageError> {
        if progress.step < self.at {
            return Ok(());
        }
        write_progress(&mut fs::File::create(&self.path).unwrap(), network, progress, b"reported").unwrap();
        Err(StageError::new("killed"))
    }
}

struct Nothing;
impl Watch for Nothing {}

#[test]
fn a_run_that_was_cut_off_goes_on_to_the_same_bytes() {
    let inputs = inputs();
    let (weights, hidden) = (open_weights(&inputs.weights), Hidden::open(&inputs.hidden).unwrap());
    let split = Split::new(&hidden.rows().labels, 0.2, 9);
    let order = Order::Shuffled { rows: split.training, seed: 9 };
    let data = Data { hidden: &hidden, order, validation: split.validation };
    let fresh = || Network::new(&weights, hidden.format(), Method::FineTune, 1, 9).unwrap();

    let mut whole = fresh();
    let progress = Progress::start(&whole);
    let outcome = train(&mut whole, &data, &settings(), 9, progress, &mut Nothing).unwrap();
    for at in [1, 5, 7, 12] {
        let path = inputs.lab.path("cut.safetensors");
        let (mut cut, mut watch) = (fresh(), KilledAt { at, path: path.clone() });
        let progress = Progress::start(&cut);
        train(&mut cut, &data, &settings(), 9, progress, &mut watch).unwrap_err();

        let mut resumed = fresh();
        let bytes = fs::read(&path).unwrap();
        assert!(read_progress(&bytes[..bytes.len() / 2], &mut resumed).is_none(), "half a run is none");
        let (progress, history) = read_progress(&bytes, &mut resumed).unwrap();
        assert_eq!((progress.step, history.as_slice()), (at, &b"reported"[..]));
        let after = train(&mut resumed, &data, &settings(), 9, progress, &mut Nothing).unwrap();
        assert_eq!((after.best_step, after.validation), (outcome.best_step, outcome.validation));
        assert_eq!(resumed.model_file(), whole.model_file(), "cut off after update {at}");
    }
}

#[test]
fn states_too_late_or_of_another_width_and_too_many_blocks_are_refused() {
    let inputs = inputs();
    let message = |with: Value| inputs.run("fine_tune", &with).unwrap_err().to_string();
    let late = message(json!({ "train_blocks": 3 }));
    assert_eq!(late, "the hidden states are those after block 2 of 4, too late to train the last 3");
    let many = message(json!({ "train_blocks": 5 }));
    assert_eq!(many, "`train_blocks` is 5, but these weights have 4 blocks");
    let other = Lab::new();
    let wider = weights(&other, &Config { n_embd: 68, ..SMALL });
    let inputs = Inputs { weights: wider, ..inputs };
    let other = inputs.run("lora", &json!({})).unwrap_err().to_string();
    assert_eq!(other, "the hidden states are 64 wide, the weights 68: they belong to different models");
}
