//! Two classifiers on the same reviews.

use serde::Serialize;

/// How two classifiers, `a` and `b`, do on the same reviews.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Paired {
    /// Reviews that both have right.
    pub both_right: u64,
    /// Reviews that only `a` has right.
    pub a_right_b_wrong: u64,
    /// Reviews that only `b` has right.
    pub a_wrong_b_right: u64,
    /// Reviews that both have wrong.
    pub both_wrong: u64,
}

impl Paired {
    /// Counts one review.
    pub fn add(&mut self, a_is_right: bool, b_is_right: bool) {
        match (a_is_right, b_is_right) {
            (true, true) => self.both_right += 1,
            (true, false) => self.a_right_b_wrong += 1,
            (false, true) => self.a_wrong_b_right += 1,
            (false, false) => self.both_wrong += 1,
        }
    }

    /// All reviews.
    pub fn total(&self) -> u64 {
        self.both_right + self.a_right_b_wrong + self.a_wrong_b_right + self.both_wrong
    }

    /// The accuracy of `b` less that of `a`; nothing for 0/0.
    pub fn accuracy_difference(&self) -> Option<f64> {
        let gained = self.a_wrong_b_right as f64 - self.a_right_b_wrong as f64;
        (self.total() > 0).then(|| gained / self.total() as f64)
    }

    /// The chance of a difference as large as this, or larger, if neither were better.
    pub fn p_value(&self) -> f64 {
        mcnemar_exact(self.a_right_b_wrong, self.a_wrong_b_right)
    }
}

/// Returns the p-value of `McNemar`'s exact test, two-sided: that of `b` against `c` flips of a
/// fair coin, at most 1.
///
/// Where neither classifier is better, each review that only one of them has right is as likely
/// to be the one's as the other's (Q. `McNemar`, Psychometrika 12, 1947, 153–157; the sign test on
/// discordant pairs in place of its χ² approximation).
pub fn mcnemar_exact(b: u64, c: u64) -> f64 {
    let (fewer, flips) = (b.min(c), b + c);
    // The likeliest term of the tail, by its logarithm since 2^-flips soon is no f64.
    let log_choose: f64 = (1..=fewer).map(|i| ((flips - fewer + i) as f64 / i as f64).ln()).sum();
    let largest = (log_choose - flips as f64 * std::f64::consts::LN_2).exp();
    let (mut term, mut tail) = (largest, 0.0);
    for heads in (0..=fewer).rev() {
        tail += term;
        term *= heads as f64 / (flips - heads + 1) as f64;
    }
    (2.0 * tail).min(1.0)
}
