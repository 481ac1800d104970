//! What killed runs left in scratch, and its removal.

use std::{collections::BTreeSet, fs, path::Path};

use walkdir::WalkDir;

use super::{CacheError, Scratch, objects, results};
use crate::digest::ActionKey;

/// What killed runs left behind, or what of it was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// Folders of stages that were not finished, and files that are no result and no object.
    pub count: usize,
    /// What they take up, bytes.
    pub bytes: u64,
}

/// Removes attempts that nobody works on, and checkpoints of keys that are not `wanted`; without
/// `really` it only counts them.
pub(super) fn sweep(
    folder: &Path,
    wanted: &BTreeSet<ActionKey>,
    really: bool,
) -> Result<Leftovers, CacheError> {
    let mut swept = Leftovers::default();
    for (place, may_go_on) in [("scratch", true), ("verify", false)] {
        for entry in fs::read_dir(folder.join(place)).into_iter().flatten().filter_map(Result::ok) {
            let scratch = Scratch::new(entry.path());
            if scratch.is_held() {
                continue;
            }
            let checkpoint = entry.path().join("checkpoint");
            let key = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let goes_on = may_go_on
                && size(&checkpoint) > 0
                && key.is_some_and(|key| wanted.contains(&key) && results::read(folder, key).is_none());
            let bytes = size(&entry.path()) - if goes_on { size(&checkpoint) } else { 0 };
            if goes_on && bytes == 0 {
                continue;
            }
            if really {
                let Some(claim) = scratch.claim("sweep", "pipe gc")? else { continue };
                if goes_on { drop(claim) } else { claim.finish() }
            }
            swept.count += 1;
            swept.bytes += bytes;
        }
    }
    for path in results::unreadable(folder).chain(objects::strays(folder)) {
        swept.count += 1;
        swept.bytes += size(&path);
        if really {
            objects::remove(&path)?;
        }
    }
    Ok(swept)
}

/// The sizes of all files below `folder` together; of the lock, which says who had it, nothing.
fn size(folder: &Path) -> u64 {
    let entries = WalkDir::new(folder).into_iter().filter_map(Result::ok);
    let files = entries.filter(|entry| entry.file_type().is_file() && entry.file_name() != "lock");
    files.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
