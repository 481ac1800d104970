//! Which prompts are computed together.

use std::ops::Range;

/// Positions of a batch: enough for matrix products at full speed. Prompts lie one after the
/// other without padding, so batches need not be of equal lengths.
const BATCH_POSITIONS: usize = 2048;

/// Rows that are computed together.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The rows.
    pub rows: Range<usize>,
    /// Their positions among those of all rows.
    pub positions: Range<usize>,
    /// Where each row begins among the positions of the batch, and where the last one ends.
    pub offsets: Vec<usize>,
}

impl Batch {
    fn new(rows: Range<usize>, offsets: &[usize]) -> Self {
        let positions = offsets[rows.start]..offsets[rows.end];
        let offsets = offsets[rows.start..=rows.end].iter().map(|at| at - positions.start).collect();
        Self { rows, positions, offsets }
    }
}

/// Cuts rows into batches of at most [`BATCH_POSITIONS`] positions, or one row where it alone has
/// more, and leaves out those before row `done`.
///
/// An attempt that goes on after whole batches has the batches that it would have had.
pub fn batches(offsets: &[usize], done: usize) -> Vec<Batch> {
    let (mut batches, mut start, rows) = (Vec::new(), 0, offsets.len() - 1);
    for row in 1..=rows {
        let is_full = row < rows && offsets[row + 1] - offsets[start] > BATCH_POSITIONS;
        if row == rows || is_full {
            batches.push(Batch::new(start..row, offsets));
            start = row;
        }
    }
    batches.retain(|batch| batch.rows.start >= done);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_has_the_batches_of_the_whole() {
        let offsets: Vec<usize> = (0..=20).map(|row| row * 900).collect();
        let whole = batches(&offsets, 0);
        assert_eq!(whole.len(), 10);
        assert_eq!(batches(&offsets, 6), whole[3..]);
        assert_eq!((whole[3].positions.clone(), &whole[3].offsets[..]), (5400..7200, &[0, 900, 1800][..]));
        assert_eq!(batches(&offsets, 20), []);
    }
}
