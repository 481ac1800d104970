//! The hidden states that `encode` has computed so far, kept where a kill does not remove them.
//!
//! The states of all reviews take tens of gigabytes, so a checkpoint holds none of them: the file of
//! states is itself the checkpoint's, and becomes the output when it is whole. A position is kept
//! only once all before it is on the disk, with a hash of it, and counts only where the hash is right.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Checkpoint,
    contract::{StageCx, StageError},
    data::{HiddenFormat, HiddenWriter, Rows},
    gpt2::Encoded,
};

/// A file of hidden states that is being written, row by row.
pub struct PartialStates<'a> {
    checkpoint: Checkpoint<'a>,
    path: PathBuf,
    writer: HiddenWriter,
    rows: usize,
    /// Rows written.
    done: usize,
    largest: f32,
    /// Rows that the last checkpoint holds.
    kept: usize,
    /// Rows that `hasher` has seen.
    hashed: usize,
    hasher: blake3::Hasher,
}

/// Where an attempt stood.
#[derive(Serialize, Deserialize)]
struct Position {
    /// Rows written.
    rows: usize,
    /// The largest magnitude in them, as bits.
    largest: u32,
    /// BLAKE3 of their stored states.
    hash: String,
}

impl<'a> PartialStates<'a> {
    /// Goes on with the file of an attempt that was cut off, or begins one for `rows`.
    ///
    /// `decides_bits` is what of the device must be equal to go on.
    pub fn open(
        cx: &'a StageCx<'a>,
        rows: &Rows,
        format: HiddenFormat,
        decides_bits: String,
    ) -> Result<Self, StageError> {
        let checkpoint = Checkpoint::new(cx, decides_bits);
        let path = cx.checkpoint().join("hidden");
        if let Some(bytes) = checkpoint.read() {
            match reopen(&path, rows, format, &bytes) {
                Some((writer, position, hasher)) => {
                    let Position { rows: done, largest, .. } = position;
                    checkpoint.goes_on(&format!("review {done}"));
                    let (rows, largest) = (rows.len(), f32::from_bits(largest));
                    let (kept, hashed) = (done, done);
                    return Ok(Self { checkpoint, path, writer, rows, done, largest, kept, hashed, hasher });
                }
                None => checkpoint.starts_over("the states kept so far are damaged"),
            }
        }
        // What is there may be a stored result by now: it is left alone and loses only this name.
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(StageError::io("remove", &path, err));
            }
            _ => {}
        }
        let (writer, rows) = (HiddenWriter::create(&path, rows, format)?, rows.len());
        let hasher = blake3::Hasher::new();
        Ok(Self { checkpoint, path, writer, rows, done: 0, largest: 0.0, kept: 0, hashed: 0, hasher })
    }

    /// Rows that need not be computed.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Writes the states of the next `rows`.
    pub fn write(&mut self, rows: Range<usize>, states: &Encoded) -> Result<(), StageError> {
        self.writer.write(rows.clone(), (*states.bytes).as_ref())?;
        self.largest = states.magnitudes.iter().copied().fold(self.largest, f32::max);
        self.done = rows.end;
        if self.checkpoint.is_due() {
            self.keep();
        }
        Ok(())
    }

    /// Keeps the position; returns whether that worked.
    fn keep(&mut self) -> bool {
        let Self { writer, done, hashed, hasher, largest, .. } = self;
        let is_kept = self.checkpoint.write(&format!("review {done}"), |file| {
            writer.sync()?;
            writer.hash_rows(*hashed..*done, hasher)?;
            *hashed = *done;
            let hash = hasher.finalize().to_string();
            let position = Position { rows: *done, largest: largest.to_bits(), hash };
            serde_json::to_writer(file, &position)
                .map_err(|err| StageError::new("cannot write the position").because(err))
        });
        if is_kept {
            self.kept = self.done;
        }
        is_kept
    }

    /// Gives the whole file to `output` and returns the largest magnitude in it.
    ///
    /// Of a long stage the checkpoint stays whole too, until its result is in the cache.
    pub fn finish(mut self, output: &Path) -> Result<f32, StageError> {
        assert_eq!(self.done, self.rows, "every row is written");
        let is_long = self.kept > 0;
        let stays = is_long && (self.kept == self.done || self.keep());
        if !(stays && fs::hard_link(&self.path, output).is_ok()) {
            fs::rename(&self.path, output).map_err(|err| StageError::io("create", output, err))?;
        }
        Ok(self.largest)
    }
}

/// The file at `path` if it holds what the checkpoint in `bytes` says.
fn reopen(
    path: &Path,
    rows: &Rows,
    format: HiddenFormat,
    bytes: &[u8],
) -> Option<(HiddenWriter, Position, blake3::Hasher)> {
    let position: Position = serde_json::from_slice(bytes).ok()?;
    let writer = HiddenWriter::reopen(path, rows, format, position.rows).ok()?;
    let mut hasher = blake3::Hasher::new();
    writer.hash_rows(0..position.rows, &mut hasher).ok()?;
    (hasher.finalize().to_string() == position.hash).then_some((writer, position, hasher))
}
