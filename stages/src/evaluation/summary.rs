//! Every figure of one classifier, overall and by review length.

use super::{Bins, Counts, area_under_curve};
use crate::data::Prediction;

/// The figures of one classifier.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Over all reviews.
    pub overall: Counts,
    /// Area under the ROC curve, ties half.
    pub auc: Option<f64>,
    /// By review length, rising.
    pub bins: Vec<BinSummary>,
    /// Reviews that no bin holds; they count in `overall` only.
    pub outside_bins: u64,
}

/// The figures for reviews of one range of lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BinSummary {
    /// Lengths above this many tokens,
    pub above: u32,
    /// up to and including so many.
    pub up_to: u32,
    /// What was decided there.
    pub counts: Counts,
}

impl BinSummary {
    /// The bin as mathematicians write it, such as `(256, 512]`.
    pub fn interval(&self) -> String {
        format!("({}, {}]", self.above, self.up_to)
    }

    /// The bin as a part of a metric's name, such as `256-512`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.above, self.up_to)
    }
}

/// What is decided of a review: its `prediction`, or with a threshold whether its score
/// reaches that.
pub fn decide(prediction: &Prediction, threshold: Option<f64>) -> u8 {
    threshold.map_or(prediction.prediction, |threshold| u8::from(prediction.score >= threshold))
}

impl Summary {
    /// The figures of `predictions`.
    pub fn new(predictions: &[Prediction], bins: &Bins, threshold: Option<f64>) -> Self {
        let mut overall = Counts::default();
        let mut by_bin: Vec<BinSummary> = bins
            .iter()
            .map(|(above, up_to)| BinSummary { above, up_to, counts: Counts::default() })
            .collect();
        let mut outside_bins = 0;
        for row in predictions {
            let decision = decide(row, threshold);
            overall.add(row.label, decision);
            match bins.index(row.length) {
                Some(index) => by_bin[index].counts.add(row.label, decision),
                None => outside_bins += 1,
            }
        }
        let auc = area_under_curve(predictions.iter().map(|row| (row.score, row.label)));
        Self { overall, auc, bins: by_bin, outside_bins }
    }
}
