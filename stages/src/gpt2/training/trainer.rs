//! The training loop.

use dfdx::prelude::Gradients;

use super::{
    Batch, Moments, Network, Order, Parameter, TrainSettings, adamw::sum_of_squares, parameters::Grads,
};
use crate::{contract::StageError, data::Hidden, gpt2::kernels::dropout::Draws};

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
    /// Gradient of every parameter before clipping, as in [`Network::parameters`].
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
/// evaluation, or the last ones when no rows are held out.
///
/// An update: mean loss over its rows, in micro-batches whose gradients add up; norm of all
/// gradients; clipping; `AdamW` at the scheduled rate. `seed` decides dropout.
pub fn train(
    network: &mut Network,
    data: &Data<'_>,
    settings: &TrainSettings,
    seed: u64,
    mut progress: Progress,
    watch: &mut dyn Watch,
) -> Result<Outcome, StageError> {
    let rows = data.order.training_rows();
    let updates = settings.updates(rows);
    let schedule = settings.schedule(updates);
    let mut positions = 0;
    while progress.step < updates {
        let step = progress.step;
        let rows = data.order.rows(step, settings.batch, settings.end(rows));
        positions += rows.iter().map(|row| data.hidden.rows().range(*row).len() as u64).sum::<u64>();
        let draws = Draws::new(seed, step, settings.dropout, settings.lora_dropout);
        let (loss, gradients) = loss_and_gradients(network, data.hidden, &rows, settings.micro_batch, draws)?;
        let norm = gradients.iter().map(|gradient| sum_of_squares(gradient)).sum::<f64>().sqrt();
        if !loss.is_finite() || !norm.is_finite() {
            let what = if loss.is_finite() { "gradient" } else { "loss" };
            return Err(StageError::new(format!(
                "the {what} of update {} of {updates} is not finite",
                step + 1
            ))
            .help("lower `lr`, lengthen `warmup`, or lower `clip`"));
        }
        let clipped = if settings.clip > 0.0 { (settings.clip / norm).min(1.0) } else { 1.0 };
        let rate = schedule.at(step);
        for ((parameter, gradient), moments) in
            network.parameters_mut().into_iter().zip(&gradients).zip(&mut progress.moments)
        {
            let decays = parameter.decays();
            parameter.change(|values| {
                settings.adamw.update(step, rate, clipped as f32, decays, values, gradient, moments);
            });
        }
        progress.step += 1;
        let (number, gradients) = (progress.step, gradients.as_slice());
        watch.step(&Step { number, of: updates, loss, learning_rate: rate, gradient_norm: norm, gradients });
        if number.is_multiple_of(settings.eval_every) || number == updates {
            let validation = validate(network, data.hidden, &data.validation)?;
            let parameters = network.parameters();
            if let Some(validation) = validation
                && progress.best.as_ref().is_none_or(|best| validation.loss < best.validation.loss)
            {
                let values = parameters.iter().map(|parameter| parameter.values().to_vec()).collect();
                progress.best = Some(Best { step: number, validation, values });
            }
            watch.evaluation(&Evaluation { number, validation, parameters: &parameters, gradients });
        }
        watch.reached(&progress, network)?;
    }
    let Some(best) = progress.best else {
        return Ok(Outcome { best_step: progress.step, validation: None, positions });
    };
    for (parameter, values) in network.parameters_mut().into_iter().zip(&best.values) {
        parameter.change(|old| old.copy_from_slice(values));
    }
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
    let mut gradients: Grads = Gradients::leaky();
    let mut loss = 0.0;
    let share = 1.0 / rows.len() as f32;
    for (place, rows) in rows.chunks(micro_batch).enumerate() {
        let (states, batch, labels) = load(hidden, rows)?;
        let batch = batch.dropping(draws, place * micro_batch);
        let logits;
        (logits, gradients) = network.add_gradients(states, batch, &labels, share, gradients)?;
        loss += logits.iter().zip(&labels).map(|(z, label)| cross_entropy(*z, *label)).sum::<f64>();
    }
    network.gradients(gradients).map(|gradients| (loss / rows.len() as f64, gradients))
}

/// Loss and accuracy on `rows`, without dropout; `None` for no rows.
fn validate(network: &Network, hidden: &Hidden, rows: &[usize]) -> Result<Option<Validation>, StageError> {
    let (mut loss, mut right) = (0.0, 0);
    for rows in rows.chunks(EVALUATION_BATCH) {
        let (states, batch, labels) = load(hidden, rows)?;
        let logits = network.logits(states, batch)?;
        for (z, label) in logits.iter().zip(labels) {
            loss += cross_entropy(*z, label);
            right += usize::from((*z >= 0.0) == (label == 1));
        }
    }
    let count = rows.len() as f64;
    Ok((!rows.is_empty()).then(|| Validation { loss: loss / count, accuracy: right as f64 / count }))
}

/// States, extents and labels of `rows`.
fn load(hidden: &Hidden, rows: &[usize]) -> Result<(Vec<f32>, Batch, Vec<u8>), StageError> {
    let mut states = Vec::new();
    for row in rows {
        hidden.append_row(*row, &mut states)?;
    }
    let batch = Batch::new(rows.iter().map(|row| hidden.rows().range(*row).len()));
    Ok((states, batch, rows.iter().map(|row| hidden.rows().labels[*row]).collect()))
}

/// Binary cross-entropy of the logit `z`: `ln(1 + e^±z)`.
fn cross_entropy(z: f32, label: u8) -> f64 {
    let against = if label == 1 { -f64::from(z) } else { f64::from(z) };
    against.max(0.0) + (-against.abs()).exp().ln_1p()
}
