//! The four counts of a two-way decision, and the ratios that follow from them.

use serde::{Deserialize, Serialize};

/// The standard normal quantile of a two-sided 95 % interval.
const Z: f64 = 1.959_964;

/// How often positives and negatives were called positive and negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Positives called positive.
    pub tp: u64,
    /// Negatives called positive.
    pub fp: u64,
    /// Positives called negative.
    #[serde(rename = "fn")]
    pub fn_: u64,
    /// Negatives called negative.
    pub tn: u64,
}

impl Counts {
    /// Counts one decision; `label` and `prediction` are 1 for positive.
    pub fn add(&mut self, label: u8, prediction: u8) {
        match (label == 1, prediction == 1) {
            (true, true) => self.tp += 1,
            (false, true) => self.fp += 1,
            (true, false) => self.fn_ += 1,
            (false, false) => self.tn += 1,
        }
    }

    /// All decisions.
    pub fn total(&self) -> u64 {
        self.tp + self.fp + self.fn_ + self.tn
    }

    /// Share of decisions that are right.
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.tp + self.tn, self.total())
    }

    /// Share of positives among what was called positive.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.tp, self.tp + self.fp)
    }

    /// Share of positives that were called positive.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.tp, self.tp + self.fn_)
    }

    /// Harmonic mean of precision and recall.
    pub fn f1(&self) -> Option<f64> {
        ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn_)
    }

    /// The 95 % interval of the accuracy.
    pub fn accuracy_interval(&self) -> Option<(f64, f64)> {
        wilson_interval(self.tp + self.tn, self.total())
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Returns the Wilson score interval (95 %) of a share of `part` in `whole`; nothing for 0/0.
pub fn wilson_interval(part: u64, whole: u64) -> Option<(f64, f64)> {
    let share = ratio(part, whole)?;
    let (n, z2) = (whole as f64, Z * Z);
    let center = share + z2 / (2.0 * n);
    let reach = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    Some((((center - reach) / scale).max(0.0), ((center + reach) / scale).min(1.0)))
}
