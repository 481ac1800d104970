//! Kind `encode`: its states against PyTorch's, what it stores, and what it refuses.

mod common;

use std::path::{Path, PathBuf};

use common::{
    lab::{Lab, Ran},
    tiny::{Tiny, largest_difference, open_weights},
};
use pipe_stages::{
    contract::{Event, StageError},
    data::{Hidden, HiddenType, Tokens},
    gpt2::{Weights, tensor_shapes, write_weights},
};
use serde_json::{Value, json};

fn encode(lab: &Lab, tokens: &Tokens, weights: &Path, with: Value) -> Result<Ran, StageError> {
    let path = lab.path("tokens");
    tokens.write(&path).unwrap();
    lab.run("encode", with, &[("tokens", &path), ("weights", weights)])
}

fn states(ran: &Ran, row: usize) -> Vec<f32> {
    let mut states = Vec::new();
    Hidden::open(ran.output("hidden")).unwrap().row(row, &mut states).unwrap();
    states
}

/// A copy of `weights` with each tensor's values as `change` leaves them.
fn changed(lab: &Lab, weights: &Weights, change: impl Fn(&str, &mut Vec<f32>)) -> PathBuf {
    let path = lab.path("changed");
    let parts = tensor_shapes(weights.config()).into_iter().map(|(name, _)| {
        let mut values = weights.tensor(&name).to_vec();
        change(&name, &mut values);
        values
    });
    write_weights(&path, weights.config(), parts).unwrap();
    path
}

/// The tiny model with block 1's output scaled by `factor`, and the prompts of the reference.
fn scaled(factor: f32) -> Option<(Lab, PathBuf, Tokens)> {
    let tiny = Tiny::open()?;
    let lab = Lab::new();
    let weights = open_weights(&tiny.weights(&lab));
    let path = changed(&lab, &weights, |name, values| {
        if name.starts_with("h.1.mlp.c_proj.") {
            for value in values {
                *value *= factor;
            }
        }
    });
    Some((lab, path, tiny.values("forward.safetensors").prompts()))
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
        assert!((ran.metric("largest_magnitude").unwrap() - f64::from(largest)).abs() < 1e-4);
        assert_eq!(ran.metric("tokens"), Some(prompts.tokens.len() as f64));
        assert_eq!(ran.metric("reviews"), Some(prompts.rows.len() as f64));
        let count = prompts.rows.len() as u64;
        let finished = Event::Progress { done: count, total: Some(count), unit: "reviews".into() };
        assert!(ran.events.contains(&finished));
    }
}

#[test]
fn the_same_prompts_give_the_same_bytes_on_any_number_of_threads() {
    let Some((mut lab, weights, prompts)) = scaled(1.0) else { return };
    let digest = || encode(&lab, &prompts, &weights, json!({ "blocks": 3 })).unwrap().digest("hidden");
    let first = digest();
    assert_eq!(digest(), first);
    lab.threads = 3;
    assert_eq!(encode(&lab, &prompts, &weights, json!({ "blocks": 3 })).unwrap().digest("hidden"), first);
}

#[test]
fn prompts_of_many_batches_each_get_the_states_they_get_alone() {
    let Some((lab, weights, prompts)) = scaled(1.0) else { return };
    let mut many = Tokens::default();
    many.rows.offsets.push(0);
    for row in (0..prompts.rows.len()).cycle().take(150) {
        many.rows.ids.push(format!("copy_{}", many.rows.len()));
        many.rows.lengths.push(1);
        many.rows.labels.push(0);
        many.tokens.extend_from_slice(prompts.row(row));
        many.rows.offsets.push(many.tokens.len());
    }
    assert!(many.tokens.len() > 2 * 2048, "more than two batches");
    let with = json!({ "blocks": 2, "dtype": "f32" });
    let alone = encode(&lab, &prompts, &weights, with.clone()).unwrap();
    let together = encode(&lab, &many, &weights, with).unwrap();
    for row in 0..many.rows.len() {
        assert_eq!(states(&together, row), states(&alone, row % prompts.rows.len()), "row {row}");
    }
}

#[test]
fn f16_keeps_eleven_bits_of_states_in_the_thousands() {
    let Some((lab, weights, prompts)) = scaled(8000.0) else { return };
    let exact = encode(&lab, &prompts, &weights, json!({ "blocks": 2, "dtype": "f32" })).unwrap();
    let ran = encode(&lab, &prompts, &weights, json!({ "blocks": 2 })).unwrap();
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
    let Some((lab, weights, prompts)) = scaled(1e6) else { return };
    let error = encode(&lab, &prompts, &weights, json!({ "blocks": 2 })).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("review `row_0`") && message.contains("after block 2, past 65504"), "{message}");
    assert_eq!(error.help_text(), Some("set `dtype: f32`"));
    encode(&lab, &prompts, &weights, json!({ "blocks": 2, "dtype": "f32" })).unwrap();
}

#[test]
fn a_state_that_is_no_number_fails_and_names_the_block_where_it_began() {
    let Some((lab, weights, prompts)) = scaled(f32::MAX) else { return };
    let error = encode(&lab, &prompts, &weights, json!({ "blocks": 4, "dtype": "f32" })).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("review `row_0` are no finite numbers after block 2"), "{message}");
}

#[test]
fn prompts_that_do_not_fit_the_model_are_refused() {
    let Some((lab, weights, prompts)) = scaled(1.0) else { return };
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
