//! Carries a run out: shows it, records it, and says how it ended.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anstyle::AnsiColor;
use jiff::Timestamp;

use super::{
    Failure,
    again::Again,
    line::{Line, bold},
    plan::with_explainer,
    recorder::Recorder,
    units,
    view::{About, Ended, Progress, View},
};
use crate::{
    cache::{Cache, CacheError, Hold},
    engine::{self, Begun, Capacity, EngineError, Force, Request, RunEvent, Selection, Summary, Tools},
    exec::{CudaWorker, ProcessExecutor, Stop},
    git,
    names::{RunId, base},
    pipeline::Pipeline,
    record::{Invocation, Outcome, RunStart, RunStatus, StageRecord},
    runs::{RunsDb, RunsError},
};

/// Exit code of a run that was stopped by Ctrl-C, as shells have it.
pub const INTERRUPTED: u8 = 130;
/// How long a run may take to end whose stages were killed.
const GRACE: Duration = Duration::from_millis(300);

/// A run that has begun, and where it is recorded.
pub struct Recording {
    database: RunsDb,
    pub begun: Begun,
}

/// Runs what is asked for as the run of `recording`, with `cuda` for models on a GPU.
pub fn execute(
    request: &Request<'_>,
    recording: Recording,
    cache: &Cache,
    cuda: Option<CudaWorker>,
    stop: &Stop,
    progress: Progress,
    again: Again,
) -> Result<(Summary, Vec<StageRecord>), Failure> {
    let started = Timestamp::now();
    let Recording { database, begun } = recording;
    let (pipeline, run) = (request.pipeline, begun.run);
    let history = RunsDb::open_existing(&pipeline.root.join("runs.db"))?;
    let program = std::env::current_exe().map_err(Failure::error)?;
    let executor = ProcessExecutor::new(program, &["worker"]).with_cuda(cuda);
    let tools = Tools { cache, executor: &executor, stop, root: &pipeline.root };
    let wanted = request.wanted();
    let headline = headline(run, &pipeline.file, &pipeline.profiles, wanted.len(), pipeline.stages.len());
    let earlier = |stage: &str| history.latest_duration(&pipeline.file, stage, run).ok().flatten();
    let about = About { run, pipeline, wanted, capacity: request.capacity, again, stop, earlier: &earlier };
    let mut view = View::new(progress, about, &headline);
    let mut recorder = Recorder::new(database, cache, run, pipeline);
    let mut records = Vec::new();
    let ended = with_explainer(pipeline, cache, &history, Some(run), |explainer| {
        engine::run(request, begun, &tools, explainer, &mut |event| {
            view.observe(&event);
            recorder.observe(&event);
            if let RunEvent::Finished { record, .. } = event {
                records.push(*record);
            }
        })
    });
    let status = ended.as_ref().map_or(RunStatus::Failed, |summary| summary.status);
    let recorded = recorder.finish(status);
    let summary = match ended {
        Ok(summary) => summary,
        Err(err) => {
            view.close(None);
            return Err(refused(err));
        }
    };
    let seconds = seconds_since(started);
    let line = closing(run, &summary, &records, seconds);
    view.close(Some(&Ended { summary: &summary, seconds, line }));
    recorded.map_err(Failure::from)?;
    Ok((summary, records))
}

/// Runs what is asked for as a run of its own and records it.
pub fn run_anew(
    request: &Request<'_>,
    cache: &Cache,
    cuda: Option<CudaWorker>,
    stop: &Stop,
    again: Again,
) -> Result<(RunId, RunStatus), Failure> {
    let recording = begin(request.pipeline)?;
    let run = recording.begun.run;
    let (summary, _) = execute(request, recording, cache, cuda, stop, Progress::Auto, again)?;
    Ok((run, summary.status))
}

/// The request for the stages `until` of `pipeline`, with all that they need, on the processor.
pub fn request_until(
    pipeline: &Pipeline,
    until: Vec<String>,
    force: Force,
    jobs: Option<u16>,
) -> Result<Request<'_>, Failure> {
    let cpus = jobs.map_or_else(all_cpus, usize::from);
    Ok(Request {
        pipeline,
        selected: Selection { until, ..Selection::default() }.of(pipeline)?,
        keep_going: true,
        force,
        capacity: Capacity::of_processor(cpus, total_memory()),
        gpus: Vec::new(),
    })
}

/// Joins those who work in the cache; says so if that means to wait.
pub fn join(cache: &Cache, say: &dyn Fn(&str)) -> Result<Hold, Failure> {
    let mut wait = || say("waiting until another `pipe` has removed things from the cache");
    cache.join(&mut wait).map_err(|err| {
        let code = if matches!(err, CacheError::Halted { .. }) { INTERRUPTED } else { 1 };
        Failure::error(err).exit(code)
    })
}

/// The first Ctrl-C stops the stages and records the run, and calls `stopped`; a second one kills
/// them and ends, at most [`GRACE`] later.
pub fn stop_on_signals(stop: &Stop, stopped: impl Fn() + Send + 'static) {
    type Running = (Stop, Box<dyn Fn() + Send>);
    static RUNNING: Mutex<Option<Running>> = Mutex::new(None);
    let running = || RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    *running() = Some((stop.clone(), Box::new(stopped)));
    // A handler can be set once in a process, in which a verb begins again if `runs.db` was damaged.
    let _ = ctrlc::set_handler(move || {
        let Some((stop, stopped)) = &*running() else { return };
        if stop.is_requested() {
            stop.kill();
            // What ends by itself now leaves records and a clean terminal.
            thread::sleep(GRACE);
            std::process::exit(i32::from(INTERRUPTED));
        }
        stop.request();
        stopped();
    });
}

/// Records that a run of `pipeline` begins.
pub fn begin(pipeline: &Pipeline) -> Result<Recording, RunsError> {
    let mut database = RunsDb::open(&pipeline.root.join("runs.db"))?;
    let start = RunStart {
        file: pipeline.file.clone(),
        pipeline: pipeline.name.clone(),
        profiles: pipeline.profiles.clone(),
        sets: pipeline.sets.clone(),
        seed: pipeline.seed,
        resolved: pipeline.resolved.clone(),
        invocation: invocation(&pipeline.root, Timestamp::now()),
    };
    let begun = Begun { run: database.begin(&start)?, at: start.invocation.started };
    Ok(Recording { database, begun })
}

/// How this process was called.
pub fn invocation(root: &Path, started: Timestamp) -> Invocation {
    Invocation {
        command: std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect(),
        git: git::state(root),
        version: env!("CARGO_PKG_VERSION").into(),
        host: hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        cpus: all_cpus(),
        started,
    }
}

/// The cores of this machine that this process may use.
pub fn all_cpus() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// The memory of this machine, bytes.
pub fn total_memory() -> u64 {
    let system = rustix::system::sysinfo();
    u64::from(system.mem_unit).saturating_mul(system.totalram)
}

/// Why a run did not begin: what the person asks for, or what the machine lacks.
fn refused(err: EngineError) -> Failure {
    match err {
        EngineError::Cache(_) => Failure::error(err)
            .help("nothing was run; check that the folder exists, can be written and has room"),
    }
}

/// Seconds from `started` to now.
pub fn seconds_since(started: Timestamp) -> f64 {
    Timestamp::now().duration_since(started).as_secs_f64()
}

/// Most stages that failed and are named in the last line; of more, what the file calls them.
const NAMED: usize = 4;

/// The first line of a run.
pub fn headline(run: RunId, file: &Path, profiles: &[String], stages: usize, all: usize) -> String {
    let profiles = match profiles {
        [] => String::new(),
        names => format!(" with {}", units::list(names)),
    };
    let some = if stages == all { String::new() } else { format!("{stages} of ") };
    format!("{run}: {}{profiles}, {some}{}", file.display(), units::counted(all, "stage"))
}

/// The last line of a run.
pub fn closing(run: RunId, summary: &Summary, records: &[StageRecord], seconds: f64) -> Line {
    let took = units::duration(seconds);
    let counts = format!("{} ran, {} cached", summary.ran, summary.cached);
    let (verb, color, text) = match summary.status {
        RunStatus::Done | RunStatus::Running if summary.ran == 0 => {
            ("done", AnsiColor::Green, format!("{run}: nothing to do, {} cached, in {took}", summary.cached))
        }
        RunStatus::Done | RunStatus::Running => {
            ("done", AnsiColor::Green, format!("{run}: {counts}, in {took}"))
        }
        RunStatus::Failed => {
            let failed = records.iter().filter(|record| record.outcome == Outcome::Failed);
            let mut names: Vec<&str> = failed.map(|record| record.stage.as_str()).collect();
            if names.len() > NAMED {
                names.iter_mut().for_each(|name| *name = base(name));
                names.sort_unstable();
                names.dedup();
            }
            let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
            let rest = format!("{} failed{names}, {} not run", summary.failed, summary.skipped);
            ("failed", AnsiColor::Red, format!("{run}: {rest}, {counts}, in {took}; what is done is kept"))
        }
        RunStatus::Interrupted => {
            let failed =
                if summary.failed > 0 { format!("{} failed, ", summary.failed) } else { String::new() };
            let rest = format!("{failed}{counts}, {} not run", summary.skipped);
            ("stopped", AnsiColor::Yellow, format!("{run}: {rest}, in {took}; the same command goes on"))
        }
    };
    Line::new(verb, bold(color)).say(text)
}
