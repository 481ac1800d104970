//! Stages on a device beside the processor, which here is the processor itself with little memory.

mod common;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use common::{
    lab::{Lab, Ran},
    made_up::{self, SMALL},
    tiny::largest_difference,
};
use pipe_stages::{
    contract::{Device, Event, StageError},
    data::{Hidden, HiddenFormat, States, read_predictions},
    gpt2::{
        Accelerator, Activation, BlockWeights, Config, Encoded, Encoder, Failure, Finisher, Forward,
        ModelFile, Norm, Precision, Weights, embed,
        training::{Batch, Given, Learner, Moments, Network, ProcessorLearner, Update},
    },
};
use serde_json::{Value, json};

/// Positions for which the device has memory: more than any prompt of these tests but the longest.
const ROOM: usize = 62;

/// A device with little memory.
#[derive(Debug)]
struct SmallDevice;

#[allow(clippy::unnecessary_wraps, reason = "what opens a device can fail")]
fn open() -> Result<Box<dyn Accelerator>, StageError> {
    Ok(Box::new(SmallDevice))
}

fn needs_room(positions: usize) -> Result<(), Failure> {
    if positions > ROOM { Err(Failure::OutOfMemory) } else { Ok(()) }
}

/// Weights of blocks that belong to nobody else.
fn owned(block: &BlockWeights<'_>) -> BlockWeights<'static> {
    let tensors: BTreeMap<&str, Vec<f32>> = [
        ("ln_1.weight", &*block.ln_1.weight),
        ("ln_1.bias", &block.ln_1.bias),
        ("attn.c_attn.weight", block.attention.weight()),
        ("attn.c_attn.bias", &block.attention.bias),
        ("attn.c_proj.weight", block.projection.weight()),
        ("attn.c_proj.bias", &block.projection.bias),
        ("ln_2.weight", &block.ln_2.weight),
        ("ln_2.bias", &block.ln_2.bias),
        ("mlp.c_fc.weight", block.expand.weight()),
        ("mlp.c_fc.bias", &block.expand.bias),
        ("mlp.c_proj.weight", block.contract.weight()),
        ("mlp.c_proj.bias", &block.contract.bias),
    ]
    .map(|(name, values)| (name, values.to_vec()))
    .into();
    BlockWeights::from_tensors(|name| tensors[name].clone().into())
}

struct SmallEncoder {
    weights: PathBuf,
    blocks: Vec<BlockWeights<'static>>,
    forward: Forward,
    format: HiddenFormat,
    encoded: Option<Encoded>,
}

struct SmallFinisher {
    blocks: Vec<BlockWeights<'static>>,
    norm: Norm<'static>,
    forward: Forward,
    last: Option<Vec<f32>>,
}

/// The weights file of the test that runs; the device copies it when it makes an encoder.
fn kept_weights(weights: &Weights) -> PathBuf {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
    let parts = pipe_stages::gpt2::tensor_shapes(weights.config());
    let parts = parts.iter().map(|(name, _)| weights.tensor(name));
    pipe_stages::gpt2::write_weights(&path, weights.config(), parts).unwrap();
    path
}

impl Accelerator for SmallDevice {
    fn name(&self) -> String {
        "cuda (a small device)".into()
    }

    fn decides_bits(&self) -> String {
        "a small device".into()
    }

    fn batch_positions(&self, _: &Config) -> usize {
        1000
    }

    fn encoder(
        &self,
        weights: &Weights,
        format: HiddenFormat,
        precision: Precision,
    ) -> Result<Box<dyn Encoder>, Failure> {
        let block = |block| owned(&BlockWeights::of(weights, block).rounded(precision));
        Ok(Box::new(SmallEncoder {
            weights: kept_weights(weights),
            blocks: (0..format.blocks).map(block).collect(),
            forward: Forward::new(weights.config(), format.activation).in_precision(precision),
            format,
            encoded: None,
        }))
    }

    fn finisher(
        &self,
        config: &Config,
        blocks: &[BlockWeights<'_>],
        norm: &Norm<'_>,
        activation: Activation,
        precision: Precision,
    ) -> Result<Box<dyn Finisher>, Failure> {
        let copy = |values: &[f32]| values.to_vec().into();
        Ok(Box::new(SmallFinisher {
            blocks: blocks.iter().map(|block| owned(&block.clone().rounded(precision))).collect(),
            norm: Norm { weight: copy(&norm.weight), bias: copy(&norm.bias) },
            forward: Forward::new(config, activation).in_precision(precision),
            last: None,
        }))
    }

    fn learner(&self, _: &Network, _: &[Moments]) -> Result<Box<dyn Learner>, Failure> {
        Ok(Box::new(SmallLearner::default()))
    }
}

impl Encoder for SmallEncoder {
    fn start(&mut self, tokens: &[u32], offsets: &[usize]) -> Result<(), Failure> {
        assert!(self.encoded.is_none(), "a batch is taken before the next is started");
        needs_room(tokens.len())?;
        let weights = Weights::open(&self.weights).unwrap();
        let mut hidden = embed(&weights, tokens, offsets);
        self.blocks.iter().for_each(|block| self.forward.block(block, &mut hidden, offsets));
        self.encoded = Some(Encoded::new(hidden, offsets, self.format));
        Ok(())
    }

    fn take(&mut self) -> Result<Encoded, Failure> {
        Ok(self.encoded.take().expect("a batch was started"))
    }
}

impl Drop for SmallEncoder {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.weights);
    }
}

impl Finisher for SmallFinisher {
    fn start(&mut self, hidden: States, offsets: &[usize]) -> Result<(), Failure> {
        assert!(self.last.is_none(), "a batch is taken before the next is started");
        needs_room(offsets[offsets.len() - 1])?;
        let mut hidden = hidden.into_f32();
        self.last = Some(self.forward.last_hidden(&self.blocks, &self.norm, &mut hidden, offsets));
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<f32>, Failure> {
        Ok(self.last.take().expect("a batch was started"))
    }
}

/// Keeps what it has until it is fetched, as a device does, and the states of updates that it has made.
#[derive(Default)]
struct SmallLearner {
    learner: ProcessorLearner,
    held: BTreeMap<usize, Vec<f32>>,
    /// Of the update that was begun.
    new: BTreeMap<usize, Vec<f32>>,
}

impl SmallLearner {
    /// The states of all prompts.
    fn complete(&mut self, given: Given, batch: &Batch) -> Result<Given, Failure> {
        needs_room(batch.positions() + self.held.len())?;
        let Given { rows, lacked, states } = given;
        let (states, mut all, mut next) = (states.into_f32(), Vec::new(), 0);
        for (prompt, cut) in batch.offsets().windows(2).enumerate() {
            if lacked.binary_search(&prompt).is_err() {
                all.extend_from_slice(&self.held[&rows[prompt]]);
                continue;
            }
            assert!(!self.held.contains_key(&rows[prompt]), "what is held is not given again");
            let end = next + (cut[1] - cut[0]) * SMALL.n_embd;
            all.extend_from_slice(&states[next..end]);
            self.new.insert(rows[prompt], states[next..end].to_vec());
            next = end;
        }
        Ok(Given { lacked: (0..rows.len()).collect(), rows, states: States::F32(all) })
    }
}

impl Learner for SmallLearner {
    fn micro_batch(&self, _: usize, batch: usize) -> usize {
        batch
    }

    fn evaluation_batch(&self, _: usize) -> usize {
        16
    }

    fn is_elsewhere(&self) -> bool {
        true
    }

    fn holds(&self, row: usize) -> bool {
        self.held.contains_key(&row)
    }

    fn forget(&mut self) -> bool {
        !std::mem::take(&mut self.held).is_empty()
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.new.clear();
        self.learner.begin()
    }

    fn add(
        &mut self,
        network: &Network,
        given: Given,
        batch: Batch,
        labels: &[u8],
        share: f32,
    ) -> Result<(), Failure> {
        let given = self.complete(given, &batch)?;
        self.learner.add(network, given, batch, labels, share)
    }

    fn update(
        &mut self,
        network: &mut Network,
        moments: &mut [Moments],
        update: &Update,
    ) -> Result<(f64, f64), Failure> {
        self.held.append(&mut self.new);
        self.learner.update(network, moments, update)
    }

    fn logits(&mut self, network: &Network, given: Given, batch: Batch) -> Result<Vec<f32>, Failure> {
        let given = self.complete(given, &batch)?;
        self.learner.logits(network, given, batch)
    }

    fn gradients(&mut self, wanted: bool) -> Result<&[Vec<f32>], Failure> {
        self.learner.gradients(wanted)
    }

    fn fetch(&mut self, network: &mut Network, moments: &mut [Moments]) -> Result<(), Failure> {
        self.learner.fetch(network, moments)
    }
}

/// A lab, weights and prompts in it.
fn inputs() -> (Lab, PathBuf, PathBuf) {
    let lab = Lab::new();
    let (weights, tokens) = (made_up::weights(&lab, &SMALL), lab.path("tokens"));
    made_up::prompts(40).write(&tokens).unwrap();
    (lab, weights, tokens)
}

fn compute_on_device(lab: &mut Lab) {
    lab.device = Device::Cuda;
    lab.accelerator = Some(open);
}

/// Runs a stage on the processor, then on the small device.
fn both(lab: &mut Lab, kind: &str, with: &Value, inputs: &[(&str, &Path)]) -> [Ran; 2] {
    let of_processor = lab.run(kind, with.clone(), inputs).unwrap();
    compute_on_device(lab);
    let of_device = lab.run(kind, with.clone(), inputs).unwrap();
    (lab.device, lab.accelerator) = (Device::Cpu, None);
    [of_processor, of_device]
}

fn log_lines(ran: &Ran) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Log { text, .. } => Some(text.clone()),
        _ => None,
    };
    ran.events.iter().filter_map(line).collect()
}

fn all_states(ran: &Ran) -> Vec<f32> {
    let hidden = Hidden::open(ran.output("hidden")).unwrap();
    let rows: Vec<usize> = (0..hidden.rows().len()).collect();
    hidden.states(&rows).unwrap().into_f32()
}

#[test]
fn a_device_without_memory_for_a_batch_computes_smaller_ones_to_the_same_bytes() {
    let (mut lab, weights, tokens) = inputs();
    let with = json!({ "blocks": 2, "dtype": "f32" });
    let ports = [("tokens", tokens.as_path()), ("weights", weights.as_path())];
    let [of_processor, of_device] = both(&mut lab, "encode", &with, &ports);
    assert_eq!(of_processor.digest("hidden"), of_device.digest("hidden"));
    let told = log_lines(&of_device);
    assert!(told[0].starts_with("no memory for a batch of ") && told.len() >= 3, "{told:?}");
    assert!(log_lines(&of_processor).is_empty());
    let device = Event::Device { name: "cuda (a small device)".into() };
    assert!(of_device.events.contains(&device));

    let hidden = of_processor.output("hidden").to_owned();
    let ports = [("hidden", hidden.as_path()), ("weights", weights.as_path())];
    let words = json!({ "positive": "!", "negative": "#" });
    let [of_processor, of_device] = both(&mut lab, "zero_shot", &words, &ports);
    assert_eq!(of_processor.digest("predictions"), of_device.digest("predictions"));
    assert!(log_lines(&of_device)[0].starts_with("no memory for a batch of "));
}

#[test]
fn an_update_without_memory_for_its_micro_batch_is_begun_again_with_smaller_ones() {
    let (mut lab, weights, tokens) = inputs();
    let ports = [("tokens", tokens.as_path()), ("weights", weights.as_path())];
    let hidden = lab.run("encode", json!({ "blocks": 2, "dtype": "f32" }), &ports).unwrap();
    let ports = [("hidden", hidden.output("hidden")), ("weights", weights.as_path())];
    for kind in ["fine_tune", "lora"] {
        let with = json!({ "steps": 6, "warmup": 0, "batch": 8, "micro_batch": 2, "eval_every": 3 });
        let [of_processor, of_device] = both(&mut lab, kind, &with, &ports);
        let told = log_lines(&of_device);
        let halved = "no memory for a micro-batch: update 1 goes on with ";
        assert!(told.iter().any(|line| line.starts_with(halved)), "{told:?}");
        let forgotten = "no memory for more states: update ";
        assert!(told.iter().any(|line| line.starts_with(forgotten)), "{told:?}");
        let read = |ran: &Ran| ModelFile::read(ran.output("model"), &SMALL).unwrap();
        let (model, wanted) = (read(&of_device), read(&of_processor));
        let value = |ran: &Ran| ran.metric("best_validation_loss").unwrap();
        assert!((value(&of_device) - value(&of_processor)).abs() < 1e-3);
        assert_eq!(model.tensors.keys().collect::<Vec<_>>(), wanted.tensors.keys().collect::<Vec<_>>());
        let path = lab.path(&format!("model of {kind}"));
        wanted.write(&path).unwrap();
        let ports =
            [("hidden", hidden.output("hidden")), ("weights", weights.as_path()), ("model", path.as_path())];
        let [of_processor, of_device] = both(&mut lab, "classify", &json!({}), &ports);
        let predictions = |ran: &Ran| read_predictions(ran.output("predictions")).unwrap();
        assert_eq!(predictions(&of_processor), predictions(&of_device));
    }
}

#[test]
fn one_prompt_that_does_not_fit_fails_with_what_to_do() {
    let (mut lab, weights, tokens) = inputs();
    let mut long = made_up::prompts(1);
    let most = SMALL.block_size;
    long.tokens = vec![7; most];
    (long.rows.offsets, long.rows.lengths) = (vec![0, most], vec![most as u32]);
    long.write(&tokens).unwrap();
    compute_on_device(&mut lab);
    let ports = [("tokens", tokens.as_path()), ("weights", weights.as_path())];
    let err = lab.run("encode", json!({ "blocks": 1 }), &ports).unwrap_err();
    assert_eq!(err.to_string(), "the device has too little memory for the model");
    assert!(err.help_text().unwrap().contains("--device cpu"));
}

#[test]
fn a_worker_without_a_device_says_so() {
    let (mut lab, weights, tokens) = inputs();
    lab.device = Device::Cuda;
    let ports = [("tokens", tokens.as_path()), ("weights", weights.as_path())];
    let err = lab.run("encode", json!({ "blocks": 1 }), &ports).unwrap_err();
    assert_eq!(err.to_string(), "this worker computes on the processor only");
}

#[test]
fn a_precision_moves_states_and_training_by_little_and_f32_by_nothing() {
    let (lab, weights, tokens) = inputs();
    let ports = [("tokens", tokens.as_path()), ("weights", weights.as_path())];
    let encode = |with: Value| lab.run("encode", with, &ports).unwrap();
    let plain = encode(json!({ "blocks": 2, "dtype": "f32" }));
    let exact = encode(json!({ "blocks": 2, "dtype": "f32", "precision": "f32" }));
    assert_eq!(plain.digest("hidden"), exact.digest("hidden"));
    for (precision, most) in [("f16", 2e-2), ("bf16", 2e-1)] {
        let rounded = encode(json!({ "blocks": 2, "dtype": "f32", "precision": precision }));
        let difference = largest_difference(&all_states(&rounded), &all_states(&plain));
        assert!(difference > 1e-5 && difference < most, "{precision}: {difference}");
        let ports = [("hidden", plain.output("hidden")), ("weights", weights.as_path())];
        for kind in ["fine_tune", "lora"] {
            let train = |precision: &str| {
                let with = json!({ "steps": 4, "warmup": 0, "batch": 8, "precision": precision });
                lab.run(kind, with, &ports).unwrap().metric("best_validation_loss").unwrap()
            };
            let (rounded, exact) = (train(precision), train("f32"));
            let difference = (rounded - exact).abs();
            assert!(difference > 0.0 && difference < 0.05, "{kind} {rounded} {exact}");
        }
    }
}

#[test]
fn a_factor_past_what_f16_holds_is_said_to_be_one() {
    let (lab, weights, tokens) = inputs();
    let given = Weights::open(&weights).unwrap();
    let larger = lab.path("larger");
    let parts = pipe_stages::gpt2::tensor_shapes(given.config()).into_iter().map(|(name, _)| {
        let factor = if name == "h.1.ln_2.weight" { 1e6 } else { 1.0 };
        given.tensor(&name).iter().map(|value| value * factor).collect::<Vec<_>>()
    });
    pipe_stages::gpt2::write_weights(&larger, given.config(), parts).unwrap();
    let ports = [("tokens", tokens.as_path()), ("weights", larger.as_path())];
    let encode = |precision: &str| {
        lab.run("encode", json!({ "blocks": 2, "dtype": "f32", "precision": precision }), &ports)
    };
    let err = encode("f16").unwrap_err();
    assert!(err.to_string().ends_with("are no finite numbers after block 2"), "{err}");
    assert!(err.help_text().unwrap().contains("set `precision: bf16`"));
    encode("bf16").unwrap();
}
