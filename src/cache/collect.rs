//! Which results and objects can go, and their removal.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use jiff::Timestamp;

use super::{CacheError, index::Index, manifests, objects, results};
use crate::{
    digest::{ActionKey, Digest},
    fingerprint::Fingerprint,
    names::RunId,
};

/// What lies in a cache.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    /// The results.
    pub results: Vec<StoredResult>,
    /// The objects, with their sizes in bytes.
    pub objects: BTreeMap<Digest, u64>,
}

/// A result as far as collecting needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResult {
    /// Its key.
    pub key: ActionKey,
    /// The run that computed it.
    pub run: RunId,
    /// When it was computed.
    pub computed: Timestamp,
    /// The objects it needs.
    pub objects: Vec<Digest>,
}

/// What is to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removal {
    /// Results that go.
    pub results: Vec<ActionKey>,
    /// Objects that no remaining result needs.
    pub objects: Vec<Digest>,
    /// What the objects that go take up, bytes.
    pub freed: u64,
    /// What the objects that stay take up, bytes.
    pub left: u64,
}

/// Decides what goes: results that `kept` does not name, oldest first, until at most `budget` bytes
/// are left; without a budget all of them. Objects that no result needs always go.
pub fn removal(contents: &Contents, kept: &BTreeSet<ActionKey>, budget: Option<u64>) -> Removal {
    let size = |digest: &Digest| contents.objects.get(digest).copied().unwrap_or(0);
    let mut users: BTreeMap<Digest, usize> = BTreeMap::new();
    for digest in contents.results.iter().flat_map(|result| &result.objects) {
        *users.entry(*digest).or_default() += 1;
    }
    let mut left: u64 = users.keys().map(size).sum();
    let mut spare: Vec<&StoredResult> =
        contents.results.iter().filter(|result| !kept.contains(&result.key)).collect();
    spare.sort_by_key(|result| (result.computed, result.key));
    let mut results = Vec::new();
    for result in spare {
        if budget.is_some_and(|budget| left <= budget) {
            break;
        }
        results.push(result.key);
        for digest in &result.objects {
            let count = users.get_mut(digest).expect("every object of a result was counted");
            *count -= 1;
            if *count == 0 {
                users.remove(digest);
                left -= size(digest);
            }
        }
    }
    let objects: Vec<Digest> =
        contents.objects.keys().filter(|digest| !users.contains_key(digest)).copied().collect();
    Removal { results, freed: objects.iter().map(size).sum(), objects, left }
}

/// Lists what lies in the cache at `folder`.
pub(super) fn contents(folder: &Path) -> Contents {
    let results = results::all(folder).map(|execution| StoredResult {
        key: execution.key,
        run: execution.run,
        computed: execution.started,
        objects: execution.outputs.iter().map(|output| output.digest).collect(),
    });
    Contents { results: results.collect(), objects: objects::all(folder).collect() }
}

/// Removes what `removal` names: results first, so that what is left is whole at any moment.
pub(super) fn remove(folder: &Path, index: &Index, removal: &Removal) -> Result<(), CacheError> {
    for key in &removal.results {
        index.forget_result(*key);
        remove_file(&results::path(folder, *key))?;
    }
    for digest in &removal.objects {
        index.forget_object(*digest);
        remove_file(&objects::path(folder, *digest))?;
    }
    let used = results::all(folder).filter_map(|execution| Fingerprint::parse(&execution.hashed));
    manifests::keep_only(folder, used.flat_map(|fingerprint| fingerprint.inputs.into_values()))
}

pub(super) fn remove_file(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(CacheError::io("remove", path)(err)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> ActionKey {
        ActionKey::from([number; 32])
    }

    fn digest(number: u8) -> Digest {
        Digest::from([number; 32])
    }

    /// A result of `key(number)`, computed at that second.
    fn result(number: u8, objects: &[u8]) -> StoredResult {
        let computed = Timestamp::from_second(i64::from(number)).unwrap();
        StoredResult {
            key: key(number),
            run: RunId(1),
            computed,
            objects: objects.iter().copied().map(digest).collect(),
        }
    }

    fn contents(results: Vec<StoredResult>) -> Contents {
        let objects =
            results.iter().flat_map(|result| result.objects.clone()).map(|digest| (digest, 10)).collect();
        Contents { results, objects }
    }

    #[test]
    fn without_a_budget_everything_goes_that_is_not_kept() {
        let mut contents = contents(vec![result(1, &[1]), result(2, &[1, 2]), result(3, &[3])]);
        contents.objects.insert(digest(9), 5);
        let removal = removal(&contents, &BTreeSet::from([key(1)]), None);
        assert_eq!(removal.results, [key(2), key(3)]);
        assert_eq!(removal.objects, [digest(2), digest(3), digest(9)], "a shared object stays");
        assert_eq!((removal.freed, removal.left), (25, 10));
    }

    #[test]
    fn with_a_budget_the_oldest_go_until_it_is_met() {
        let contents = contents(vec![result(3, &[3]), result(1, &[1]), result(2, &[2])]);
        assert_eq!(removal(&contents, &BTreeSet::new(), Some(20)).results, [key(1)]);
        assert_eq!(removal(&contents, &BTreeSet::from([key(1)]), Some(20)).results, [key(2)]);
        let all = contents.results.iter().map(|result| result.key).collect();
        assert_eq!(removal(&contents, &all, Some(0)), Removal { left: 30, ..Removal::default() });
    }

    proptest! {
        #[test]
        fn a_kept_result_never_loses_an_object(
            results in prop::collection::vec(prop::collection::vec(0u8..6, 0..4), 1..8),
            kept in prop::collection::btree_set(0u8..8, 0..8),
            budget in prop::option::of(0u64..80),
        ) {
            let results = results.iter().enumerate().map(|(number, objects)| result(number as u8, objects)).collect();
            let contents = contents(results);
            let kept: BTreeSet<ActionKey> = kept.into_iter().map(key).collect();
            let removal = removal(&contents, &kept, budget);
            for result in contents.results.iter().filter(|result| !removal.results.contains(&result.key)) {
                prop_assert!(result.objects.iter().all(|digest| !removal.objects.contains(digest)));
            }
            prop_assert!(removal.results.iter().all(|key| !kept.contains(key)));
            prop_assert_eq!(removal.freed + removal.left, contents.objects.values().sum::<u64>());
        }
    }
}
