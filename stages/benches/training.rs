//! Speed of training at the 124M shape: `cargo bench -p pipe-stages --bench training`.
//!
//! Prints tokens a second of whole updates (12 prompts of 256 tokens, dropout 0.1, the last two
//! blocks) for both kinds and some micro-batches, and of loss and gradients of the same blocks in
//! `dfdx`'s own operations.

use std::{path::Path, time::Instant};

use dfdx::prelude::{Backward, Cpu, Gradients, Rank0, SumTo, Tensor, TensorFrom, Trace};
use pipe_stages::{
    contract::StageError,
    data::{Hidden, HiddenFormat, HiddenType, HiddenWriter, Rows},
    gpt2::{
        Activation, Config, LoraTarget, Method, Stock, Weights, tensor_shapes,
        training::{AdamW, Data, Length, Network, Order, Progress, Step, TrainSettings, Watch, train},
        write_weights,
    },
};

/// The published shape with two blocks and hardly any vocabulary: what the trained part needs.
const CONFIG: Config = Config { n_layer: 2, vocab_size: 8, block_size: 8, ..Config::GPT2_124M };
const PROMPTS: usize = 12;
const TOKENS: usize = 256;
const UPDATES: u64 = 5;

/// The fastest update so far, in seconds.
struct Fastest {
    started: Instant,
    seconds: f64,
}

impl Watch for Fastest {
    fn step(&mut self, _: &Step<'_>) {
        self.seconds = self.seconds.min(self.started.elapsed().as_secs_f64());
        self.started = Instant::now();
    }
}

fn main() -> Result<(), StageError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (weights, hidden) = inputs(folder.path())?;
    println!("{} threads, {PROMPTS} prompts of {TOKENS} tokens", rayon::current_num_threads());
    let report = |what: &str, seconds: f64| {
        let tokens = (PROMPTS * TOKENS) as f64 / seconds;
        println!("{what:30} {seconds:6.2} s an update, {tokens:6.0} tokens/s");
    };
    let lora = || Method::Lora { rank: 8, alpha: 1.0, targets: vec![LoraTarget::Q, LoraTarget::V] };
    for micro_batch in [2, 4, 12] {
        for (name, method) in [("fine_tune", Method::FineTune), ("lora", lora())] {
            let seconds = update(&weights, &hidden, method, micro_batch)?;
            report(&format!("{name}, micro-batch {micro_batch}"), seconds);
        }
    }
    report("stock dfdx, without optimizer", stock(&weights, &hidden)?);
    Ok(())
}

fn update(weights: &Weights, hidden: &Hidden, method: Method, micro_batch: usize) -> Result<f64, StageError> {
    let settings = TrainSettings {
        lr: 1e-4,
        min_lr: 1e-5,
        warmup: 1,
        decay: None,
        length: Length::Updates(UPDATES),
        batch: PROMPTS,
        micro_batch,
        adamw: AdamW { betas: [0.9, 0.95], epsilon: 1e-8, weight_decay: 0.1 },
        clip: 5.0,
        dropout: 0.1,
        lora_dropout: 0.0,
        eval_every: 1000,
    };
    let mut network = Network::new(weights, hidden.format(), method, 2, 1)?;
    let order = Order::Given(vec![(0..PROMPTS).collect()]);
    let data = Data { hidden, order, validation: Vec::new() };
    let mut fastest = Fastest { started: Instant::now(), seconds: f64::INFINITY };
    let progress = Progress::start(&network);
    train(&mut network, &data, &settings, 1, progress, &mut fastest)?;
    Ok(fastest.seconds)
}

fn stock(weights: &Weights, hidden: &Hidden) -> Result<f64, StageError> {
    let device = Cpu::default();
    let (head, blocks) = (noise(5, CONFIG.n_embd, 0.02), 0..CONFIG.n_layer);
    let stock = Stock::new(&device, weights, Activation::GeluNew, blocks, &head, 0.0);
    let (started, mut gradients, mut states) = (Instant::now(), Gradients::leaky(), Vec::new());
    for row in 0..PROMPTS {
        hidden.row(row, &mut states)?;
        let x: Tensor<(usize, usize), f32, Cpu> = device.tensor((states.clone(), (TOKENS, CONFIG.n_embd)));
        let x = stock.block(1, stock.block(0, x.traced(gradients)));
        let label: Tensor<(usize, usize), f32, Cpu> = device.tensor((vec![1.0], (1, 1)));
        gradients = stock.logit(x).bce_with_logits(label).sum::<Rank0, _>().backward();
    }
    Ok(started.elapsed().as_secs_f64())
}

fn inputs(folder: &Path) -> Result<(Weights, Hidden), StageError> {
    let path = folder.join("weights");
    let parts = tensor_shapes(&CONFIG).into_iter().enumerate().map(|(i, (name, shape))| {
        let size = shape.iter().product();
        let is_gain = name.ends_with("ln_1.weight") || name.ends_with("ln_2.weight");
        if is_gain { vec![1.0; size] } else { noise(i as u32, size, 0.02) }
    });
    write_weights(&path, &CONFIG, parts)?;
    let weights = Weights::open(&path)?;
    let rows = Rows {
        ids: (0..PROMPTS).map(|row| row.to_string()).collect(),
        lengths: vec![TOKENS as u32; PROMPTS],
        labels: (0..PROMPTS).map(|row| (row % 2) as u8).collect(),
        offsets: (0..=PROMPTS).map(|row| row * TOKENS).collect(),
    };
    let (activation, dtype) = (Activation::GeluNew, HiddenType::F16);
    let format = HiddenFormat { blocks: 0, n_embd: CONFIG.n_embd, activation, dtype };
    let path = folder.join("hidden");
    let writer = HiddenWriter::create(&path, &rows, format)?;
    for row in 0..PROMPTS {
        writer.write_row(row, &noise(row as u32, TOKENS * CONFIG.n_embd, 1.0))?;
    }
    drop(writer);
    Ok((weights, Hidden::open(&path)?))
}

/// Numbers spread evenly over `±1.7·scale`.
fn noise(seed: u32, length: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state as f32 / u32::MAX as f32 - 0.5) * 3.4 * scale
    };
    (0..length).map(|_| next()).collect()
}
