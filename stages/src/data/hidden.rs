//! Hidden states of prompts after some blocks, ragged, without padding.
//!
//! Safetensors, metadata `format` = `pipe.hidden.1`, `blocks`, `activation`, `dtype`: the tensor
//! `hidden` (F16 or F32, `[positions, n_embd]`) beside the tensors of [`Rows`]. Rows are written
//! and read one at a time, so neither side holds the file in memory.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytemuck::Pod;
use half::f16;
use rayon::prelude::*;
use safetensors::Dtype;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Rows, States,
    tensor_file::{self, FORMAT},
};
use crate::{contract::StageError, gpt2::Activation, gpt2::map};

/// The metadata entry `format` of a hidden states file.
const HIDDEN_FORMAT: &str = "pipe.hidden.1";

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HiddenType {
    /// 16 bits: half the disk, 11 significant bits, magnitudes up to 65,504.
    #[default]
    F16,
    /// 32 bits: as computed.
    F32,
}

impl HiddenType {
    /// The largest magnitude that can be stored.
    pub fn largest(self) -> f32 {
        match self {
            HiddenType::F16 => f16::MAX.to_f32(),
            HiddenType::F32 => f32::MAX,
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            HiddenType::F16 => 2,
            HiddenType::F32 => 4,
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            HiddenType::F16 => Dtype::F16,
            HiddenType::F32 => Dtype::F32,
        }
    }
}

impl fmt::Display for HiddenType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HiddenType::F16 => "f16",
            HiddenType::F32 => "f32",
        })
    }
}

/// What the numbers of a hidden states file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiddenFormat {
    /// Blocks that were applied; 0 for the embeddings alone.
    pub blocks: usize,
    /// Width of a state.
    pub n_embd: usize,
    /// The form of GELU of the applied blocks, and so of those that follow.
    pub activation: Activation,
    /// How numbers are stored.
    pub dtype: HiddenType,
}

/// Writes a hidden states file row by row, in any order and from any thread.
#[derive(Debug)]
pub struct HiddenWriter {
    file: File,
    path: PathBuf,
    format: HiddenFormat,
    offsets: Vec<usize>,
    start: u64,
}

/// The bytes of a file around its states.
struct Frame {
    before: Vec<u8>,
    after: Vec<u8>,
    /// Where `after` begins.
    end: u64,
}

impl Frame {
    fn new(rows: &Rows, format: HiddenFormat) -> Self {
        let metadata: BTreeMap<String, String> = [
            (FORMAT, HIDDEN_FORMAT.to_owned()),
            ("blocks", format.blocks.to_string()),
            ("activation", format.activation.to_string()),
            ("dtype", format.dtype.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let shape = [rows.positions(), format.n_embd];
        let tensors = rows.to_tensors();
        // Before the first U8 tensor, so that every tensor is aligned.
        let (wide, narrow) =
            tensors.split_at(tensors.iter().take_while(|(_, t)| t.dtype != Dtype::U8).count());
        let shapes: Vec<(&str, Dtype, &[usize])> = wide
            .iter()
            .map(|(name, tensor)| (*name, tensor.dtype, tensor.shape.as_slice()))
            .chain([("hidden", format.dtype.dtype(), shape.as_slice())])
            .chain(narrow.iter().map(|(name, tensor)| (*name, tensor.dtype, tensor.shape.as_slice())))
            .collect();
        let mut before = tensor_file::header(&metadata, &shapes);
        for (_, tensor) in wide {
            before.extend_from_slice(&tensor.bytes);
        }
        let after: Vec<u8> = narrow.iter().flat_map(|(_, tensor)| tensor.bytes.iter().copied()).collect();
        let end = before.len() as u64 + (shape[0] * shape[1] * format.dtype.bytes()) as u64;
        Self { before, after, end }
    }

    fn length(&self) -> u64 {
        self.end + self.after.len() as u64
    }

    fn write(&self, file: &File) -> io::Result<()> {
        file.set_len(self.length())?;
        file.write_all_at(&self.before, 0)?;
        file.write_all_at(&self.after, self.end)
    }

    fn is_around(&self, file: &File) -> io::Result<bool> {
        if file.metadata()?.len() != self.length() {
            return Ok(false);
        }
        let (mut before, mut after) = (vec![0; self.before.len()], vec![0; self.after.len()]);
        file.read_exact_at(&mut before, 0)?;
        file.read_exact_at(&mut after, self.end)?;
        Ok(before == self.before && after == self.after)
    }
}

impl HiddenWriter {
    /// Creates the file at `path` for `rows`; their states are zeros until written.
    pub fn create(path: &Path, rows: &Rows, format: HiddenFormat) -> Result<Self, StageError> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.map_err(|err| StageError::io("create", path, err))?;
        let frame = Frame::new(rows, format);
        frame.write(&file).map_err(|err| StageError::io("write", path, err))?;
        Ok(Self::of(file, path, &frame, rows, format))
    }

    /// Opens the file that another writer left at `path` with the first `done` rows in it.
    ///
    /// # Errors
    ///
    /// If there is no such file for these `rows` and this `format`. Whether its states are whole, only
    /// [`Self::hash_rows`] can tell.
    pub fn reopen(path: &Path, rows: &Rows, format: HiddenFormat, done: usize) -> io::Result<Self> {
        // A file that lacks nothing may be a stored result already and is not to be written to.
        let file = File::options().read(true).write(done < rows.len()).open(path)?;
        let frame = Frame::new(rows, format);
        if !frame.is_around(&file)? || done > rows.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self::of(file, path, &frame, rows, format))
    }

    fn of(file: File, path: &Path, frame: &Frame, rows: &Rows, format: HiddenFormat) -> Self {
        let start = frame.before.len() as u64;
        Self { file, path: path.into(), format, offsets: rows.offsets.clone(), start }
    }

    /// Forces all that was written to the disk.
    pub fn sync(&self) -> Result<(), StageError> {
        self.file.sync_data().map_err(|err| StageError::io("write", &self.path, err))
    }

    /// Feeds the stored bytes of `rows` to `hasher`.
    ///
    /// # Panics
    ///
    /// If there are no such rows.
    pub fn hash_rows(&self, rows: Range<usize>, hasher: &mut blake3::Hasher) -> Result<(), StageError> {
        let mut buffer = vec![0; 1 << 20];
        let (mut at, end) = (self.place(rows.start), self.place(rows.end));
        while at < end {
            let part = &mut buffer[..(end - at).min(1 << 20) as usize];
            self.file.read_exact_at(part, at).map_err(|err| StageError::io("read", &self.path, err))?;
            hasher.update(part);
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Where the states of row `i` begin in the file.
    fn place(&self, i: usize) -> u64 {
        let HiddenFormat { n_embd, dtype, .. } = self.format;
        self.start + (self.offsets[i] * n_embd * dtype.bytes()) as u64
    }

    /// Writes the states of `rows`, one after the other as they are stored.
    ///
    /// # Panics
    ///
    /// If there are no such rows or they have another number of positions.
    pub fn write(&self, rows: Range<usize>, states: &[u8]) -> Result<(), StageError> {
        let (start, end) = (self.place(rows.start), self.place(rows.end));
        assert_eq!(states.len() as u64, end - start, "one state a position");
        self.file.write_all_at(states, start).map_err(|err| StageError::io("write", &self.path, err))
    }

    /// Writes the states of row `i`, `[positions of the row, n_embd]`.
    ///
    /// # Panics
    ///
    /// As [`Self::write`].
    pub fn write_row(&self, i: usize, states: &[f32]) -> Result<(), StageError> {
        self.write(i..i + 1, States::new(states.to_vec(), self.format.dtype).as_ref())
    }
}

/// A hidden states file, read some rows at a time.
///
/// Rows are read into memory of the caller rather than mapped, so that a stage's peak memory
/// does not count the file.
#[derive(Debug)]
pub struct Hidden {
    rows: Rows,
    format: HiddenFormat,
    file: File,
    path: PathBuf,
    start: u64,
}

impl Hidden {
    /// Opens the file at `path` and reads all but the states.
    pub fn open(path: &Path) -> Result<Self, StageError> {
        let damaged = |what: &str| StageError::new(format!("`{}` is damaged: {what}", path.display()));
        let file = File::open(path).map_err(|err| StageError::io("open", path, err))?;
        let bytes = map(&file).map_err(|err| StageError::io("map", path, err))?;
        let (tensors, metadata) = tensor_file::open(path, &bytes, HIDDEN_FORMAT)?;
        let rows = Rows::from_tensors(path, &tensors)?;
        let hidden = tensors.tensor("hidden").map_err(|err| damaged("it has no `hidden`").because(err))?;
        let dtype = match hidden.dtype() {
            Dtype::F16 => HiddenType::F16,
            Dtype::F32 => HiddenType::F32,
            _ => return Err(damaged("`hidden` is neither F16 nor F32")),
        };
        let &[positions, n_embd] = hidden.shape() else { return Err(damaged("`hidden` has not two axes")) };
        if positions != rows.positions() {
            return Err(damaged("`offset` does not cut `hidden`"));
        }
        let text = |name: &str| metadata.get(name).map(String::as_str).unwrap_or_default();
        let blocks = text("blocks").parse().map_err(|_| damaged("it does not say its `blocks`"))?;
        let activation =
            text("activation").parse().map_err(|()| damaged("it does not say its `activation`"))?;
        let start = hidden.data().as_ptr().addr() - bytes.as_ptr().addr();
        let format = HiddenFormat { blocks, n_embd, activation, dtype };
        Ok(Self { rows, format, file, path: path.into(), start: start as u64 })
    }

    /// Which review each row is.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// What the numbers are.
    pub fn format(&self) -> HiddenFormat {
        self.format
    }

    /// The states of `rows`, one after the other, read on all threads of the pool.
    ///
    /// # Panics
    ///
    /// If there are no such rows.
    pub fn states(&self, rows: &[usize]) -> Result<States, StageError> {
        Ok(match self.format.dtype {
            HiddenType::F16 => States::F16(self.read(rows)?),
            HiddenType::F32 => States::F32(self.read(rows)?),
        })
    }

    fn read<T: Pod + Send>(&self, rows: &[usize]) -> Result<Vec<T>, StageError> {
        let HiddenFormat { n_embd, dtype, .. } = self.format;
        let size = |row: usize| self.rows.range(row).len() * n_embd;
        let mut states = vec![T::zeroed(); rows.iter().map(|row| size(*row)).sum()];
        let (mut rest, mut parts) = (states.as_mut_slice(), Vec::with_capacity(rows.len()));
        for row in rows {
            let (part, later) = rest.split_at_mut(size(*row));
            rest = later;
            parts.push((*row, part));
        }
        let read = parts.into_par_iter().try_for_each(|(row, part)| {
            let at = self.start + (self.rows.range(row).start * n_embd * dtype.bytes()) as u64;
            self.file.read_exact_at(bytemuck::cast_slice_mut(part), at)
        });
        read.map_err(|err| StageError::io("read", &self.path, err))?;
        Ok(states)
    }
}
