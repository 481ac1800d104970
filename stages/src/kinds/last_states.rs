//! What the remaining blocks and the final norm make of the last position of each prompt.

use crate::{
    contract::{MetricDoc, StageCx, StageError},
    data::{Hidden, Prediction},
    gpt2::{Forward, ModelFile, Weights, blocks_from, final_norm},
};

use super::encode::batches;

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
    hidden: &Hidden,
    weights: &Weights,
    model: Option<&ModelFile>,
    score: impl Fn(&Forward, &[f32]) -> Vec<(f64, bool)>,
) -> Result<Vec<Prediction>, StageError> {
    let (config, format, rows) = (weights.config(), hidden.format(), hidden.rows());
    check_fit(hidden, weights, model)?;
    let blocks = blocks_from(weights, model, format.blocks);
    let norm = final_norm(weights, model);
    let mut forward = Forward::new(config, format.activation);
    let mut predictions = Vec::with_capacity(rows.len());
    let mut states = Vec::new();
    for batch in batches(&rows.offsets) {
        states.clear();
        batch.clone().try_for_each(|row| hidden.append_row(row, &mut states))?;
        let first = rows.offsets[batch.start];
        let offsets: Vec<usize> = rows.offsets[batch.start..=batch.end].iter().map(|at| at - first).collect();
        let last = forward.last_hidden(&blocks, &norm, &mut states, &offsets);
        for (row, (score, is_positive)) in batch.clone().zip(score(&forward, &last)) {
            let id = rows.ids[row].clone();
            if !score.is_finite() {
                let message = format!("the score of review `{id}` is no finite number");
                return Err(StageError::new(message).help("the weights or the model are damaged"));
            }
            let (length, label) = (rows.lengths[row], rows.labels[row]);
            predictions.push(Prediction { id, length, label, score, prediction: u8::from(is_positive) });
        }
        cx.progress(batch.end as u64, Some(rows.len() as u64), "reviews");
    }
    let positive = predictions.iter().filter(|row| row.prediction == 1).count();
    cx.metric("reviews", predictions.len() as f64);
    cx.metric("predicted_positive", positive as f64);
    Ok(predictions)
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
