//! Seeded draws whose values stay the same across versions of crates.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Draws numbers that depend on a seed and the number of a stream alone.
///
/// Streams of one seed are independent, so what one of them draws never moves another.
#[derive(Debug, Clone)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The draws of `stream` under `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut source = ChaCha8Rng::seed_from_u64(seed);
        source.set_stream(stream);
        Self(source)
    }

    /// A number in `0..limit`; the bias is below `limit / 2^64`.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        assert!(limit > 0, "nothing to draw from");
        ((u128::from(self.0.next_u64()) * limit as u128) >> 64) as usize
    }

    /// Whether an event of `percent` in 100 happens.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`.
    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// The indices `0..len` in a drawn order.
    pub fn order(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for place in 0..len {
            let other = place + self.below(len - place);
            order.swap(place, other);
        }
        order
    }
}
