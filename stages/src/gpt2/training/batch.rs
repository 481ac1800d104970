//! Prompts that are computed together.

use rayon::prelude::*;

use crate::gpt2::kernels::{
    dropout::{Draws, Mask, Site},
    gradient::attention::Pattern,
};

/// The prompts of a micro-batch: where they lie, and what is dropped.
#[derive(Debug, Clone)]
pub struct Batch {
    /// One entry more than prompts: prompt `i` has the positions `offsets[i]..offsets[i + 1]`.
    offsets: Vec<usize>,
    /// Place of the first prompt in the batch of the update.
    first_slot: u64,
    draws: Option<Draws>,
}

impl Batch {
    /// Prompts of the given `lengths`, each at least 1, where nothing is dropped.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        offsets.extend(lengths.into_iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        }));
        Self { offsets, first_slot: 0, draws: None }
    }

    /// Drops by `draws`; the prompts have the places from `first_slot` on in the update's batch.
    #[must_use]
    pub fn dropping(mut self, draws: Draws, first_slot: usize) -> Self {
        (self.draws, self.first_slot) = (Some(draws), first_slot as u64);
        self
    }

    /// The same prompts where nothing is dropped.
    #[must_use]
    pub fn without_dropout(&self) -> Self {
        Self { draws: None, ..self.clone() }
    }

    /// Where each prompt begins among the positions, and where the last one ends.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Number of prompts.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no prompts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions of all prompts together.
    pub fn positions(&self) -> usize {
        self.offsets[self.len()]
    }

    /// The mask of each prompt at `site` of `block`.
    pub fn masks(&self, block: usize, site: Site) -> Vec<Option<Mask>> {
        let slots = self.first_slot..self.first_slot + self.len() as u64;
        slots.map(|slot| self.draws.and_then(|draws| draws.mask(slot, block, site))).collect()
    }

    /// The attention of `block`, of every position or of the last ones alone.
    pub(super) fn pattern(&self, last: bool, block: usize, n_head: usize, n_embd: usize) -> Pattern {
        Pattern::new(&self.offsets, last, &self.masks(block, Site::Attention), n_head, n_embd)
    }

    /// Of `states` `[positions, n_embd]` those of the last positions, `[prompts, n_embd]`.
    pub(super) fn last_rows(&self, states: &[f32], n_embd: usize) -> Vec<f32> {
        let rows = self.offsets[1..].iter().map(|end| &states[(end - 1) * n_embd..end * n_embd]);
        rows.flatten().copied().collect()
    }

    /// Adds `rows` `[prompts, n_embd]` to those of the last positions.
    pub(super) fn add_to_last_rows(&self, rows: &[f32], states: &mut [f32], n_embd: usize) {
        for (end, row) in self.offsets[1..].iter().zip(rows.chunks_exact(n_embd)) {
            let state = &mut states[(end - 1) * n_embd..end * n_embd];
            state.iter_mut().zip(row).for_each(|(state, value)| *state += value);
        }
    }

    /// Whether anything is dropped at `site`.
    pub(super) fn drops(&self, block: usize, site: Site) -> bool {
        self.draws.is_some_and(|draws| draws.mask(0, block, site).is_some())
    }

    /// Multiplies `values` `[rows, n_embd]` by the masks at `site` of `block`.
    pub(super) fn apply_dropout(
        &self,
        last: bool,
        block: usize,
        site: Site,
        values: &mut [f32],
        n_embd: usize,
    ) {
        if !self.drops(block, site) {
            return;
        }
        let mut rest = values;
        let mut tasks = Vec::new();
        for (cut, mask) in self.offsets.windows(2).zip(self.masks(block, site)) {
            let length = cut[1] - cut[0];
            let first = if last { length - 1 } else { 0 };
            let (values, later) = rest.split_at_mut((length - first) * n_embd);
            rest = later;
            tasks.extend(mask.map(|mask| (mask, first * n_embd, values)));
        }
        tasks.into_par_iter().for_each(|(mask, element, values)| {
            values.par_chunks_mut(n_embd).enumerate().with_min_len(32).for_each(|(row, values)| {
                mask.apply(element + row * n_embd, values);
            });
        });
    }
}
