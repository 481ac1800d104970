//! The parameters of a GPT-2 in a mapped file.
//!
//! The file is safetensors with Hugging Face's names without a prefix, f32, matrices as
//! `[in, out]`, `c_attn`'s columns q | k | v. Metadata: `format` = `pipe.weights.1` and the five
//! numbers of [`Config`]. The output matrix is `wte.weight`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    ops::Range,
    path::Path,
};

use memmap2::Mmap;
use safetensors::Dtype;

use super::Config;
use crate::{
    contract::StageError,
    data::tensor_file::{self, FORMAT},
};

/// The metadata entry `format` of a weights file.
const WEIGHTS_FORMAT: &str = "pipe.weights.1";

/// All parameters of a GPT-2, read from a mapped file as they are used.
#[derive(Debug)]
pub struct Weights {
    config: Config,
    map: Mmap,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Debug)]
struct Tensor {
    bytes: Range<usize>,
    shape: Vec<usize>,
}

impl Weights {
    /// Maps the weights file at `path`, checking every name and shape.
    pub fn open(path: &Path) -> Result<Self, StageError> {
        let file = File::open(path).map_err(|err| StageError::io("open", path, err))?;
        let map = map(&file).map_err(|err| StageError::io("map", path, err))?;
        let mut tensors = BTreeMap::new();
        let (file, metadata) = tensor_file::open(path, &map, WEIGHTS_FORMAT)?;
        let number = |name: &str| {
            let number = metadata.get(name).and_then(|text| text.parse().ok());
            number.ok_or_else(|| StageError::new(format!("`{}` does not say its `{name}`", path.display())))
        };
        let config = Config {
            n_layer: number("n_layer")?,
            n_head: number("n_head")?,
            n_embd: number("n_embd")?,
            block_size: number("block_size")?,
            vocab_size: number("vocab_size")?,
        };
        config.check().map_err(|(_, problem)| StageError::new(format!("`{}`: {problem}", path.display())))?;
        for (name, shape) in tensor_shapes(&config) {
            let tensor = file
                .tensor(&name)
                .ok()
                .filter(|tensor| tensor.dtype() == Dtype::F32 && tensor.shape() == shape)
                .ok_or_else(|| StageError::new(format!("`{}` lacks `{name}` {shape:?}", path.display())))?;
            if bytemuck::try_cast_slice::<u8, f32>(tensor.data()).is_err() {
                let message = format!("`{name}` in `{}` is not aligned for f32", path.display());
                return Err(StageError::new(message).help("make the file with the kind `gpt2`"));
            }
            let start = tensor.data().as_ptr().addr() - map.as_ptr().addr();
            tensors.insert(name, Tensor { bytes: start..start + tensor.data().len(), shape });
        }
        Ok(Self { config, map, tensors })
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Names and shapes of all tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()))
    }

    /// The values of the tensor called `name`, row after row.
    ///
    /// # Panics
    ///
    /// If a GPT-2 of this shape has no such tensor.
    pub fn tensor(&self, name: &str) -> &[f32] {
        let tensor = &self.tensors[name];
        bytemuck::cast_slice(&self.map[tensor.bytes.clone()])
    }

    /// The shape of the tensor called `name`.
    ///
    /// # Panics
    ///
    /// If a GPT-2 of this shape has no such tensor.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensors[name].shape
    }
}

/// Names and shapes of all tensors of a GPT-2, in the order of the file.
pub fn tensor_shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (c, inner) = (config.n_embd, config.n_inner());
    let mut shapes = vec![
        ("wte.weight".to_owned(), vec![config.vocab_size, c]),
        ("wpe.weight".to_owned(), vec![config.block_size, c]),
    ];
    for block in 0..config.n_layer {
        let of_block = [
            ("ln_1.weight", vec![c]),
            ("ln_1.bias", vec![c]),
            ("attn.c_attn.weight", vec![c, 3 * c]),
            ("attn.c_attn.bias", vec![3 * c]),
            ("attn.c_proj.weight", vec![c, c]),
            ("attn.c_proj.bias", vec![c]),
            ("ln_2.weight", vec![c]),
            ("ln_2.bias", vec![c]),
            ("mlp.c_fc.weight", vec![c, inner]),
            ("mlp.c_fc.bias", vec![inner]),
            ("mlp.c_proj.weight", vec![inner, c]),
            ("mlp.c_proj.bias", vec![c]),
        ];
        shapes.extend(of_block.map(|(name, shape)| (format!("h.{block}.{name}"), shape)));
    }
    shapes.extend([("ln_f.weight".to_owned(), vec![c]), ("ln_f.bias".to_owned(), vec![c])]);
    shapes
}

/// Writes a weights file; `parts` are the values of the tensors of [`tensor_shapes`], in that order.
///
/// # Panics
///
/// If the parts together have another size than the tensors.
pub fn write_weights<B: AsRef<[f32]>>(
    path: &Path,
    config: &Config,
    parts: impl IntoIterator<Item = B>,
) -> Result<(), StageError> {
    let metadata: BTreeMap<String, String> = [
        (FORMAT, WEIGHTS_FORMAT.to_owned()),
        ("n_layer", config.n_layer.to_string()),
        ("n_head", config.n_head.to_string()),
        ("n_embd", config.n_embd.to_string()),
        ("block_size", config.block_size.to_string()),
        ("vocab_size", config.vocab_size.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let tensors = tensor_shapes(config);
    let shapes: Vec<_> =
        tensors.iter().map(|(name, shape)| (name.as_str(), Dtype::F32, shape.as_slice())).collect();
    let failed = |err| StageError::io("write", path, err);
    let file = File::create(path).map_err(|err| StageError::io("create", path, err))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&tensor_file::header(&metadata, &shapes)).map_err(failed)?;
    let mut written = 0;
    for part in parts {
        file.write_all(bytemuck::cast_slice(part.as_ref())).map_err(failed)?;
        written += part.as_ref().len();
    }
    assert_eq!(written, config.parameters(), "the parts are the tensors");
    file.flush().map_err(failed)
}

/// Maps `file` into memory.
#[allow(unsafe_code)]
pub(crate) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: a mapped file must not change while it is read. Inputs of a stage are objects of
    // the cache, which are read-only, or files that the person who runs it leaves alone.
    unsafe { Mmap::map(file) }
}
