//! `--device`: where models compute, and the GPUs that stages may use.

use anstyle::Style;
use clap::{Args, ValueEnum};
use pipe_stages::contract::{Device, Gpu};

use super::{Failure, line::Line, units};
use crate::{
    engine::{Planned, Request, TooFewGpus, Verdict},
    exec::{CudaWorker, GpuError, visible_names, without_worker},
    pipeline::{Pipeline, StageSpec},
    resources::Bytes,
};

/// The option of verbs that execute stages.
#[derive(Debug, Clone, Args)]
pub(super) struct DeviceOption {
    /// Where models compute [default: auto]
    #[arg(long = "device", value_enum, value_name = "DEVICE")]
    choice: Option<Choice>,
}

/// Where models compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Choice {
    /// A GPU if there is one that works, else the processor; to compute something again, what it was computed
    /// on
    Auto,
    /// The processor
    Cpu,
    /// An NVIDIA GPU, through the executable `pipe-cuda-worker` beside `pipe`
    Cuda,
}

/// What stages would use GPUs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants {
    /// Whether a model would be computed, on a GPU if there is one.
    pub model: bool,
    /// Whether a stage asks for a GPU of its own.
    pub gpus: bool,
    /// Whether to say why no GPU was taken.
    pub told: bool,
}

/// What stages compute on.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// Where models compute.
    pub device: Device,
    /// The GPUs, as `CUDA_VISIBLE_DEVICES` names them.
    pub gpus: Vec<String>,
    /// What computes on them.
    pub worker: Option<CudaWorker>,
    /// What a person should know about the choice.
    told: Option<String>,
}

impl DeviceOption {
    /// What the person chose, if anything.
    pub fn chosen(&self) -> Option<Choice> {
        self.choice
    }

    /// The option as a person would write it again, if it was given.
    pub fn words(&self) -> Option<String> {
        let value = self.choice?.to_possible_value()?;
        (self.choice != Some(Choice::Auto)).then(|| format!("--device {}", value.get_name()))
    }

    /// Whether it may turn out that a model computes on a GPU.
    fn may_be_gpu(&self) -> bool {
        match self.choice {
            Some(Choice::Cpu) => false,
            Some(Choice::Cuda) => true,
            Some(Choice::Auto) | None => CudaWorker::find().is_ok(),
        }
    }

    /// What was asked for by name: an error where it is not there, whatever is to be run.
    pub fn demanded(&self) -> Result<Option<Devices>, Failure> {
        match self.choice {
            Some(Choice::Cuda) => Ok(Some(Devices::on_gpus(ask_worker()?))),
            Some(Choice::Auto | Choice::Cpu) | None => Ok(None),
        }
    }

    /// Finds what the stages of `request` compute on, those that would run by what `plan` says; asks no
    /// driver where that makes no difference.
    pub fn for_request(
        &self,
        demanded: Option<Devices>,
        request: &mut Request<'_>,
        plan: &dyn Fn(&Request<'_>) -> Result<Vec<Planned>, Failure>,
    ) -> Result<Devices, Failure> {
        let wanted: Vec<String> = request.wanted();
        let spec = |stage: &String| &request.pipeline.stages[stage];
        let any = |is: fn(&StageSpec) -> bool| wanted.iter().any(|stage| is(spec(stage)));
        let (runs_model, asks) =
            (|spec: &StageSpec| spec.kind.runs_model, asks_for_gpu as fn(&StageSpec) -> bool);
        let mut wants =
            Wants { model: any(runs_model), gpus: any(asks), told: self.choice == Some(Choice::Auto) };
        let matters = wants.gpus || (wants.model && self.may_be_gpu());
        // What cannot be done is said before anything is; a whole pipeline on the processor can be.
        let planned = if matters || request.selected.is_some() { plan(request)? } else { Vec::new() };
        if matters {
            let running = planned.iter().filter(|plan| plan.verdict == Verdict::Run);
            let running: Vec<&StageSpec> = running.map(|plan| spec(&plan.stage)).collect();
            wants.model = running.iter().any(|spec| runs_model(spec));
            wants.gpus = running.iter().any(|spec| asks(spec));
        }
        let devices = demanded.map_or_else(|| self.find(wants), Ok)?;
        devices.lend_to(request);
        request.has_gpus_for(&planned).map_err(too_few)?;
        Ok(devices)
    }

    /// Finds what there is for what is wanted.
    pub fn find(&self, wants: Wants) -> Result<Devices, Failure> {
        if let Some(demanded) = self.demanded()? {
            return Ok(demanded);
        }
        let of_programs = |wants: Wants| if wants.gpus { without_worker() } else { Vec::new() };
        match self.choice {
            Some(Choice::Cpu) if !wants.gpus => Ok(Devices::default()),
            Some(Choice::Cpu) => {
                let gpus = ask_worker().map_or_else(|_| without_worker(), |(gpus, _)| visible_names(&gpus));
                Ok(Devices { gpus, ..Devices::default() })
            }
            _ if !wants.model && !wants.gpus => Ok(Devices::default()),
            _ => Ok(match ask_worker() {
                Ok(found) => Devices::on_gpus(found),
                Err(err) => {
                    // A GPU that is there and left alone is worth a word, unasked too.
                    let is_told = wants.model && (wants.told || is_driver_too_old(&err));
                    let told = is_told.then(|| format!("cpu, since {err}"));
                    Devices { gpus: of_programs(wants), told, ..Devices::default() }
                }
            }),
        }
    }
}

impl Devices {
    fn on_gpus((gpus, worker): (Vec<Gpu>, CudaWorker)) -> Self {
        let told = Some(format!("cuda: {}", names(&gpus)));
        Self { device: Device::Cuda, gpus: visible_names(&gpus), worker: Some(worker), told }
    }

    /// Lets the stages of `request` use them.
    pub fn lend_to(&self, request: &mut Request<'_>) {
        request.capacity.device = self.device;
        request.capacity.gpus = self.gpus.len();
        request.gpus.clone_from(&self.gpus);
    }

    /// What a person should know about the choice.
    pub fn told(&self) -> Option<Line> {
        Some(Line::new("device", Style::new().bold()).say(self.told.as_ref()?))
    }
}

/// The worker for GPUs and what it can use.
fn ask_worker() -> Result<(Vec<Gpu>, CudaWorker), GpuError> {
    let worker = CudaWorker::find()?;
    Ok((worker.gpus()?, worker))
}

/// Whether a stage of `pipeline` asks for a GPU of its own.
pub(super) fn any_asks_for_gpu(pipeline: &Pipeline) -> bool {
    pipeline.stages.values().any(asks_for_gpu)
}

fn asks_for_gpu(spec: &StageSpec) -> bool {
    spec.resources.gpus.is_some_and(|gpus| gpus > 0)
}

fn is_driver_too_old(err: &GpuError) -> bool {
    use pipe_stages::contract::ProbeFailureKind::DriverTooOld;
    matches!(err, GpuError::Unusable { failure } if failure.kind == DriverTooOld)
}

/// `NVIDIA H100 80GB HBM3 (79.2 GiB)`, or `2 × NVIDIA H100 80GB HBM3 (79.2 GiB)`.
fn names(gpus: &[Gpu]) -> String {
    let name = |gpu: &Gpu| format!("{} ({})", gpu.name, Bytes(gpu.memory));
    let mut counted: Vec<(String, usize)> = Vec::new();
    for name in gpus.iter().map(name) {
        match counted.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counted.push((name, 1)),
        }
    }
    let words = |(name, count): (String, usize)| if count == 1 { name } else { format!("{count} × {name}") };
    units::list(&counted.into_iter().map(words).collect::<Vec<_>>())
}

/// Why a run with too few GPUs does not begin.
fn too_few(err: TooFewGpus) -> Failure {
    Failure::error(err).exit(2).help(
        "lower `resources: { gpus: … }` of the stage; GPUs are those that the CUDA worker or, without one, \
         `CUDA_VISIBLE_DEVICES` or /dev names",
    )
}
