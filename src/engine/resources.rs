//! What stages that run side by side may use together.

use pipe_stages::contract::Device;

use crate::pipeline::StageSpec;

/// Cores, memory and GPUs, as a whole or as one stage's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Where models compute.
    pub device: Device,
    /// Cores.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// GPUs.
    pub gpus: usize,
}

impl Capacity {
    /// That of a machine without GPUs: `cpus` cores and `memory` bytes.
    pub fn of_processor(cpus: usize, memory: u64) -> Self {
        Self { device: Device::Cpu, cpus, memory, gpus: 0 }
    }

    /// What `spec` takes of `self` when it runs, unless told otherwise: a model takes a GPU and its part of
    /// the cores where models compute on GPUs, else all cores; anything else takes one core.
    ///
    /// A stage that asks for more cores or memory than there are gets what there is. GPUs are never fewer
    /// than it asks for: they may be more than there are.
    #[must_use]
    pub fn share(&self, spec: &StageSpec) -> Self {
        let may_use_gpu = spec.kind.runs_model && self.device == Device::Cuda;
        let gpus = spec.resources.gpus.unwrap_or(usize::from(may_use_gpu));
        let device = if may_use_gpu && gpus > 0 { Device::Cuda } else { Device::Cpu };
        let usual_cpus = match (spec.kind.runs_model, device) {
            (true, Device::Cuda) => self.cpus / self.gpus.max(1),
            (true, Device::Cpu) => self.cpus,
            (false, _) => 1,
        };
        Self {
            device,
            cpus: spec.resources.cpus.unwrap_or(usual_cpus).clamp(1, self.cpus),
            memory: spec.resources.memory.map_or(0, |memory| memory.0).min(self.memory),
            gpus,
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
