//! `pipe verify`: whether recorded results come out again.

use std::{collections::BTreeSet, num::NonZero, process::ExitCode};

use clap::Args;
use pipe_stages::contract::Device;
use serde_json::{Value, json};

use super::{
    Failure, Globals,
    device::{Choice, DeviceOption, Devices, Wants},
    execute::{INTERRUPTED, all_cpus, join, stop_on_signals},
    history, reasons,
    table::{BAD, GOOD, WARN, styled},
    verify_cache,
    view::{self, Progress},
};
use crate::{
    cache::Cache,
    engine::{self, Difference, Ready, Subject, Tools, Unchecked, Verification, Verified},
    exec::{ProcessExecutor, Stop},
    meant::{self, meant},
    runs::{LoadedRun, LoadedStage, RunsDb},
};

/// Compute the results of a run again and compare, or check that the cache is whole
///
/// Every stage is given the inputs that its record names and works in a folder of its own, which is
/// removed afterwards; nothing that is kept changes. Exit code 1 if anything differs.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[command(after_help = "\
Examples:
  pipe verify @last                     every stage of the latest run
  pipe verify run_12 lora eval          these stages
  pipe verify run_12 --tolerance 1e-6   numbers may be this far apart
  pipe verify --cache                   hash everything in the cache again
  pipe verify --cache --repair          and remove what is damaged, so that it is computed again")]
pub(super) struct Verify {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    #[arg(required_unless_present_any = ["cache", "repair"])]
    run: Option<String>,
    /// Stages of the run; of a matrix all of it, or a part such as `train[rank=4]` [default: all]
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// How far apart numbers may be: absolutely, and relative to those above 1; counts may never
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, value_parser = tolerance)]
    tolerance: f64,
    /// Hash every object of the cache again, and say which runs need those that are damaged or missing
    #[arg(long, conflicts_with_all = ["run", "stages", "tolerance", "dry_run", "jobs", "choice"])]
    cache: bool,
    /// Remove what is damaged, and results that need it, so that they are computed again
    #[arg(long)]
    repair: bool,
    /// Say what would be computed, and compute nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    device: DeviceOption,
    /// Cores that a stage may use [default: all]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<u16>>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// How far apart numbers may be, as an option says it.
pub(super) fn tolerance(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "a tolerance is a number from 0 up, such as 1e-6".to_owned())
}

impl Verify {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        if self.repair && !self.cache {
            let failure = Failure::input("`--repair` is for the cache, not for a run");
            return Err(failure.help("write `pipe verify --cache --repair`"));
        }
        match &self.run {
            Some(run) => self.verify(globals, run),
            None => verify_cache::check(globals, self.repair, self.json),
        }
    }

    fn verify(&self, globals: &Globals, run: &str) -> Result<ExitCode, Failure> {
        let root = globals.project_root(None)?;
        let database = RunsDb::open_existing(&root.join("runs.db"))?;
        let run = database.load(database.find(run)?)?;
        let stages = self.chosen(&run)?;
        let stop = Stop::default();
        let cache = Cache::open(&root.join("cache")).heeding(stop.halt());
        let _hold = join(&cache, &|text| globals.say(text))?;
        let running = stop.clone();
        stop_on_signals(&stop, move || Progress::Plain.stopping(&running));
        let on_gpu = stages.iter().any(|stage| was_on_gpu(stage));
        let wants = Wants { model: on_gpu && !self.dry_run, gpus: false, told: true };
        let devices = if self.dry_run { Devices::default() } else { self.device.find(wants)? };
        devices.told().iter().for_each(view::print);
        let program = std::env::current_exe().map_err(Failure::error)?;
        let executor = ProcessExecutor::new(program, &["worker"]).with_cuda(devices.worker);
        let tools = Tools { cache: &cache, executor: &executor, stop: &stop, root: &root };
        let cores = self.jobs.map_or_else(all_cpus, |jobs| jobs.get().into());
        let kept = |digest| database.predictions(digest).ok().flatten();
        let how = Verification {
            device: (self.device.chosen() == Some(Choice::Cuda)).then_some(Device::Cuda),
            gpu: devices.gpus.into_iter().next(),
            threads: cores,
            tolerance: self.tolerance,
            kept: &kept,
        };
        let mut told = Vec::new();
        for stage in stages {
            let ready = engine::prepare(&run, stage, &tools, pipe_stages::kinds());
            let verdict = match ready {
                Err(_) if stop.is_requested() => Some(Verified::Interrupted),
                Err(why) => Some(Verified::Unchecked(why)),
                Ok(_) if self.dry_run => None,
                Ok(ready) => Some(self.compute(globals, &ready, &tools, &how)?),
            };
            if verdict == Some(Verified::Interrupted) {
                globals.say("stopped; nothing was changed");
                return Ok(ExitCode::from(INTERRUPTED));
            }
            if !self.json {
                history::print(globals, &line(&stage.stage, verdict.as_ref()))?;
            }
            told.push((stage.stage.as_str(), verdict));
        }
        let is_wrong = |verdict: &Option<Verified>| {
            matches!(verdict, Some(Verified::Different(_) | Verified::Failed(_)))
        };
        let wrong = told.iter().any(|(_, verdict)| is_wrong(verdict));
        if self.json {
            let stages: Vec<Value> =
                told.iter().map(|(stage, verdict)| as_json(stage, verdict.as_ref())).collect();
            let document = json!({"run": run.info.run, "tolerance": self.tolerance, "stages": stages});
            return Failure::after(u8::from(wrong), globals.print(history::json_text(&document)));
        }
        globals.say(summary(&run.info.run.to_string(), &told));
        Ok(ExitCode::from(u8::from(wrong)))
    }

    fn compute(
        &self,
        globals: &Globals,
        ready: &Ready<'_>,
        tools: &Tools<'_>,
        how: &Verification<'_>,
    ) -> Result<Verified, Failure> {
        globals.say(format_args!("computing {} again", ready.name()));
        engine::verify(ready, tools, how).map_err(Failure::error)
    }

    /// The stages asked for, in the order of the run.
    fn chosen<'a>(&self, run: &'a LoadedRun) -> Result<Vec<&'a LoadedStage>, Failure> {
        let names = run.stages.iter().map(|stage| stage.stage.as_str());
        let mut chosen: BTreeSet<&str> = BTreeSet::new();
        for wanted in &self.stages {
            let stages = meant(wanted, names.clone()).unwrap_or_default();
            if stages.is_empty() {
                let failure = Failure::input(format!("{} has no stage `{wanted}`", run.info.run));
                return Err(match meant::help(wanted, "it has", names) {
                    Some(help) => failure.help(help),
                    None => failure,
                });
            }
            chosen.extend(stages);
        }
        let is_chosen =
            |stage: &&LoadedStage| self.stages.is_empty() || chosen.contains(stage.stage.as_str());
        Ok(run.stages.iter().filter(is_chosen).collect())
    }
}

/// Whether a GPU computed the recorded result of `stage`.
pub(super) fn was_on_gpu(stage: &LoadedStage) -> bool {
    let device = stage.execution.as_ref().and_then(|made| made.device.as_deref());
    device.is_some_and(|device| Device::of_name(device) == Device::Cuda)
}

/// What came of one stage; nothing yet for one that would be computed.
pub(super) fn line(stage: &str, verdict: Option<&Verified>) -> String {
    let (style, word, rest) = match verdict {
        None => (GOOD, "to compute", Vec::new()),
        Some(Verified::Identical) => (GOOD, "identical", Vec::new()),
        Some(Verified::Within(largest)) => (GOOD, "equal", vec![format!("within {largest:.1e}")]),
        Some(Verified::Different(found)) => (BAD, "different", found.iter().map(difference).collect()),
        Some(Verified::Failed(error)) => (BAD, "failed", error.lines().map(str::to_owned).collect()),
        Some(Verified::Unchecked(why)) => (WARN, "not checked", vec![unchecked(why)]),
        Some(Verified::Interrupted) => (WARN, "stopped", Vec::new()),
    };
    let head = format!("{}  {stage}", styled(style, &format!("{word:<11}")));
    let rest = match rest.as_slice() {
        [] => String::new(),
        [only] => format!("  {only}"),
        lines => lines.iter().map(|line| format!("\n             {line}")).collect(),
    };
    format!("{head}{rest}\n")
}

fn difference(found: &Difference) -> String {
    let largest = found.largest.map(|largest| format!(", largest difference {largest:.1e}"));
    let subject = match &found.subject {
        Subject::Output(port) => format!("output {port}"),
        Subject::Metric(name) => format!("metric {name}"),
    };
    format!("{subject}: {}{}", found.detail, largest.unwrap_or_default())
}

fn unchecked(why: &Unchecked) -> String {
    match why {
        Unchecked::NoResult => "it has no result in this run".into(),
        Unchecked::Found => "its recorded result is in the cache".into(),
        Unchecked::Unknown(what) => what.clone(),
        Unchecked::Changed(changes) => reasons::line(changes),
        Unchecked::Input { port, what } => format!("in.{port}: {}", what.replace('\n', ", ")),
    }
}

/// How many stages came out how.
pub(super) fn summary(run: &str, told: &[(&str, Option<Verified>)]) -> String {
    let mut counts = [
        (0, "to compute"),
        (0, "identical"),
        (0, "equal"),
        (0, "different"),
        (0, "failed"),
        (0, "not checked"),
    ];
    for (_, verdict) in told {
        let at = match verdict {
            None => 0,
            Some(Verified::Identical) => 1,
            Some(Verified::Within(_)) => 2,
            Some(Verified::Different(_)) => 3,
            Some(Verified::Failed(_)) => 4,
            Some(Verified::Unchecked(_) | Verified::Interrupted) => 5,
        };
        counts[at].0 += 1;
    }
    let words: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    format!("{run}: {}", if words.is_empty() { "no stages".into() } else { words.join(", ") })
}

pub(super) fn as_json(stage: &str, verdict: Option<&Verified>) -> Value {
    let word = match verdict {
        None => "would_compute",
        Some(Verified::Identical) => "identical",
        Some(Verified::Within(_)) => "equal",
        Some(Verified::Different(_)) => "different",
        Some(Verified::Failed(_)) => "failed",
        Some(Verified::Unchecked(_)) => "not_checked",
        Some(Verified::Interrupted) => "stopped",
    };
    let mut document = json!({"stage": stage, "verdict": word});
    match verdict {
        Some(Verified::Within(largest)) => document["largest"] = json!(largest),
        Some(Verified::Different(found)) => {
            let differences = found.iter().map(|found| {
                let (what, name) = match &found.subject {
                    Subject::Output(port) => ("output", port),
                    Subject::Metric(name) => ("metric", name),
                };
                json!({what: name, "detail": found.detail, "largest": found.largest})
            });
            document["differences"] = differences.collect();
        }
        Some(Verified::Failed(error)) => document["error"] = json!(error),
        Some(Verified::Unchecked(why)) => document["why"] = json!(unchecked(why)),
        _ => {}
    }
    document
}
