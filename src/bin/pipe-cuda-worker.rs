//! The process of one stage that computes on a GPU; the only program of `pipe` that links CUDA.
//!
//! `pipe run` asks it for its devices (`--devices`) and then starts it as it starts `pipe worker`.

use std::process::ExitCode;

use pipe_cuda::{DeviceInfo, DevicesError};
use pipe_stages::contract::{DEVICES, Gpu, Probe, ProbeFailure, ProbeFailureKind, worker};

fn main() -> ExitCode {
    if std::env::args().nth(1).is_none_or(|word| word != DEVICES) {
        return worker(pipe_stages::kinds(), Some(pipe_cuda::open));
    }
    let (probes, code) = match usable_gpus() {
        Ok(gpus) => (gpus.into_iter().map(Probe::Gpu).collect(), ExitCode::SUCCESS),
        Err(failure) => (vec![Probe::Failed(failure)], ExitCode::FAILURE),
    };
    for probe in &probes {
        println!("{}", serde_json::to_string(probe).expect("plain values serialize to JSON"));
    }
    code
}

/// The GPUs that this program can compute on, at least one.
fn usable_gpus() -> Result<Vec<Gpu>, ProbeFailure> {
    let mut found = pipe_cuda::devices().map_err(|err| failure(&err))?;
    let (needed, driver) = (pipe_cuda::CUDA_VERSION, found[0].driver);
    if driver < needed {
        let message = format!(
            "the driver supports CUDA {}, the worker is built with {}",
            version(driver),
            version(needed)
        );
        return Err(ProbeFailure { kind: ProbeFailureKind::DriverTooOld, message });
    }
    let least = pipe_cuda::LEAST_CAPABILITY;
    let newest = found.iter().map(|gpu| gpu.capability).max().unwrap_or_default();
    found.retain(|gpu| gpu.capability >= least);
    if found.is_empty() {
        let message = format!(
            "a compute capability of {} is needed, that of the GPU is {}",
            version(least),
            version(newest)
        );
        return Err(ProbeFailure { kind: ProbeFailureKind::Unusable, message });
    }
    Ok(found.into_iter().map(gpu).collect())
}

fn gpu(found: DeviceInfo) -> Gpu {
    Gpu {
        index: found.index,
        name: found.name,
        memory: found.memory as u64,
        compute_capability: version(found.capability),
        driver: version(found.driver),
    }
}

fn failure(err: &DevicesError) -> ProbeFailure {
    let kind = match err {
        DevicesError::DriverTooOld => ProbeFailureKind::DriverTooOld,
        DevicesError::NoDevice => ProbeFailureKind::NoDevice,
        DevicesError::Driver(_) => ProbeFailureKind::Unusable,
    };
    ProbeFailure { kind, message: err.to_string() }
}

/// `13.0`
fn version((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}
