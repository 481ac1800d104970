//! What `pipe` and a worker say to each other.
//!
//! A worker first prints one [`Hello`] line, then reads one [`Job`] line from its
//! standard input, which stays open: when it closes, `pipe` is gone and the worker ends.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the words exchanged with a worker.
pub const PROTOCOL: u32 = 2;

/// What a worker says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the worker.
    pub protocol: u32,
    /// Package version of the worker.
    pub build: String,
    /// Kinds it can run, with their `VERSION`.
    pub kinds: BTreeMap<String, u32>,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl Device {
    /// The device that a stage called by `name` when it said what it computes on.
    pub fn of_name(name: &str) -> Self {
        if name.starts_with("cuda") { Device::Cuda } else { Device::Cpu }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        })
    }
}

/// One stage to run: everything a worker needs, nothing it could look up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The stage's name, for messages.
    pub stage: String,
    /// The key of its result: equal for two jobs exactly when they should write the same bytes.
    pub key: String,
    /// Its kind.
    pub kind: String,
    /// The kind's version that the key was made with.
    pub version: u32,
    /// Resolved parameters, defaults filled in.
    pub params: Value,
    /// The stage's seed; 0 for kinds that draw nothing.
    pub seed: u64,
    /// A file (or folder) for every input.
    pub inputs: BTreeMap<String, PathBuf>,
    /// A file (or folder, packed in the end) to create for every output; the folder it lies in exists.
    pub outputs: BTreeMap<String, PathBuf>,
    /// The event file, created by the worker.
    pub events: PathBuf,
    /// A folder that survives a kill, for checkpoints; it exists.
    pub checkpoint: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// Threads that the stage may use, at least 1.
    pub threads: usize,
}
