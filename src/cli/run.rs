//! `pipe run`: executes what has changed, records the run, prints what came out.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, thread};

use anstyle::{AnsiColor, Style};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use pipe_stages::contract::{Device, PortType};
use serde_json::{Value, json};

use super::{
    Failure, Globals, PipelineArgs, expected, history, reasons, recorder::Recorder, units, view::View,
};
use crate::{
    cache::Cache,
    engine::{
        self, Capacity, EngineError, Explainer, Force, Planned, Request, RunEvent, Summary, Tools, Verdict,
    },
    exec::{ProcessExecutor, Stop},
    fingerprint::Fingerprint,
    git,
    names::RunId,
    pipeline::Pipeline,
    record::{Outcome, RunStart, RunStatus, StageRecord},
    runs::{RunsDb, expected::expected},
};

/// Exit code of a run that was stopped by Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Execute what has changed; everything else comes from the cache
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Run this stage and what it needs, nothing else; may be given more than once
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Say for every stage whether it would run and why, and run nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Cores that stages may use together [default: all]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Run stages even if they have a result: all, or those named by --force=STAGE
    #[arg(long, value_name = "STAGE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    force: Vec<String>,
    /// Where models compute
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Print what was done as one JSON document
    #[arg(long)]
    json: bool,
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
        let pipeline = self.pipeline.load(globals)?;
        let device = self.device()?;
        self.stages_exist(&pipeline)?;
        let cache = Cache::open(&pipeline.root.join("cache"));
        if self.dry_run {
            return self.plan(globals, &pipeline, &cache, device);
        }
        let mut database = RunsDb::open(&pipeline.root.join("runs.db"))?;
        let start = run_start(&pipeline);
        let run = database.begin(&start)?;
        let outcome = self.execute(&pipeline, &cache, device, database, run);
        let (summary, records) = outcome?;
        self.print(globals, &pipeline, &cache, run, &summary, &records)?;
        Ok(match summary.status {
            RunStatus::Done | RunStatus::Running => ExitCode::SUCCESS,
            RunStatus::Failed => ExitCode::FAILURE,
            RunStatus::Interrupted => ExitCode::from(INTERRUPTED),
        })
    }

    fn execute(
        &self,
        pipeline: &Pipeline,
        cache: &Cache,
        device: Device,
        database: RunsDb,
        run: RunId,
    ) -> Result<(Summary, Vec<StageRecord>), Failure> {
        let started = Timestamp::now();
        let history = RunsDb::open_existing(&pipeline.root.join("runs.db"))?;
        let request = self.request(pipeline, device, run);
        let stop = Stop::default();
        stop_on_signals(&stop);
        let program = std::env::current_exe().map_err(Failure::error)?;
        let executor = ProcessExecutor::new(program, &["worker"]);
        let tools = Tools { cache, executor: &executor, stop: &stop, root: &pipeline.root };
        let wanted = request.wanted();
        let mut view = View::new(&wanted);
        view.say("run", Style::new().bold(), &headline(run, pipeline, wanted.len()));
        let mut recorder = Recorder::new(database, cache, run, pipeline);
        let mut records = Vec::new();
        let ended = with_explainer(pipeline, &history, |explainer| {
            engine::run(&request, &tools, explainer, &mut |event| {
                view.observe(&event);
                recorder.observe(&event);
                if let RunEvent::Finished { record, .. } = event {
                    records.push(*record);
                }
            })
        });
        view.close();
        let status = ended.as_ref().map_or(RunStatus::Failed, |summary| summary.status);
        let recorded = recorder.finish(status);
        let summary = ended.map_err(refused)?;
        let took = Timestamp::now().duration_since(started).as_secs_f64();
        let (verb, style, text) = closing(run, &summary, took);
        view.say(verb, style, &text);
        recorded.map_err(|err| Failure::from(err).exit(1))?;
        Ok((summary, records))
    }

    fn plan(
        &self,
        globals: &Globals,
        pipeline: &Pipeline,
        cache: &Cache,
        device: Device,
    ) -> Result<ExitCode, Failure> {
        // A dry run is no run: it has no number and executes nothing.
        let request = self.request(pipeline, device, RunId(0));
        let (executor, stop) = (ProcessExecutor::new(PathBuf::new(), &[]), Stop::default());
        let tools = Tools { cache, executor: &executor, stop: &stop, root: &pipeline.root };
        let planned = planned(pipeline, |explainer| engine::plan(&request, &tools, explainer))??;
        if self.json {
            let document = planned.iter().map(plan_json).collect::<Value>();
            globals.print(format_args!("{document:#}\n"))?;
        } else {
            let width = planned.iter().map(|plan| plan.stage.chars().count()).max().unwrap_or(0);
            let lines: String = planned.iter().map(|plan| plan_line(plan, width)).collect();
            globals.print(lines)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn request<'a>(&self, pipeline: &'a Pipeline, device: Device, run: RunId) -> Request<'a> {
        let force = match self.force.as_slice() {
            [] => Force::None,
            named if named.iter().any(String::is_empty) => Force::All,
            named => Force::Stages(named.iter().cloned().collect()),
        };
        let capacity =
            Capacity { cpus: self.jobs.map_or_else(all_cpus, usize::from), memory: total_memory(), gpus: 0 };
        Request { pipeline, only: self.only.clone(), force, device, capacity, run }
    }

    fn device(&self) -> Result<Device, Failure> {
        match self.device {
            DeviceChoice::Auto | DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Cuda => Err(Failure::input("this build of `pipe` has no CUDA worker")
                .help("leave out --device, or use --device cpu")),
        }
    }

    /// Stages named by `--only` and `--force` are stages of the pipeline.
    fn stages_exist(&self, pipeline: &Pipeline) -> Result<(), Failure> {
        let named: BTreeSet<&String> =
            self.only.iter().chain(self.force.iter().filter(|name| !name.is_empty())).collect();
        named.into_iter().try_for_each(|name| stage_exists(pipeline, name))
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
        let dag = pipeline.dag();
        for record in records.iter().filter(|record| dag.downstream(&record.stage).is_empty()) {
            let known = record.execution.is_some().then(|| record.key.and_then(|key| cache.execution(key)));
            let outputs = known.flatten().map(|execution| execution.outputs).unwrap_or_default();
            for table in outputs.iter().filter(|output| output.port_type == PortType::Table) {
                if let Ok(text) = std::fs::read_to_string(cache.object(table.digest)) {
                    globals.print(format_args!("{}\n", text.trim_end()))?;
                }
            }
        }
        if !expected.is_empty() {
            history::print(globals, &format!("\n{}", expected::text(&expected)))?;
        }
        Ok(())
    }
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

/// Calls `task` with what explains reruns: earlier runs in `history`, places in the file.
pub fn with_explainer<T>(pipeline: &Pipeline, history: &RunsDb, task: impl FnOnce(&Explainer<'_>) -> T) -> T {
    let previous = |stage: &str| -> Option<Fingerprint> {
        let found = history.previous(&pipeline.file, stage, None).ok()??;
        Fingerprint::parse(&found.hashed)
    };
    let place = |stage: &str, path: &str| pipeline.places.param(stage, path);
    task(&Explainer { previous: &previous, place: &place })
}

/// Calls `task` like [`with_explainer`], also where no run was ever recorded.
pub fn planned<T>(pipeline: &Pipeline, task: impl FnOnce(&Explainer<'_>) -> T) -> Result<T, Failure> {
    let path = pipeline.root.join("runs.db");
    if path.exists() {
        let history = RunsDb::open_existing(&path)?;
        Ok(with_explainer(pipeline, &history, task))
    } else {
        Ok(task(&Explainer { previous: &|_| None, place: &|_, _| None }))
    }
}

fn run_start(pipeline: &Pipeline) -> RunStart {
    RunStart {
        file: pipeline.file.clone(),
        pipeline: pipeline.name.clone(),
        command: std::env::args().skip(1).collect(),
        profiles: pipeline.profiles.clone(),
        sets: pipeline.sets.clone(),
        seed: pipeline.seed,
        resolved: pipeline.resolved.clone(),
        git: git::state(&pipeline.root),
        version: env!("CARGO_PKG_VERSION").into(),
        host: hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        cpus: all_cpus(),
        started: Timestamp::now(),
    }
}

fn all_cpus() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

fn total_memory() -> u64 {
    let system = rustix::system::sysinfo();
    u64::from(system.mem_unit).saturating_mul(system.totalram)
}

/// The first Ctrl-C stops the stages and records the run; a second one ends at once.
fn stop_on_signals(stop: &Stop) {
    let stop = stop.clone();
    // A handler can be set once in a process; one run is one process.
    let _ = ctrlc::set_handler(move || {
        if stop.is_requested() {
            std::process::exit(i32::from(INTERRUPTED));
        }
        stop.request();
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

fn headline(run: RunId, pipeline: &Pipeline, stages: usize) -> String {
    let profiles = match pipeline.profiles.as_slice() {
        [] => String::new(),
        names => format!(" with {}", units::list(names)),
    };
    let stages = units::counted(stages, "stage");
    format!("{run}: {}{profiles}, {stages}", pipeline.file.display())
}

fn closing(run: RunId, summary: &Summary, seconds: f64) -> (&'static str, Style, String) {
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
            let rest = format!("{} failed, {} not run", summary.failed, summary.skipped);
            ("failed", AnsiColor::Red, format!("{run}: {rest}, {counts}, in {took}; what is done is kept"))
        }
        RunStatus::Interrupted => {
            let text =
                format!("{run}: {counts}, {} not run, in {took}; the same command goes on", summary.skipped);
            ("stopped", AnsiColor::Yellow, text)
        }
    };
    (verb, color.on_default().bold(), text)
}

fn plan_line(plan: &Planned, width: usize) -> String {
    let verb = if plan.verdict == Verdict::Run { "run" } else { "cached" };
    format!("{verb:<6}  {:<width$}  {}\n", plan.stage, reasons::line(&plan.reasons))
}

fn plan_json(plan: &Planned) -> Value {
    let verdict = if plan.verdict == Verdict::Run { "run" } else { "cached" };
    json!({"stage": plan.stage, "verdict": verdict, "reasons": plan.reasons})
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
