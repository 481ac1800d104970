//! Times what it is asked for, one line of JSON an answer: the half of
//! `benches/against_pytorch.py` that runs this project's code.
//!
//! Requests are lines on standard input, so that one process serves measurements that alternate
//! with another program's:
//!
//! - `forward PRECISION PROMPTS TOKENS`: 12 blocks on so many prompts, and the speed of a large product
//! - `update PRECISION METHOD DROPOUT MICRO_BATCH LENGTH…`: an update of the last two blocks, one prompt a
//!   length
//! - `tokenize FILE`: the reviews of a file, with all threads and nothing remembered

use std::{io::Write as _, path::Path, time::Instant};

use pipe_stages::{
    contract::StageError,
    data::read_reviews,
    gpt2::{Activation, BlockWeights, Forward, LoraTarget, Method, Precision},
    tokenizer::Encoder,
};
use rayon::prelude::*;
use serde_json::{Value, json};

// Every benchmark uses a part of it.
#[allow(dead_code)]
mod shape;

/// Repetitions of an answer; the fastest counts.
const REPETITIONS: u64 = 3;

fn main() -> Result<(), StageError> {
    let mut ready: Option<(Precision, Vec<BlockWeights<'_>>)> = None;
    for request in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = request.split_whitespace().collect();
        let answer = match words.as_slice() {
            // On a thread of the pool, as in a stage.
            ["forward", wanted, prompts, tokens] => {
                let wanted = precision(wanted);
                let (_, blocks) = match ready.take_if(|(precision, _)| *precision == wanted) {
                    Some(ready) => ready,
                    None => (wanted, shape::blocks(wanted)),
                };
                let answer = rayon::scope(|_| forward(wanted, &blocks, number(prompts), number(tokens)));
                ready = Some((wanted, blocks));
                answer
            }
            ["update", wanted, method, dropout, micro_batch, lengths @ ..] => {
                let dropout = dropout.parse().expect("a share");
                update(precision(wanted), method, dropout, number(micro_batch), lengths)?
            }
            ["tokenize", path] => tokenize(Path::new(path))?,
            _ => panic!("no such request: {request}"),
        };
        println!("{answer}");
        std::io::stdout().flush().expect("somebody reads");
    }
    Ok(())
}

fn number(word: &str) -> usize {
    word.parse().expect("a count")
}

fn precision(word: &str) -> Precision {
    serde_json::from_value(word.into()).expect("a precision")
}

fn forward(precision: Precision, blocks: &[BlockWeights<'_>], prompts: usize, tokens: usize) -> Value {
    let offsets: Vec<usize> = (0..=prompts).map(|prompt| prompt * tokens).collect();
    let start = shape::noise(7, prompts * tokens * shape::CONFIG.n_embd, 1.0);
    let mut forward = Forward::new(&shape::CONFIG, Activation::GeluNew).in_precision(precision);
    let (mut fastest, mut product) = (f64::INFINITY, 0.0f64);
    for _ in 0..=REPETITIONS {
        let mut states = start.clone();
        let pass = Instant::now();
        for block in blocks {
            forward.block(block, &mut states, &offsets);
        }
        fastest = fastest.min(pass.elapsed().as_secs_f64());
        product = product.max(shape::product_speed(precision));
    }
    json!({ "seconds": fastest, "product": product, "operations": shape::operations(prompts, tokens) })
}

fn update(
    precision: Precision,
    method: &str,
    dropout: f64,
    micro_batch: usize,
    lengths: &[&str],
) -> Result<Value, StageError> {
    let method = match method {
        "fine_tune" => Method::FineTune,
        "lora" => Method::Lora { rank: 8, alpha: 1.0, targets: vec![LoraTarget::Q, LoraTarget::V] },
        _ => panic!("no such method: {method}"),
    };
    let lengths: Vec<usize> = lengths.iter().map(|length| number(length)).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (weights, hidden) = shape::training_inputs(folder.path(), &lengths)?;
    let update = shape::Update { precision, method, micro_batch, dropout };
    let seconds = shape::fastest_update(&weights, &hidden, update, REPETITIONS)?;
    Ok(json!({ "seconds": seconds }))
}

fn tokenize(path: &Path) -> Result<Value, StageError> {
    let reviews = read_reviews(path)?;
    let start = Instant::now();
    let encode = |encoder: &mut Encoder, text: &str| encoder.encode(text).len();
    let tokens: usize = reviews
        .par_iter()
        .with_min_len(64)
        .map_init(Encoder::default, |e, review| encode(e, &review.text))
        .sum();
    Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "tokens": tokens }))
}
