//! Which files a folder or pattern had when a result used it: `manifests/ab/cdef…`.
//!
//! A result's key holds one digest for a whole folder. To say later which of its files changed, the
//! [`Tree`] behind that digest is kept, a file for every level, named by its digest: equal levels are kept
//! once, and one changed file of many adds its own level and those above it. They lie in the cache
//! because they explain its results: `pipe gc` removes those that no remaining result used.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::{
    CacheError, Outside, durable,
    index::Index,
    outside::{folder_record, tree_in},
    tree::{self, Entry, Tree},
};
use crate::{digest::Digest, record::FileChanges};

fn path(folder: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    folder.join("manifests").join(&name[..2]).join(&name[2..])
}

/// The tree of this digest; a damaged file counts as missing.
fn read(folder: &Path, digest: Digest) -> Option<Tree> {
    let bytes = fs::read(path(folder, digest)).ok()?;
    (tree::digest(&bytes) == digest).then(|| Tree::from_bytes(&bytes)).flatten()
}

/// Keeps what `outside` contained when it was looked at, as far as the index knows it.
pub(super) fn keep(folder: &Path, index: &Index, outside: &Outside) -> Result<(), CacheError> {
    outside
        .record()
        .map_or(Ok(()), |record| keep_level(folder, index, &record, &outside.path, outside.digest))
}

fn keep_level(
    folder: &Path,
    index: &Index,
    record: &[u8],
    level: &Path,
    digest: Digest,
) -> Result<(), CacheError> {
    let target = path(folder, digest);
    // The levels below are written first: where this one is, they are.
    if target.is_file() {
        return Ok(());
    }
    let Some(bytes) = known(index, record, digest) else { return Ok(()) };
    for entry in Tree::from_bytes(&bytes).unwrap_or_default().entries.iter().filter(|entry| entry.is_folder) {
        let below = level.join(OsStr::from_bytes(&entry.name));
        keep_level(folder, index, &folder_record(&below), &below, entry.digest)?;
    }
    durable::write(&target, &bytes, false)
}

/// The tree of `digest` in the index, if its record is still of that digest.
fn known(index: &Index, record: &[u8], digest: Digest) -> Option<Vec<u8>> {
    let bytes = index.outside_record(record)?;
    tree_in(&bytes).filter(|tree| tree::digest(tree) == digest).map(<[u8]>::to_vec)
}

/// Which files of `now` differ from those behind the digest `before`; `None` where that is not known.
pub(super) fn changes(folder: &Path, index: &Index, before: Digest, now: &Outside) -> Option<FileChanges> {
    let mut found = FileChanges::default();
    let record = now.record()?;
    let old = Entry { name: Vec::new(), is_folder: true, digest: before };
    let new = Entry { digest: now.digest, ..old.clone() };
    let sides = Sides { folder, index };
    sides.compare(Some(&old), Some((&new, &record, &now.path)), &mut Vec::new(), &mut found)?;
    Some(found)
}

struct Sides<'a> {
    folder: &'a Path,
    index: &'a Index,
}

impl Sides<'_> {
    /// Adds what differs at and below `name`; the new side comes with its record and path.
    fn compare(
        &self,
        old: Option<&Entry>,
        new: Option<(&Entry, &[u8], &Path)>,
        name: &mut Vec<u8>,
        found: &mut FileChanges,
    ) -> Option<()> {
        if old.is_some_and(|old| {
            new.is_some_and(|(new, ..)| (old.is_folder, old.digest) == (new.is_folder, new.digest))
        }) {
            return Some(());
        }
        let old_file = old.is_some_and(|old| !old.is_folder);
        let new_file = new.is_some_and(|(new, ..)| !new.is_folder);
        match (old_file, new_file) {
            (true, true) => found.changed.add(name),
            (true, false) => found.removed.add(name),
            (false, true) => found.added.add(name),
            (false, false) => {}
        }
        let before = match old {
            Some(old) if old.is_folder => read(self.folder, old.digest)?,
            _ => Tree::default(),
        };
        let (after, level) = match new {
            Some((new, record, level)) if new.is_folder => {
                (Tree::from_bytes(&known(self.index, record, new.digest)?)?, level)
            }
            _ => (Tree::default(), Path::new("")),
        };
        let names: BTreeSet<&[u8]> =
            before.entries.iter().chain(&after.entries).map(|entry| entry.name.as_slice()).collect();
        for below in names {
            let length = name.len();
            if length > 0 {
                name.push(b'/');
            }
            name.extend_from_slice(below);
            let path = level.join(OsStr::from_bytes(below));
            let record = folder_record(&path);
            let new = after.get(below).map(|new| (new, record.as_slice(), path.as_path()));
            self.compare(before.get(below), new, name, found)?;
            name.truncate(length);
        }
        Some(())
    }
}

/// Removes all manifests that none of the digests in `used` leads to.
pub(super) fn keep_only(folder: &Path, used: impl Iterator<Item = Digest>) -> Result<(), CacheError> {
    let mut needed = BTreeSet::new();
    let mut open: Vec<Digest> = used.collect();
    while let Some(digest) = open.pop() {
        if needed.insert(path(folder, digest)) {
            let tree = read(folder, digest).unwrap_or_default();
            open.extend(tree.entries.iter().filter(|entry| entry.is_folder).map(|entry| entry.digest));
        }
    }
    let files = WalkDir::new(folder.join("manifests")).min_depth(2).into_iter().filter_map(Result::ok);
    for file in files.filter(|file| !needed.contains(file.path())) {
        fs::remove_file(file.path()).map_err(CacheError::io("remove", file.path()))?;
    }
    Ok(())
}
