//! `pipe run`: executes what has changed, records the run, prints what came out.

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anstyle::{AnsiColor, Style};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use pipe_stages::contract::Device;
use serde_json::{Value, json};

use super::{
    Failure, Globals, PipelineArgs,
    again::Again,
    expected, history,
    late::Late,
    line::{Line, bold},
    lines, reasons,
    recorder::Recorder,
    targets::{Targets, command_until, quoted},
    units,
    view::{self, About, Ended, Progress, View},
    watch::{Waited, Wake, Watch},
};
use crate::{
    cache::{Cache, Hold},
    digest::Digest,
    engine::{
        self, Capacity, Earlier, EngineError, Explainer, Force, PlanError, Planned, Repeat, Request,
        RunEvent, Selection, Summary, Tools, Verdict,
    },
    exec::{ProcessExecutor, Stop},
    fingerprint::Fingerprint,
    git,
    names::RunId,
    pipeline::{Pipeline, StageSpec, Told, load, told},
    record::{Invocation, Outcome, RunStart, RunStatus, StageRecord},
    runs::{
        RunsDb,
        expected::{Expected, expected},
    },
};

/// Exit code of a run that was stopped by Ctrl-C, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// Execute what has changed; everything else comes from the cache
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Run {
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[command(flatten)]
    targets: Targets,
    /// Say for every stage whether it would run and why, and run nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Cores that stages may use together [default: all]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Then wait, and run again whenever the file or something that it takes from outside changes
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,
    /// After a failure, still run everything that does not need what failed
    #[arg(short, long)]
    keep_going: bool,
    /// Where models compute
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Print what was done as one JSON document
    #[arg(long)]
    json: bool,
    /// How the run is shown while it happens, on standard error
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Progress::Auto)]
    progress: Progress,
}

/// Where models compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeviceChoice {
    /// A GPU if there is one that works, else the processor
    Auto,
    /// The processor
    Cpu,
    /// An NVIDIA GPU
    Cuda,
}

impl Run {
    /// Runs the verb.
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let done = self.run_once_or_on_changes(globals);
        done.or_else(|failure| self.progress.failure(failure, globals))
    }

    fn run_once_or_on_changes(&self, globals: &Globals) -> Result<ExitCode, Failure> {
        let stop = Stop::default();
        if self.watch {
            return self.run_on_changes(globals, &stop);
        }
        if !self.dry_run {
            stop_on_signals(&stop, || {});
        }
        let mut starting = self.starting();
        let is_told_in_lines = !self.dry_run && !self.json && self.progress != Progress::Json;
        let may_repeat = is_told_in_lines && self.targets.are_all() && self.device().is_ok();
        let told = may_repeat.then(|| told(&self.pipeline.options(globals))).flatten();
        let cache = told.as_ref().map(|told| Cache::open(&told.root.join("cache")));
        if let Some((told, cache)) = told.as_ref().zip(cache.as_ref())
            && self.repeats(globals, told, cache, &mut starting)?
        {
            return Ok(ExitCode::SUCCESS);
        }
        let pipeline = self.pipeline.load(globals)?;
        let cache = cache.unwrap_or_else(|| Cache::open(&pipeline.root.join("cache")));
        self.once(globals, &pipeline, &cache, &stop, starting)
    }

    /// Records a run that finds what the run before it found, if this one does; returns whether that is so.
    fn repeats(
        &self,
        globals: &Globals,
        told: &Told,
        cache: &Cache,
        starting: &mut Option<Late>,
    ) -> Result<bool, Failure> {
        let started = Timestamp::now();
        let path = told.root.join("runs.db");
        if !path.exists() {
            return Ok(false);
        }
        let _hold = join(cache, &|text| self.progress.remark(text))?;
        let Some(repeat) = Repeat::find(told, cache) else { return Ok(false) };
        let mut database = RunsDb::open(&path)?;
        let invocation = invocation(&told.root, started);
        let Some(run) = database.repeat(repeat.run, repeat.began, &invocation)? else { return Ok(false) };
        *starting = None;
        let count = repeat.stages.len();
        let headline = headline(run, &told.file, &self.pipeline.profiles, count, count);
        view::print(&Line::new("run", Style::new().bold()).say(headline));
        lines::found(&repeat.stages).iter().for_each(view::print);
        let summary = Summary::of_found(count, repeat.tables);
        view::print(&closing(run, &summary, &[], seconds_since(started)));
        let expected = if repeat.expects { expected(&database.load(run)?) } else { Vec::new() };
        print(globals, cache, &summary.tables, &expected)?;
        Ok(true)
    }

    /// Runs, and runs again on every change until Ctrl-C.
    fn run_on_changes(&self, globals: &Globals, stop: &Stop) -> Result<ExitCode, Failure> {
        let (mut watch, wake) = Watch::new(&self.pipeline.file)?;
        stop_on_signals(stop, move || {
            let _ = wake.send(Wake::Stop);
        });
        loop {
            // How the file looks is noted before it is read, and so are its inputs.
            watch.look_from_now_on()?;
            let starting = self.starting();
            let code = match load(&self.pipeline.options(globals), pipe_stages::kinds()) {
                Ok(pipeline) => {
                    let stages = pipeline.stages.values();
                    let outside = stages.flat_map(StageSpec::outside).cloned().collect();
                    watch.sources(&pipeline.root, outside)?;
                    let cache = Cache::open(&pipeline.root.join("cache"));
                    let done = self.once(globals, &pipeline, &cache, stop, starting);
                    self.told(done, globals)
                }
                Err(mut errors) => {
                    if let Some((root, outside)) = errors.outside.take() {
                        watch.sources(&root, outside)?;
                    }
                    drop(starting);
                    self.told(Err(errors.into()), globals)
                }
            };
            if stop.is_requested() {
                return Ok(code);
            }
            let paths = units::counted(watch.len(), "path");
            self.progress.remark(&format!(" watching {paths}; Ctrl-C ends"));
            match watch.wait()? {
                Waited::Stopped => return Ok(ExitCode::SUCCESS),
                Waited::Changed(files) => self.progress.remark(&format!("\n  changed {}", changed(&files))),
            }
        }
    }

    /// The exit code of what was done, after saying what went wrong.
    fn told(&self, done: Result<ExitCode, Failure>, globals: &Globals) -> ExitCode {
        let done = done.or_else(|failure| self.progress.failure(failure, globals));
        done.unwrap_or_else(|failure| failure.report(globals))
    }

    /// Promises a first word, whatever takes long.
    fn starting(&self) -> Option<Late> {
        if self.dry_run { None } else { self.progress.starting(&self.pipeline.file) }
    }

    fn once(
        &self,
        globals: &Globals,
        pipeline: &Pipeline,
        cache: &Cache,
        stop: &Stop,
        starting: Option<Late>,
    ) -> Result<ExitCode, Failure> {
        let mut request = self.request(pipeline)?;
        if self.dry_run {
            return self.print_plan(globals, &plan(&request, cache)?);
        }
        let _hold = join(cache, &|text| self.progress.remark(text))?;
        // What cannot be done is said before anything is; a whole pipeline can be.
        if request.selected.is_some() {
            plan(&request, cache)?;
        }
        let mut database = RunsDb::open(&pipeline.root.join("runs.db"))?;
        let start = run_start(pipeline);
        request.run = database.begin(&start)?;
        request.began = start.invocation.started;
        drop(starting);
        let again = self.again(globals, pipeline);
        let (summary, records) = execute(&request, cache, stop, database, self.progress, again)?;
        self.print(globals, pipeline, cache, request.run, &summary, &records)?;
        Ok(match summary.status {
            RunStatus::Done | RunStatus::Running => ExitCode::SUCCESS,
            RunStatus::Failed => ExitCode::FAILURE,
            RunStatus::Interrupted => ExitCode::from(INTERRUPTED),
        })
    }

    fn print_plan(&self, globals: &Globals, planned: &[Planned]) -> Result<ExitCode, Failure> {
        if self.json {
            let document = planned.iter().map(plan_json).collect::<Value>();
            globals.print(format_args!("{document:#}\n"))?;
        } else {
            globals.print(plan_lines(planned))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What is asked for. A dry run is no run: this has no number yet.
    fn request<'a>(&self, pipeline: &'a Pipeline) -> Result<Request<'a>, Failure> {
        let cpus = self.jobs.map_or_else(all_cpus, usize::from);
        Ok(Request {
            pipeline,
            selected: self.targets.selected(pipeline)?,
            keep_going: self.keep_going,
            force: self.targets.force(pipeline)?,
            device: self.device()?,
            capacity: Capacity { cpus, memory: total_memory(), gpus: 0 },
            run: RunId(0),
            began: Timestamp::UNIX_EPOCH,
        })
    }

    /// The command that a person would give again.
    fn again(&self, globals: &Globals, pipeline: &Pipeline) -> Again {
        let path = |path: &Path| quoted(&path.display().to_string());
        let environment = std::env::var_os("PIPE_ROOT").map(PathBuf::from);
        let root = globals.root.as_ref().filter(|root| environment.as_ref() != Some(root));
        let device = self.device.to_possible_value().filter(|_| self.device != DeviceChoice::Auto);
        let mut base = vec!["pipe".to_owned(), "run".to_owned(), path(&self.pipeline.file)];
        base.extend(root.map(|root| format!("--root {}", path(root))));
        base.extend(self.pipeline.profiles.iter().map(|name| format!("-p {}", quoted(name))));
        base.extend(self.pipeline.sets.iter().map(|set| format!("-s {}", quoted(set))));
        base.extend(self.jobs.map(|jobs| format!("-j {jobs}")));
        base.extend(device.map(|device| format!("--device {}", device.get_name())));
        base.extend(self.keep_going.then(|| "-k".to_owned()));
        let mut logs = vec!["pipe".to_owned(), "logs".to_owned()];
        let is_found = globals.project_root(None).is_ok_and(|root| root == pipeline.root);
        logs.extend((!is_found).then(|| format!("--root {}", path(&pipeline.root))));
        let (selection, force) = (self.targets.selection_words(), self.targets.force_words());
        Again { base, selection, force, logs }
    }

    fn device(&self) -> Result<Device, Failure> {
        match self.device {
            DeviceChoice::Auto | DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Cuda => Err(Failure::input("this build of `pipe` has no CUDA worker")
                .help("leave out --device, or use --device cpu")),
        }
    }

    /// What came out: the tables of the last stages, or everything as JSON.
    fn print(
        &self,
        globals: &Globals,
        pipeline: &Pipeline,
        cache: &Cache,
        run: RunId,
        summary: &Summary,
        records: &[StageRecord],
    ) -> Result<(), Failure> {
        let expected = if pipeline.resolved.get("expect").is_some() {
            let history = RunsDb::open_existing(&pipeline.root.join("runs.db"))?;
            expected(&history.load(run)?)
        } else {
            Vec::new()
        };
        if self.json {
            let stages: Vec<_> = records.iter().map(record_json).collect();
            let mut document = json!({"run": run, "status": summary.status, "stages": stages});
            if !expected.is_empty() {
                document["expected"] = json!(expected);
            }
            return globals.print(format_args!("{document:#}\n"));
        }
        print(globals, cache, &summary.tables, &expected)
    }
}

/// Prints the tables that came out, and what was expected beside what came.
fn print(globals: &Globals, cache: &Cache, tables: &[Digest], expected: &[Expected]) -> Result<(), Failure> {
    for table in tables {
        if let Ok(text) = std::fs::read_to_string(cache.object(*table)) {
            globals.print(format_args!("{}\n", text.trim_end()))?;
        }
    }
    if expected.is_empty() {
        return Ok(());
    }
    history::print(globals, &format!("\n{}", expected::text(expected))).map(drop)
}

/// Runs `pipeline` as a run of its own and records it; `until` names the stages wanted, with all they need.
pub(super) fn run_until(
    pipeline: &Pipeline,
    cache: &Cache,
    stop: &Stop,
    until: Vec<String>,
    force: Force,
    jobs: Option<u16>,
    again: Again,
) -> Result<(RunId, RunStatus), Failure> {
    let mut request = request_until(pipeline, until, force, jobs)?;
    let mut database = RunsDb::open(&pipeline.root.join("runs.db"))?;
    let start = run_start(pipeline);
    request.run = database.begin(&start)?;
    request.began = start.invocation.started;
    let (summary, _) = execute(&request, cache, stop, database, Progress::Auto, again)?;
    Ok((request.run, summary.status))
}

/// What [`run_until`] would do, a line for each stage.
pub(super) fn plan_until(
    pipeline: &Pipeline,
    cache: &Cache,
    until: Vec<String>,
    force: Force,
) -> Result<String, Failure> {
    Ok(plan_lines(&plan(&request_until(pipeline, until, force, None)?, cache)?))
}

fn request_until(
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
        device: Device::Cpu,
        capacity: Capacity { cpus, memory: total_memory(), gpus: 0 },
        run: RunId(0),
        began: Timestamp::UNIX_EPOCH,
    })
}

fn execute(
    request: &Request<'_>,
    cache: &Cache,
    stop: &Stop,
    database: RunsDb,
    progress: Progress,
    again: Again,
) -> Result<(Summary, Vec<StageRecord>), Failure> {
    let started = Timestamp::now();
    let (pipeline, run) = (request.pipeline, request.run);
    let history = RunsDb::open_existing(&pipeline.root.join("runs.db"))?;
    let program = std::env::current_exe().map_err(Failure::error)?;
    let executor = ProcessExecutor::new(program, &["worker"]);
    let tools = Tools { cache, executor: &executor, stop, root: &pipeline.root };
    let wanted = request.wanted();
    let headline = headline(run, &pipeline.file, &pipeline.profiles, wanted.len(), pipeline.stages.len());
    let earlier = |stage: &str| history.latest_duration(&pipeline.file, stage, run).ok().flatten();
    let about = About { run, pipeline, wanted, capacity: request.capacity, again, stop, earlier: &earlier };
    let mut view = View::new(progress, about, &headline);
    let mut recorder = Recorder::new(database, cache, run, pipeline);
    let mut records = Vec::new();
    let ended = with_explainer(pipeline, &history, Some(run), |explainer| {
        engine::run(request, &tools, explainer, &mut |event| {
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
    recorded.map_err(|err| Failure::from(err).exit(1))?;
    Ok((summary, records))
}

fn plan(request: &Request<'_>, cache: &Cache) -> Result<Vec<Planned>, Failure> {
    let pipeline = request.pipeline;
    let (executor, stop) = (ProcessExecutor::new(PathBuf::new(), &[]), Stop::default());
    let tools = Tools { cache, executor: &executor, stop: &stop, root: &pipeline.root };
    planned(pipeline, |explainer| engine::plan(request, &tools, explainer))?.map_err(|err| match &err {
        PlanError::NotSelected { needed } => {
            let command = command_until(pipeline, needed);
            Failure::from(err).help(format!("`{command}` computes what is missing"))
        }
        PlanError::Cache(_) => err.into(),
    })
}

/// Joins those who work in the cache; says so if that means to wait.
pub fn join(cache: &Cache, say: &dyn Fn(&str)) -> Result<Hold, Failure> {
    let mut wait = || say("waiting until another `pipe` has removed things from the cache");
    cache.join(&mut wait).map_err(|err| Failure::error(err).exit(1))
}

/// An error with the nearest name if `name` is no stage of the pipeline.
pub fn stage_exists(pipeline: &Pipeline, name: &str) -> Result<(), Failure> {
    if pipeline.stages.contains_key(name) {
        return Ok(());
    }
    let failure = Failure::input(format!("`{}` has no stage `{name}`", pipeline.file.display()));
    Err(failure.help(format!(
        "its stages are {}",
        units::list(&pipeline.stages.keys().cloned().collect::<Vec<_>>())
    )))
}

/// Calls `task` with what explains reruns: the runs in `history`, up to `before` if given.
pub fn with_explainer<T>(
    pipeline: &Pipeline,
    history: &RunsDb,
    before: Option<RunId>,
    task: impl FnOnce(&Explainer<'_>) -> T,
) -> T {
    let vanished = OnceCell::new();
    let renamed = |spec: &StageSpec| {
        // A name that no run knows may be a new one: of the stages that the latest run had and the
        // pipeline has no longer, the only one of this kind is meant.
        let vanished = vanished.get_or_init(|| {
            let mut results = history.latest_results(&pipeline.file, before).unwrap_or_default();
            results.retain(|result| !pipeline.stages.contains_key(&result.stage));
            results
        });
        let mut of_kind = vanished.iter().filter(|result| result.kind == spec.kind.name);
        of_kind.next().filter(|_| of_kind.next().is_none()).cloned()
    };
    let previous = |spec: &StageSpec| -> Option<Earlier> {
        let found = history.previous(&pipeline.file, &spec.name, before).ok()?.or_else(|| renamed(spec))?;
        Some(Earlier { run: found.run, fingerprint: Fingerprint::parse(&found.hashed)? })
    };
    task(&Explainer { previous: &previous })
}

/// Calls `task` like [`with_explainer`], also where no run was ever recorded.
pub fn planned<T>(pipeline: &Pipeline, task: impl FnOnce(&Explainer<'_>) -> T) -> Result<T, Failure> {
    let path = pipeline.root.join("runs.db");
    if path.exists() {
        let history = RunsDb::open_existing(&path)?;
        Ok(with_explainer(pipeline, &history, None, task))
    } else {
        Ok(task(&Explainer { previous: &|_| None }))
    }
}

fn run_start(pipeline: &Pipeline) -> RunStart {
    RunStart {
        file: pipeline.file.clone(),
        pipeline: pipeline.name.clone(),
        profiles: pipeline.profiles.clone(),
        sets: pipeline.sets.clone(),
        seed: pipeline.seed,
        resolved: pipeline.resolved.clone(),
        invocation: invocation(&pipeline.root, Timestamp::now()),
    }
}

fn invocation(root: &Path, started: Timestamp) -> Invocation {
    Invocation {
        command: std::env::args().skip(1).collect(),
        git: git::state(root),
        version: env!("CARGO_PKG_VERSION").into(),
        host: hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        cpus: all_cpus(),
        started,
    }
}

fn all_cpus() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

fn total_memory() -> u64 {
    let system = rustix::system::sysinfo();
    u64::from(system.mem_unit).saturating_mul(system.totalram)
}

/// The names of what has changed.
fn changed(files: &[PathBuf]) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let short = |file: &PathBuf| file.strip_prefix(&here).unwrap_or(file).display().to_string();
    let names: Vec<String> = files.iter().take(3).map(short).collect();
    let more = if files.len() > 3 { format!(" and {} more", files.len() - 3) } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// The first Ctrl-C stops the stages and records the run, and calls `stopped`; a second one ends
/// at once.
pub fn stop_on_signals(stop: &Stop, stopped: impl Fn() + Send + 'static) {
    let stop = stop.clone();
    // A handler can be set once in a process; one run is one process.
    let _ = ctrlc::set_handler(move || {
        if stop.is_requested() {
            stop.kill();
            std::process::exit(i32::from(INTERRUPTED));
        }
        stop.request();
        stopped();
    });
}

/// Why a run did not begin: what the person asks for, or what the machine lacks.
fn refused(err: EngineError) -> Failure {
    match err {
        EngineError::Cache(_) => Failure::error(err)
            .exit(1)
            .help("nothing was run; check that the folder exists, can be written and has room"),
        EngineError::Gpus { .. } => Failure::error(err).help("lower `resources: { gpus: … }` of the stage"),
    }
}

fn seconds_since(started: Timestamp) -> f64 {
    Timestamp::now().duration_since(started).as_secs_f64()
}

fn headline(run: RunId, file: &Path, profiles: &[String], stages: usize, all: usize) -> String {
    let profiles = match profiles {
        [] => String::new(),
        names => format!(" with {}", units::list(names)),
    };
    let some = if stages == all { String::new() } else { format!("{stages} of ") };
    format!("{run}: {}{profiles}, {some}{}", file.display(), units::counted(all, "stage"))
}

fn closing(run: RunId, summary: &Summary, records: &[StageRecord], seconds: f64) -> Line {
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
            let names: Vec<String> = failed.map(|record| record.stage.clone()).collect();
            let names = if names.is_empty() { names.concat() } else { format!(" ({})", names.join(", ")) };
            let rest = format!("{} failed{names}, {} not run", summary.failed, summary.skipped);
            ("failed", AnsiColor::Red, format!("{run}: {rest}, {counts}, in {took}; what is done is kept"))
        }
        RunStatus::Interrupted => {
            let text =
                format!("{run}: {counts}, {} not run, in {took}; the same command goes on", summary.skipped);
            ("stopped", AnsiColor::Yellow, text)
        }
    };
    Line::new(verb, bold(color)).say(text)
}

fn plan_lines(planned: &[Planned]) -> String {
    let width = planned.iter().map(|plan| plan.stage.chars().count()).max().unwrap_or(0);
    planned.iter().map(|plan| plan_line(plan, width)).collect()
}

fn plan_line(plan: &Planned, width: usize) -> String {
    let verb = verdict_word(plan.verdict);
    format!("{verb:<6}  {:<width$}  {}\n", plan.stage, reasons::line(&plan.reasons))
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Run => "run",
        Verdict::Cached(_) => "cached",
        Verdict::Skip => "skip",
    }
}

fn plan_json(plan: &Planned) -> Value {
    json!({"stage": plan.stage, "verdict": verdict_word(plan.verdict), "reasons": plan.reasons})
}

fn record_json(record: &StageRecord) -> Value {
    json!({
        "stage": record.stage,
        "kind": record.kind,
        "outcome": record.outcome,
        "key": record.key,
        "reasons": record.reasons,
        "seconds": record.duration,
        "error": record.error,
        "log": if record.outcome == Outcome::Failed { Some(&record.log) } else { None },
    })
}
