//! A stage that was cut off goes on from its checkpoint and ends as if it never had been.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use common::{
    lab::{Lab, Ran},
    made_up::{SMALL, numbers, prompts, weights},
    tiny::open_weights,
};
use pipe_stages::{
    contract::Event,
    data::{Hidden, HiddenWriter, Tokens},
    gpt2::{LoraTarget, Method, ModelFile, tensor_shapes, write_weights},
};
use serde_json::{Value, json};

/// Prompts enough for six batches.
const REVIEWS: usize = 400;
/// The token that is in one prompt alone.
const RARE: u32 = 511;

/// A lab whose stages keep every place to go on from.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.checkpoint_every = Duration::ZERO;
    lab
}

fn log(ran: &Ran) -> String {
    let text = |event: &Event| match event {
        Event::Log { text, .. } => Some(text.clone()),
        _ => None,
    };
    ran.events.iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

/// The review that a stage says it went on after.
fn gone_on_after(ran: &Ran) -> Option<usize> {
    log(ran).strip_prefix("goes on after review ")?.split(' ').next()?.parse().ok()
}

/// Weights with which a prompt that holds [`RARE`] has states that are no numbers.
fn failing_weights(lab: &Lab, weights: &Path) -> PathBuf {
    let (path, whole) = (lab.path("failing"), open_weights(weights));
    let parts = tensor_shapes(&SMALL).into_iter().map(|(name, _)| {
        let mut values = whole.tensor(&name).to_vec();
        if name == "wte.weight" {
            values[RARE as usize * SMALL.n_embd..].fill(f32::NAN);
        }
        values
    });
    write_weights(&path, &SMALL, parts).unwrap();
    path
}

/// Prompts of which `row` alone holds [`RARE`].
fn prompts_with_rare_at(lab: &Lab, row: usize) -> PathBuf {
    let mut tokens: Tokens = prompts(REVIEWS);
    tokens.tokens.iter_mut().for_each(|token| *token = (*token).min(RARE - 1));
    let at = tokens.rows.range(row).start;
    tokens.tokens[at] = RARE;
    let path = lab.path("tokens");
    tokens.write(&path).unwrap();
    path
}

/// `encode` of prompts that was cut off at `row`, and how to go on.
struct CutOff {
    lab: Lab,
    tokens: PathBuf,
    weights: PathBuf,
}

fn cut_off_at(row: usize) -> CutOff {
    let lab = lab();
    let (weights, tokens) = (weights(&lab, &SMALL), prompts_with_rare_at(&lab, row));
    let cut = CutOff { weights: failing_weights(&lab, &weights), tokens, lab };
    let message = cut.try_encode(json!({ "blocks": 2 })).unwrap_err();
    assert!(message.contains(&format!("review `row_{row}`")), "{message}");
    CutOff { weights, ..cut }
}

impl CutOff {
    fn try_encode(&self, with: Value) -> Result<Ran, String> {
        let inputs = [("tokens", self.tokens.as_path()), ("weights", self.weights.as_path())];
        self.lab.run("encode", with, &inputs).map_err(|err| err.to_string())
    }

    fn encode(&self) -> Ran {
        self.try_encode(json!({ "blocks": 2 })).unwrap()
    }

    /// What `encode` gives where nothing was before.
    fn whole(&self) -> Ran {
        let inputs = [("tokens", self.tokens.as_path()), ("weights", self.weights.as_path())];
        Lab::new().run("encode", json!({ "blocks": 2 }), &inputs).unwrap()
    }

    fn checkpoint(&self, name: &str) -> PathBuf {
        self.lab.path("checkpoint").join(name)
    }
}

#[track_caller]
fn assert_same(ran: &Ran, wanted: &Ran, output: &str) {
    assert_eq!(ran.digest(output), wanted.digest(output));
    assert_eq!(ran.metrics(), wanted.metrics());
}

#[test]
fn encode_goes_on_after_the_last_batch_and_ends_with_the_same_bytes() {
    let mut places = Vec::new();
    for row in [0, 100, 250, REVIEWS - 1] {
        let cut = cut_off_at(row);
        let resumed = cut.encode();
        assert_same(&resumed, &cut.whole(), "hidden");
        let after = gone_on_after(&resumed);
        assert!(after.unwrap_or(0) <= row && row < after.unwrap_or(0) + 100, "{row} {after:?}");
        places.push(after.is_some());
    }
    assert_eq!(places, [false, true, true, true]);
}

#[test]
fn a_second_cut_costs_no_more_than_the_first() {
    let cut = cut_off_at(300);
    let weights = failing_weights(&cut.lab, &cut.weights);
    let again = CutOff { weights, ..cut };
    again.try_encode(json!({ "blocks": 2 })).unwrap_err();
    let cut = CutOff { weights: again.lab.path("weights"), ..again };
    let resumed = cut.encode();
    assert!(gone_on_after(&resumed).unwrap() > 200, "{}", log(&resumed));
    assert_same(&resumed, &cut.whole(), "hidden");
}

/// Changes one byte of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_not_trusted() {
    type Damage = fn(&CutOff);
    let damages: [(&str, Damage); 7] = [
        ("checkpoint is damaged", |cut| flip(&cut.checkpoint("progress"), 100)),
        ("checkpoint is damaged", |cut| {
            let bytes = fs::read(cut.checkpoint("progress")).unwrap();
            fs::write(cut.checkpoint("progress"), &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("checkpoint is damaged", |cut| fs::write(cut.checkpoint("progress"), "").unwrap()),
        ("states kept so far are damaged", |cut| flip(&cut.checkpoint("hidden"), 40_000)),
        ("states kept so far are damaged", |cut| flip(&cut.checkpoint("hidden"), 12)),
        ("states kept so far are damaged", |cut| fs::write(cut.checkpoint("hidden"), "short").unwrap()),
        ("states kept so far are damaged", |cut| fs::remove_file(cut.checkpoint("hidden")).unwrap()),
    ];
    for (reason, damage) in damages {
        let cut = cut_off_at(300);
        damage(&cut);
        let resumed = cut.encode();
        assert_eq!(log(&resumed), format!("starts over: the {reason}"));
        assert_same(&resumed, &cut.whole(), "hidden");
    }
}

/// Puts another value into the header of a checkpoint and makes its hash right again.
fn rewrite(path: &Path, field: &str) {
    let bytes = fs::read(path).unwrap();
    let (content, _) = bytes.split_last_chunk::<32>().unwrap();
    let end = content.iter().position(|byte| *byte == b'\n').unwrap();
    let mut header: Value = serde_json::from_slice(&content[..end]).unwrap();
    assert!(header[field].is_string());
    header[field] = json!("another");
    let mut new = [header.to_string().as_bytes(), &content[end..]].concat();
    new.extend(blake3::hash(&new).as_bytes());
    fs::write(path, new).unwrap();
}

#[test]
fn a_checkpoint_of_another_computation_processor_or_build_is_left_aside() {
    for (field, reason) in [
        ("key", "the checkpoint is of another computation"),
        ("decides_bits", "the checkpoint was computed on another processor"),
        ("build", "the checkpoint is of another build of this program"),
    ] {
        let cut = cut_off_at(300);
        rewrite(&cut.checkpoint("progress"), field);
        let resumed = cut.encode();
        assert_eq!(log(&resumed), format!("starts over: {reason}"));
        assert_same(&resumed, &cut.whole(), "hidden");
    }
}

#[test]
fn states_that_became_a_result_are_not_written_to_again() {
    let cut = cut_off_at(300);
    let first = cut.encode();
    let digest = first.digest("hidden");
    // A kill now leaves both names of the file; the next attempt has nothing to compute.
    let second = cut.encode();
    assert_eq!(gone_on_after(&second), Some(REVIEWS));
    assert_same(&second, &first, "hidden");
    // Another computation in the same place begins a file of its own.
    let other = cut.try_encode(json!({ "blocks": 1 })).unwrap();
    assert_ne!(other.digest("hidden"), digest);
    assert_eq!((first.digest("hidden"), second.digest("hidden")), (digest.clone(), digest));
}

/// A model with random additions to the blocks after the second.
fn model(lab: &Lab) -> PathBuf {
    let n_embd = SMALL.n_embd;
    let tensor = |seed, shape: [usize; 2]| {
        let values = numbers(seed, shape[0] * shape[1]).into_iter().map(|value| value / 8.0).collect();
        (shape.to_vec(), values)
    };
    let mut tensors = vec![
        ("head.weight".to_owned(), tensor(1, [n_embd, 1])),
        ("head.bias".to_owned(), (vec![1], vec![0.1])),
    ];
    for block in 2..SMALL.n_layer {
        tensors.push((format!("h.{block}.lora_a_q"), tensor(2, [n_embd, 1])));
        tensors.push((format!("h.{block}.lora_b_q"), tensor(3, [1, n_embd])));
    }
    let method = Method::Lora { rank: 1, alpha: 1.0, targets: vec![LoraTarget::Q] };
    let path = lab.path("model");
    ModelFile { method, tensors: tensors.into_iter().collect() }.write(&path).unwrap();
    path
}

/// A copy of the states at `hidden` in which those of `row` are no numbers.
fn failing_states(lab: &Lab, hidden: &Path, row: usize) -> PathBuf {
    let path = lab.path("failing_states");
    fs::copy(hidden, &path).unwrap();
    let file = Hidden::open(&path).unwrap();
    let nothing = vec![f32::NAN; file.rows().range(row).len() * SMALL.n_embd];
    HiddenWriter::reopen(&path, file.rows(), file.format(), 0).unwrap().write_row(row, &nothing).unwrap();
    path
}

#[test]
fn zero_shot_and_classify_go_on_and_end_with_the_same_bytes() {
    let base = Lab::new();
    let (weights, tokens) = (weights(&base, &SMALL), base.path("tokens"));
    prompts(REVIEWS).write(&tokens).unwrap();
    let inputs = [("tokens", tokens.as_path()), ("weights", weights.as_path())];
    let encoded = base.run("encode", json!({ "blocks": 2 }), &inputs).unwrap();
    let (hidden, model) = (encoded.output("hidden"), model(&base));
    for (kind, with) in [("zero_shot", json!({ "positive": "!", "negative": "#" })), ("classify", json!({}))]
    {
        let run = |lab: &Lab, hidden: &Path| {
            let mut inputs = vec![("hidden", hidden), ("weights", weights.as_path())];
            inputs.extend((kind == "classify").then_some(("model", model.as_path())));
            lab.run(kind, with.clone(), &inputs)
        };
        let whole = run(&Lab::new(), hidden).unwrap();
        for row in [0, 150, REVIEWS - 1] {
            let lab = lab();
            let message = run(&lab, &failing_states(&lab, hidden, row)).unwrap_err().to_string();
            assert!(message.contains(&format!("review `row_{row}`")), "{message}");
            let resumed = run(&lab, hidden).unwrap();
            let after = gone_on_after(&resumed);
            assert_eq!(after.is_some(), row > 0, "{kind} {row}");
            assert!(after.unwrap_or(0) <= row && row < after.unwrap_or(0) + 100, "{row} {after:?}");
            assert_same(&resumed, &whole, "predictions");

            flip(&lab.path("checkpoint").join("progress"), 300);
            let over = run(&lab, hidden).unwrap();
            assert_eq!(log(&over), "starts over: the checkpoint is damaged");
            assert_same(&over, &whole, "predictions");
        }
    }
}
