//! Which stages of different runs are the same stage.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{LoadedRun, LoadedStage};
use crate::names::base;

/// One stage in each of several runs.
#[derive(Debug, Clone)]
pub(super) struct Pair<'a> {
    /// The stage in each run, where it has it.
    pub stages: Vec<Option<&'a LoadedStage>>,
}

impl<'a> Pair<'a> {
    fn first(&self) -> &'a LoadedStage {
        self.stages.iter().flatten().next().expect("a pair holds a stage")
    }

    /// What the first run that has it calls it.
    pub fn name(&self) -> &'a str {
        &self.first().stage
    }

    /// The kind in the first run that has it.
    pub fn kind(&self) -> &'a str {
        &self.first().kind
    }

    /// The stage in each of `runs` that has it, from the latest run to the first.
    pub fn latest_first(&self, runs: &[LoadedRun]) -> Vec<&'a LoadedStage> {
        let mut stages: Vec<_> = runs.iter().zip(self.stages.iter().copied()).collect();
        stages.sort_by_key(|(run, _)| Reverse(run.info.run));
        stages.into_iter().filter_map(|(_, stage)| stage).collect()
    }
}

/// Pairs the stages of `runs`: by name; those left by equal key, so that a renamed stage is
/// found again; then by kind, where one of it is left on each side.
pub(super) fn pair_stages(runs: &[LoadedRun]) -> Vec<Pair<'_>> {
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let mut left: Vec<&LoadedStage> = Vec::new();
        let by_name: BTreeMap<&str, usize> =
            pairs.iter().enumerate().map(|(index, pair)| (pair.name(), index)).collect();
        for stage in &run.stages {
            match by_name.get(stage.stage.as_str()) {
                Some(index) => pairs[*index].stages[at] = Some(stage),
                None => left.push(stage),
            }
        }
        left.retain(|stage| {
            let twin = |pair: &&mut Pair<'_>| {
                pair.stages[at].is_none() && stage.key.is_some() && pair.first().key == stage.key
            };
            pairs.iter_mut().find(twin).map(|pair| pair.stages[at] = Some(stage)).is_none()
        });
        let only = |stage: &&LoadedStage| left.iter().filter(|other| other.kind == stage.kind).count() == 1;
        let lonely: Vec<bool> = left.iter().map(only).collect();
        for (stage, lonely) in left.into_iter().zip(lonely) {
            let mut alike: Vec<&mut Pair<'_>> = pairs
                .iter_mut()
                .filter(|pair| pair.stages[at].is_none() && pair.kind() == stage.kind)
                .filter(|pair| !are_instances(pair.name(), &stage.stage))
                .collect();
            if let ([pair], true) = (alike.as_mut_slice(), lonely) {
                pair.stages[at] = Some(stage);
            } else {
                let mut stages = vec![None; runs.len()];
                stages[at] = Some(stage);
                pairs.push(Pair { stages });
            }
        }
    }
    pairs
}

/// Whether both are instances of one stage: with other values they are not the same one, renamed.
fn are_instances(a: &str, b: &str) -> bool {
    base(a) == base(b) && base(a) != a && base(b) != b
}
