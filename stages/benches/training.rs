//! Speed of training at the 124M shape: `cargo bench -p pipe-stages --bench training`.
//!
//! Prints tokens a second of whole updates (12 prompts of 256 tokens, dropout 0.1, the last two
//! blocks) for both kinds and some micro-batches, and of loss and gradients of the same blocks in
//! `dfdx`'s own operations.

use std::time::Instant;

use dfdx::prelude::{Backward, Cpu, Gradients, Rank0, SumTo, Tensor, TensorFrom, Trace};
use pipe_stages::{
    contract::StageError,
    data::Hidden,
    gpt2::{Activation, LoraTarget, Method, Precision, Stock, Weights},
};

// Every benchmark uses a part of it.
#[allow(dead_code)]
mod shape;

const PROMPTS: usize = 12;
const TOKENS: usize = 256;
const UPDATES: u64 = 4;

fn main() -> Result<(), StageError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (weights, hidden) = shape::training_inputs(folder.path(), &[TOKENS; PROMPTS])?;
    println!("{} threads, {PROMPTS} prompts of {TOKENS} tokens", rayon::current_num_threads());
    let report = |what: &str, seconds: f64| {
        let tokens = (PROMPTS * TOKENS) as f64 / seconds;
        println!("{what:30} {seconds:6.2} s an update, {tokens:6.0} tokens/s");
    };
    let lora = || Method::Lora { rank: 8, alpha: 1.0, targets: vec![LoraTarget::Q, LoraTarget::V] };
    for (precision, micro_batch) in
        [(Precision::F32, 2), (Precision::F32, 4), (Precision::F32, 12), (Precision::Bf16, 4)]
    {
        for (name, method) in [("fine_tune", Method::FineTune), ("lora", lora())] {
            let seconds = {
                let update = shape::Update { precision, method, micro_batch, dropout: 0.1 };
                shape::fastest_update(&weights, &hidden, update, UPDATES)?
            };
            report(&format!("{name} {precision}, micro-batch {micro_batch}"), seconds);
        }
    }
    report("stock dfdx, without optimizer", stock(&weights, &hidden)?);
    Ok(())
}

fn stock(weights: &Weights, hidden: &Hidden) -> Result<f64, StageError> {
    let device = Cpu::default();
    let (head, blocks) = (shape::noise(5, shape::TOP.n_embd, 0.02), 0..shape::TOP.n_layer);
    let stock = Stock::new(&device, weights, Activation::GeluNew, blocks, &head, 0.0);
    let (started, mut gradients) = (Instant::now(), Gradients::leaky());
    for row in 0..PROMPTS {
        let states = hidden.states(&[row])?.into_f32();
        let x: Tensor<(usize, usize), f32, Cpu> = device.tensor((states, (TOKENS, shape::TOP.n_embd)));
        let x = stock.block(1, stock.block(0, x.traced(gradients)));
        let label: Tensor<(usize, usize), f32, Cpu> = device.tensor((vec![1.0], (1, 1)));
        gradients = stock.logit(x).bce_with_logits(label).sum::<Rank0, _>().backward();
    }
    Ok(started.elapsed().as_secs_f64())
}
