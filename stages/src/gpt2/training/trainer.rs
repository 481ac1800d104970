//! The training loop.

use super::{
    Batch, Given, Learner, Moments, Network, Order, Parameter, ProcessorLearner, TrainSettings, Update,
    learner::cross_entropy,
};
use crate::{
    contract::StageError,
    data::Hidden,
    gpt2::{Failure, kernels::dropout::Draws},
};

/// Rows of an evaluation that are computed together.
const EVALUATION_BATCH: usize = 8;

/// What the loop reads: hidden states, which rows are when, which are held out.
#[derive(Debug)]
pub struct Data<'a> {
    /// The states below the network, with labels.
    pub hidden: &'a Hidden,
    /// Rows of each update.
    pub order: Order,
    /// Rows held out.
    pub validation: Vec<usize>,
}

/// One update that was made.
#[derive(Debug)]
pub struct Step<'a> {
    /// Updates made, this one included.
    pub number: u64,
    /// Updates in all.
    pub of: u64,
    /// Mean loss of its rows, with dropout.
    pub loss: f64,
    /// Learning rate it used.
    pub learning_rate: f64,
    /// Norm of all gradients together, before clipping.
    pub gradient_norm: f64,
    /// Gradient of every parameter before clipping, as in [`Network::parameters`]; none where they
    /// stay on a device.
    pub gradients: &'a [Vec<f32>],
}

/// The network after some updates.
#[derive(Debug)]
pub struct Evaluation<'a> {
    /// Updates made.
    pub number: u64,
    /// Loss and share of right answers on the rows held out; `None` when there are none.
    pub validation: Option<Validation>,
    /// The trained parameters.
    pub parameters: &'a [&'a Parameter],
    /// Their gradients in the last update, before clipping.
    pub gradients: &'a [Vec<f32>],
}

/// How the network does on the rows held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Validation {
    /// Mean binary cross-entropy.
    pub loss: f64,
    /// Share of rows whose logit has the sign of the label.
    pub accuracy: f64,
}

/// Sees what the loop does.
pub trait Watch {
    /// An update was made.
    fn step(&mut self, _step: &Step<'_>) {}
    /// The network was evaluated.
    fn evaluation(&mut self, _evaluation: &Evaluation<'_>) {}
    /// Something that the person should know.
    fn note(&mut self, _text: &str) {}
    /// Whether [`Self::reached`] is to be called now; a device then hands out all that it holds.
    fn wants_progress(&self) -> bool {
        true
    }
    /// All that follows from an update was reported; `progress` and the network are a place to
    /// go on from.
    fn reached(&mut self, _progress: &Progress, _network: &Network) -> Result<(), StageError> {
        Ok(())
    }
}

/// Where a run stands, beside the parameters themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Updates made.
    pub step: u64,
    /// Moments of every parameter, as in [`Network::parameters`].
    pub moments: Vec<Moments>,
    /// The best evaluation so far.
    pub best: Option<Best>,
}

/// The best evaluation of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Updates made until then.
    pub step: u64,
    /// What it showed.
    pub validation: Validation,
    /// Every parameter at that point, as in [`Network::parameters`].
    pub values: Vec<Vec<f32>>,
}

impl Progress {
    /// Nothing done yet.
    pub fn start(network: &Network) -> Self {
        let size = |parameter: &&Parameter| Moments::new(parameter.values().len());
        Self { step: 0, moments: network.parameters().iter().map(size).collect(), best: None }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Updates after which the network was kept.
    pub best_step: u64,
    /// What it showed then; `None` when no rows were held out.
    pub validation: Option<Validation>,
    /// Positions that updates of this process went through.
    pub positions: u64,
}

/// Trains `network` from `progress` to the end and leaves it with the parameters of the best
/// evaluation, or the last ones when no rows are held out; computes on this processor.
///
/// An update: mean loss over its rows, in micro-batches whose gradients add up; norm of all
/// gradients; clipping; `AdamW` at the scheduled rate. `seed` decides dropout.
pub fn train(
    network: &mut Network,
    data: &Data<'_>,
    settings: &TrainSettings,
    seed: u64,
    progress: Progress,
    watch: &mut dyn Watch,
) -> Result<Outcome, StageError> {
    train_with(&mut ProcessorLearner::default(), network, data, settings, seed, progress, watch)
}

/// As [`train`], where `learner`, made of `network` and the moments of `progress`, computes.
pub fn train_with(
    learner: &mut dyn Learner,
    network: &mut Network,
    data: &Data<'_>,
    settings: &TrainSettings,
    seed: u64,
    mut progress: Progress,
    watch: &mut dyn Watch,
) -> Result<Outcome, StageError> {
    let training_rows = data.order.training_rows();
    let updates = settings.updates(training_rows);
    let schedule = settings.schedule(updates);
    let mut micro_batch = learner.micro_batch(settings.micro_batch, settings.batch);
    let rows_of = |step| data.order.rows(step, settings.batch, settings.end(training_rows));
    let (mut positions, mut ahead) = (0, Vec::new());
    while progress.step < updates {
        let step = progress.step;
        let rows = rows_of(step);
        positions += rows.iter().map(|row| data.hidden.rows().range(*row).len() as u64).sum::<u64>();
        let draws = Draws::new(seed, step, settings.dropout, settings.lora_dropout);
        let mut has_forgotten = false;
        loop {
            match add(learner, network, data.hidden, &rows, micro_batch, std::mem::take(&mut ahead), draws) {
                Err(Failure::OutOfMemory) if !has_forgotten && learner.forget() => {
                    has_forgotten = true;
                    watch.note(&format!("no memory for more states: update {} reads them again", step + 1));
                }
                Err(Failure::OutOfMemory) if micro_batch > 1 => {
                    micro_batch = micro_batch.min(rows.len()).div_ceil(2);
                    watch.note(&format!(
                        "no memory for a micro-batch: update {} goes on with {micro_batch} reviews",
                        step + 1
                    ));
                }
                result => break result?,
            }
        }
        // A device computes what it was given while the next rows are read.
        if learner.is_elsewhere() && step + 1 < updates {
            let next = rows_of(step + 1);
            let parts = next.chunks(micro_batch).map(|rows| MicroBatch::read(learner, data.hidden, rows));
            ahead = parts.collect::<Result<_, _>>()?;
        }
        let rate = schedule.at(step);
        let update = Update { step, rate, adamw: settings.adamw, clip: settings.clip };
        let (loss, norm) = learner.update(network, &mut progress.moments, &update)?;
        if !loss.is_finite() || !norm.is_finite() {
            let what = if loss.is_finite() { "gradient" } else { "loss" };
            return Err(StageError::new(format!(
                "the {what} of update {} of {updates} is not finite",
                step + 1
            ))
            .help("lower `lr`, lengthen `warmup`, or lower `clip`"));
        }
        let loss = loss / rows.len() as f64;
        progress.step += 1;
        let number = progress.step;
        let gradients = learner.gradients(false)?;
        watch.step(&Step { number, of: updates, loss, learning_rate: rate, gradient_norm: norm, gradients });
        if number.is_multiple_of(settings.eval_every) || number == updates {
            learner.fetch(network, &mut progress.moments)?;
            let validation = validate(learner, network, data.hidden, &data.validation)?;
            let parameters = network.parameters();
            if let Some(validation) = validation
                && progress.best.as_ref().is_none_or(|best| validation.loss < best.validation.loss)
            {
                let values = parameters.iter().map(|parameter| parameter.values().to_vec()).collect();
                progress.best = Some(Best { step: number, validation, values });
            }
            let gradients = learner.gradients(true)?;
            watch.evaluation(&Evaluation { number, validation, parameters: &parameters, gradients });
        }
        if watch.wants_progress() {
            learner.fetch(network, &mut progress.moments)?;
            watch.reached(&progress, network)?;
        }
    }
    let Some(best) = progress.best else {
        learner.fetch(network, &mut progress.moments)?;
        return Ok(Outcome { best_step: progress.step, validation: None, positions });
    };
    network.set_all(&best.values);
    Ok(Outcome { best_step: best.step, validation: Some(best.validation), positions })
}

/// Mean loss over `rows` and its gradients, as in [`Network::parameters`], in micro-batches of
/// `micro_batch` rows.
pub fn loss_and_gradients(
    network: &Network,
    hidden: &Hidden,
    rows: &[usize],
    micro_batch: usize,
    draws: Draws,
) -> Result<(f64, Vec<Vec<f32>>), StageError> {
    let mut learner = ProcessorLearner::default();
    add(&mut learner, network, hidden, rows, micro_batch, Vec::new(), draws)?;
    let (loss, gradients) = learner.into_gradients(network)?;
    Ok((loss / rows.len() as f64, gradients))
}

/// Begins an update and adds the gradients of the mean loss over its `rows`; the first micro-batches may
/// have been read `ahead`.
fn add(
    learner: &mut dyn Learner,
    network: &Network,
    hidden: &Hidden,
    rows: &[usize],
    micro_batch: usize,
    ahead: Vec<MicroBatch>,
    draws: Draws,
) -> Result<(), Failure> {
    learner.begin()?;
    let (share, mut ahead) = (1.0 / rows.len() as f32, ahead.into_iter());
    for (number, rows) in rows.chunks(micro_batch).enumerate() {
        let MicroBatch { given, batch, labels } = match ahead.next() {
            Some(read) if read.given.is_enough(learner) => read,
            _ => MicroBatch::read(learner, hidden, rows)?,
        };
        learner.add(network, given, batch.dropping(draws, number * micro_batch), &labels, share)?;
    }
    Ok(())
}

/// Rows that are computed together.
struct MicroBatch {
    given: Given,
    batch: Batch,
    labels: Vec<u8>,
}

impl MicroBatch {
    fn read(learner: &dyn Learner, hidden: &Hidden, rows: &[usize]) -> Result<Self, StageError> {
        let batch = Batch::new(rows.iter().map(|row| hidden.rows().range(*row).len()));
        let labels = rows.iter().map(|row| hidden.rows().labels[*row]).collect();
        Ok(Self { given: Given::read(learner, hidden, rows)?, batch, labels })
    }
}

/// Loss and accuracy on `rows`, without dropout; `None` for no rows.
fn validate(
    learner: &mut dyn Learner,
    network: &Network,
    hidden: &Hidden,
    rows: &[usize],
) -> Result<Option<Validation>, StageError> {
    let (mut loss, mut right) = (0.0, 0);
    let (mut rest, mut most) = (rows, learner.evaluation_batch(EVALUATION_BATCH));
    let mut has_forgotten = false;
    while !rest.is_empty() {
        let (part, later) = rest.split_at(most.min(rest.len()));
        let MicroBatch { given, batch, labels } = MicroBatch::read(learner, hidden, part)?;
        let logits = match learner.logits(network, given, batch) {
            Err(Failure::OutOfMemory) if !has_forgotten && learner.forget() => {
                has_forgotten = true;
                continue;
            }
            Err(Failure::OutOfMemory) if part.len() > 1 => {
                most = part.len() / 2;
                continue;
            }
            logits => logits?,
        };
        rest = later;
        for (z, label) in logits.iter().zip(labels) {
            loss += cross_entropy(*z, label);
            right += usize::from((*z >= 0.0) == (label == 1));
        }
    }
    let count = rows.len() as f64;
    Ok((!rows.is_empty()).then(|| Validation { loss: loss / count, accuracy: right as f64 / count }))
}
