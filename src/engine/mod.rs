//! Decides what happens next: which stages run, when, and what their results are.
//!
//! ```text
//! per ready stage: inputs' digests ─► Fingerprint ─► ActionKey ─► hit, or
//!                  Job ─► Executor ─► outputs into the cache ─► Execution
//! ```
//!
//! The engine prints nothing and writes no database: it hands out [`RunEvent`]s, one stream
//! from one thread, to whoever shows or records them.

mod attempt_log;
mod decide;
mod loans;
mod perform;
mod plan;
mod repeat;
mod reproduce;
mod resources;
mod schedule;
mod selection;
mod verify;

use std::{collections::BTreeSet, path::Path};

use jiff::Timestamp;
use pipe_stages::contract::Event;
use thiserror::Error;

use crate::{
    cache::{Cache, CacheError, Hit},
    digest::{ActionKey, Digest},
    exec::{Executor, Stop},
    fingerprint::Fingerprint,
    names::RunId,
    pipeline::{Pipeline, StageSpec},
    record::{Execution, Outcome, Reason, RunStatus, StageRecord},
};

pub use attempt_log::AttemptLog;
pub use perform::{LOG_KEPT, first_words};
pub use plan::{PlanError, Planned, Verdict, plan};
pub use repeat::{Found, Repeat};
pub use reproduce::{changed, reproduced};
pub use resources::Capacity;
pub use schedule::run;
pub use selection::{Selection, SelectionError};
pub use verify::{Difference, Ready, Subject, Unchecked, Verification, Verified, prepare, verify};

/// What is to be done.
#[derive(Debug)]
pub struct Request<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The stages that may be executed; `None` for the whole pipeline.
    pub selected: Option<BTreeSet<String>>,
    /// Whether stages that do not need what failed are still started after a failure.
    pub keep_going: bool,
    /// Stages that run even if a result exists.
    pub force: Force,
    /// What the stages may use together.
    pub capacity: Capacity,
    /// The names of as many GPUs as the capacity has, as `CUDA_VISIBLE_DEVICES` has them.
    pub gpus: Vec<String>,
}

/// A run that was recorded as begun.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// Its number, written into what it computes.
    pub run: RunId,
    /// When it began.
    pub at: Timestamp,
}

/// Stages that run even if a result exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Force {
    /// None.
    #[default]
    None,
    /// These.
    Stages(BTreeSet<String>),
    /// All that are selected.
    All,
}

/// What the engine works with.
pub struct Tools<'a> {
    /// Where results are kept.
    pub cache: &'a Cache,
    /// Where stages run.
    pub executor: &'a dyn Executor,
    /// Set when the run is to end early.
    pub stop: &'a Stop,
    /// The project root.
    pub root: &'a Path,
}

/// What the engine asks when it explains why a stage runs.
pub struct Explainer<'a> {
    /// The latest result of this stage, also if it had another name.
    pub previous: &'a dyn Fn(&StageSpec) -> Option<Earlier>,
    /// The run that computed this result of the key; `None` if it is one of another history, where
    /// the number that the result names is another run's.
    pub computed_in: &'a dyn Fn(ActionKey, &Hit) -> Option<RunId>,
}

/// A result of an earlier run to compare with.
#[derive(Debug, Clone, PartialEq)]
pub struct Earlier {
    /// The latest run that it satisfied.
    pub run: RunId,
    /// What was hashed.
    pub fingerprint: Fingerprint,
}

/// Something that happened in a run.
#[derive(Debug)]
pub enum RunEvent {
    /// A stage begins to execute.
    Started {
        /// The stage's name.
        stage: String,
        /// The execution as far as it is known: no outputs, no times.
        execution: Box<Execution>,
        /// Why it runs.
        reasons: Vec<Reason>,
    },
    /// The inputs of a stage that no stage writes are looked at, which takes long where much has to
    /// be hashed; it ends with the next event.
    Looking {
        /// The stage's name.
        stage: String,
    },
    /// Nothing has happened for a while: time for what can wait.
    Idle,
    /// A stage's key is being computed by another `pipe`.
    Waiting {
        /// The stage's name.
        stage: String,
        /// Who holds the key, such as `run_12 (process 4711)`.
        holder: String,
    },
    /// A running stage reported something.
    Reported {
        /// The stage's name.
        stage: String,
        /// The execution's id.
        execution: String,
        /// What it reported.
        event: Event,
    },
    /// A stage failed and is started again.
    Retrying {
        /// The stage's name.
        stage: String,
        /// Which retry this is, from 1.
        retry: u32,
        /// How many there may be.
        of: u32,
        /// Why the attempt before it failed.
        error: String,
    },
    /// A stage has its result, or will have none.
    Finished {
        /// What this run did about it.
        record: Box<StageRecord>,
        /// The new execution, for a stage that ran.
        execution: Option<Box<Execution>>,
        /// Outputs of a forced stage that differ from the result that was stored before.
        differs: Vec<String>,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Done, failed or interrupted.
    pub status: RunStatus,
    /// Stages that were executed.
    pub ran: usize,
    /// Stages whose result was found.
    pub cached: usize,
    /// Stages that failed.
    pub failed: usize,
    /// Stages that were not reached or stopped.
    pub skipped: usize,
    /// The tables of those stages that no other one took from.
    pub tables: Vec<Digest>,
}

impl Summary {
    /// The summary of a run that found all of its stages.
    pub fn of_found(stages: usize, tables: Vec<Digest>) -> Self {
        Self { status: RunStatus::Done, ran: 0, cached: stages, failed: 0, skipped: 0, tables }
    }

    fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let mut summary = Self::of_found(0, Vec::new());
        for outcome in outcomes {
            match outcome {
                Outcome::Ran => summary.ran += 1,
                Outcome::Cached => summary.cached += 1,
                Outcome::Failed => summary.failed += 1,
                Outcome::Skipped | Outcome::Interrupted => summary.skipped += 1,
            }
        }
        summary
    }
}

/// A run that cannot go on at all.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The cache cannot take what the stages would write.
    #[error("stages have to run, but the cache cannot be written")]
    Cache(#[source] CacheError),
}

/// A stage that asks for more GPUs than there are.
#[derive(Debug, Error)]
#[error("stage `{stage}` needs {wanted} GPU{}, this run has {given}", if *wanted == 1 { "" } else { "s" })]
pub struct TooFewGpus {
    /// The stage.
    pub stage: String,
    /// What it asks for.
    pub wanted: usize,
    /// What there is.
    pub given: usize,
}

impl Request<'_> {
    /// The stages that this run is about, each after those it takes from.
    pub fn wanted(&self) -> Vec<String> {
        let dag = self.pipeline.dag();
        dag.order().filter(|stage| self.selects(stage)).map(str::to_owned).collect()
    }

    /// The wanted stages and those whose results they need, each after those it takes from.
    fn considered(&self) -> Vec<String> {
        let dag = self.pipeline.dag();
        match &self.selected {
            None => dag.order().map(str::to_owned).collect(),
            Some(selected) => {
                let closure = dag.closure(selected.iter().map(String::as_str));
                closure.into_iter().map(str::to_owned).collect()
            }
        }
    }

    /// Whether every stage that would run according to `planned` can have the GPUs that it asks for.
    pub fn has_gpus_for(&self, planned: &[Planned]) -> Result<(), TooFewGpus> {
        let given = self.capacity.gpus;
        let running = planned.iter().filter(|plan| plan.verdict == Verdict::Run);
        let shares = running.map(|plan| (plan, self.capacity.share(&self.pipeline.stages[&plan.stage]).gpus));
        match shares.into_iter().find(|(_, wanted)| *wanted > given) {
            Some((plan, wanted)) => Err(TooFewGpus { stage: plan.stage.clone(), wanted, given }),
            None => Ok(()),
        }
    }

    /// Whether `stage` may be executed.
    fn selects(&self, stage: &str) -> bool {
        self.selected.as_ref().is_none_or(|selected| selected.contains(stage))
    }

    /// Whether `stage` is to run even if a result exists.
    fn forces(&self, stage: &str) -> bool {
        self.selects(stage)
            && match &self.force {
                Force::None => false,
                Force::Stages(stages) => stages.contains(stage),
                Force::All => true,
            }
    }
}
