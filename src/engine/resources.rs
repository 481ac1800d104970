//! What stages that run side by side may use together.

use crate::pipeline::StageSpec;

/// Cores, memory and GPUs, as a whole or as one stage's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Cores.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// GPUs.
    pub gpus: usize,
}

impl Capacity {
    /// What `spec` takes of `self` when it runs: a model takes all cores unless told otherwise.
    ///
    /// A stage that asks for more cores or memory than there are gets what there is.
    #[must_use]
    pub fn share(&self, spec: &StageSpec) -> Self {
        let cpus = spec.resources.cpus.unwrap_or(if spec.kind.runs_model { self.cpus } else { 1 });
        Self {
            cpus: cpus.clamp(1, self.cpus),
            memory: spec.resources.memory.map_or(0, |memory| memory.0).min(self.memory),
            gpus: spec.resources.gpus,
        }
    }

    /// Takes `share` away if all of it is free.
    pub(super) fn take(&mut self, share: Self) -> bool {
        let fits = share.cpus <= self.cpus && share.memory <= self.memory && share.gpus <= self.gpus;
        if fits {
            self.cpus -= share.cpus;
            self.memory -= share.memory;
            self.gpus -= share.gpus;
        }
        fits
    }

    /// Gives `share` back.
    pub(super) fn give_back(&mut self, share: Self) {
        self.cpus += share.cpus;
        self.memory += share.memory;
        self.gpus += share.gpus;
    }
}
