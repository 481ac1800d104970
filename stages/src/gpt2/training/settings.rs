//! What a training run is told.

use super::{AdamW, Schedule};

/// How long a run lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Passes over the training rows.
    Epochs(u64),
    /// Updates.
    Updates(u64),
}

/// The numbers of a training run; the kinds document and check them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainSettings {
    /// Highest learning rate.
    pub lr: f64,
    /// Learning rate after the decay.
    pub min_lr: f64,
    /// Updates of warmup.
    pub warmup: u64,
    /// Update at which the decay ends; `None` for the last one.
    pub decay: Option<u64>,
    /// How long to train.
    pub length: Length,
    /// Rows of an update.
    pub batch: usize,
    /// Rows that are computed together.
    pub micro_batch: usize,
    /// The optimizer.
    pub adamw: AdamW,
    /// Largest norm of the gradient; 0 for no limit.
    pub clip: f64,
    /// Share dropped in the trained blocks.
    pub dropout: f64,
    /// Share dropped at the input of low-rank additions.
    pub lora_dropout: f64,
    /// Updates between evaluations.
    pub eval_every: u64,
}

impl TrainSettings {
    /// Updates in all, when there are `rows` to train on; at least 1.
    pub fn updates(&self, rows: usize) -> u64 {
        match self.length {
            Length::Updates(updates) => updates.max(1),
            Length::Epochs(epochs) => epochs.saturating_mul(rows as u64).div_ceil(self.batch as u64).max(1),
        }
    }

    /// Rows to take in all, when there are `rows` to train on and their passes set the end.
    pub(super) fn end(&self, rows: usize) -> Option<u64> {
        match self.length {
            Length::Updates(_) => None,
            Length::Epochs(epochs) => Some(epochs.saturating_mul(rows as u64)),
        }
    }

    /// The learning rates of a run of `updates`.
    pub fn schedule(&self, updates: u64) -> Schedule {
        let decay = self.decay.unwrap_or(updates).max(self.warmup);
        Schedule { peak: self.lr, floor: self.min_lr, warmup: self.warmup, decay }
    }
}
