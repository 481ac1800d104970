//! Which file of an input changed while a stage ran.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    index::Index,
    objects,
    outside::{Known, Outside, folder_record},
    stat::Stat,
    walk::Listing,
};

/// A file that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The file, relative to the folder of the input.
    pub file: PathBuf,
    /// What became of it: "changed", "was added" or "was removed".
    pub how: &'static str,
}

/// The first file of `outside` that is not what it was, in order of the names, if that is known.
pub(super) fn first(index: &Index, outside: &Outside) -> Option<Changed> {
    let mut changed = level(index, &outside.record()?, &outside.listed()?)?;
    if let Ok(relative) = changed.file.strip_prefix(&outside.path) {
        changed.file = relative.to_owned();
    }
    Some(changed)
}

/// The first file at or below the level `listing` that is not as `record` has it, with its whole path.
fn level(index: &Index, record: &[u8], listing: &Listing) -> Option<Changed> {
    let known = index.outside_record(record).and_then(|bytes| Known::from_bytes(&bytes)).unwrap_or_default();
    let mut found = Vec::new();
    let mut there = Vec::new();
    for (name, stat) in listing.files() {
        let file = listing.path.join(name);
        match known.tree.get(name.as_bytes()) {
            Some(entry) if !entry.is_folder => {
                let is_same = match known.stat(name.as_bytes()) {
                    // It was written too shortly before to be told by its stat.
                    Some(Stat::NONE) | None => objects::hash_file(&file).is_ok_and(|it| it == entry.digest),
                    Some(then) => then == stat,
                };
                if !is_same {
                    found.push(Changed { file, how: "changed" });
                }
            }
            _ => found.push(Changed { file, how: "was added" }),
        }
        there.push(name.as_bytes());
    }
    for folder in &listing.folders {
        found.extend(level(index, &folder_record(&folder.path), folder));
        there.push(folder.path.file_name().unwrap_or_default().as_bytes());
    }
    there.sort_unstable();
    let is_gone = |name: &[u8]| there.binary_search(&name).is_err();
    let gone = known.tree.entries.iter().filter(|entry| is_gone(&entry.name));
    found.extend(gone.map(|entry| Changed { file: named(&listing.path, &entry.name), how: "was removed" }));
    found.into_iter().min_by(|a, b| a.file.cmp(&b.file))
}

fn named(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(name))
}
