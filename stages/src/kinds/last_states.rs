//! What the remaining blocks and the final norm make of the last position of each prompt.

use super::{
    batches::{Batch, Pass, in_batches},
    device::Device,
};
use crate::{
    checkpoint::Checkpoint,
    contract::{MetricDoc, StageCx, StageError},
    data::{Hidden, Prediction},
    gpt2::{Failure, Finisher, Forward, ModelFile, Weights, blocks_from, final_norm},
};

/// The metrics of stages that predict.
pub const METRICS: &[MetricDoc] = &[
    MetricDoc::neutral("reviews", "predictions"),
    MetricDoc::neutral("predicted_positive", "reviews that were predicted positive"),
];

/// Predicts every review of `hidden` from its final state at the last position.
///
/// `score` takes the forward pass and states `[reviews, n_embd]` and returns for each review the
/// probability of positive and whether it decides so. Runs on all threads of the pool.
pub fn predict(
    cx: &StageCx<'_>,
    device: &Device,
    hidden: &Hidden,
    weights: &Weights,
    model: Option<&ModelFile>,
    score: impl Fn(&Forward, &[f32]) -> Vec<(f64, bool)>,
) -> Result<Vec<Prediction>, StageError> {
    let (config, format, rows) = (weights.config(), hidden.format(), hidden.rows());
    check_fit(hidden, weights, model)?;
    let blocks = blocks_from(weights, model, format.blocks);
    let norm = final_norm(weights, model);
    let forward = Forward::new(config, format.activation);
    let finisher = device.finisher(config, blocks, norm, format.activation)?;
    let mut pass = Finishing { finisher, hidden };
    let mut checkpoint = Checkpoint::new(cx, device.decides_bits());
    let mut scores = resume(&checkpoint, rows.len());
    let (done, limit) = (scores.len(), device.batch_positions(config));
    in_batches(cx, &rows.offsets, done, limit, &mut pass, |batch, last| {
        for (row, scored) in batch.rows.clone().zip(score(&forward, &last)) {
            if !scored.0.is_finite() {
                let message = format!("the score of review `{}` is no finite number", rows.ids[row]);
                return Err(StageError::new(message).help("the weights or the model are damaged"));
            }
            scores.push(scored);
        }
        if checkpoint.is_due() {
            keep(&mut checkpoint, &scores);
        }
        cx.progress(batch.rows.end as u64, Some(rows.len() as u64), "reviews");
        Ok(())
    })?;
    let predictions: Vec<Prediction> = scores
        .into_iter()
        .enumerate()
        .map(|(row, (score, is_positive))| Prediction {
            id: rows.ids[row].clone(),
            length: rows.lengths[row],
            label: rows.labels[row],
            score,
            prediction: u8::from(is_positive),
        })
        .collect();
    let positive = predictions.iter().filter(|row| row.prediction == 1).count();
    cx.metric("reviews", predictions.len() as f64);
    cx.metric("predicted_positive", positive as f64);
    Ok(predictions)
}

/// The pass from hidden states to those of last positions after all blocks.
struct Finishing<'a> {
    finisher: Box<dyn Finisher + 'a>,
    hidden: &'a Hidden,
}

impl Pass for Finishing<'_> {
    type Result = Vec<f32>;

    fn start(&mut self, batch: &Batch) -> Result<(), Failure> {
        let rows: Vec<usize> = batch.rows.clone().collect();
        self.finisher.start(self.hidden.states(&rows)?, &batch.offsets)
    }

    fn take(&mut self) -> Result<Vec<f32>, Failure> {
        self.finisher.take()
    }
}

/// What was said of the first reviews until the last attempt was cut off.
fn resume(checkpoint: &Checkpoint<'_>, reviews: usize) -> Vec<(f64, bool)> {
    let Some(bytes) = checkpoint.read() else { return Vec::new() };
    match serde_json::from_slice::<Vec<(f64, bool)>>(&bytes) {
        Ok(scores) if scores.len() <= reviews => {
            checkpoint.goes_on(&format!("review {}", scores.len()));
            scores
        }
        _ => {
            checkpoint.starts_over("the checkpoint is not of these reviews");
            Vec::new()
        }
    }
}

fn keep(checkpoint: &mut Checkpoint<'_>, scores: &[(f64, bool)]) {
    checkpoint.write(&format!("review {}", scores.len()), |file| {
        serde_json::to_writer(file, scores).map_err(|err| StageError::new("cannot write scores").because(err))
    });
}

/// Whether hidden states, weights and model belong together, as far as shapes can tell.
fn check_fit(hidden: &Hidden, weights: &Weights, model: Option<&ModelFile>) -> Result<(), StageError> {
    let (config, format, rows) = (weights.config(), hidden.format(), hidden.rows());
    let help = "feed the same `weights` to `encode` and to this stage";
    if format.n_embd != config.n_embd || format.blocks > config.n_layer {
        let message = format!(
            "the hidden states (after {} blocks, width {}) are not of these weights ({} blocks, width {})",
            format.blocks, format.n_embd, config.n_layer, config.n_embd
        );
        return Err(StageError::new(message).help(help));
    }
    if let Some(row) = (0..rows.len()).find(|row| rows.range(*row).is_empty()) {
        let message = format!("the prompt of review `{}` is empty", rows.ids[row]);
        return Err(StageError::new(message).help("give `tokenize` a `prefix` or a `suffix`"));
    }
    if let Some(first) = model.and_then(|model| model.trained_blocks().into_iter().next())
        && first < format.blocks
    {
        let message = format!(
            "the model changed block {}, but the hidden states already have {} blocks applied",
            first + 1,
            format.blocks
        );
        return Err(
            StageError::new(message).help("use hidden states of the `blocks` that the model was trained on")
        );
    }
    Ok(())
}
