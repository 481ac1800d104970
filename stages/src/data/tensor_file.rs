//! Safetensors files whose bytes depend on their content alone.
//!
//! The crate `safetensors` keeps metadata in a hash map, so two writes of the same file
//! differ as soon as there are two metadata entries. The header is therefore made here;
//! reading is the crate's.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use crate::contract::StageError;

/// The metadata entry that says what a file is.
pub const FORMAT: &str = "format";

/// One tensor: its type, its shape and its little-endian bytes in row-major order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTensor<'a> {
    /// Type of an element.
    pub dtype: Dtype,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: Cow<'a, [u8]>,
}

impl RawTensor<'static> {
    /// A one-dimensional tensor of bytes.
    pub fn bytes(values: Vec<u8>) -> Self {
        Self { dtype: Dtype::U8, shape: vec![values.len()], bytes: values.into() }
    }

    /// A one-dimensional tensor of 32-bit integers.
    pub fn int32(values: impl ExactSizeIterator<Item = i32>) -> Self {
        let shape = vec![values.len()];
        Self { dtype: Dtype::I32, shape, bytes: values.flat_map(i32::to_le_bytes).collect() }
    }

    /// A one-dimensional tensor of 64-bit integers.
    pub fn int64(values: impl ExactSizeIterator<Item = i64>) -> Self {
        let shape = vec![values.len()];
        Self { dtype: Dtype::I64, shape, bytes: values.flat_map(i64::to_le_bytes).collect() }
    }
}

/// Returns the header of a file that holds `tensors` (name, type, shape) one after the
/// other, so that a writer can stream their bytes behind it.
///
/// The length of the header is a multiple of 8.
pub fn header(metadata: &BTreeMap<String, String>, tensors: &[(&str, Dtype, &[usize])]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Header<'a> {
        #[serde(rename = "__metadata__")]
        metadata: &'a BTreeMap<String, String>,
        #[serde(flatten)]
        tensors: BTreeMap<&'a str, Entry<'a>>,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        dtype: Dtype,
        shape: &'a [usize],
        data_offsets: (usize, usize),
    }
    let mut entries = BTreeMap::new();
    let mut start = 0;
    for (name, dtype, shape) in tensors {
        let end = start + shape.iter().product::<usize>() * dtype.bitsize() / 8;
        entries.insert(*name, Entry { dtype: *dtype, shape, data_offsets: (start, end) });
        start = end;
    }
    let header = Header { metadata, tensors: entries };
    let mut text = serde_json::to_vec(&header).expect("a header is plain JSON");
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}

/// Writes `tensors` to `path` in the order given.
pub fn write(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[(&str, RawTensor<'_>)],
) -> Result<(), StageError> {
    let file = File::create(path).map_err(|err| StageError::io("create", path, err))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    write_to(&mut file, metadata, tensors)
        .and_then(|()| file.flush())
        .map_err(|err| StageError::io("write", path, err))
}

/// Writes `tensors` in the order given.
pub fn write_to(
    file: &mut dyn Write,
    metadata: &BTreeMap<String, String>,
    tensors: &[(&str, RawTensor<'_>)],
) -> io::Result<()> {
    let shapes: Vec<_> =
        tensors.iter().map(|(name, tensor)| (*name, tensor.dtype, tensor.shape.as_slice())).collect();
    file.write_all(&header(metadata, &shapes))?;
    tensors.iter().try_for_each(|(_, tensor)| file.write_all(&tensor.bytes))
}

/// Reads the header in `buffer`, the content of `path`, and checks that its metadata entry
/// `format` is `format`. Returns the tensors and all metadata.
pub fn open<'a>(
    path: &Path,
    buffer: &'a [u8],
    format: &str,
) -> Result<(SafeTensors<'a>, HashMap<String, String>), StageError> {
    let broken = |err| StageError::new(format!("`{}` is no safetensors file", path.display())).because(err);
    let (_, header) = SafeTensors::read_metadata(buffer).map_err(broken)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let found = metadata.get(FORMAT).map_or("of no named format", String::as_str);
    if found != format {
        let message = format!("`{}` is `{found}`, wanted `{format}`", path.display());
        return Err(StageError::new(message).help("feed it from a stage whose output has the wanted type"));
    }
    Ok((SafeTensors::deserialize(buffer).map_err(broken)?, metadata))
}

/// Returns the bytes of the one-dimensional tensor `name`, which must have the type `dtype`.
pub fn column<'a>(
    path: &Path,
    tensors: &SafeTensors<'a>,
    name: &str,
    dtype: Dtype,
) -> Result<&'a [u8], StageError> {
    let tensor = tensors
        .tensor(name)
        .map_err(|err| StageError::new(format!("`{}` lacks tensor `{name}`", path.display())).because(err))?;
    if tensor.dtype() == dtype && tensor.shape().len() == 1 {
        return Ok(tensor.data());
    }
    Err(StageError::new(format!(
        "tensor `{name}` of `{}` is {} of shape {:?}, wanted {dtype} of one axis",
        path.display(),
        tensor.dtype(),
        tensor.shape()
    )))
}

/// Returns the one-dimensional I64 tensor `name`.
pub fn int64_column(path: &Path, tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<i64>, StageError> {
    let (values, _) = column(path, tensors, name, Dtype::I64)?.as_chunks();
    Ok(values.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
}
