//! Kind `encode`: its states against PyTorch's, what it stores, and what it refuses.

mod common;

use std::path::Path;

use common::{
    lab::{Lab, Ran},
    tiny::{Tiny, largest_difference, open_weights, scaled, scaled_to},
};
use pipe_stages::{
    contract::{Event, StageError},
    data::{Hidden, HiddenType, Tokens},
    gpt2::Weights,
};
use serde_json::{Value, json};

fn encode(lab: &Lab, tokens: &Tokens, weights: &Path, with: Value) -> Result<Ran, StageError> {
    let path = lab.path("tokens");
    tokens.write(&path).unwrap();
    lab.run("encode", with, &[("tokens", &path), ("weights", weights)])
}

fn states(ran: &Ran, row: usize) -> Vec<f32> {
    Hidden::open(ran.output("hidden")).unwrap().states(&[row]).unwrap().into_f32()
}

/// The tiny model, its prompts, and a number of blocks that is not all where it has several.
struct Inputs {
    lab: Lab,
    weights: Weights,
    prompts: Tokens,
    blocks: usize,
}

fn inputs() -> Option<Inputs> {
    let (tiny, lab) = (Tiny::open()?, Lab::new());
    let (weights, prompts) =
        (open_weights(&tiny.weights(&lab)), tiny.values("forward.safetensors").prompts());
    Some(Inputs { lab, weights, prompts, blocks: tiny.n_layer().div_ceil(2) })
}

#[test]
fn states_after_any_number_of_blocks_meet_pytorch() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let (weights, values) = (tiny.weights(&lab), tiny.values("forward.safetensors"));
    let prompts = values.prompts();
    for blocks in 0..=open_weights(&weights).config().n_layer {
        let with = json!({ "blocks": blocks, "dtype": "f32" });
        let ran = encode(&lab, &prompts, &weights, with).unwrap();
        let mut largest = 0.0f32;
        for row in 0..prompts.rows.len() {
            let wanted = values.states(&format!("hidden_{blocks}"), row, prompts.row(row).len());
            let difference = largest_difference(&states(&ran, row), &wanted);
            assert!(difference <= 5e-5, "row {row} after {blocks} blocks: {difference}");
            largest = wanted.iter().fold(largest, |largest, state| largest.max(state.abs()));
        }
        let hidden = Hidden::open(ran.output("hidden")).unwrap();
        assert_eq!(hidden.rows(), &prompts.rows);
        assert_eq!(hidden.format().blocks, blocks);
        assert!((ran.metric("largest_magnitude").unwrap() - f64::from(largest)).abs() <= 5e-5);
        assert_eq!(ran.metric("tokens"), Some(prompts.tokens.len() as f64));
        assert_eq!(ran.metric("reviews"), Some(prompts.rows.len() as f64));
        let count = prompts.rows.len() as u64;
        let finished = Event::Progress { done: count, total: Some(count), unit: "reviews".into() };
        assert!(ran.events.contains(&finished));
    }
}

#[test]
fn the_same_prompts_give_the_same_bytes_on_any_number_of_threads() {
    let Some(tiny) = Tiny::open() else { return };
    let mut lab = Lab::new();
    let (weights, prompts) = (tiny.weights(&lab), tiny.values("forward.safetensors").prompts());
    let with = || json!({ "blocks": tiny.n_layer() });
    let mut digest = |threads| {
        lab.threads = threads;
        encode(&lab, &prompts, &weights, with()).unwrap().digest("hidden")
    };
    let first = digest(2);
    assert_eq!(digest(2), first);
    assert_eq!(digest(3), first);
}

#[test]
fn prompts_of_many_batches_each_get_the_states_they_get_alone() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let (weights, prompts) = (tiny.weights(&lab), tiny.values("forward.safetensors").prompts());
    let mut many = Tokens::default();
    many.rows.offsets.push(0);
    for row in (0..prompts.rows.len()).cycle() {
        if many.tokens.len() > 2 * 2048 {
            break; // more than two batches
        }
        many.rows.ids.push(format!("copy_{}", many.rows.len()));
        many.rows.lengths.push(1);
        many.rows.labels.push(0);
        many.tokens.extend_from_slice(prompts.row(row));
        many.rows.offsets.push(many.tokens.len());
    }
    let with = json!({ "blocks": tiny.n_layer(), "dtype": "f32" });
    let alone = encode(&lab, &prompts, &weights, with.clone()).unwrap();
    let together = encode(&lab, &many, &weights, with).unwrap();
    for row in 0..many.rows.len() {
        assert_eq!(states(&together, row), states(&alone, row % prompts.rows.len()), "row {row}");
    }
}

#[test]
fn f16_keeps_eleven_bits_of_states_in_the_thousands() {
    let Some(Inputs { lab, weights, prompts, blocks }) = inputs() else { return };
    let weights = scaled_to(&lab, &weights, &prompts, blocks, 5000.0);
    let exact = encode(&lab, &prompts, &weights, json!({ "blocks": blocks, "dtype": "f32" })).unwrap();
    let ran = encode(&lab, &prompts, &weights, json!({ "blocks": blocks })).unwrap();
    let largest = ran.metric("largest_magnitude").unwrap();
    assert!((3000.0..65504.0).contains(&largest), "{largest}");
    assert_eq!(Hidden::open(ran.output("hidden")).unwrap().format().dtype, HiddenType::F16);
    for row in 0..prompts.rows.len() {
        for (half, exact) in states(&ran, row).iter().zip(states(&exact, row)) {
            assert!((half - exact).abs() <= exact.abs() / 2048.0 + 1e-6, "{half} {exact}");
        }
    }
}

#[test]
fn a_state_past_the_range_of_f16_fails_and_names_review_and_block() {
    let Some(Inputs { lab, weights, prompts, blocks }) = inputs() else { return };
    for (magnitude, fits) in [(60_000.0, true), (70_000.0, false)] {
        let weights = scaled_to(&lab, &weights, &prompts, blocks, magnitude);
        let exact = encode(&lab, &prompts, &weights, json!({ "blocks": blocks, "dtype": "f32" })).unwrap();
        let ran = encode(&lab, &prompts, &weights, json!({ "blocks": blocks }));
        if fits {
            ran.unwrap();
            continue;
        }
        let is_past = |row: &usize| states(&exact, *row).iter().any(|state| state.abs() > 65504.0);
        let row = (0..prompts.rows.len()).find(is_past).unwrap();
        let (error, past) = (ran.unwrap_err(), format!("after block {blocks}, past 65504"));
        let message = error.to_string();
        assert!(message.contains(&format!("review `row_{row}`")) && message.contains(&past), "{message}");
        assert_eq!(error.help_text(), Some("set `dtype: f32`"));
    }
}

#[test]
fn a_state_that_is_no_number_fails_and_names_the_block_where_it_began() {
    let Some(Inputs { lab, weights, prompts, blocks }) = inputs() else { return };
    let broken = scaled(&lab, &weights, blocks, f32::INFINITY);
    let with = json!({ "blocks": weights.config().n_layer, "dtype": "f32" });
    let message = encode(&lab, &prompts, &broken, with).unwrap_err().to_string();
    let wanted = format!("review `row_0` are no finite numbers after block {blocks}");
    assert!(message.contains(&wanted), "{message}");
}

#[test]
fn prompts_that_do_not_fit_the_model_are_refused() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let (weights, prompts) = (tiny.weights(&lab), tiny.values("forward.safetensors").prompts());
    let config = *open_weights(&weights).config();
    let mut wrong = prompts.clone();
    wrong.tokens[0] = config.vocab_size as u32;
    let message = encode(&lab, &wrong, &weights, json!({ "blocks": 1 })).unwrap_err().to_string();
    assert!(message.contains("review `row_0` has a token past the vocabulary"), "{message}");

    let mut long = prompts.clone();
    let rows = long.rows.len();
    long.tokens.extend(vec![0; config.block_size]);
    long.rows.offsets[rows] += config.block_size;
    let message = encode(&lab, &long, &weights, json!({ "blocks": 1 })).unwrap_err().to_string();
    assert!(message.contains(&format!("review `row_{}` is longer than the", rows - 1)), "{message}");

    let too_many = json!({ "blocks": config.n_layer + 1 });
    let message = encode(&lab, &prompts, &weights, too_many).unwrap_err().to_string();
    assert!(message.contains(&format!("these weights have {} blocks", config.n_layer)), "{message}");
}
