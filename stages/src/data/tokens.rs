//! Token ids of prompts, ragged.

use std::{collections::BTreeMap, path::Path};

use super::{
    Rows,
    tensor_file::{self, FORMAT, RawTensor},
};
use crate::contract::StageError;

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
        let buffer = std::fs::read(path).map_err(|err| StageError::io("read", path, err))?;
        let (tensors, _) = tensor_file::open(path, &buffer, TOKENS_FORMAT)?;
        let damaged = |what: &str| StageError::new(format!("`{}` is damaged: {what}", path.display()));
        let rows = Rows::from_tensors(path, &tensors)?;
        let tokens = tensor_file::int32_column(path, &tensors, "token")?
            .into_iter()
            .map(u32::try_from)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| damaged("a token id is negative"))?;
        if rows.positions() != tokens.len() {
            return Err(damaged("`offset` does not cut `token`"));
        }
        Ok(Self { rows, tokens })
    }
}
