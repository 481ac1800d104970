//! The learning rate over the updates.

use std::f64::consts::PI;

/// Linear warmup, then a cosine that falls from `peak` to `floor`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Learning rate at the end of the warmup.
    pub peak: f64,
    /// Learning rate after the decay.
    pub floor: f64,
    /// Updates of linear warmup.
    pub warmup: u64,
    /// Updates after which the decay has ended, counted from the first; at least `warmup`.
    pub decay: u64,
}

impl Schedule {
    /// Returns the learning rate of update `step`, counted from 0.
    ///
    /// The result lies in `floor..=peak` once warm.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        if step > self.decay || self.decay == self.warmup {
            return self.floor;
        }
        let passed = (step - self.warmup) as f64 / (self.decay - self.warmup) as f64;
        self.floor + 0.5 * (self.peak - self.floor) * (1.0 + (PI * passed).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    const PUBLISHED: Schedule = Schedule { peak: 6e-4, floor: 6e-5, warmup: 5, decay: 25 };

    #[test]
    fn the_rate_rises_in_equal_parts_then_falls_as_half_a_cosine_and_stays() {
        assert!((PUBLISHED.at(0) - 1.2e-4).abs() < 1e-12);
        assert!((PUBLISHED.at(4) - 6e-4).abs() < 1e-12);
        assert!((PUBLISHED.at(5) - 6e-4).abs() < 1e-12);
        assert!((PUBLISHED.at(15) - 3.3e-4).abs() < 1e-12);
        assert!((PUBLISHED.at(25) - 6e-5).abs() < 1e-12);
        assert!((PUBLISHED.at(26) - 6e-5).abs() < 1e-12);
    }

    #[test]
    fn without_warmup_the_first_update_has_the_peak() {
        assert!((Schedule { warmup: 0, ..PUBLISHED }.at(0) - 6e-4).abs() < 1e-12);
    }

    #[test]
    fn a_decay_that_ends_with_the_warmup_leaves_the_floor() {
        let abrupt = Schedule { decay: 5, ..PUBLISHED };
        assert!((abrupt.at(4) - 6e-4).abs() < 1e-12);
        assert!((abrupt.at(5) - 6e-5).abs() < 1e-12);
    }
}
