//! Runs one stage in a folder of its own, as a worker would.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use pipe_stages::{
    contract::{Device, Event, Job, ParamProblem, StageCx, StageError, StageKind, read_events},
    gpt2::OpenAccelerator,
    kinds,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A folder in which stages run.
pub struct Lab {
    dir: Rc<TempDir>,
    runs: std::cell::Cell<usize>,
    /// Threads that stages may use.
    pub threads: usize,
    /// Seed of stages that draw.
    pub seed: u64,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// Where stages compute.
    pub device: Device,
    /// Opens the device beside the processor.
    pub accelerator: Option<OpenAccelerator>,
}

/// What a stage wrote and reported.
#[derive(Debug)]
pub struct Ran {
    _dir: Rc<TempDir>,
    outputs: BTreeMap<String, PathBuf>,
    /// Its events, in order.
    pub events: Vec<Event>,
}

/// SHA-256 of `bytes` in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The kind called `name`.
pub fn kind(name: &str) -> StageKind {
    *kinds().iter().find(|kind| kind.name == name).expect("a registered kind")
}

/// What is wrong with the parameters `with` of `kind_name`, as `path: message`.
pub fn problems(kind_name: &str, with: Value) -> Vec<String> {
    let text = |problem: ParamProblem| format!("{}: {}", problem.path, problem.message);
    match kind(kind_name).resolve(with) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(text).collect(),
    }
}

impl Lab {
    /// An empty folder.
    pub fn new() -> Self {
        let dir = Rc::new(TempDir::new().expect("a temporary folder"));
        fs::create_dir(dir.path().join("checkpoint")).expect("a checkpoint folder");
        Self {
            dir,
            runs: std::cell::Cell::new(0),
            threads: 2,
            seed: 1337,
            checkpoint_every: Duration::from_hours(1),
            device: Device::Cpu,
            accelerator: None,
        }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `kind_name` with the parameters `with` on `inputs`.
    pub fn run(&self, kind_name: &str, with: Value, inputs: &[(&str, &Path)]) -> Result<Ran, StageError> {
        self.run_kind(&kind(kind_name), with, inputs)
    }

    /// Runs a kind that need not be registered.
    pub fn run_kind(
        &self,
        kind: &StageKind,
        with: Value,
        inputs: &[(&str, &Path)],
    ) -> Result<Ran, StageError> {
        let resolved = kind.resolve(with).unwrap_or_else(|problems| panic!("{problems:?}"));
        self.runs.set(self.runs.get() + 1);
        let out = self.path(&format!("run_{}", self.runs.get()));
        fs::create_dir(&out).expect("an output folder");
        let job = Job {
            stage: kind.name.into(),
            key: format!("{} {}", kind.name, resolved.hashed),
            kind: kind.name.into(),
            version: kind.version,
            params: resolved.params.clone(),
            seed: if kind.draws { self.seed } else { 0 },
            inputs: inputs.iter().map(|(name, path)| ((*name).to_owned(), path.to_path_buf())).collect(),
            outputs: resolved
                .ports
                .outputs
                .iter()
                .map(|port| (port.name.clone(), out.join(&port.name)))
                .collect(),
            events: out.join("events.jsonl"),
            checkpoint: self.path("checkpoint"),
            device: self.device,
            threads: self.threads,
        };
        let cx = StageCx::new(&job).expect("an event file").with_checkpoint_every(self.checkpoint_every);
        let mut cx = cx.with_accelerator(self.accelerator);
        let result = kind.run(job.params.clone(), &mut cx);
        drop(cx);
        let (events, _) = read_events(&fs::read(&job.events).expect("the event file"));
        result.map(|()| Ran { _dir: Rc::clone(&self.dir), outputs: job.outputs, events })
    }
}

impl Ran {
    /// The file behind the output `port`.
    pub fn output(&self, port: &str) -> &Path {
        &self.outputs[port]
    }

    /// The content of the output `port`.
    pub fn text(&self, port: &str) -> String {
        fs::read_to_string(self.output(port)).expect("an output of text")
    }

    /// SHA-256 of the output `port`.
    pub fn digest(&self, port: &str) -> String {
        sha256(&fs::read(self.output(port)).expect("an output"))
    }

    /// The final value of the metric `name`.
    ///
    /// # Panics
    ///
    /// If the stage did not report it.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics().remove(name).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// All final metrics.
    pub fn metrics(&self) -> BTreeMap<String, Option<f64>> {
        let metric = |event: &Event| match event {
            Event::Metric { name, step: None, value } => Some((name.clone(), *value)),
            _ => None,
        };
        self.events.iter().filter_map(metric).collect()
    }
}
