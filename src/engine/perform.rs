//! Executes one stage: claims its key, runs it, takes its outputs into the cache.

use std::{
    collections::BTreeMap,
    error::Error,
    panic::{self, AssertUnwindSafe},
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use pipe_stages::contract::{Device, Event, Job};

use super::{
    Tools,
    attempt_log::{self, EVENTS, OUTPUT},
    decide::Decided,
    loans::{self, Flawed, Loans},
};
use crate::{
    cache::{CacheError, Claim, Hit, Lookup},
    exec::{Exit, Launch, OutOfMemory, end_of, meaning_of_signal},
    names::RunId,
    pipeline::{Places, StageSpec},
    record::{Artifact, Execution, Histogram, Metric},
};

/// How often a key that another process holds is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How much of a log is kept, bytes.
pub const LOG_KEPT: usize = 64 * 1024;

/// A disk with less room than this, bytes, is full.
const FULL: u64 = 64 * 1024;

/// A stage that is to be executed.
pub(super) struct Task<'a> {
    pub spec: &'a StageSpec,
    pub places: &'a Places,
    pub decided: Decided,
    pub run: RunId,
    pub device: Device,
    pub threads: usize,
    /// The GPUs that are its own.
    pub gpus: Vec<String>,
    pub is_forced: bool,
}

/// What a task says while it is performed.
pub(super) enum Notice {
    Waiting(String),
    Started(Box<Execution>),
    Reported(String, Event),
    Retrying { retry: u32, of: u32, error: String },
}

/// How a task ended.
pub(super) struct Performed {
    pub ending: Ending,
    /// How often it was started.
    pub attempts: u32,
    /// The end of what all attempts have logged.
    pub log: String,
}

/// The result of a task, or why there is none.
pub(super) enum Ending {
    /// It was executed; `differs` names outputs unlike those stored before.
    Ran { execution: Box<Execution>, differs: Vec<String> },
    /// Another process computed the key meanwhile.
    Satisfied(Hit),
    /// It failed; `may_retry` where another attempt may end otherwise.
    Failed { exit_code: Option<i32>, error: String, may_retry: bool },
    /// The run is ending.
    Interrupted,
}

/// Executes `task` to its end.
pub(super) fn perform(task: &Task<'_>, tools: &Tools<'_>, notify: &dyn Fn(Notice)) -> Performed {
    let mut log = Log::default();
    let of = task.spec.attempts.retry;
    let mut attempts = 1;
    let ending = loop {
        let tried = panic::catch_unwind(AssertUnwindSafe(|| attempt(task, tools, notify, &mut log)));
        // A bug here must not leave the scheduler waiting for an answer.
        let ending = tried.unwrap_or_else(|_| {
            let error = "`pipe` itself failed while it ran the stage: this is a bug".to_owned();
            Err(Ending::Failed { exit_code: None, error, may_retry: false })
        });
        match ending.unwrap_or_else(|failure| failure) {
            Ending::Failed { error, may_retry: true, .. } if attempts <= of => {
                if tools.stop.is_requested() {
                    break Ending::Interrupted;
                }
                let what = first_words(&error);
                log.append(&format!("attempt {attempts} failed: {what}\nretry {attempts} of {of}\n"));
                notify(Notice::Retrying { retry: attempts, of, error });
                attempts += 1;
            }
            ending => break ending,
        }
    };
    Performed { ending, attempts, log: log.into_end() }
}

/// Claims the key and tries once.
fn attempt(
    task: &Task<'_>,
    tools: &Tools<'_>,
    notify: &dyn Fn(Notice),
    log: &mut Log,
) -> Result<Ending, Ending> {
    let id = attempt_id();
    let Some(claim) = claim(task, tools, notify, &id)? else {
        return Ok(Ending::Interrupted);
    };
    match attempt_with(&claim, &id, task, tools, notify, log)? {
        Tried::Broken(ending) => Ok(ending),
        Tried::Over(ending) => {
            claim.finish();
            Ok(ending)
        }
    }
}

/// What came of one attempt; its claim is given back either way.
enum Tried {
    /// Another one may go on from its checkpoint.
    Broken(Ending),
    /// None will: there is a result, or it is not certain what the checkpoint was made of.
    Over(Ending),
}

fn attempt_with(
    claim: &Claim,
    id: &str,
    task: &Task<'_>,
    tools: &Tools<'_>,
    notify: &dyn Fn(Notice),
    log: &mut Log,
) -> Result<Tried, Ending> {
    let Decided { key, hashed, objects, outside, .. } = &task.decided;
    if !task.is_forced {
        // Another `pipe` may have finished the same stage since the key was looked up.
        match tools.cache.get(*key) {
            Ok(Lookup::Hit(hit)) => return Ok(Tried::Over(Ending::Satisfied(hit))),
            Ok(Lookup::Miss | Lookup::Lost(_)) => {}
            Err(_) => return Ok(Tried::Broken(Ending::Interrupted)),
        }
    }
    let loans = Loans::of(objects, tools.cache).map_err(|flawed| not_whole(task, &flawed))?;
    let (kind, stage) = (task.spec.kind.name, &task.spec.name);
    let mut execution = Execution::begun(id, *key, hashed.clone(), kind, stage, task.run);
    notify(Notice::Started(Box::new(execution.clone())));
    let job = job(task, tools, claim).map_err(|err| match err {
        CacheError::Halted { .. } => Ending::Interrupted,
        err => failed(&err),
    })?;
    let ended = execute(task, tools, claim, &job, &mut execution, notify, log);
    let written = loans.written(tools.cache).map_err(|err| failed(&err))?;
    let failure = ended?;
    if !written.is_empty() {
        return Ok(Tried::Over(with_written(failure, &written, task)));
    }
    if let Some(failure) = failure {
        return Ok(Tried::Broken(failure));
    }
    if let Some(failure) = changed_input(task, tools) {
        return Ok(Tried::Over(failure));
    }
    keep_outputs(task, tools, &job, &mut execution)?;
    let differs = if task.is_forced { differing(tools, &execution) } else { Vec::new() };
    for (_, outside) in outside {
        // It only serves to name files later; a result without it is as good.
        let _ = tools.cache.keep_manifest(outside);
    }
    tools.cache.keep_result(&execution).map_err(|err| failed(&err))?;
    Ok(Tried::Over(Ending::Ran { execution: Box::new(execution), differs }))
}

/// Runs the stage's process and notes in `execution` what it reported and took; returns how it failed, if it
/// did.
fn execute(
    task: &Task<'_>,
    tools: &Tools<'_>,
    claim: &Claim,
    job: &Job,
    execution: &mut Execution,
    notify: &dyn Fn(Notice),
    log: &mut Log,
) -> Result<Option<Ending>, Ending> {
    let launch = Launch {
        job,
        root: tools.root,
        output: claim.folder().join(OUTPUT),
        lock: claim.lock(),
        timeout: task.spec.attempts.timeout.map(|limit| limit.0),
        gpus: &task.gpus,
    };
    let mut failure = None;
    let memory = OutOfMemory::watch();
    let finished = tools.executor.execute(&launch, tools.stop, &mut |event| {
        note(execution, &event, log, &mut failure);
        notify(Notice::Reported(execution.id.clone(), event));
    });
    log.append(&end_of(&launch.output, LOG_KEPT));
    let finished = finished.map_err(|err| failed(&err))?;
    execution.duration = seconds_since(execution.started);
    execution.cpu = finished.cpu;
    execution.peak_memory = finished.peak_memory;
    let failure = match finished.exit {
        Exit::Code(0) => return Ok(None),
        Exit::Unusable => with_left(exit_failure(Exit::Unusable, failure, &memory), claim, tools.root),
        Exit::Stopped => return Ok(Some(Ending::Interrupted)),
        Exit::TimedOut => Ending::Failed { exit_code: None, error: out_of_time(task), may_retry: true },
        exit => exit_failure(exit, failure, &memory),
    };
    Ok(Some(on_full_disk(failure, claim)))
}

/// How the stage failed if an input from outside is not what it was when the key was computed.
fn changed_input(task: &Task<'_>, tools: &Tools<'_>) -> Option<Ending> {
    let (port, outside) = task.decided.outside.iter().find(|(_, outside)| outside.has_changed())?;
    let file = tools.cache.first_changed(outside);
    let file = file.map(|file| format!(" (`{}` {})", file.file.display(), file.how)).unwrap_or_default();
    let error = format!(
        "input `{port}` (`{}`) changed while the stage ran{file}, so its result was not kept",
        outside.path.display()
    );
    let help = "run again; a stage that changes its input itself must write elsewhere";
    Some(Ending::Failed { exit_code: None, error: told(&error, &[], Some(help)), may_retry: false })
}

/// Claims the key, waiting while another process has it; `None` when the run is ending.
fn claim(
    task: &Task<'_>,
    tools: &Tools<'_>,
    notify: &dyn Fn(Notice),
    id: &str,
) -> Result<Option<Claim>, Ending> {
    let scratch = tools.cache.scratch(task.decided.key);
    let holder = format!("{} (process {})", task.run, std::process::id());
    let mut is_waiting = false;
    loop {
        if tools.stop.is_requested() {
            return Ok(None);
        }
        if let Some(claim) = scratch.claim(id, &holder).map_err(|err| failed(&err))? {
            return Ok(Some(claim));
        }
        if !is_waiting {
            is_waiting = true;
            notify(Notice::Waiting(scratch.holder()));
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

fn job(task: &Task<'_>, tools: &Tools<'_>, claim: &Claim) -> Result<Job, CacheError> {
    let outputs = task.spec.ports.outputs.iter();
    let mut inputs = task.decided.inputs.clone();
    for (port, outside) in &task.decided.outside {
        inputs.insert(port.clone(), claim.input(port, outside)?);
    }
    for port in &task.decided.folders {
        inputs.insert(port.clone(), claim.folder_input(port, &inputs[port], &tools.stop.halt())?);
    }
    Ok(Job {
        stage: task.spec.name.clone(),
        key: task.decided.key.to_string(),
        kind: task.spec.kind.name.to_owned(),
        version: task.spec.kind.version,
        params: task.spec.params.clone(),
        seed: task.spec.seed.unwrap_or(0),
        inputs,
        outputs: outputs.map(|port| (port.name.clone(), claim.outputs().join(&port.name))).collect(),
        events: claim.folder().join(EVENTS),
        checkpoint: claim.checkpoint(),
        device: task.device,
        threads: task.threads,
    })
}

/// Writes an event into the execution or the log.
pub(super) fn note(execution: &mut Execution, event: &Event, log: &mut Log, failure: &mut Option<String>) {
    match event.clone() {
        Event::Metric { name, step, value } => execution.metrics.push(Metric { name, step, value }),
        Event::Histogram { name, step, edges, counts } => {
            execution.histograms.push(Histogram { name, step, edges, counts });
        }
        Event::Device { name } => execution.device = Some(name),
        Event::Log { at, text } => log.append(&attempt_log::line(at, &text)),
        Event::Failed { message, causes, help } => *failure = Some(told(&message, &causes, help.as_deref())),
        Event::Progress { .. } => {}
    }
}

fn keep_outputs(
    task: &Task<'_>,
    tools: &Tools<'_>,
    job: &Job,
    execution: &mut Execution,
) -> Result<(), Ending> {
    for port in &task.spec.ports.outputs {
        let file = &job.outputs[&port.name];
        let kept = tools.cache.keep_object(file, &job.checkpoint, execution.duration);
        let (digest, bytes) = kept.map_err(|err| failed(&err))?;
        execution.outputs.push(Artifact {
            port: port.name.clone(),
            port_type: port.port_type,
            digest,
            bytes,
        });
    }
    Ok(())
}

/// The outputs of a forced execution that are not what the stored result has.
fn differing(tools: &Tools<'_>, execution: &Execution) -> Vec<String> {
    let Some(stored) = tools.cache.execution(execution.key) else {
        return Vec::new();
    };
    let before: BTreeMap<_, _> = stored.outputs.iter().map(|output| (&output.port, output.digest)).collect();
    let differs =
        |output: &&Artifact| before.get(&output.port).is_some_and(|digest| *digest != output.digest);
    execution.outputs.iter().filter(differs).map(|output| output.port.clone()).collect()
}

/// What the end of a process means that did not end well; the time limit is the caller's to tell.
pub(super) fn exit_failure(exit: Exit, failure: Option<String>, memory: &OutOfMemory) -> Ending {
    let (exit_code, error) = match (exit, failure) {
        (Exit::Unusable, Some(error)) => (None, error),
        (Exit::Unusable, None) => (None, "what it left cannot be used".to_owned()),
        (Exit::Code(code), Some(error)) => (Some(code), error),
        (Exit::Code(code), None) => {
            (Some(code), format!("its process ended with exit code {code} and gave no reason; see its log"))
        }
        (Exit::Signal(signal), _) => {
            let meaning = meaning_of_signal(signal, memory.has_happened());
            (None, format!("its process was ended by signal {signal}{meaning}"))
        }
        (Exit::Stopped | Exit::TimedOut, _) => return Ending::Interrupted,
    };
    Ending::Failed { exit_code, error, may_retry: true }
}

fn out_of_time(task: &Task<'_>) -> String {
    let limit = task.spec.attempts.timeout.map(|limit| limit.to_string()).unwrap_or_default();
    let place = task.places.timeout(&task.spec.name).map(|place| format!(" ({place})"));
    let help = format!("raise or remove its `timeout`{}", place.unwrap_or_default());
    told(&format!("it was stopped since it took longer than its time limit of {limit}"), &[], Some(&help))
}

/// Adds where the outputs are of a command that ended well and of which something cannot be used, such as its
/// metrics: they may be the work of hours.
fn with_left(ending: Ending, claim: &Claim, root: &Path) -> Ending {
    match ending {
        Ending::Failed { exit_code, error, may_retry } if let Some(left) = claim.leave() => {
            let left = left.strip_prefix(root).unwrap_or(&left).display();
            let error = format!("{error}\nits outputs are in `{left}` until it is tried again or `pipe gc`");
            Ending::Failed { exit_code, error, may_retry }
        }
        other => other,
    }
}

/// Adds that the disk is full, which a program often cannot say itself: what it prints needs room too.
fn on_full_disk(ending: Ending, claim: &Claim) -> Ending {
    let folder = claim.folder();
    let is_full = rustix::fs::statvfs(&folder).is_ok_and(|room| room.f_bavail * room.f_frsize < FULL);
    match ending {
        Ending::Failed { exit_code, error, may_retry } if is_full => {
            let error =
                format!("{error}\nno room is left for `{}`: {}", folder.display(), rustix::io::Errno::NOSPC);
            Ending::Failed { exit_code, error, may_retry }
        }
        other => other,
    }
}

/// What is to be told of a stage that cannot start since an input is lost by now.
fn not_whole(task: &Task<'_>, Flawed { port, damage }: &Flawed) -> Ending {
    let (input, damage) = (named(task, port), damage.word());
    let error = format!("input {input} is {damage} in the cache by now: run again, which computes it again");
    Ending::Failed { exit_code: None, error, may_retry: false }
}

/// How a stage ended whose inputs somebody wrote to: it has no result, whatever it says itself.
fn with_written(ending: Option<Ending>, written: &[&str], task: &Task<'_>) -> Ending {
    let told = loans::told(&written.iter().map(|port| named(task, port)).collect::<Vec<_>>());
    match ending {
        Some(Ending::Interrupted) => Ending::Interrupted,
        Some(Ending::Failed { exit_code, error, .. }) => {
            Ending::Failed { exit_code, error: format!("{error}\n{told}"), may_retry: false }
        }
        _ => Ending::Failed { exit_code: None, error: told, may_retry: false },
    }
}

/// An input with what it is taken from, such as `` `x` (`data.o`) ``.
fn named(task: &Task<'_>, port: &str) -> String {
    format!("`{port}` (`{}`)", task.spec.inputs[port])
}

/// What an error says before it quotes a log: its first line, without the announcement of others.
pub fn first_words(error: &str) -> &str {
    let line = error.lines().next().unwrap_or_default();
    line.strip_suffix(':').map_or(line, |line| line.rsplit_once("; ").map_or(line, |(what, _)| what))
}

fn failed(error: &dyn Error) -> Ending {
    Ending::Failed { exit_code: None, error: told_error(error), may_retry: false }
}

/// An error with its causes, a line each.
pub(super) fn told_error(error: &dyn Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    told(&error.to_string(), &causes, None)
}

/// A message with its causes and its help, a line each.
fn told(message: &str, causes: &[String], help: Option<&str>) -> String {
    let causes = causes.iter().map(|cause| format!("\nbecause {cause}")).collect::<String>();
    let help = help.map(|help| format!("\nhelp: {help}")).unwrap_or_default();
    format!("{message}{causes}{help}")
}

/// The end of a growing text.
#[derive(Default)]
pub(super) struct Log {
    text: String,
}

impl Log {
    fn append(&mut self, text: &str) {
        self.text.push_str(text);
        // Now and then, not on every line.
        if self.text.len() > 2 * LOG_KEPT {
            self.cut();
        }
    }

    /// The last [`LOG_KEPT`] bytes.
    fn into_end(mut self) -> String {
        self.cut();
        self.text
    }

    fn cut(&mut self) {
        let from = self.text.ceil_char_boundary(self.text.len().saturating_sub(LOG_KEPT));
        self.text.drain(..from);
    }
}

fn seconds_since(started: Timestamp) -> f64 {
    Timestamp::now().duration_since(started).as_secs_f64()
}

/// 32 hexadecimal digits that no other attempt has.
pub(super) fn attempt_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
