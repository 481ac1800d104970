//! Runs a command of the pipeline file: the command itself is the stage's process.
//!
//! It leads a process group of its own, so that what it started is stopped with it.

use std::{
    ffi::OsString, io, os::unix::process::ExitStatusExt, path::Path, process::ExitStatus, time::Duration,
};

use pipe_stages::{
    contract::{Event, StageError},
    kinds::shell,
};
use rustix::process::{Pid, Signal};

use super::{
    ExecError, Exit, Finished, Launch, Stop,
    ending::Ending,
    gpus::ORDER,
    launcher::{Answer, Order},
    meaning::{OutOfMemory, of_code},
    process::{exit, variables},
    sandbox::Sandbox,
    starter::{Ordered, Starter},
    tail::end_of,
};

/// How often a running command is asked for.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How many of a failed command's last lines are told, and how much of its output they come from.
const LINES_TOLD: usize = 10;
const BYTES_TOLD: usize = 4096;

/// Runs the command of `launch` to its end and hands on the metrics that it wrote.
pub(super) fn execute(
    starter: &Starter,
    launch: &Launch<'_>,
    stop: &Stop,
    events: &mut dyn FnMut(Event),
) -> Result<Finished, ExecError> {
    let invocation = match shell::invocation(launch.job) {
        Ok(invocation) => invocation,
        Err(err) => return Ok(failed(None, err, events)),
    };
    let mut order = order(launch, invocation.words.clone(), &invocation.environment);
    if invocation.is_sandboxed {
        let sandbox =
            Sandbox::new(launch.job, launch.root).map_err(ExecError::io("shut in", &launch.output))?;
        order.variables.push(("TMPDIR".into(), sandbox.temporary.clone().into()));
        order.sandbox = Some(sandbox);
    }
    let output = std::fs::File::create(&launch.output).map_err(ExecError::io("create", &launch.output))?;
    let name = Path::new(&order.words[0]);
    let mut ordered = starter.start(&order, launch.lock, &output).map_err(ExecError::io("start", name))?;
    let memory = OutOfMemory::watch();
    let finished = wait(&mut ordered, name, Ending::new(stop, launch))?;
    match finished.exit {
        Exit::Code(0) => match shell::collect(launch.job, &invocation) {
            Ok(metrics) => {
                metrics.into_iter().for_each(events);
                Ok(finished)
            }
            Err(err) => Ok(failed(Some(finished), err, events)),
        },
        Exit::Code(code) => {
            let ended =
                format!("the command ended with exit code {code}{}", of_code(code, memory.has_happened()));
            let message = match last_lines(&launch.output).as_str() {
                "" => format!("{ended} and printed nothing"),
                lines => format!("{ended}; its last lines:\n{lines}"),
            };
            let help = order.sandbox.map(|sandbox| sandbox.told());
            events(Event::Failed { message, causes: Vec::new(), help });
            Ok(finished)
        }
        Exit::Signal(_) | Exit::Unusable | Exit::Stopped | Exit::TimedOut => Ok(finished),
    }
}

/// Waits until the command has ended, and ends it where it is time to; what it has left running ends with it.
fn wait(ordered: &mut Ordered, name: &Path, mut ending: Ending<'_>) -> Result<Finished, ExecError> {
    loop {
        match ordered.answer(ASK_EVERY).map_err(ExecError::io("wait for", name))? {
            Some(Answer::Started(process)) => {
                ending.watch(Pid::from_raw(process).expect("a process has a number"));
            }
            Some(Answer::Ended { status, cpu, peak_memory }) => {
                let exit = ending.reason().unwrap_or_else(|| exit(ExitStatus::from_raw(status)));
                return Ok(Finished { exit, cpu, peak_memory });
            }
            Some(Answer::NotStarted(code, text)) => {
                let err = code.map_or_else(|| io::Error::other(text), io::Error::from_raw_os_error);
                return Err(ExecError::io("start", name)(err));
            }
            None => {}
        }
        if ending.due().is_some() {
            ending.send(Signal::TERM);
        }
    }
}

/// The order for a command that gets those of `names` from the environment that are set, and is told
/// which GPUs are its own.
fn order(launch: &Launch<'_>, words: Vec<String>, names: &[String]) -> Order {
    let value = |name: &String| std::env::var_os(name).map(|value| (name.into(), value));
    let mut declared: Vec<(OsString, OsString)> = names.iter().filter_map(value).collect();
    for (name, value) in shell::SET {
        if !names.iter().any(|declared| declared == name) {
            declared.push((name.into(), value.into()));
        }
    }
    if let Some((name, gpus)) = variables(launch.gpus) {
        // Numbers mean the same GPUs only while they are counted in the same order.
        declared.retain(|(declared, _)| declared != name);
        declared.push((name.into(), gpus.into()));
        declared.extend(std::env::var_os(ORDER).map(|order| (ORDER.into(), order)));
    }
    Order { words, folder: launch.root.into(), variables: declared, sandbox: None }
}

fn failed(finished: Option<Finished>, err: StageError, events: &mut dyn FnMut(Event)) -> Finished {
    let help = err.help_text().map(str::to_owned);
    events(Event::Failed { message: err.to_string(), causes: err.causes(), help });
    let (cpu, peak_memory) = finished.map_or((0.0, 0), |finished| (finished.cpu, finished.peak_memory));
    Finished { exit: Exit::Unusable, cpu, peak_memory }
}

/// The last lines that a command printed.
fn last_lines(output: &Path) -> String {
    let text = end_of(output, BYTES_TOLD);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_TOLD)..].join("\n")
}
