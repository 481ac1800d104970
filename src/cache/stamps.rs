//! The stats of many objects, to see at a glance that none was touched.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{index::Index, objects, stat::Stat};
use crate::digest::Digest;

/// Objects, each with the stat that it had when its bytes were last seen to be right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamps(Vec<([u8; 32], Stat)>);

impl Stamps {
    /// The stamps of `objects`; `None` if one was never seen to be right.
    pub(super) fn of(index: &Index, objects: &[Digest]) -> Option<Self> {
        let mut objects = objects.to_vec();
        objects.sort_unstable();
        objects.dedup();
        let stamp = |digest: Digest| index.object(digest).map(|stat| (*digest.as_bytes(), stat));
        objects.into_iter().map(stamp).collect::<Option<_>>().map(Self)
    }

    /// Whether all still look like that.
    pub(super) fn hold(&self, folder: &Path) -> bool {
        let holds = |(digest, stat): &([u8; 32], Stat)| {
            Stat::of(&objects::path(folder, Digest::from(*digest))).is_ok_and(|found| found == *stat)
        };
        self.0.iter().all(holds)
    }
}
