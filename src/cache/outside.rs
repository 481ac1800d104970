//! Files and folders that no stage wrote, known by content behind a stat cache.
//!
//! A file is read again only when its stat differs from the one at its last hashing, or
//! when it changed so shortly before that hashing that a later write could share its stat.

use std::{
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::{CacheError, index::Index, objects, stat::Stat};
use crate::{digest::Digest, pattern::matching_files};

/// BLAKE3's derive-key context for a folder: relative names and contents, in order of the names.
const FOLDER_CONTEXT: &str = "pipe 2026-11 folder v1";
/// A stat is trusted when the file was last changed at least this long before it was hashed.
const SETTLED: i64 = 2_000_000_000;

/// What was found at a path: one nameless file, or the files of a folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// Nanoseconds since 1970 when the hashing began.
    hashed_at: i64,
    files: Vec<OutsideFile>,
}

/// One file outside the cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutsideFile {
    /// Path relative to the folder; empty for an input that is a file.
    pub name: String,
    stat: Stat,
    digest: [u8; 32],
}

/// An input outside the cache, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Outside {
    /// The hash of its contents.
    pub digest: Digest,
    /// The file, or the folder that relative names start from.
    pub path: PathBuf,
    /// Its files.
    pub files: Vec<OutsideFile>,
}

impl Outside {
    /// Whether a file was written, replaced or removed since it was looked at.
    pub fn has_changed(&self) -> bool {
        self.files.iter().any(|file| Stat::of(&below(&self.path, &file.name)).ok() != Some(file.stat))
    }
}

/// Looks at one file; `file` is relative to `root` or absolute.
pub(super) fn file(index: &Index, root: &Path, file: &Path) -> Result<Outside, CacheError> {
    let path = root.join(file);
    let stat = match Stat::of(&path) {
        Ok(_) if path.is_dir() => {
            let source = io::Error::from(io::ErrorKind::IsADirectory);
            return Err(CacheError::Io { what: "read", path, source });
        }
        Ok(stat) => stat,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(CacheError::Missing { path }),
        Err(err) => return Err(CacheError::io("read", &path)(err)),
    };
    let files = hashed(index, &path, &path.to_string_lossy(), vec![(String::new(), stat)])?;
    Ok(Outside { digest: Digest::from(files[0].digest), path, files })
}

/// Looks at all files of a folder, links followed.
pub(super) fn folder(index: &Index, root: &Path, folder: &Path) -> Result<Outside, CacheError> {
    let path = root.join(folder);
    if !path.is_dir() {
        return Err(CacheError::Missing { path });
    }
    let found = walk(&path)?;
    let files = hashed(index, &path, &path.to_string_lossy(), found)?;
    Ok(Outside { digest: tree(&files), path, files })
}

/// Looks at all files that match `pattern`, which is relative to `root`.
pub(super) fn glob(index: &Index, root: &Path, pattern: &str) -> Result<Outside, CacheError> {
    let names = matching_files(root, pattern).map_err(CacheError::Pattern)?;
    if names.is_empty() {
        return Err(CacheError::Missing { path: root.join(pattern) });
    }
    let stat = |name: &PathBuf| {
        let path = root.join(name);
        let stat = Stat::of(&path).map_err(CacheError::io("read", &path))?;
        Ok((name.to_string_lossy().into_owned(), stat))
    };
    let found = names.iter().map(stat).collect::<Result<_, CacheError>>()?;
    let files = hashed(index, root, &format!("glob:{}:{pattern}", root.display()), found)?;
    Ok(Outside { digest: tree(&files), path: root.to_owned(), files })
}

/// The files below `folder`, in order of their names.
fn walk(folder: &Path) -> Result<Vec<(String, Stat)>, CacheError> {
    let failed = |source| CacheError::Walk { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in WalkDir::new(folder).follow_links(true) {
        let entry = entry.map_err(failed)?;
        if !entry.file_type().is_file() {
            continue;
        }
        let below = entry.path().strip_prefix(folder).expect("the walk stays below its folder");
        let name = below.to_string_lossy().into_owned();
        found.push((name, Stat::from(&entry.metadata().map_err(failed)?)));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Gives each file its digest, hashing only those whose stat is new or cannot be trusted.
fn hashed(
    index: &Index,
    base: &Path,
    cache_name: &str,
    found: Vec<(String, Stat)>,
) -> Result<Vec<OutsideFile>, CacheError> {
    let known = index.outside(cache_name);
    let hashed_at = now();
    let files: Vec<OutsideFile> = found
        .into_par_iter()
        .map(|(name, stat)| {
            if let Some(digest) = known.as_ref().and_then(|known| known.digest(&name, stat)) {
                return Ok(OutsideFile { name, stat, digest });
            }
            let path = below(base, &name);
            let digest = objects::hash_file(&path).map_err(CacheError::io("read", &path))?;
            Ok(OutsideFile { name, stat, digest: *digest.as_bytes() })
        })
        .collect::<Result<_, CacheError>>()?;
    if known.is_none_or(|known| known.files != files || !known.is_settled()) {
        index.add_outside(cache_name, &Snapshot { hashed_at, files: files.clone() });
    }
    Ok(files)
}

impl Snapshot {
    /// The digest of the file called `name` if it still has the stat it was hashed with.
    fn digest(&self, name: &str, stat: Stat) -> Option<[u8; 32]> {
        let at = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        let file = &self.files[at];
        (file.stat == stat && self.trusts(stat)).then_some(file.digest)
    }

    fn trusts(&self, stat: Stat) -> bool {
        stat.modified.max(stat.changed) + SETTLED < self.hashed_at
    }

    fn is_settled(&self) -> bool {
        self.files.iter().all(|file| self.trusts(file.stat))
    }
}

/// `base` itself for the nameless file.
fn below(base: &Path, name: &str) -> PathBuf {
    if name.is_empty() { base.to_owned() } else { base.join(name) }
}

fn tree(files: &[OutsideFile]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(FOLDER_CONTEXT);
    for file in files {
        hasher.update(&(file.name.len() as u64).to_le_bytes());
        hasher.update(file.name.as_bytes());
        hasher.update(&file.digest);
    }
    Digest::from(hasher.finalize())
}

fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX)
}
