//! Finds the GPUs of this machine, and the worker that computes on them.
//!
//! `pipe` itself links nothing of CUDA, so that it starts everywhere: an executable of its own does, and is
//! asked for what it sees.

use std::{
    env,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use miette::Diagnostic;
use pipe_stages::contract::{DEVICES, Gpu, Probe, ProbeFailure, ProbeFailureKind};
use thiserror::Error;

/// Names the worker, instead of the one beside `pipe`.
pub const WORKER_VARIABLE: &str = "PIPE_CUDA_WORKER";
/// Says which GPUs a process sees, and how they are numbered.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
pub(super) const ORDER: &str = "CUDA_DEVICE_ORDER";

/// The executable that computes on GPUs.
const WORKER: &str = "pipe-cuda-worker";
/// A driver that takes longer than this to answer will not answer.
const PATIENCE: Duration = Duration::from_mins(1);
const ASK_EVERY: Duration = Duration::from_millis(5);
/// What a shell and the loader of Linux end with where a program or a library of it is missing.
const NOT_LOADED: i32 = 127;
/// The library of the driver: no toolkit brings it.
const DRIVER: &str = "libcuda.so.1";

/// The worker that computes on GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaWorker {
    program: PathBuf,
}

/// Why no GPU can be used.
#[derive(Debug, Error, Diagnostic)]
pub enum GpuError {
    /// There is no worker.
    #[error("there is no `{}`, which computes on GPUs", program.display())]
    #[diagnostic(help(
        "`cargo build --release --features cuda` builds it beside `pipe`; \
         or name another one in `PIPE_CUDA_WORKER`, or compute with `--device cpu`"
    ))]
    NoWorker {
        /// Where it was looked for.
        program: PathBuf,
    },
    /// A library that the worker needs is not found.
    #[error("`{}` does not start: {library} is not found", program.display())]
    #[diagnostic(help("{}, or compute with `--device cpu`", library_help(library)))]
    NoLibrary {
        /// The worker.
        program: PathBuf,
        /// The library's file name.
        library: String,
    },
    /// The worker has started and found nothing that it can use.
    #[error("no GPU can be used: {failure}")]
    #[diagnostic(help("{}, or compute with `--device cpu`", failure_help(failure.kind)))]
    Unusable {
        /// What it said.
        failure: ProbeFailure,
    },
    /// The worker cannot be started, or what it says is no answer.
    #[error("cannot ask `{}` for its GPUs: {what}", program.display())]
    #[diagnostic(help("build it from the same sources as `pipe`, or compute with `--device cpu`"))]
    NoAnswer {
        /// The worker.
        program: PathBuf,
        /// What happened.
        what: String,
    },
}

fn library_help(library: &str) -> &'static str {
    if library == DRIVER {
        "install the NVIDIA driver"
    } else {
        "install the CUDA 13 runtime libraries, or name their folder in `LD_LIBRARY_PATH`"
    }
}

fn failure_help(kind: ProbeFailureKind) -> &'static str {
    match kind {
        ProbeFailureKind::DriverTooOld => {
            "install a newer NVIDIA driver, or build the worker with an older CUDA toolkit"
        }
        ProbeFailureKind::NoDevice => {
            "see whether `nvidia-smi` lists a GPU, and whether `CUDA_VISIBLE_DEVICES` hides it"
        }
        ProbeFailureKind::Unusable => "see what `nvidia-smi` says",
    }
}

impl CudaWorker {
    /// The worker that `PIPE_CUDA_WORKER` names, else the one beside this program.
    ///
    /// # Errors
    ///
    /// [`GpuError::NoWorker`] if there is no such file.
    pub fn find() -> Result<Self, GpuError> {
        let named = env::var_os(WORKER_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let program = named.unwrap_or_else(|| {
            let own = env::current_exe().unwrap_or_default();
            own.with_file_name(format!("{WORKER}{}", env::consts::EXE_SUFFIX))
        });
        // A stage runs in the project root, where a relative path would lead elsewhere.
        match program.canonicalize() {
            Ok(found) if found.is_file() => Ok(Self { program: found }),
            _ => Err(GpuError::NoWorker { program }),
        }
    }

    /// The executable.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The GPUs that it can use, at least one, in the order of their numbers.
    pub fn gpus(&self) -> Result<Vec<Gpu>, GpuError> {
        let no_answer = |what: String| GpuError::NoAnswer { program: self.program.clone(), what };
        let said = ask(&self.program).map_err(|err| no_answer(err.to_string()))?;
        if said.status.code() == Some(NOT_LOADED)
            && let Some(library) = missing_library(&said.stderr)
        {
            return Err(GpuError::NoLibrary { program: self.program.clone(), library });
        }
        let mut gpus = Vec::new();
        for line in said.stdout.lines() {
            match serde_json::from_str(line) {
                Ok(Probe::Gpu(gpu)) => gpus.push(gpu),
                Ok(Probe::Failed(failure)) => return Err(GpuError::Unusable { failure }),
                Err(_) => return Err(no_answer(format!("it says `{}`", line.trim()))),
            }
        }
        if gpus.is_empty() {
            let last = said.stderr.lines().rfind(|line| !line.trim().is_empty());
            let last = last.map(|line| format!(", having said `{}`", line.trim())).unwrap_or_default();
            return Err(no_answer(format!("it ended with {}{last}", said.status)));
        }
        gpus.sort_by_key(|gpu| gpu.index);
        Ok(gpus)
    }
}

/// How GPUs that this process sees are called in `CUDA_VISIBLE_DEVICES`, which may name only some of
/// the machine's.
pub fn visible_names(gpus: &[Gpu]) -> Vec<String> {
    let named = visible().unwrap_or_default();
    let name = |gpu: &Gpu| named.get(gpu.index).cloned().unwrap_or_else(|| gpu.index.to_string());
    gpus.iter().map(name).collect()
}

/// The GPUs of this machine as `CUDA_VISIBLE_DEVICES` names them, found without a worker: for programs
/// that bring their own CUDA.
pub fn without_worker() -> Vec<String> {
    visible().unwrap_or_else(|| {
        let files = std::fs::read_dir("/dev").into_iter().flatten().filter_map(Result::ok);
        let is_gpu = |name: &str| {
            let number = name.strip_prefix("nvidia");
            number
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let count = files.filter(|file| file.file_name().to_str().is_some_and(is_gpu)).count();
        (0..count).map(|index| index.to_string()).collect()
    })
}

/// The names in `CUDA_VISIBLE_DEVICES` up to the first that names nothing, as the driver reads it.
fn visible() -> Option<Vec<String>> {
    let text = env::var(VISIBLE).ok()?;
    let names = text.split(',').map(str::trim);
    Some(names.take_while(|name| !name.is_empty() && *name != "-1").map(str::to_owned).collect())
}

struct Said {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Asks a worker for its devices. Its answer is short enough to wait in the pipes.
fn ask(program: &Path) -> io::Result<Said> {
    let mut child = Command::new(program)
        .arg(DEVICES)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if since.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other(format!("no answer within {} s", PATIENCE.as_secs())));
        }
        thread::sleep(ASK_EVERY);
    };
    let mut said = Said { status, stdout: String::new(), stderr: String::new() };
    child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut said.stdout)).transpose()?;
    child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut said.stderr)).transpose()?;
    Ok(said)
}

/// The library that the loader did not find.
fn missing_library(stderr: &str) -> Option<String> {
    let rest = stderr.split("error while loading shared libraries: ").nth(1)?;
    rest.split(':').next().map(|name| name.trim().to_owned())
}
