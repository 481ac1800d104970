//! What a worker that computes on GPUs says when it is asked for them.
//!
//! `pipe-cuda-worker --devices` prints one [`Probe`] a line: every GPU that it can use, or why there is none.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The argument by which a worker is asked for its devices instead of being given a stage.
pub const DEVICES: &str = "--devices";

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A GPU that can be used.
    Gpu(Gpu),
    /// Why no GPU can be used.
    Failed(ProbeFailure),
}

/// A GPU that a worker can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number among those that the worker sees, from 0.
    pub index: usize,
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its memory, bytes.
    pub memory: u64,
    /// Its compute capability, such as `9.0`.
    pub compute_capability: String,
    /// The newest CUDA version that the driver supports, such as `13.0`.
    pub driver: String,
}

/// Why no GPU can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailure {
    /// What kind of failure it is.
    pub kind: ProbeFailureKind,
    /// What the driver said, or what was found: lowercase, no full stop.
    pub message: String,
}

/// What keeps a worker from using a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeFailureKind {
    /// The driver is older than the CUDA version that the worker was built with.
    DriverTooOld,
    /// The driver works and knows of no GPU.
    NoDevice,
    /// Anything else, such as a driver that does not fit the kernel.
    Unusable,
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
