//! Runs one stage somewhere and says how it ended.

mod command;
mod ending;
mod files;
mod gpus;
mod inline;
mod launcher;
mod meaning;
mod memory;
mod process;
mod sandbox;
mod starter;
mod tail;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pipe_stages::contract::{Event, Job};
use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;

use crate::halt::Halt;

pub use gpus::{CudaWorker, GpuError, VISIBLE, WORKER_VARIABLE, visible_names, without_worker};
pub use inline::InlineExecutor;
pub use launcher::{WORD as LAUNCH, serve};
pub use meaning::{OutOfMemory, of_signal as meaning_of_signal};
pub use memory::memory_of;
pub use process::ProcessExecutor;
pub use tail::end_of;

/// A stage that is ready to run.
#[derive(Debug)]
pub struct Launch<'a> {
    /// What to compute.
    pub job: &'a Job,
    /// The project root, where the process runs.
    pub root: &'a Path,
    /// The file that takes what the process prints.
    pub output: PathBuf,
    /// A locked file that the process and its descendants inherit.
    pub lock: &'a std::fs::File,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// The GPUs that are its own while it runs, as `CUDA_VISIBLE_DEVICES` names them.
    pub gpus: &'a [String],
}

/// How a stage ended and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// How the process ended.
    pub exit: Exit,
    /// User and system time, seconds.
    pub cpu: f64,
    /// Largest resident set, bytes.
    pub peak_memory: u64,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code; 0 is success.
    Code(i32),
    /// With success, but what it left cannot be used, or what it is to be given cannot be told; an event
    /// says why.
    Unusable,
    /// By this signal.
    Signal(i32),
    /// It was stopped because the run was.
    Stopped,
    /// It was stopped because its time was up.
    TimedOut,
}

/// A stage that could not be started, or a worker that does not fit.
#[derive(Debug, Error)]
pub enum ExecError {
    /// A file operation or the start of the process failed.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried, such as `start`.
        what: &'static str,
        /// The file or program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process is no worker, or one of another version.
    #[error("worker `{}` {what}", path.display())]
    Unfit {
        /// The program.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
}

impl ExecError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// A request to stop, shared by all who should hear it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    halt: Halt,
    is_killed: AtomicBool,
    /// The process group of each stage that runs.
    groups: Mutex<Vec<(String, Pid)>>,
}

impl Stop {
    /// Asks everybody to stop.
    pub fn request(&self) {
        self.0.halt.raise();
    }

    /// Whether stopping was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.halt.is_raised()
    }

    /// The request alone, for work that has no processes to end.
    pub fn halt(&self) -> Halt {
        self.0.halt.clone()
    }

    /// Kills every process that a stage has started, for those who cannot wait until they end.
    pub fn kill(&self) {
        self.request();
        self.0.is_killed.store(true, Ordering::SeqCst);
        for (_, group) in self.groups().iter() {
            let _ = kill_process_group(*group, Signal::KILL);
        }
    }

    /// Whether somebody could not wait.
    pub fn is_killed(&self) -> bool {
        self.0.is_killed.load(Ordering::SeqCst)
    }

    /// The stages whose processes run, and the process group of each.
    pub fn running(&self) -> Vec<(String, Pid)> {
        self.groups().clone()
    }

    fn add(&self, stage: &str, group: Pid) {
        self.groups().push((stage.to_owned(), group));
    }

    fn remove(&self, group: Pid) {
        self.groups().retain(|(_, other)| *other != group);
    }

    fn groups(&self) -> std::sync::MutexGuard<'_, Vec<(String, Pid)>> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place where stages run.
pub trait Executor: Send + Sync {
    /// Runs a stage to its end, handing on its events as they come.
    fn execute(
        &self,
        launch: &Launch<'_>,
        stop: &Stop,
        events: &mut dyn FnMut(Event),
    ) -> Result<Finished, ExecError>;
}
