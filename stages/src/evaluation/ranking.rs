//! How well scores tell positives from negatives, whatever the threshold.

use std::cmp::Ordering;

/// Returns the area under the ROC curve: the chance that a positive has a higher score than a
/// negative, ties counting half. Nothing if there are no positives or no negatives.
///
/// `items` are (score, label) with label 1 for positive.
///
/// # Panics
///
/// If a score is not a number.
pub fn area_under_curve(items: impl IntoIterator<Item = (f64, u8)>) -> Option<f64> {
    let mut items: Vec<_> = items.into_iter().collect();
    items.sort_by(|a, b| a.0.partial_cmp(&b.0).expect("scores are numbers"));
    let (mut positives, mut negatives, mut twice_won) = (0u128, 0u128, 0u128);
    for tied in items.chunk_by(|a, b| a.0.partial_cmp(&b.0) == Some(Ordering::Equal)) {
        let tied_positives = tied.iter().filter(|(_, label)| *label == 1).count() as u128;
        let tied_negatives = tied.len() as u128 - tied_positives;
        twice_won += tied_positives * (2 * negatives + tied_negatives);
        positives += tied_positives;
        negatives += tied_negatives;
    }
    let pairs = positives * negatives;
    (pairs > 0).then(|| twice_won as f64 / (2 * pairs) as f64)
}
