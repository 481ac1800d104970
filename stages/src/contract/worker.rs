//! The process that runs one stage: `pipe worker`, or an executable that links CUDA.

use std::{
    collections::BTreeMap,
    io::{BufRead, Read, Write},
    process::ExitCode,
};

use super::{Hello, Job, PROTOCOL, StageCx, StageError, StageKind};
use crate::gpt2::OpenAccelerator;

/// The exit code of a worker whose `pipe` has gone.
const ORPHANED: i32 = 3;

/// Says hello on standard output, reads one [`Job`] from standard input and runs it.
///
/// The exit code is 0 when every output was written and 1 when the stage failed; why it
/// failed is the last event of its file. The worker ends when its standard input closes.
///
/// `accelerator` opens the device that this program links, if it links one; it is called for jobs
/// that say so.
pub fn worker(kinds: &[StageKind], accelerator: Option<OpenAccelerator>) -> ExitCode {
    end_with_parent();
    match job_from_stdin(kinds).and_then(|job| run(kinds, accelerator, &job)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{err}");
            err.causes().iter().for_each(|cause| eprintln!("  because {cause}"));
            ExitCode::FAILURE
        }
    }
}

/// On Linux the kernel kills the worker when `pipe` dies, even in the middle of a system call.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
}

fn job_from_stdin(kinds: &[StageKind]) -> Result<Job, StageError> {
    let hello = Hello {
        protocol: PROTOCOL,
        build: env!("CARGO_PKG_VERSION").into(),
        kinds: kinds.iter().map(|kind| (kind.name.to_owned(), kind.version)).collect::<BTreeMap<_, _>>(),
    };
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, &hello)
        .map_err(std::io::Error::from)
        .and_then(|()| writeln!(stdout))
        .and_then(|()| stdout.flush())
        .map_err(|err| StageError::new("cannot greet `pipe`").because(err))?;
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|err| StageError::new("cannot read the job").because(err))?;
    if line.is_empty() {
        std::process::exit(ORPHANED);
    }
    std::thread::spawn(|| {
        let mut rest = [0; 64];
        while std::io::stdin().lock().read(&mut rest).is_ok_and(|count| count > 0) {}
        std::process::exit(ORPHANED);
    });
    serde_json::from_str(&line).map_err(|err| StageError::new("the job is not understood").because(err))
}

fn run(kinds: &[StageKind], accelerator: Option<OpenAccelerator>, job: &Job) -> Result<(), StageError> {
    let mut cx = StageCx::new(job)?.with_accelerator(accelerator);
    let result = kinds
        .iter()
        .find(|kind| kind.name == job.kind && kind.version == job.version)
        .ok_or_else(|| {
            StageError::new(format!("this worker does not run kind `{}` version {}", job.kind, job.version))
        })
        .and_then(|kind| kind.run(job.params.clone(), &mut cx))
        .and_then(|()| outputs_exist(job));
    cx.finish(result)
}

fn outputs_exist(job: &Job) -> Result<(), StageError> {
    match job.outputs.iter().find(|(_, path)| !path.exists()) {
        Some((port, _)) => {
            Err(StageError::new(format!("the stage ended without writing its output `{port}`")))
        }
        None => Ok(()),
    }
}
