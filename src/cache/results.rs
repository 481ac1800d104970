//! Which execution answers to a key: one JSON file each, the truth behind the index.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{CacheError, durable};
use crate::{digest::ActionKey, record::Execution};

/// Where the execution of `key` is written below the cache's folder.
pub(super) fn path(folder: &Path, key: ActionKey) -> PathBuf {
    let name = key.to_string();
    folder.join("results").join(&name[..2]).join(format!("{name}.json"))
}

/// Reads the execution of `key`; a file that is cut short or speaks of another key counts as missing.
pub(super) fn read(folder: &Path, key: ActionKey) -> Option<Execution> {
    let text = fs::read(path(folder, key)).ok()?;
    let execution: Execution = serde_json::from_slice(&text).ok()?;
    (execution.key == key && crate::fingerprint::action_key(&execution.hashed) == key).then_some(execution)
}

/// Writes `execution` in one step: readers see nothing, or all of it.
pub(super) fn write(folder: &Path, execution: &Execution, sync: bool) -> Result<(), CacheError> {
    let text = serde_json::to_vec(execution).expect("an execution serializes to JSON");
    durable::write(&path(folder, execution.key), &text, sync)
}

/// All readable executions.
pub(super) fn all(folder: &Path) -> impl Iterator<Item = Execution> {
    let folder = folder.to_owned();
    files(&folder).filter_map(|file| key_of(&file)).filter_map(move |key| read(&folder, key))
}

/// Files that are no result: cut short, damaged, or being written when `pipe` was killed.
pub(super) fn unreadable(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = folder.to_owned();
    files(&folder).filter(move |file| !is_readable(&folder, file))
}

/// Whether a file is the result of the key that it is named for.
pub(super) fn is_readable(folder: &Path, file: &Path) -> bool {
    key_of(file).and_then(|key| read(folder, key)).is_some()
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = walkdir::WalkDir::new(folder.join("results")).into_iter().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path)
}

fn key_of(file: &Path) -> Option<ActionKey> {
    file.file_stem()?.to_str()?.parse().ok()
}
