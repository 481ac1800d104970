//! Whether everything in the cache is what it says it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{
    Removal,
    index::Index,
    objects::{self, hash_file},
    results,
};
use crate::digest::{ActionKey, Digest};

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// Its bytes are not those of its name, or cannot be read.
    Damaged,
    /// A result needs it and it is not there.
    Missing,
}

impl Damage {
    /// The word that people read.
    pub fn word(self) -> &'static str {
        match self {
            Damage::Damaged => "damaged",
            Damage::Missing => "missing",
        }
    }
}

/// What was found in a cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// Results that could be read.
    pub results: usize,
    /// Objects that were hashed.
    pub objects: usize,
    /// Their sizes together, bytes.
    pub bytes: u64,
    /// Objects that are not whole, with the results that need them.
    pub flawed: BTreeMap<Digest, (Damage, Vec<ActionKey>)>,
    /// Files among the results that are none.
    pub unreadable: Vec<PathBuf>,
    /// What lies among the objects and is none. Nothing needs it, and collecting removes it.
    pub strays: Vec<PathBuf>,
}

impl Audit {
    /// Whether everything is whole.
    pub fn is_whole(&self) -> bool {
        self.flawed.is_empty() && self.unreadable.is_empty()
    }

    /// What has to go so that everything left is whole.
    pub fn removal(&self) -> Removal {
        let damaged = self.flawed.iter().filter(|(_, (damage, _))| *damage == Damage::Damaged);
        let results: BTreeSet<ActionKey> = self.flawed.values().flat_map(|(_, keys)| keys).copied().collect();
        Removal {
            results: results.into_iter().collect(),
            objects: damaged.map(|(digest, _)| *digest).collect(),
            ..Removal::default()
        }
    }
}

/// Hashes every object below `folder`. Of those that are damaged the index forgets that they were whole.
pub(super) fn audit(folder: &Path, index: &Index) -> Audit {
    // Results first: an object comes before the result that needs it, also while this looks around.
    let needs: Vec<(ActionKey, BTreeSet<Digest>)> = results::all(folder)
        .map(|execution| (execution.key, execution.outputs.iter().map(|output| output.digest).collect()))
        .collect();
    let sizes: BTreeMap<Digest, u64> = objects::all(folder).collect();
    let is_damaged = |digest: &&Digest| {
        let found = hash_file(&objects::path(folder, **digest));
        found.ok().as_ref() != Some(*digest)
    };
    let damaged: Vec<&Digest> = sizes.par_iter().map(|(digest, _)| digest).filter(is_damaged).collect();
    damaged.iter().for_each(|digest| index.forget_object(**digest));
    let mut flawed: BTreeMap<Digest, (Damage, Vec<ActionKey>)> =
        damaged.into_iter().map(|digest| (*digest, (Damage::Damaged, Vec::new()))).collect();
    for (key, digests) in &needs {
        for digest in digests {
            if !sizes.contains_key(digest) {
                flawed.entry(*digest).or_insert((Damage::Missing, Vec::new()));
            }
            if let Some((_, keys)) = flawed.get_mut(digest) {
                keys.push(*key);
            }
        }
    }
    let unreadable = results::unreadable(folder).filter(|file| !is_unfinished(file)).collect();
    let mut strays: Vec<PathBuf> = objects::strays(folder).collect();
    strays.sort_unstable();
    let bytes = sizes.values().sum();
    Audit { results: needs.len(), objects: sizes.len(), bytes, flawed, unreadable, strays }
}

/// Whether a file may be one that another `pipe` is writing just now: those have no ending.
fn is_unfinished(file: &Path) -> bool {
    file.extension().is_none_or(|ending| ending != "json") || fs::metadata(file).is_err()
}
