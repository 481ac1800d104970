//! Which review each row of a ragged file is.

use std::{ops::Range, path::Path};

use safetensors::{Dtype, SafeTensors};

use super::tensor_file::{RawTensor, column, int64_column};
use crate::contract::StageError;

/// The reviews behind the rows of a ragged file, and where each row lies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// Id of each review, such as `train/pos/3_10.txt`.
    pub ids: Vec<String>,
    /// Tokens of each whole review, before truncation.
    pub lengths: Vec<u32>,
    /// 1 for a positive review, 0 for a negative one.
    pub labels: Vec<u8>,
    /// One entry more than rows, from 0 upwards: row `i` has the positions
    /// `offsets[i]..offsets[i + 1]`.
    pub offsets: Vec<usize>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The positions of `row`.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn range(&self, row: usize) -> Range<usize> {
        self.offsets[row]..self.offsets[row + 1]
    }

    /// Positions of all rows together.
    pub fn positions(&self) -> usize {
        self.offsets.last().copied().unwrap_or_default()
    }

    /// The tensors that hold these rows in a file: `row_id_offset`, `length` and `offset`
    /// (I64), `label` and `row_id` (U8, all ids one after the other).
    pub fn to_tensors(&self) -> Vec<(&'static str, RawTensor<'static>)> {
        let mut id_offsets = vec![0];
        for id in &self.ids {
            id_offsets.push(id_offsets[id_offsets.len() - 1] + id.len() as i64);
        }
        vec![
            ("row_id_offset", RawTensor::int64(id_offsets.into_iter())),
            ("length", RawTensor::int64(self.lengths.iter().map(|length| i64::from(*length)))),
            ("offset", RawTensor::int64(self.offsets.iter().map(|offset| *offset as i64))),
            ("label", RawTensor::bytes(self.labels.clone())),
            ("row_id", RawTensor::bytes(self.ids.concat().into_bytes())),
        ]
    }

    /// Reads what [`Self::to_tensors`] wrote; `path` is named in errors.
    pub fn from_tensors(path: &Path, tensors: &SafeTensors<'_>) -> Result<Self, StageError> {
        let damaged = |what: &str| StageError::new(format!("`{}` is damaged: {what}", path.display()));
        let id_bytes = column(path, tensors, "row_id", Dtype::U8)?;
        let id_offsets = rising(&int64_column(path, tensors, "row_id_offset")?)
            .filter(|offsets| offsets.last() == Some(&id_bytes.len()))
            .ok_or_else(|| damaged("`row_id_offset` does not cut `row_id`"))?;
        let offsets = rising(&int64_column(path, tensors, "offset")?)
            .ok_or_else(|| damaged("`offset` does not rise from 0"))?;
        let lengths = int64_column(path, tensors, "length")?
            .into_iter()
            .map(u32::try_from)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| damaged("`length` is out of range"))?;
        let labels = column(path, tensors, "label", Dtype::U8)?.to_vec();
        let ids = id_offsets
            .windows(2)
            .map(|cut| String::from_utf8(id_bytes[cut[0]..cut[1]].to_vec()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| damaged("an id is not UTF-8"))?;
        if labels.iter().any(|label| *label > 1) {
            return Err(damaged("a label is neither 0 nor 1"));
        }
        if offsets.len() != ids.len() + 1 || lengths.len() != ids.len() || labels.len() != ids.len() {
            return Err(damaged("its tensors differ in the number of rows"));
        }
        Ok(Self { ids, lengths, labels, offsets })
    }
}

/// The offsets as they are used, or nothing when they do not rise from 0.
fn rising(offsets: &[i64]) -> Option<Vec<usize>> {
    let is_rising = offsets.first() == Some(&0) && offsets.is_sorted();
    is_rising.then(|| offsets.iter().map(|offset| *offset as usize).collect())
}
