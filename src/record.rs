//! What is remembered of a run: plain values that the engine makes and that the cache and
//! `runs.db` keep.
//!
//! An [`Execution`] is one stage computed once; any number of runs are satisfied by it. A
//! [`StageRecord`] is what one run did about one stage.

use std::path::PathBuf;

use jiff::Timestamp;
use pipe_stages::contract::PortType;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    digest::{ActionKey, Digest},
    names::{Place, RunId},
};

/// What is known of a run when it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct RunStart {
    /// The pipeline file, relative to the project root where it lies below it.
    pub file: PathBuf,
    /// `name:` of the pipeline.
    pub pipeline: String,
    /// Profiles in the order they were applied.
    pub profiles: Vec<String>,
    /// `--set` in the order they were applied.
    pub sets: Vec<String>,
    /// The pipeline's seed.
    pub seed: u64,
    /// The pipeline after profiles, `--set` and variables, as JSON.
    pub resolved: Value,
    /// How it was called.
    pub invocation: Invocation,
}

/// When, where and how `pipe run` was called.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// The words of the command line, without the program.
    pub command: Vec<String>,
    /// The state of the git checkout, where there is one.
    pub git: Option<GitState>,
    /// Version of the `pipe` binary.
    pub version: String,
    /// Name of the machine.
    pub host: String,
    /// Cores that stages could use.
    pub cpus: usize,
    /// When the run started.
    pub started: Timestamp,
}

/// The state of a git checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitState {
    /// The commit that is checked out.
    pub commit: String,
    /// Whether tracked files have uncommitted changes.
    pub is_dirty: bool,
    /// Those changes as `git diff HEAD --binary` prints them; empty if there are none, or too many to keep.
    pub patch: Vec<u8>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Not ended yet, or `pipe` was killed.
    Running,
    /// Every wanted stage has a result.
    Done,
    /// A stage failed.
    Failed,
    /// Stopped by Ctrl-C or a signal.
    Interrupted,
}

/// What a run did about one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was executed.
    Ran,
    /// A result was found.
    Cached,
    /// It was executed and failed.
    Failed,
    /// It was not reached, since a stage failed or the run was stopped.
    Skipped,
    /// It was stopped.
    Interrupted,
}

impl RunStatus {
    /// The word that people and the database read.
    pub fn word(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Done => "done",
            RunStatus::Failed => "failed",
            RunStatus::Interrupted => "interrupted",
        }
    }
}

impl Outcome {
    /// The word that people and the database read.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Ran => "ran",
            Outcome::Cached => "cached",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
            Outcome::Interrupted => "interrupted",
        }
    }
}

/// One stage computed once: the truth that the cache keeps and that runs refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Unique name of the attempt, 32 hexadecimal digits.
    pub id: String,
    /// The key it answers to.
    pub key: ActionKey,
    /// The JSON text that was hashed into the key.
    pub hashed: String,
    /// The kind of the stage.
    pub kind: String,
    /// The stage's name when it ran; a later run may call it something else.
    pub stage: String,
    /// The run that executed it.
    pub run: RunId,
    /// When it started.
    pub started: Timestamp,
    /// Wall time, seconds.
    pub duration: f64,
    /// User and system time of the process and its children, seconds.
    pub cpu: f64,
    /// Largest resident set, bytes.
    pub peak_memory: u64,
    /// What it computed on, such as `cpu (avx2, 2 threads)`.
    pub device: Option<String>,
    /// What it wrote.
    pub outputs: Vec<Artifact>,
    /// What it measured.
    pub metrics: Vec<Metric>,
    /// Distributions it reported.
    pub histograms: Vec<Histogram>,
}

impl Execution {
    /// The attempt `id` that begins now, as far as it is known before it has run.
    pub fn begun(id: &str, key: ActionKey, hashed: String, kind: &str, stage: &str, run: RunId) -> Self {
        Self {
            id: id.to_owned(),
            key,
            hashed,
            kind: kind.to_owned(),
            stage: stage.to_owned(),
            run,
            started: Timestamp::now(),
            duration: 0.0,
            cpu: 0.0,
            peak_memory: 0,
            device: None,
            outputs: Vec::new(),
            metrics: Vec::new(),
            histograms: Vec::new(),
        }
    }
}

/// One output of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The output's name.
    pub port: String,
    /// What its bytes are.
    #[serde(rename = "type")]
    pub port_type: PortType,
    /// The hash of its bytes.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// A measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Dotted path after the stage's name.
    pub name: String,
    /// The step it belongs to; `None` for a final value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// The value; `None` where it is undefined.
    pub value: Option<f64>,
}

/// A measured distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Dotted path after the stage's name.
    pub name: String,
    /// The step it belongs to.
    pub step: Option<u64>,
    /// Rising limits of the bins, one more than `counts`.
    pub edges: Vec<f64>,
    /// Values per bin.
    pub counts: Vec<u64>,
}

/// What one run did about one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageRecord {
    /// The stage's name in this run.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// The kind's version.
    pub kind_version: u32,
    /// Its seed, for kinds that draw.
    pub seed: Option<u64>,
    /// Resolved parameters, a JSON object.
    pub params: Value,
    /// Its key; `None` when the inputs never became known.
    pub key: Option<ActionKey>,
    /// What was done.
    pub outcome: Outcome,
    /// The execution that satisfies it, for [`Outcome::Ran`] and [`Outcome::Cached`].
    pub execution: Option<String>,
    /// Why it ran, or what it was satisfied by.
    pub reasons: Vec<Reason>,
    /// When its execution or lookup started.
    pub started: Timestamp,
    /// Wall time in this run, seconds.
    pub duration: f64,
    /// Exit code of a failed process; `None` if a signal ended it or none ran.
    pub exit_code: Option<i32>,
    /// What went wrong, for [`Outcome::Failed`].
    pub error: Option<String>,
    /// The end of its log, at most 64 KiB.
    pub log: String,
}

/// Why a stage runs, or why it need not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// No earlier result of a stage of this name or kind to compare with.
    NeverRun,
    /// A parameter has another value than in `since`.
    Parameter {
        /// Dotted path below `with`.
        path: String,
        /// The earlier value; `None` if it was not there.
        old: Option<Value>,
        /// The value now; `None` if it is gone.
        new: Option<Value>,
        /// Where the value is written.
        place: Option<Place>,
        /// The run that had the earlier value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<RunId>,
    },
    /// An environment variable that a command declares has another value.
    Environment {
        /// Its name.
        variable: String,
        /// The earlier value; `None` if it was not set or not declared.
        old: Option<String>,
        /// The value now; `None` if it is not set or no longer declared.
        new: Option<String>,
        /// Whether it is declared now, if it was otherwise before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        declared: Option<bool>,
        /// Where it is declared.
        place: Option<Place>,
        /// The run that had the earlier value.
        since: Option<RunId>,
    },
    /// An input has other bytes.
    Input {
        /// The input's name.
        port: String,
        /// Where it comes from: a stage's port, or a path; nothing if the input is gone.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        from: String,
        /// The earlier bytes; `None` if the input is new.
        old: Option<Digest>,
        /// The bytes now; `None` if the input is gone.
        new: Option<Digest>,
        /// Which files of a folder or pattern differ, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        files: Option<FileChanges>,
        /// The run that had the earlier bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<RunId>,
    },
    /// The seed is another.
    Seed {
        /// The earlier seed.
        old: Option<u64>,
        /// The seed now.
        new: Option<u64>,
        /// Where it is written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<Place>,
        /// The run that had the earlier seed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<RunId>,
    },
    /// The kind's code is another version.
    Version {
        /// The earlier version.
        old: u32,
        /// The version now.
        new: u32,
        /// The run that had the earlier version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<RunId>,
    },
    /// The stage is of another kind than in the earlier run.
    Kind {
        /// The earlier kind.
        old: String,
        /// The kind now.
        new: String,
        /// The run that had the earlier kind.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<RunId>,
    },
    /// A stage it takes from will run, so its inputs are not known yet.
    Upstream {
        /// The stages that will run.
        stages: Vec<String>,
    },
    /// It failed and was started again, as its `retry` allows.
    Retried {
        /// How often it was started.
        attempts: u32,
    },
    /// `--force` asked for it.
    Forced,
    /// The stored result is damaged or gone; the text says how.
    ResultLost {
        /// Such as `object 12ab… is missing`.
        what: String,
    },
    /// A result with the same key exists.
    Satisfied {
        /// The run that computed it; `None` if it came with a cache from elsewhere.
        since: Option<RunId>,
        /// What a model was computed on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
    },
    /// Stages that it takes from ran in this run and wrote what the result was made from.
    SameBytes {
        /// Those stages.
        stages: Vec<String>,
    },
    /// A stage that it needs, directly or not, failed.
    Blocked {
        /// The stage that failed.
        by: String,
    },
    /// A stage that it needs is outside of the run's selection and turned out to have no result.
    NotSelected {
        /// The stage outside of the selection.
        stage: String,
    },
    /// It needs nothing that failed, but a run starts no more stages once one has failed.
    NotStarted {
        /// The stage that failed.
        failed: String,
    },
}

impl Reason {
    /// The run that it compares with, for what has changed since.
    pub fn since(&self) -> Option<RunId> {
        match self {
            Reason::Parameter { since, .. }
            | Reason::Environment { since, .. }
            | Reason::Input { since, .. }
            | Reason::Seed { since, .. }
            | Reason::Version { since, .. }
            | Reason::Kind { since, .. } => *since,
            _ => None,
        }
    }
}

/// Which files of a folder or pattern are others than before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileChanges {
    /// Files that were not there.
    pub added: FileNames,
    /// Files that are gone.
    pub removed: FileNames,
    /// Files with other bytes.
    pub changed: FileNames,
}

/// How many files, and the names of the first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileNames {
    /// How many there are.
    pub count: usize,
    /// The first of them, relative to the folder, in order.
    pub first: Vec<String>,
}

impl FileNames {
    /// How many names are kept.
    const KEPT: usize = 10;

    /// Counts a file, and keeps its name if it is among the first.
    pub fn add(&mut self, name: &[u8]) {
        self.count += 1;
        if self.first.len() < Self::KEPT {
            self.first.push(String::from_utf8_lossy(name).into_owned());
        }
    }
}
