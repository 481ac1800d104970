//! Runs a command of the pipeline file: the command itself is the stage's process.
//!
//! It leads a process group of its own, so that what it started is stopped with it.

use std::{
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::Command,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use pipe_stages::{
    contract::{Event, StageError},
    kinds::shell::{self, Invocation},
};
use rustix::process::{Pid, Signal};
use wait4::Wait4;

use super::{
    ExecError, Exit, Finished, Launch, Stop,
    ending::Ending,
    launcher,
    meaning::{OutOfMemory, of_code},
    process::finished,
    sandbox::Sandbox,
    tail::end_of,
};

/// How often a running command is asked for.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How many of a failed command's last lines are told, and how much of its output they come from.
const LINES_TOLD: usize = 10;
const BYTES_TOLD: usize = 4096;

/// Runs the command of `launch` to its end and hands on the metrics that it wrote.
///
/// `program` is `pipe`, which launches it.
pub(super) fn execute(
    program: &Path,
    launch: &Launch<'_>,
    stop: &Stop,
    events: &mut dyn FnMut(Event),
) -> Result<Finished, ExecError> {
    let invocation = match shell::invocation(launch.job) {
        Ok(invocation) => invocation,
        Err(err) => return Ok(failed(None, err, events)),
    };
    let mut command = prepared(program, launch, &invocation)?;
    let sandbox =
        invocation.is_sandboxed.then(|| sandboxed(program, launch, &mut command)).transpose()?.map(Arc::new);
    let rules = sandbox.clone();
    let (sender, messages) = mpsc::channel();
    // The thread that starts the process waits for it: the parent-death signal is tied to it.
    let waiter = std::thread::spawn(move || {
        let started = rules.map_or(Ok(()), |rules| rules.enter()).and_then(|()| command.spawn());
        drop(command);
        match started {
            Ok(child) => {
                let _ = sender.send(Ok(Message::Started(Pid::from_child(&child))));
                let _ = sender.send(child.wait4().map(Message::Ended));
            }
            Err(err) => {
                let _ = sender.send(Err(err));
            }
        }
    });
    let memory = OutOfMemory::watch();
    let mut ending = Ending::new(stop, launch);
    let ended = loop {
        match messages.recv_timeout(ASK_EVERY) {
            Ok(Ok(Message::Started(process))) => ending.watch(process),
            Ok(Ok(Message::Ended(usage))) => break Ok(usage),
            Ok(Err(err)) => break Err(err),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("the waiter says how it ended"),
        }
        if ending.due().is_some() {
            ending.send(Signal::TERM);
        }
    };
    let _ = waiter.join();
    let reason = ending.reason();
    drop(ending);
    let usage = ended.map_err(ExecError::io("start", program))?;
    let finished = finished(&usage, reason);
    match finished.exit {
        Exit::Code(0) => match shell::collect(launch.job, &invocation) {
            Ok(metrics) => {
                metrics.into_iter().for_each(events);
                Ok(finished)
            }
            Err(err) => Ok(failed(Some(finished), err, events)),
        },
        Exit::Code(code) => {
            let lines = last_lines(&launch.output);
            let ended =
                format!("the command ended with exit code {code}{}", of_code(code, memory.has_happened()));
            let message = match lines.as_str() {
                "" => format!("{ended} and printed nothing"),
                lines => format!("{ended}; its last lines:\n{lines}"),
            };
            let help = sandbox.map(|sandbox| sandbox.told());
            events(Event::Failed { message, causes: Vec::new(), help });
            Ok(finished)
        }
        Exit::Signal(_) | Exit::Stopped | Exit::TimedOut => Ok(finished),
    }
}

enum Message {
    Started(Pid),
    Ended(wait4::ResUse),
}

fn prepared(program: &Path, launch: &Launch<'_>, invocation: &Invocation) -> Result<Command, ExecError> {
    let output = std::fs::File::create(&launch.output).map_err(ExecError::io("create", &launch.output))?;
    let same = output.try_clone().map_err(ExecError::io("share", &launch.output))?;
    let lock: OwnedFd = launch.lock.try_clone().map_err(ExecError::io("share", &launch.output))?.into();
    let variables = invocation.environment.iter();
    let mut command = launcher::command(program, &invocation.words, lock);
    command
        .current_dir(launch.root)
        .env_clear()
        .envs(variables.filter_map(|name| std::env::var_os(name).map(|value| (name, value))))
        .stdout(output)
        .stderr(same)
        .process_group(0);
    Ok(command)
}

/// The rules for `command`, which is told where its own temporary files go.
fn sandboxed(program: &Path, launch: &Launch<'_>, command: &mut Command) -> Result<Sandbox, ExecError> {
    let sandbox =
        Sandbox::new(program, launch.job, launch.root).map_err(ExecError::io("shut in", &launch.output))?;
    command.env("TMPDIR", &sandbox.temporary);
    Ok(sandbox)
}

fn failed(finished: Option<Finished>, err: StageError, events: &mut dyn FnMut(Event)) -> Finished {
    let help = err.help_text().map(str::to_owned);
    events(Event::Failed { message: err.to_string(), causes: err.causes(), help });
    let (cpu, peak_memory) = finished.map_or((0.0, 0), |finished| (finished.cpu, finished.peak_memory));
    Finished { exit: Exit::Code(1), cpu, peak_memory }
}

/// The last lines that a command printed.
fn last_lines(output: &Path) -> String {
    let text = end_of(output, BYTES_TOLD);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_TOLD)..].join("\n")
}
