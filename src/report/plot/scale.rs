//! From values to places, and the round values that an axis shows.

/// A straight map from values to places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::report) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Maps `low..=high` to `from..=to`; equal ends are moved apart, so that every value has a place.
    pub fn new((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let margin = if high > low { 0.0 } else { low.abs().max(1.0) / 2.0 };
        Self { low: low - margin, high: high + margin, from, to }
    }

    /// The place of `value`.
    pub fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// About `count` round values within the scale, each with its label.
    pub fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let step = round_step((self.high - self.low) / count.max(1) as f64);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let label = |value: f64| label(value, step, self.low.abs().max(self.high.abs()));
        (first..=last).map(|number| number as f64 * step).map(|value| (value, label(value))).collect()
    }
}

/// The least of 1, 2, 5, 10 times a power of ten that is not below `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// `value` with as many digits as tell it from its neighbour `step` away.
fn label(value: f64, step: f64, largest: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    match largest {
        ..1e-3 | 1e6.. => {
            let digits = (value.abs().log10().floor() - step.log10().floor()).max(0.0) as usize;
            format!("{value:.digits$e}")
        }
        _ => {
            let decimals = (-step.log10().floor()).max(0.0) as usize;
            format!("{value:.decimals$}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        Scale::new((low, high), (0.0, 1.0)).ticks(5).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_lie_within_the_scale() {
        assert_eq!(labels(0.0, 300.0), ["0", "100", "200", "300"]);
        assert_eq!(labels(0.62, 0.71), ["0.62", "0.64", "0.66", "0.68", "0.70"]);
        assert_eq!(labels(6e-5, 6e-4), ["2e-4", "4e-4", "6e-4"]);
        assert_eq!(labels(-1.0, 1.0), ["-1.0", "-0.5", "0", "0.5", "1.0"]);
        assert_eq!(labels(0.0, 2.5e6), ["0", "5e5", "1.0e6", "1.5e6", "2.0e6", "2.5e6"]);
    }

    #[test]
    fn a_single_value_has_a_place_in_the_middle() {
        let scale = Scale::new((3.0, 3.0), (0.0, 10.0));
        assert!((scale.at(3.0) - 5.0).abs() < 1e-12);
        assert!(!scale.ticks(5).is_empty());
    }

    #[test]
    fn a_scale_may_run_backwards() {
        let scale = Scale::new((0.0, 1.0), (200.0, 0.0));
        let places = [0.0, 0.25, 1.0].map(|value| scale.at(value).round() as i64);
        assert_eq!(places, [200, 150, 0]);
    }
}
