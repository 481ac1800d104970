//! Which rows are held out for validation, and which rows each update takes.
//!
//! The published run drew every micro-batch afresh; here each pass over the rows is a shuffle, so
//! that every row is seen equally often.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Streams of the stage's seed, so that one draw never shifts another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Split = 1,
    Order = 2,
    Head = 3,
    Lora = 4,
}

/// A generator of `seed` of its own for `stream`; `part` numbers its parts, such as passes.
pub(super) fn generator(seed: u64, stream: Stream, part: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream((stream as u64) << 32 | part);
    generator
}

/// Rows to train on and rows held out, both rising.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Rows to train on.
    pub training: Vec<usize>,
    /// Rows held out.
    pub validation: Vec<usize>,
}

impl Split {
    /// Holds out `share` of the rows, of each label the same share, rounded to the nearest row.
    ///
    /// A `share` above 0 holds out at least one row of each label that has two.
    pub fn new(labels: &[u8], share: f64, seed: u64) -> Self {
        let mut generator = generator(seed, Stream::Split, 0);
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        for label in [0, 1] {
            let mut rows: Vec<usize> = (0..labels.len()).filter(|row| labels[*row] == label).collect();
            rows.shuffle(&mut generator);
            let mut held_out = (share * rows.len() as f64).round() as usize;
            if share > 0.0 && rows.len() >= 2 {
                held_out = held_out.clamp(1, rows.len() - 1);
            }
            let rest = rows.split_off(held_out.min(rows.len()));
            validation.extend(rows);
            training.extend(rest);
        }
        training.sort_unstable();
        validation.sort_unstable();
        Self { training, validation }
    }
}

/// The rows of each update.
#[derive(Debug, Clone)]
pub enum Order {
    /// Passes over `rows`, each in an order of its own, one after the other without a gap: an
    /// update may take the end of one pass and the start of the next.
    Shuffled {
        /// The rows to take.
        rows: Vec<usize>,
        /// Decides every pass.
        seed: u64,
    },
    /// Update `i` takes the rows at `i`; after the last update it starts again.
    Given(Vec<Vec<usize>>),
}

impl Order {
    /// Rows of one pass.
    pub fn training_rows(&self) -> usize {
        match self {
            Order::Shuffled { rows, .. } => rows.len(),
            Order::Given(updates) => updates.iter().map(Vec::len).sum(),
        }
    }

    /// The rows of update `step`: `batch` of them, fewer where row number `end` of the whole
    /// sequence comes first.
    ///
    /// # Panics
    ///
    /// If there are no rows.
    pub fn rows(&self, step: u64, batch: usize, end: Option<u64>) -> Vec<usize> {
        let (rows, seed) = match self {
            Order::Given(updates) => return updates[(step % updates.len() as u64) as usize].clone(),
            Order::Shuffled { rows, seed } => (rows, *seed),
        };
        let first = step * batch as u64;
        let past = end.map_or(first + batch as u64, |end| end.min(first + batch as u64));
        let count = rows.len() as u64;
        let mut taken = Vec::with_capacity(batch);
        let mut at = first;
        while at < past {
            let mut pass = rows.clone();
            pass.shuffle(&mut generator(seed, Stream::Order, at / count));
            let stop = past.min((at / count + 1) * count);
            taken.extend_from_slice(&pass[(at % count) as usize..][..(stop - at) as usize]);
            at = stop;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::{Order, Split};

    #[test]
    fn the_split_is_stratified_and_covers_every_row_once() {
        let labels: Vec<u8> = (0..200).map(|row| u8::from(row % 4 == 0)).collect();
        let split = Split::new(&labels, 0.15, 7);
        let positive = |rows: &[usize]| rows.iter().filter(|row| labels[**row] == 1).count();
        assert_eq!((split.validation.len(), positive(&split.validation)), (31, 8));
        let mut all = [split.training.clone(), split.validation.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
        assert_ne!(split, Split::new(&labels, 0.15, 8));
        assert_eq!(split, Split::new(&labels, 0.15, 7));
    }

    #[test]
    fn no_share_holds_nothing_out_and_a_tiny_share_one_row_a_label() {
        let labels = [0, 1, 0, 1, 1];
        assert!(Split::new(&labels, 0.0, 1).validation.is_empty());
        let tiny = Split::new(&labels, 0.01, 1);
        assert_eq!(tiny.validation.len(), 2);
    }

    #[test]
    fn each_pass_takes_every_row_once_and_passes_differ() {
        let order = Order::Shuffled { rows: (10..17).collect(), seed: 3 };
        let taken: Vec<usize> = (0..5).flat_map(|step| order.rows(step, 3, Some(14))).collect();
        assert_eq!(taken.len(), 14);
        let (one, two) = taken.split_at(7);
        assert_ne!(one, two);
        for pass in [one, two] {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, (10..17).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_larger_than_the_rows_takes_several_passes() {
        let order = Order::Shuffled { rows: vec![0, 1, 2], seed: 3 };
        assert_eq!(order.rows(0, 8, None).len(), 8);
        assert_eq!(order.rows(2, 8, Some(18)).len(), 2);
    }
}
