//! What a running stage sees of the world.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{Device, Event, Job, StageError};
use crate::gpt2::{Accelerator, OpenAccelerator};

/// How long reports may wait in memory before they are written.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// How often progress is reported at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Time between checkpoints, at least.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// The inputs, outputs, seed and device of one stage, and the way to report from it.
///
/// Reports take `&self` and may come from any thread.
#[derive(Debug)]
pub struct StageCx<'a> {
    job: &'a Job,
    started: Instant,
    checkpoint_every: Duration,
    accelerator: Option<OpenAccelerator>,
    reports: Mutex<Reports>,
}

#[derive(Debug)]
struct Reports {
    file: BufWriter<File>,
    flushed: Instant,
    progress: Option<Instant>,
}

impl<'a> StageCx<'a> {
    /// Opens the event file of `job`.
    pub fn new(job: &'a Job) -> Result<Self, StageError> {
        let file = File::create(&job.events).map_err(|err| StageError::io("create", &job.events, err))?;
        let now = Instant::now();
        let reports = Reports { file: BufWriter::new(file), flushed: now, progress: None };
        let reports = Mutex::new(reports);
        Ok(Self { job, started: now, checkpoint_every: CHECKPOINT_EVERY, accelerator: None, reports })
    }

    /// Sets the time between checkpoints; with none, each place to go on from is kept.
    #[must_use]
    pub fn with_checkpoint_every(self, checkpoint_every: Duration) -> Self {
        Self { checkpoint_every, ..self }
    }

    /// Gives the stage a device beside the processor, which it opens when its job says so.
    #[must_use]
    pub fn with_accelerator(self, accelerator: Option<OpenAccelerator>) -> Self {
        Self { accelerator, ..self }
    }

    /// The file (or folder) behind the input `port`.
    ///
    /// # Panics
    ///
    /// If the kind does not declare `port`.
    pub fn input(&self, port: &str) -> &Path {
        self.job.inputs.get(port).expect("an input that the kind declares")
    }

    /// All inputs by name, for kinds whose inputs the pipeline file names.
    pub fn inputs(&self) -> &BTreeMap<String, PathBuf> {
        &self.job.inputs
    }

    /// The file that the stage must create for the output `port`.
    ///
    /// # Panics
    ///
    /// If the kind does not declare `port`.
    pub fn output(&self, port: &str) -> &Path {
        self.job.outputs.get(port).expect("an output that the kind declares")
    }

    /// The stage's seed.
    pub fn seed(&self) -> u64 {
        self.job.seed
    }

    /// Where to compute.
    pub fn device(&self) -> Device {
        self.job.device
    }

    /// Opens the device beside the processor where the job says to compute on it; `None` where the
    /// job says the processor.
    pub fn accelerator(&self) -> Result<Option<Box<dyn Accelerator>>, StageError> {
        match (self.job.device, self.accelerator) {
            (Device::Cpu, _) => Ok(None),
            (Device::Cuda, Some(open)) => open().map(Some),
            (Device::Cuda, None) => {
                let message = "this worker computes on the processor only";
                Err(StageError::new(message).help("run with `--device cpu`"))
            }
        }
    }

    /// Threads that the stage may use, at least 1.
    pub fn threads(&self) -> usize {
        self.job.threads
    }

    /// What names everything that decides the bytes of the outputs.
    pub fn key(&self) -> &str {
        &self.job.key
    }

    /// Time between checkpoints, at least.
    pub fn checkpoint_every(&self) -> Duration {
        self.checkpoint_every
    }

    /// A folder that survives a kill: what is written here is found by the next attempt.
    pub fn checkpoint(&self) -> &Path {
        &self.job.checkpoint
    }

    /// Reports a final value under a dotted `name`; not-finite values count as undefined.
    pub fn metric(&self, name: &str, value: f64) {
        self.optional_metric(name, Some(value));
    }

    /// Reports a final value that may be undefined.
    pub fn optional_metric(&self, name: &str, value: Option<f64>) {
        let value = value.filter(|value| value.is_finite());
        self.report(&Event::Metric { name: name.into(), step: None, value });
    }

    /// Reports a value at `step`.
    pub fn metric_at(&self, name: &str, step: u64, value: f64) {
        let value = Some(value).filter(|value| value.is_finite());
        self.report(&Event::Metric { name: name.into(), step: Some(step), value });
    }

    /// Reports a distribution at `step`; `edges` has one more entry than `counts`.
    pub fn histogram_at(&self, name: &str, step: u64, edges: &[f64], counts: &[u64]) {
        debug_assert_eq!(edges.len(), counts.len() + 1);
        let (edges, counts) = (edges.to_vec(), counts.to_vec());
        self.report(&Event::Histogram { name: name.into(), step: Some(step), edges, counts });
    }

    /// Reports how far the stage has come, such as 120 of 600 `reviews`.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: &str) {
        {
            let mut reports = self.reports.lock().expect("no report panics");
            let finished = total.is_some_and(|total| done >= total);
            if !finished && reports.progress.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
                return;
            }
            reports.progress = Some(Instant::now());
        }
        self.report(&Event::Progress { done, total, unit: unit.into() });
    }

    /// Writes a line to the stage's log.
    pub fn log(&self, text: impl Display) {
        self.report(&Event::Log { at: self.started.elapsed().as_secs_f64(), text: text.to_string() });
    }

    /// Says what the stage computes on, as a person would name it.
    pub fn computes_on(&self, name: &str) {
        self.report(&Event::Device { name: name.into() });
    }

    /// Reports a failure, if `result` is one, and writes out everything reported so far.
    pub fn finish(self, result: Result<(), StageError>) -> Result<(), StageError> {
        if let Err(error) = &result {
            self.report(&Event::Failed {
                message: error.to_string(),
                causes: error.causes(),
                help: error.help_text().map(Into::into),
            });
        }
        let mut reports = self.reports.into_inner().expect("no report panics");
        let written = reports.file.flush().map_err(|err| StageError::io("write", &self.job.events, err));
        result.and(written)
    }

    /// Reports are best effort while the stage runs; [`Self::finish`] says if one was lost.
    fn report(&self, event: &Event) {
        let mut reports = self.reports.lock().expect("no report panics");
        let _ = serde_json::to_writer(&mut reports.file, event);
        let _ = reports.file.write_all(b"\n");
        if reports.flushed.elapsed() >= FLUSH_EVERY {
            let _ = reports.file.flush();
            reports.flushed = Instant::now();
        }
    }
}
