//! Requests, and what answers them.
//!
//! - `forward PRECISION PROMPTS TOKENS`: all blocks, over states on the device, the result left there
//! - `last PRECISION PROMPTS TOKENS`: the same where only last positions leave the last block, and the
//!   final norm: what `zero_shot` does
//! - `update METHOD PRECISION DROPOUT LENGTH…`: an update of the last two blocks, one prompt a length,
//!   its states given by the host, as in a stage
//! - `profile` before any of these: also what each kernel, product and copy of it takes
//!
//! Times are of whole repetitions, until the device is done. The profile's are told by the device while
//! it works off what was started long before, so that they do not include the host's delays.

mod model;
mod work;

use std::time::{Duration, Instant};

use pipe_cuda::{
    launch::Kernels,
    profile::{Clock, Profile, Profiled, Share},
    weights::{Blocks, Norm},
};
use pipe_stages::{
    contract::StageError,
    gpt2::{BlockWeights, Config, Failure, LoraTarget, Method, Precision, final_norm},
};
use serde_json::{Value, json};

use model::Model;
use work::{HeadStart, Pass, Updates, Work, operations};

/// Of what model, and how thoroughly.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// The shape but for the vocabulary, which nothing here uses.
    config: Config,
    /// Fewest repetitions, counted and not.
    fewest: usize,
    /// How long repetitions go on, and how long others that are not counted go before.
    repeated: Duration,
    warmed: Duration,
    /// Repetitions of a profile.
    profiled: usize,
    /// The side of the products that a profile starts first, and how many.
    head_start: (usize, usize),
}

/// For figures that count: the published shape.
#[allow(dead_code, reason = "only a GPU is measured so")]
pub const FULL: Scale = Scale {
    config: Config { vocab_size: 8, block_size: 8, ..Config::GPT2_124M },
    fewest: 5,
    repeated: Duration::from_secs(1),
    warmed: Duration::from_millis(200),
    profiled: 10,
    // A trillion operations in f32: tens of milliseconds.
    head_start: (4096, 10),
};

/// For rehearsals and tests: as many blocks, narrow, and little of everything.
#[allow(dead_code, reason = "a GPU is not measured so")]
pub const SMALL: Scale = Scale {
    config: Config { n_layer: 12, n_head: 1, n_embd: 64, vocab_size: 8, block_size: 8 },
    fewest: 1,
    repeated: Duration::ZERO,
    warmed: Duration::ZERO,
    profiled: 2,
    head_start: (16, 1),
};

/// A machine and a model to time.
#[derive(Debug)]
pub struct Timed<M: Clock> {
    kernels: Kernels<Profiled<M>>,
    name: String,
    scale: Scale,
    model: Model,
    /// The blocks in the precision that was asked for last.
    blocks: Option<(Precision, Blocks<Profiled<M>>)>,
}

impl<M: Clock> Timed<M> {
    /// Times on `machine`, which answers call `name`.
    pub fn new(machine: M, name: String, scale: Scale) -> Result<Self, StageError> {
        let kernels = Kernels::new(Profiled::new(machine));
        Ok(Self { kernels, name, scale, model: Model::new(scale.config)?, blocks: None })
    }

    /// Answers a request, a line of the form above.
    pub fn answer(&mut self, request: &str) -> Result<Value, StageError> {
        let words: Vec<&str> = request.split_whitespace().collect();
        let (is_profile, words) = match words.as_slice() {
            ["profile", rest @ ..] => (true, rest),
            all => (false, all),
        };
        match words {
            [what @ ("forward" | "last"), format, prompts, tokens] => {
                self.forward(*what == "last", precision(format)?, count(prompts)?, count(tokens)?, is_profile)
            }
            ["update", method, format, dropout, lengths @ ..] if !lengths.is_empty() => {
                let lengths: Vec<usize> =
                    lengths.iter().map(|length| count(length)).collect::<Result<_, _>>()?;
                let dropout = dropout.parse().map_err(|_| unknown("share", dropout))?;
                self.update(self::method(method)?, precision(format)?, dropout, &lengths, is_profile)
            }
            _ => Err(unknown("request", request)),
        }
    }

    fn forward(
        &mut self,
        is_last: bool,
        format: Precision,
        prompts: usize,
        tokens: usize,
        is_profile: bool,
    ) -> Result<Value, StageError> {
        let Self { kernels, model, blocks, scale: Scale { config, .. }, .. } = self;
        if blocks.as_ref().is_none_or(|(kept, _)| *kept != format) {
            *blocks = None;
            let weights = (0..config.n_layer).map(|index| BlockWeights::of(&model.weights, index));
            let loaded = Blocks::new(kernels, weights, config.n_embd, format).map_err(failed::<M>)?;
            *blocks = Some((format, loaded));
        }
        let (_, blocks) = self.blocks.as_ref().expect("they were loaded");
        let norm = Norm::new(&self.kernels, &final_norm(&self.model.weights, None)).map_err(failed::<M>)?;
        let norm = is_last.then_some(norm);
        let states = model::noise(7, prompts * tokens * config.n_embd, 1.0);
        let pass = Pass::new(&self.kernels, config, format, blocks, norm, &states, prompts);
        let mut pass = pass.map_err(failed::<M>)?;
        let mut answer = self.measure(&mut pass, prompts * tokens, is_profile)?;
        answer["prompts"] = json!(prompts);
        answer["tokens"] = json!(tokens);
        answer["operations"] = json!(operations(&self.scale.config, prompts, tokens, is_last));
        Ok(answer)
    }

    fn update(
        &mut self,
        method: Method,
        format: Precision,
        dropout: f64,
        lengths: &[usize],
        is_profile: bool,
    ) -> Result<Value, StageError> {
        let mut updates = Updates::new(&self.kernels, &self.model.weights, method, format, dropout, lengths)?;
        let mut answer = self.measure(&mut updates, lengths.iter().sum(), is_profile)?;
        answer["lengths"] = json!(lengths);
        Ok(answer)
    }

    /// What one repetition of `work` over so many positions takes.
    fn measure(
        &self,
        work: &mut dyn Work<M>,
        positions: usize,
        is_profile: bool,
    ) -> Result<Value, StageError> {
        let seconds = self.repeat(work)?;
        work.check()?;
        let median = seconds[seconds.len() / 2];
        let mut answer = json!({
            "on": self.name,
            "seconds": median,
            "least": seconds[0],
            "most": seconds[seconds.len() - 1],
            "repetitions": seconds.len(),
            "tokens_per_second": positions as f64 / median,
        });
        if is_profile {
            let ((profile, empty), count) = (self.profile(work)?, self.scale.profiled);
            answer["empty"] = json!(empty / count as f64);
            answer["busy"] = json!(profile.busy() / count as f64);
            answer["span"] = json!(profile.span / count as f64);
            answer["tasks"] = shares(&profile, count);
        }
        Ok(answer)
    }

    /// Seconds of repetitions, in order of size.
    fn repeat(&self, work: &mut dyn Work<M>) -> Result<Vec<f64>, StageError> {
        let mut seconds = Vec::new();
        for (counted, enough) in [(false, self.scale.warmed), (true, self.scale.repeated)] {
            let (begun, mut done) = (Instant::now(), 0);
            while done < self.scale.fewest || begun.elapsed() < enough {
                let start = Instant::now();
                work.run()?;
                self.wait()?;
                seconds.extend(counted.then(|| start.elapsed().as_secs_f64()));
                done += 1;
            }
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds)
    }

    /// What the tasks of some repetitions took together, and as many tasks of nothing.
    fn profile(&self, work: &mut dyn Work<M>) -> Result<(Profile, f64), StageError> {
        let machine = self.kernels.machine();
        let (mut profile, mut empty) = (Profile::default(), 0.0);
        let mut head_start = HeadStart::new(&self.kernels, self.scale.head_start).map_err(failed::<M>)?;
        for _ in 0..self.scale.profiled {
            let started =
                head_start.give(&self.kernels).and_then(|()| Ok([machine.mark()?, machine.mark()?]));
            let [begin, end] = started.map_err(failed::<M>)?;
            machine.record();
            let done = work.run();
            let taken = machine.take().map_err(failed::<M>)?;
            done?;
            profile.merge(taken);
            empty += machine.seconds(&begin, &end).map_err(failed::<M>)?;
        }
        Ok((profile, empty))
    }

    fn wait(&self) -> Result<(), StageError> {
        self.kernels.machine().wait().map_err(failed::<M>)
    }
}

/// The tasks of a profile of `repetitions` that all did the same: count and microseconds of one of them,
/// longest first.
fn shares(profile: &Profile, repetitions: usize) -> Value {
    let mut shares = profile.shares.clone();
    shares.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let tasks = shares.iter().map(|Share { task, count, seconds }| {
        let microseconds = 1e6 * seconds / repetitions as f64;
        let mut told =
            json!({ "name": task.name(), "count": count / repetitions, "microseconds": microseconds });
        if let Some(operations) = task.operations() {
            told["tflops"] = json!(operations * *count as f64 / seconds / 1e12);
        }
        told
    });
    tasks.collect()
}

fn count(word: &str) -> Result<usize, StageError> {
    word.parse().ok().filter(|count| *count > 0).ok_or_else(|| unknown("count", word))
}

fn precision(word: &str) -> Result<Precision, StageError> {
    let all = [Precision::F32, Precision::F16, Precision::Bf16];
    all.into_iter().find(|format| format.to_string() == word).ok_or_else(|| unknown("precision", word))
}

fn method(word: &str) -> Result<Method, StageError> {
    match word {
        "fine_tune" => Ok(Method::FineTune),
        "lora" => Ok(Method::Lora { rank: 8, alpha: 1.0, targets: vec![LoraTarget::Q, LoraTarget::V] }),
        _ => Err(unknown("method", word)),
    }
}

fn unknown(what: &str, word: &str) -> StageError {
    StageError::new(format!("no such {what}: `{word}`"))
}

/// What went wrong on a machine.
fn failed<M: Clock>(trouble: pipe_cuda::machine::Trouble<M>) -> StageError {
    Failure::into(M::failure(trouble))
}
