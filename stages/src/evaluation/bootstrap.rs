//! How far a difference could have come out otherwise: the paired bootstrap.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use rayon::prelude::*;

use super::Paired;

/// Numbers drawn at a time.
const CHUNK: usize = 1024;

/// Returns the 95 % interval of the accuracy of `b` less that of `a`: the 2.5th and 97.5th
/// percentile of `resamples` differences, each of as many reviews as there are, drawn with
/// replacement, each review with what both classifiers made of it (B. Efron and R. J. Tibshirani,
/// An Introduction to the Bootstrap, 1993, chapter 13). Nothing without reviews.
///
/// Resample `i` draws from stream `i` of `seed`, so threads change nothing. A review is one of
/// four kinds, which is all that a difference depends on, so a draw picks a kind; its odds are exact
/// to 2⁻³².
///
/// # Panics
///
/// If there are 2³² reviews or more.
pub fn bootstrap_interval(paired: &Paired, resamples: usize, seed: u64) -> Option<(f64, f64)> {
    let total = paired.total();
    if total == 0 || resamples == 0 {
        return None;
    }
    assert!(u32::try_from(total).is_ok(), "too many reviews to resample");
    // Draws below the first limit are reviews that only `a` has right, from there to the second only `b`.
    let share = |count: u64| u32::try_from((count << 32) / total).unwrap_or(u32::MAX);
    let only_a = share(paired.a_right_b_wrong);
    let either = share(paired.a_right_b_wrong + paired.a_wrong_b_right);
    let mut gains: Vec<i64> = (0..resamples as u64)
        .into_par_iter()
        .map(|resample| {
            let mut source = ChaCha8Rng::seed_from_u64(seed);
            source.set_stream(resample);
            let (mut gain, mut left) = (0i64, total as usize);
            let mut bytes = [0u8; 4 * CHUNK];
            while left > 0 {
                let drawn = &mut bytes[..4 * left.min(CHUNK)];
                source.fill_bytes(drawn);
                let (mut below_a, mut below_either) = (0u32, 0u32);
                for number in drawn.as_chunks::<4>().0 {
                    let number = u32::from_le_bytes(*number);
                    below_a += u32::from(number < only_a);
                    below_either += u32::from(number < either);
                }
                gain += i64::from(below_either) - 2 * i64::from(below_a);
                left -= drawn.len() / 4;
            }
            gain
        })
        .collect();
    gains.sort_unstable();
    let at = |share: f64| quantile(&gains, share) / total as f64;
    Some((at(0.025), at(0.975)))
}

/// The value below which a `share` of the rising `values` lies, by straight lines between them.
fn quantile(values: &[i64], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    below as f64 + place.fract() * (above - below) as f64
}
