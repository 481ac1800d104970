//! The forward pass against PyTorch's values, in any batch and under every instruction set.

mod common;

use common::{
    lab::Lab,
    tiny::{Tiny, Values, largest_difference, open_weights},
};
use pipe_stages::{
    data::Tokens,
    gpt2::{
        Activation, BlockWeights, Forward, Weights, blocks_from, embed, final_norm,
        kernels::vector::Instructions,
    },
};
use serde_json::json;

const HIDDEN_TOLERANCE: f32 = 5e-5;
const LAST_TOLERANCE: f32 = 1e-5;

/// The prompts `rows` one after the other, with their offsets.
fn batch(prompts: &Tokens, rows: &[usize]) -> (Vec<u32>, Vec<usize>) {
    let (mut tokens, mut offsets) = (Vec::new(), vec![0]);
    for row in rows {
        tokens.extend_from_slice(prompts.row(*row));
        offsets.push(tokens.len());
    }
    (tokens, offsets)
}

/// Every row alone, all rows, all rows backwards, neighbours, and one row among copies of another.
fn compositions(rows: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = (0..rows).map(|row| vec![row]).collect();
    all.push((0..rows).collect());
    all.push((0..rows).rev().collect());
    all.extend((1..rows).map(|row| vec![row - 1, row]));
    all.push(vec![0, rows - 1, 0, 0]);
    all
}

/// The states of each prompt after `blocks` blocks.
fn hidden(
    forward: &mut Forward,
    weights: &Weights,
    prompts: &Tokens,
    rows: &[usize],
    blocks: usize,
) -> Vec<Vec<f32>> {
    let (tokens, offsets) = batch(prompts, rows);
    let mut states = embed(weights, &tokens, &offsets);
    (0..blocks).for_each(|block| forward.block(&BlockWeights::of(weights, block), &mut states, &offsets));
    let width = weights.config().n_embd;
    offsets.windows(2).map(|place| states[place[0] * width..place[1] * width].to_vec()).collect()
}

/// The final states of each prompt, computed to the end from `blocks` blocks.
fn last(
    forward: &mut Forward,
    weights: &Weights,
    prompts: &Tokens,
    rows: &[usize],
    blocks: usize,
) -> Vec<f32> {
    let mut states = hidden(forward, weights, prompts, rows, blocks).concat();
    let (_, offsets) = batch(prompts, rows);
    let norm = final_norm(weights, None);
    forward.last_hidden(&blocks_from(weights, None, blocks), &norm, &mut states, &offsets)
}

fn of_rows(values: &Values, name: &str, rows: &[usize]) -> Vec<f32> {
    let (all, width) = (values.floats(name), values.shape(name)[1]);
    rows.iter().flat_map(|row| all[row * width..(row + 1) * width].to_vec()).collect()
}

#[test]
fn hidden_states_meet_pytorch_row_by_row_and_in_any_batch() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let (weights, values) = (open_weights(&tiny.weights(&lab)), tiny.values("forward.safetensors"));
    let prompts = values.prompts();
    for instructions in Instructions::available() {
        let mut forward = Forward::with_instructions(weights.config(), Activation::GeluNew, instructions);
        for rows in compositions(prompts.rows.len()) {
            for blocks in 0..=weights.config().n_layer {
                let states = hidden(&mut forward, &weights, &prompts, &rows, blocks);
                for (row, states) in rows.iter().zip(states) {
                    let wanted = values.states(&format!("hidden_{blocks}"), *row, prompts.row(*row).len());
                    let difference = largest_difference(&states, &wanted);
                    assert!(
                        difference <= HIDDEN_TOLERANCE,
                        "{instructions} {rows:?} row {row} after {blocks}: {difference}"
                    );
                }
            }
        }
    }
}

#[test]
fn final_states_and_logits_meet_pytorch_in_both_forms_of_gelu_from_any_depth() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let (weights, values) = (open_weights(&tiny.weights(&lab)), tiny.values("forward.safetensors"));
    let (prompts, config) = (values.prompts(), *weights.config());
    let vocabulary: Vec<u32> = (0..config.vocab_size as u32).collect();
    for instructions in Instructions::available() {
        for (activation, name) in [(Activation::GeluNew, "logits_tanh"), (Activation::Gelu, "logits_erf")] {
            let mut forward = Forward::with_instructions(&config, activation, instructions);
            for rows in compositions(prompts.rows.len()) {
                for blocks in 0..=config.n_layer {
                    let last = last(&mut forward, &weights, &prompts, &rows, blocks);
                    let logits = forward.logits(&weights, &last, &vocabulary);
                    let difference = largest_difference(&logits, &of_rows(&values, name, &rows));
                    assert!(difference <= LAST_TOLERANCE, "{instructions} {name} {rows:?}: {difference}");
                    if activation == Activation::GeluNew {
                        let difference = largest_difference(&last, &of_rows(&values, "last_tanh", &rows));
                        assert!(difference <= LAST_TOLERANCE, "{instructions} last {rows:?}: {difference}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_in_any_batch_and_on_any_number_of_threads() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let (weights, values) = (open_weights(&tiny.weights(&lab)), tiny.values("forward.safetensors"));
    let (prompts, config) = (values.prompts(), *weights.config());
    let half = config.n_layer / 2;
    let on_threads = |threads: usize, rows: &[usize]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut forward = Forward::new(&config, Activation::GeluNew);
            let last = last(&mut forward, &weights, &prompts, rows, half);
            (hidden(&mut forward, &weights, &prompts, rows, half), last)
        })
    };
    let bits = |states: &[f32]| states.iter().map(|state| state.to_bits()).collect::<Vec<_>>();
    for row in 0..prompts.rows.len() {
        let (alone, last_alone) = on_threads(1, &[row]);
        for rows in compositions(prompts.rows.len()).iter().filter(|rows| rows.contains(&row)) {
            let place = rows.iter().position(|other| *other == row).unwrap();
            for threads in [1, 3] {
                let (states, last) = on_threads(threads, rows);
                assert_eq!(bits(&states[place]), bits(&alone[0]), "row {row} of {rows:?} on {threads}");
                let last = &last[place * config.n_embd..(place + 1) * config.n_embd];
                assert_eq!(bits(last), bits(&last_alone), "end of row {row} of {rows:?} on {threads}");
            }
        }
    }
}

/// Prompts of these lengths, their tokens spread over a vocabulary of 100.
fn made_up(lengths: &[usize]) -> Tokens {
    let mut tokens = Tokens::default();
    tokens.rows.offsets.push(0);
    for (row, length) in lengths.iter().enumerate() {
        tokens.tokens.extend((0..*length).map(|place| ((place * 7 + row * 31) % 100) as u32));
        tokens.rows.offsets.push(tokens.tokens.len());
        tokens.rows.ids.push(format!("row_{row}"));
    }
    tokens
}

#[test]
fn the_same_bits_hold_at_the_width_of_the_published_model() {
    let lab = Lab::new();
    let with = json!({ "init": "random", "n_layer": 2, "block_size": 256, "vocab_size": 100 });
    let weights = open_weights(lab.run("gpt2", with, &[]).unwrap().output("weights"));
    let prompts = made_up(&[256, 1, 65, 130, 2]);
    let all: Vec<usize> = (0..prompts.rows.len()).collect();
    let bits = |states: &[f32]| states.iter().map(|state| state.to_bits()).collect::<Vec<_>>();
    let width = weights.config().n_embd;
    let mut forward = Forward::new(weights.config(), Activation::GeluNew);
    let together = hidden(&mut forward, &weights, &prompts, &all, 2);
    let last_together = last(&mut forward, &weights, &prompts, &all, 0);
    for row in all {
        let alone = hidden(&mut forward, &weights, &prompts, &[row], 2);
        assert_eq!(bits(&together[row]), bits(&alone[0]), "row {row}");
        let last_alone = last(&mut forward, &weights, &prompts, &[row], 0);
        assert_eq!(
            bits(&last_together[row * width..(row + 1) * width]),
            bits(&last_alone),
            "end of row {row}"
        );
        let norm = final_norm(&weights, None);
        let (_, offsets) = batch(&prompts, &[row]);
        let full = forward.last_hidden(&[], &norm, &mut alone.concat(), &offsets);
        let difference = largest_difference(&last_alone, &full);
        assert!(difference < 1e-5, "the last position alone, row {row}: {difference}");
    }
}

#[test]
fn nothing_but_its_own_past_reaches_a_position() {
    let lab = Lab::new();
    let with = json!({ "init": "random", "n_layer": 2, "n_embd": 64, "block_size": 256, "vocab_size": 100 });
    let weights = open_weights(lab.run("gpt2", with, &[]).unwrap().output("weights"));
    let mut forward = Forward::new(weights.config(), Activation::GeluNew);
    let prompts = made_up(&[150]);
    let mut changed = prompts.clone();
    changed.tokens[100] = (changed.tokens[100] + 1) % 100;
    let states = |forward: &mut Forward, prompts| hidden(forward, &weights, prompts, &[0], 2).concat();
    let (before, after) = (states(&mut forward, &prompts), states(&mut forward, &changed));
    let differs: Vec<bool> =
        before.chunks(64).zip(after.chunks(64)).map(|(before, after)| before != after).collect();
    assert_eq!(differs.iter().position(|differs| *differs), Some(100));
    assert!(differs[100..].iter().all(|differs| *differs));
}
