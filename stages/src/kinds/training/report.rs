//! What a training run reports to its stage.

use crate::{
    contract::StageCx,
    gpt2::training::{Evaluation, Step, Watch},
};

/// Bins of a histogram.
const BINS: usize = 40;

/// Turns what the loop does into metrics and progress.
pub(super) struct Report<'a> {
    cx: &'a StageCx<'a>,
}

impl<'a> Report<'a> {
    pub fn new(cx: &'a StageCx<'a>) -> Self {
        Self { cx }
    }
}

impl Watch for Report<'_> {
    fn step(&mut self, step: &Step<'_>) {
        self.cx.metric_at("loss", step.number, step.loss);
        self.cx.metric_at("learning_rate", step.number, step.learning_rate);
        self.cx.metric_at("gradient_norm", step.number, step.gradient_norm);
        self.cx.progress(step.number, Some(step.of), "updates");
    }

    fn evaluation(&mut self, evaluation: &Evaluation<'_>) {
        let number = evaluation.number;
        if let Some(validation) = evaluation.validation {
            self.cx.metric_at("validation_loss", number, validation.loss);
            self.cx.metric_at("validation_accuracy", number, validation.accuracy);
        }
        for (parameter, gradient) in evaluation.parameters.iter().zip(evaluation.gradients) {
            for (what, values) in [("parameter", parameter.values()), ("gradient", gradient)] {
                let name = format!("tensor.{}.{what}", parameter.name());
                self.cx.metric_at(&format!("{name}_norm"), number, norm(values));
                let (edges, counts) = histogram(values);
                self.cx.histogram_at(&name, number, &edges, &counts);
            }
        }
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt()
}

/// Counts in bins of equal width from the least to the largest value; where all are equal, in
/// one bin around it.
fn histogram(values: &[f32]) -> (Vec<f64>, Vec<u64>) {
    let (low, high) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
    let (low, high) = (f64::from(low), f64::from(high));
    if low >= high {
        let margin = if low == 0.0 { 1.0 } else { low.abs() / 2.0 };
        return (vec![low - margin, low + margin], vec![values.len() as u64]);
    }
    let width = (high - low) / BINS as f64;
    let edges = (0..=BINS).map(|bin| if bin == BINS { high } else { low + bin as f64 * width }).collect();
    let mut counts = vec![0; BINS];
    for value in values {
        let bin = ((f64::from(*value) - low) / width) as usize;
        counts[bin.min(BINS - 1)] += 1;
    }
    (edges, counts)
}

#[cfg(test)]
mod tests {
    use super::{BINS, histogram};

    #[test]
    fn every_value_is_counted_once_the_largest_in_the_last_bin() {
        let values: Vec<f32> = (0..=400).map(|value| value as f32 / 100.0 - 1.0).collect();
        let (edges, counts) = histogram(&values);
        assert_eq!((edges.len(), counts.len()), (BINS + 1, BINS));
        assert_eq!(counts.iter().sum::<u64>(), 401);
        assert_eq!((edges[0], edges[BINS]), (-1.0, 3.0));
        assert_eq!(counts[BINS - 1], 11);
    }

    #[test]
    fn equal_values_lie_in_one_bin_around_them() {
        assert_eq!(histogram(&[2.0; 3]), (vec![1.0, 3.0], vec![3]));
        assert_eq!(histogram(&[0.0]), (vec![-1.0, 1.0], vec![1]));
    }
}
