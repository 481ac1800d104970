//! A training run as bytes, to go on from after a kill.
//!
//! Safetensors, metadata `format` = `pipe.training.1`: for every trained parameter its values, its
//! two moments and its values at the best evaluation, and what was reported until then.

use std::{borrow::Cow, collections::BTreeMap, io, path::Path};

use safetensors::{Dtype, SafeTensors};

use super::{Best, Moments, Network, Progress, Validation};
use crate::data::tensor_file::{self, FORMAT, RawTensor};

/// The metadata entry `format` of a training run.
const TRAINING_FORMAT: &str = "pipe.training.1";

/// Writes the run at `progress` to `file`; `history` is what was reported so far and comes back unread.
pub fn write_progress(
    file: &mut dyn io::Write,
    network: &Network,
    progress: &Progress,
    history: &[u8],
) -> io::Result<()> {
    let mut metadata = BTreeMap::from([
        (FORMAT.to_owned(), TRAINING_FORMAT.to_owned()),
        ("step".to_owned(), progress.step.to_string()),
    ]);
    if let Some(Best { step, validation, .. }) = &progress.best {
        metadata.insert("best_step".into(), step.to_string());
        metadata.insert("best_loss".into(), validation.loss.to_string());
        metadata.insert("best_accuracy".into(), validation.accuracy.to_string());
    }
    let mut parts: Vec<(String, &[f32])> = Vec::new();
    for (i, parameter) in network.parameters().into_iter().enumerate() {
        let (name, moments) = (parameter.name(), &progress.moments[i]);
        parts.push((format!("value.{name}"), parameter.values()));
        parts.push((format!("first.{name}"), &moments.first));
        parts.push((format!("second.{name}"), &moments.second));
        parts.extend(progress.best.as_ref().map(|best| (format!("best.{name}"), best.values[i].as_slice())));
    }
    let tensor = |dtype, bytes, size| RawTensor { dtype, shape: vec![size], bytes: Cow::Borrowed(bytes) };
    let mut tensors: Vec<(&str, RawTensor<'_>)> = parts
        .iter()
        .map(|(name, values)| (name.as_str(), tensor(Dtype::F32, bytemuck::cast_slice(values), values.len())))
        .collect();
    tensors.push(("history", tensor(Dtype::U8, history, history.len())));
    tensor_file::write_to(file, &metadata, &tensors)
}

/// Reads a run back: sets the parameters of `network` and returns progress and history.
///
/// Nothing, with `network` as it was, where `bytes` are no run of such a network.
pub fn read_progress(bytes: &[u8], network: &mut Network) -> Option<(Progress, Vec<u8>)> {
    let (file, metadata) = tensor_file::open(Path::new("checkpoint"), bytes, TRAINING_FORMAT).ok()?;
    let names: Vec<(String, usize)> =
        network.parameters().iter().map(|p| (p.name().to_owned(), p.values().len())).collect();
    let part = |part: &str| -> Option<Vec<Vec<f32>>> {
        names.iter().map(|(name, size)| floats(&file, &format!("{part}.{name}"), *size)).collect()
    };
    let (values, first, second) = (part("value")?, part("first")?, part("second")?);
    let best = match metadata.get("best_step") {
        None => None,
        Some(step) => {
            let loss = metadata.get("best_loss")?.parse().ok()?;
            let accuracy = metadata.get("best_accuracy")?.parse().ok()?;
            let validation = Validation { loss, accuracy };
            Some(Best { step: step.parse().ok()?, validation, values: part("best")? })
        }
    };
    let step = metadata.get("step")?.parse().ok()?;
    let history = file.tensor("history").ok()?.data().to_vec();
    for (parameter, values) in network.parameters_mut().into_iter().zip(&values) {
        parameter.change(|old| old.copy_from_slice(values));
    }
    let moments = first.into_iter().zip(second).map(|(first, second)| Moments { first, second }).collect();
    Some((Progress { step, moments, best }, history))
}

/// The tensor `name` of `size` numbers.
fn floats(file: &SafeTensors<'_>, name: &str, size: usize) -> Option<Vec<f32>> {
    let tensor = file.tensor(name).ok().filter(|tensor| tensor.dtype() == Dtype::F32)?;
    let values: Vec<f32> =
        tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (values.len() == size).then_some(values)
}
