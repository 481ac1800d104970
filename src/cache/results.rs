//! Which execution answers to a key: one JSON file each, the truth behind the index.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::{CacheError, durable::sync_name};
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
    let target = path(folder, execution.key);
    let shelf = target.parent().expect("a result lies in a folder");
    let failed = || CacheError::io("write", &target);
    fs::create_dir_all(shelf).map_err(CacheError::io("create", shelf))?;
    let mut file = NamedTempFile::new_in(shelf).map_err(failed())?;
    let text = serde_json::to_vec(execution).expect("an execution serializes to JSON");
    file.write_all(&text).map_err(failed())?;
    if sync {
        file.as_file().sync_all().map_err(failed())?;
    }
    file.persist(&target).map_err(|err| failed()(err.error))?;
    if sync {
        sync_name(&target);
    }
    Ok(())
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
