//! Token ids of prompts, ragged.

use std::{collections::BTreeMap, fs::File, ops::Range, path::Path};

use memmap2::Mmap;
use safetensors::Dtype;

use super::{
    Rows,
    tensor_file::{self, FORMAT, RawTensor},
};
use crate::{contract::StageError, gpt2::map};

/// The metadata entry `format` of a tokens file.
const TOKENS_FORMAT: &str = "pipe.tokens.1";

/// The token ids of prompts, one row a review, without padding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Which review each row is.
    pub rows: Rows,
    /// The ids of all rows, one after the other.
    pub tokens: Vec<u32>,
}

impl Tokens {
    /// The ids of the prompt in row `i`.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn row(&self, i: usize) -> &[u32] {
        &self.tokens[self.rows.range(i)]
    }

    /// Writes a safetensors file: `token` (I32) beside the tensors of [`Rows::to_tensors`].
    pub fn write(&self, path: &Path) -> Result<(), StageError> {
        debug_assert_eq!(self.rows.positions(), self.tokens.len());
        let metadata = BTreeMap::from([(FORMAT.to_owned(), TOKENS_FORMAT.to_owned())]);
        let mut tensors = self.rows.to_tensors();
        let token = RawTensor::int32(self.tokens.iter().map(|token| *token as i32));
        // Before the first U8 tensor, so that every tensor is aligned.
        tensors.insert(3, ("token", token));
        tensor_file::write(path, &metadata, &tensors)
    }

    /// Reads a file that [`Self::write`] wrote.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let file = TokensFile::open(path)?;
        let tokens = file.ids(0..file.rows.positions()).to_vec();
        Ok(Self { rows: file.rows, tokens })
    }
}

/// A tokens file, whose ids are mapped rather than held in memory.
#[derive(Debug)]
pub struct TokensFile {
    /// Which review each row is.
    pub rows: Rows,
    file: Mmap,
    /// Where the ids lie in it.
    bytes: Range<usize>,
}

impl TokensFile {
    /// Opens a file that [`Tokens::write`] wrote.
    pub fn open(path: &Path) -> Result<Self, StageError> {
        let damaged = |what: &str| StageError::new(format!("`{}` is damaged: {what}", path.display()));
        let file = File::open(path).map_err(|err| StageError::io("open", path, err))?;
        let file = map(&file).map_err(|err| StageError::io("map", path, err))?;
        let (tensors, _) = tensor_file::open(path, &file, TOKENS_FORMAT)?;
        let rows = Rows::from_tensors(path, &tensors)?;
        let bytes = tensor_file::column(path, &tensors, "token", Dtype::I32)?;
        let ids: &[i32] = bytemuck::try_cast_slice(bytes).map_err(|_| damaged("`token` is not aligned"))?;
        if ids.iter().any(|id| *id < 0) {
            return Err(damaged("a token id is negative"));
        }
        if rows.positions() != ids.len() {
            return Err(damaged("`offset` does not cut `token`"));
        }
        let start = bytes.as_ptr().addr() - file.as_ptr().addr();
        let bytes = start..start + bytes.len();
        Ok(Self { rows, file, bytes })
    }

    /// The ids at `positions` among those of all rows.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn ids(&self, positions: Range<usize>) -> &[u32] {
        let ids: &[u32] = bytemuck::cast_slice(&self.file[self.bytes.clone()]);
        &ids[positions]
    }

    /// The ids of the prompt in row `i`.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn row(&self, i: usize) -> &[u32] {
        self.ids(self.rows.range(i))
    }
}
