//! Which prompts are computed together, one batch after the other.

use std::ops::Range;

use crate::{
    contract::{StageCx, StageError},
    gpt2::Failure,
};

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
    /// The rows from `start` on that have together at most `limit` positions, or one row where it
    /// alone has more.
    fn from(start: usize, offsets: &[usize], limit: usize) -> Self {
        let fits = |end: &usize| offsets[*end] - offsets[start] <= limit;
        let end = (start + 1..offsets.len()).take_while(fits).last().unwrap_or(start + 1);
        let positions = offsets[start]..offsets[end];
        let offsets = offsets[start..=end].iter().map(|at| at - positions.start).collect();
        Self { rows: start..end, positions, offsets }
    }
}

/// A computation over batches. A batch is taken before the next is started.
pub trait Pass {
    /// What comes of a batch.
    type Result;
    /// Starts on a batch; where it fails for lack of memory, a smaller one is tried.
    fn start(&mut self, batch: &Batch) -> Result<(), Failure>;
    /// The result of the batch that was started.
    fn take(&mut self) -> Result<Self::Result, Failure>;
}

/// Computes the rows from `done` on in batches of at most `limit` positions, and gives each with its
/// result to `then`, which runs while the device computes the next.
///
/// An attempt that goes on after whole batches has the batches that it would have had. Where memory
/// does not suffice the limit is halved from there on, and the stage's log says so.
pub fn in_batches<P: Pass>(
    cx: &StageCx<'_>,
    offsets: &[usize],
    done: usize,
    mut limit: usize,
    pass: &mut P,
    mut then: impl FnMut(&Batch, P::Result) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let rows = offsets.len() - 1;
    let (mut next, mut running) = (done, None);
    loop {
        let finished = match running.take() {
            None => None,
            Some(batch) => Some((batch, pass.take()?)),
        };
        while next < rows && running.is_none() {
            let batch = Batch::from(next, offsets, limit);
            match pass.start(&batch) {
                Ok(()) => {
                    next = batch.rows.end;
                    running = Some(batch);
                }
                Err(Failure::OutOfMemory) if batch.rows.len() > 1 => {
                    limit = batch.positions.len() / 2;
                    cx.log(format!(
                        "no memory for a batch of {} positions: goes on with at most {limit}",
                        batch.positions.len()
                    ));
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        match finished {
            Some((batch, result)) => then(&batch, result)?,
            None if running.is_none() => return Ok(()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(offsets: &[usize], done: usize, limit: usize) -> Vec<Batch> {
        let (mut batches, mut next) = (Vec::new(), done);
        while next + 1 < offsets.len() {
            batches.push(Batch::from(next, offsets, limit));
            next = batches.last().unwrap().rows.end;
        }
        batches
    }

    #[test]
    fn what_goes_on_has_the_batches_of_the_whole() {
        let offsets: Vec<usize> = (0..=20).map(|row| row * 900).collect();
        let whole = all(&offsets, 0, 2048);
        assert_eq!(whole.len(), 10);
        assert_eq!(all(&offsets, 6, 2048), whole[3..]);
        assert_eq!((whole[3].positions.clone(), &whole[3].offsets[..]), (5400..7200, &[0, 900, 1800][..]));
        assert_eq!(all(&offsets, 20, 2048), []);
    }

    #[test]
    fn a_row_longer_than_the_limit_is_a_batch_of_its_own() {
        let batches = all(&[0, 3, 13, 14], 0, 5);
        assert_eq!(batches.iter().map(|batch| batch.rows.clone()).collect::<Vec<_>>(), [0..1, 1..2, 2..3]);
    }
}
