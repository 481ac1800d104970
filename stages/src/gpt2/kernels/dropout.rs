//! Dropout whose draws depend on what is dropped alone, not on when it is computed.
//!
//! A draw is a function of the seed, the update, the row's place in the batch, the site (block and
//! layer) and the element. So neither the split of a batch into micro-batches nor the number of
//! threads changes a mask, and the backward pass draws it again instead of keeping it.

use crate::gpt2::LoraTarget;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A place in a block where elements are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// Attention probabilities; the element is `(head · T + query) · T + key`.
    Attention,
    /// Output of the attention branch; the element is `position · n_embd + channel`.
    AttentionBranch,
    /// Output of the MLP branch; the element is `position · n_embd + channel`.
    MlpBranch,
    /// Input of the low-rank addition to a projection; the element is `position · n_embd + channel`.
    LoraInput(LoraTarget),
}

impl Site {
    fn code(self) -> u64 {
        match self {
            Site::Attention => 0,
            Site::AttentionBranch => 1,
            Site::MlpBranch => 2,
            Site::LoraInput(target) => u64::from(u32::from(target.letter())),
        }
    }
}

/// The draws of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draws {
    key: u64,
    /// Share of elements dropped at all sites but the inputs of low-rank additions, in `0.0..1.0`.
    pub dropout: f64,
    /// Share of elements dropped at the inputs of low-rank additions, in `0.0..1.0`.
    pub lora_dropout: f64,
}

/// Which elements of one row are dropped at one site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mask {
    /// What the draws are made from.
    pub key: u64,
    /// An element is dropped when its draw is below this.
    pub threshold: u64,
    /// What a kept element is multiplied by.
    pub kept: f32,
}

impl Draws {
    /// The draws of update `step`.
    pub fn new(seed: u64, step: u64, dropout: f64, lora_dropout: f64) -> Self {
        Self { key: mix(mix(seed).wrapping_add(step.wrapping_mul(GOLDEN))), dropout, lora_dropout }
    }

    /// The mask at `site` of `block` for the row at place `slot` of the batch; `None` where
    /// nothing is dropped.
    pub fn mask(&self, slot: u64, block: usize, site: Site) -> Option<Mask> {
        let share = match site {
            Site::LoraInput(_) => self.lora_dropout,
            Site::Attention | Site::AttentionBranch | Site::MlpBranch => self.dropout,
        };
        let place = (block as u64) << 8 | site.code();
        let key = mix(mix(self.key ^ slot.wrapping_mul(GOLDEN)).wrapping_add(place));
        let threshold = (share * 2f64.powi(32)).round() as u64;
        (threshold > 0).then_some(Mask { key, threshold, kept: (1.0 / (1.0 - share)) as f32 })
    }
}

impl Mask {
    /// What `element` is multiplied by: 0 when it is dropped, else the reciprocal of the share kept.
    #[inline]
    pub fn factor(&self, element: usize) -> f32 {
        let draw = mix(self.key.wrapping_add((element as u64).wrapping_mul(GOLDEN))) >> 32;
        if draw < self.threshold { 0.0 } else { self.kept }
    }

    /// Multiplies `values`, whose first is `element`, by their factors.
    pub fn apply(&self, element: usize, values: &mut [f32]) {
        for (offset, value) in values.iter_mut().enumerate() {
            *value *= self.factor(element + offset);
        }
    }
}

/// The finalizer of `SplitMix64`.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Draws, LoraTarget, Site};

    #[test]
    fn the_share_dropped_is_the_wanted_one_and_the_mean_stays() {
        let mask = Draws::new(1, 2, 0.1, 0.0).mask(3, 4, Site::MlpBranch).unwrap();
        let count = 200_000;
        let factors: Vec<f32> = (0..count).map(|element| mask.factor(element)).collect();
        let dropped =
            factors.iter().filter(|factor| **factor == 0.0).count() as f64 / f64::from(count as u32);
        let mean = factors.iter().map(|factor| f64::from(*factor)).sum::<f64>() / f64::from(count as u32);
        assert!((dropped - 0.1).abs() < 0.003, "{dropped}");
        assert!((mean - 1.0).abs() < 0.004, "{mean}");
    }

    #[test]
    fn every_part_of_the_address_moves_the_mask() {
        let pattern = |seed, step, slot, block, site| -> Vec<bool> {
            let mask = Draws::new(seed, step, 0.5, 0.5).mask(slot, block, site).unwrap();
            (0..256).map(|element| mask.factor(element) == 0.0).collect()
        };
        let base = pattern(1, 2, 3, 4, Site::Attention);
        assert_eq!(base, pattern(1, 2, 3, 4, Site::Attention));
        for other in [
            pattern(2, 2, 3, 4, Site::Attention),
            pattern(1, 3, 3, 4, Site::Attention),
            pattern(1, 2, 4, 4, Site::Attention),
            pattern(1, 2, 3, 5, Site::Attention),
            pattern(1, 2, 3, 4, Site::AttentionBranch),
        ] {
            let equal = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((80..176).contains(&equal), "two masks agree in {equal} of 256 elements");
        }
    }

    #[test]
    fn nothing_is_drawn_without_dropout() {
        assert_eq!(Draws::new(1, 2, 0.0, 0.0).mask(0, 0, Site::Attention), None);
        assert_eq!(Draws::new(1, 2, 0.5, 0.0).mask(0, 0, Site::LoraInput(LoraTarget::Q)), None);
    }
}
