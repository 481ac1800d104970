//! `pipe run`: executes what has changed, records the run, prints what came out.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Failure, Globals, PipelineArgs,
    again::Again,
    device::{Choice, DeviceOption},
    execute::{
        INTERRUPTED, all_cpus, begin, closing, execute, headline, invocation, join, seconds_since,
        stop_on_signals, total_memory,
    },
    expected,
    globals::root_words_for,
    history,
    late::Late,
    line::{Line, bold, dim},
    lines, new_history,
    plan::{plan, plan_json, plan_lines},
    targets::{Targets, quoted},
    units,
    view::{self, Progress},
    watch::{Waited, Wake, Watch},
};
use crate::{
    cache::Cache,
    digest::Digest,
    engine::{Capacity, Planned, Repeat, Request, Summary},
    exec::Stop,
    metrics::{better, directed},
    names::{RunId, base},
    pipeline::{Pipeline, PipelineErrors, StageSpec, Told, told},
    record::{Outcome, RunStatus, StageRecord},
    runs::{
        LoadedRun, RunsDb,
        expected::{Expected, expected},
        sweep::sweeps,
        unmeasured::{Unmeasured, unmeasured},
    },
};

/// Execute what has changed; everything else comes from the cache
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Run {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Stages without their option, which are told of it
    #[arg(hide = true, value_name = "STAGE")]
    without_option: Vec<String>,
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
    #[command(flatten)]
    device: DeviceOption,
    /// Print what was done as one JSON document
    #[arg(long)]
    json: bool,
    /// How the run is shown while it happens, on standard error
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Progress::Auto)]
    progress: Progress,
}

impl Run {
    /// Runs the verb.
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let done = self.run_once_or_on_changes(globals);
        done.or_else(|failure| self.progress.failure(failure, globals))
    }

    fn run_once_or_on_changes(&self, globals: &Globals) -> Result<ExitCode, Failure> {
        if let Some(word) = self.without_option.first() {
            return Err(self.targets.without_option(word));
        }
        let stop = Stop::default();
        if self.watch {
            return self.run_on_changes(globals, &stop);
        }
        if !self.dry_run {
            let (progress, running) = (self.progress, stop.clone());
            stop_on_signals(&stop, move || progress.stopping(&running));
        }
        let mut starting = self.starting();
        let is_told_in_lines = !self.dry_run && !self.json && self.progress != Progress::Json;
        let may_repeat =
            is_told_in_lines && self.targets.are_all() && self.device.chosen() != Some(Choice::Cuda);
        let told = may_repeat.then(|| told(&self.pipeline.options(globals))).flatten();
        let open = |root: &Path| Cache::open(&root.join("cache")).heeding(stop.halt());
        let cache = told.as_ref().map(|told| open(&told.root));
        if let Some((told, cache)) = told.as_ref().zip(cache.as_ref())
            && self.repeats(globals, told, cache, &mut starting)?
        {
            return Ok(ExitCode::SUCCESS);
        }
        let pipeline = self.load(globals)?;
        let cache = cache.unwrap_or_else(|| open(&pipeline.root));
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
        let mark = cache.mark();
        let Some(repeat) = Repeat::find(told, cache) else { return Ok(false) };
        let mut database = RunsDb::open(&path)?;
        let invocation = invocation(&told.root, started);
        let count = repeat.stages.len();
        let repeated = database.repeat(repeat.run, repeat.began, count, &invocation)?;
        let Some(run) = repeated else { return Ok(false) };
        *starting = None;
        let headline = headline(run, &told.file, &self.pipeline.profiles, count, count);
        view::print(&Line::new("run", Style::new().bold()).say(headline));
        lines::found(&repeat.stages).iter().for_each(view::print);
        let summary = Summary::of_found(count, repeat.tables.clone());
        view::print(&closing(run, &summary, &[], seconds_since(started)));
        let is_swept = repeat.stages.iter().any(|found| base(&found.stage) != found.stage);
        let loaded = (is_swept || repeat.expects).then(|| database.load(run)).transpose()?;
        loaded.iter().filter_map(|run| side_by_side(globals, run)).for_each(|line| view::print(&line));
        let expected = loaded.as_ref().map(expected).unwrap_or_default();
        print(globals, cache, &summary.tables, &expected)?;
        if repeat.has_made() {
            // The records of this run are its own, so the next one shares them and not those of the first.
            repeat.goes_on_with(run, started, cache, &told.file, mark);
        }
        Ok(true)
    }

    /// Runs, and runs again on every change until Ctrl-C.
    fn run_on_changes(&self, globals: &Globals, stop: &Stop) -> Result<ExitCode, Failure> {
        let (mut watch, wake) = Watch::new(&self.pipeline.file)?;
        let (progress, running) = (self.progress, stop.clone());
        stop_on_signals(stop, move || {
            progress.stopping(&running);
            let _ = wake.send(Wake::Stop);
        });
        loop {
            // How the file looks is noted before it is read, and so are its inputs.
            watch.look_from_now_on()?;
            let starting = self.starting();
            let code = match self.load(globals) {
                Ok(pipeline) => {
                    let stages = pipeline.stages.values();
                    let outside = stages.flat_map(StageSpec::outside).cloned().collect();
                    watch.sources(&pipeline.root, outside)?;
                    let cache = Cache::open(&pipeline.root.join("cache")).heeding(stop.halt());
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

    fn load(&self, globals: &Globals) -> Result<Pipeline, PipelineErrors> {
        self.pipeline.load_for(globals, |pipeline| self.targets.selected(pipeline))
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
        let demanded = self.device.demanded()?;
        let _hold = join(cache, &|text| self.progress.remark(text))?;
        let devices = self.device.for_request(demanded, &mut request, &|request| plan(request, cache))?;
        let is_new = !pipeline.root.join("runs.db").exists();
        let recording = begin(pipeline)?;
        let run = recording.begun.run;
        drop(starting);
        if is_new {
            let notes = new_history::notes(&pipeline.root, globals.named_root().is_some());
            notes.iter().for_each(|note| self.progress.say(note));
        }
        devices.told().iter().for_each(|line| self.progress.say(line));
        let again = self.again(globals, pipeline);
        let (summary, records) =
            execute(&request, recording, cache, devices.worker, stop, self.progress, again)?;
        let code = match summary.status {
            RunStatus::Done | RunStatus::Running => 0,
            RunStatus::Failed => 1,
            RunStatus::Interrupted => INTERRUPTED,
        };
        Failure::after(code, self.print(globals, pipeline, cache, run, &summary, &records))
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

    /// What is asked for.
    fn request<'a>(&self, pipeline: &'a Pipeline) -> Result<Request<'a>, Failure> {
        let cpus = self.jobs.map_or_else(all_cpus, usize::from);
        Ok(Request {
            pipeline,
            selected: self.targets.selected(pipeline)?,
            keep_going: self.keep_going,
            force: self.targets.force(pipeline)?,
            capacity: Capacity::of_processor(cpus, total_memory()),
            gpus: Vec::new(),
        })
    }

    /// The command that a person would give again.
    fn again(&self, globals: &Globals, pipeline: &Pipeline) -> Again {
        let path = |path: &Path| quoted(&path.display().to_string());
        let mut base = vec!["pipe".to_owned(), "run".to_owned(), path(&self.pipeline.file)];
        base.extend(globals.root_words());
        base.extend(self.pipeline.profiles.iter().map(|name| format!("-p {}", quoted(name))));
        base.extend(self.pipeline.sets.iter().map(|set| format!("-s {}", quoted(set))));
        base.extend(self.jobs.map(|jobs| format!("-j {jobs}")));
        base.extend(self.device.words());
        base.extend(self.keep_going.then(|| "-k".to_owned()));
        let mut logs = vec!["pipe".to_owned(), "logs".to_owned()];
        logs.extend(root_words_for(&pipeline.root, None));
        let (selection, force) = (self.targets.selection_words(), self.targets.force_words());
        Again { base, selection, force, logs }
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
        let speaks_of_metrics = pipeline.resolved.get("expect").is_some()
            || pipeline.stages.values().any(|spec| directed(spec.kind.name, &spec.params).next().is_some());
        let load = || RunsDb::open_existing(&pipeline.root.join("runs.db"))?.load(run);
        let is_swept = records.iter().any(|record| base(&record.stage) != record.stage);
        let loaded = (speaks_of_metrics || is_swept || self.json).then(load).transpose()?;
        let missing = loaded.iter().flat_map(unmeasured);
        missing.for_each(|metric| self.progress.say(&without_value(&metric)));
        loaded.iter().filter_map(|run| side_by_side(globals, run)).for_each(|line| self.progress.say(&line));
        let expected = loaded.as_ref().map(expected).unwrap_or_default();
        if self.json {
            let made = loaded.iter().flat_map(|run| &run.stages);
            let made = made.filter_map(|stage| Some((&stage.stage, &stage.execution.as_ref()?.metrics)));
            let metrics: BTreeMap<_, _> = made.collect();
            let stages =
                records.iter().map(|record| record_json(record, metrics.get(&record.stage).copied()));
            let stages: Vec<_> = stages.collect();
            let document =
                json!({"run": run, "status": summary.status, "stages": stages, "expected": expected});
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

/// Says how to see what the stages of a matrix measured side by side, if they did.
fn side_by_side(globals: &Globals, run: &LoadedRun) -> Option<Line> {
    let sweeps = sweeps(run, better);
    let named = match sweeps.as_slice() {
        [] => return None,
        [one] => format!("`{}`", one.stage),
        [one, other] => format!("`{}` and `{}`", one.stage, other.stage),
        [one, others @ ..] => format!("`{}` and {}", one.stage, units::counted(others.len(), "other stage")),
    };
    let command = globals.rooted(&format!("`pipe compare {}`", run.info.run));
    Some(Line::new("compare", dim()).say(format!("the combinations of {named}: {command}")).whole())
}

/// Says that a metric which has a better direction has no value.
fn without_value(unmeasured: &Unmeasured<'_>) -> Line {
    let Unmeasured { stage, metric, near } = unmeasured;
    let hint = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
    let text = format!("`better` of {stage} names `{metric}`, which has no final value{hint}");
    Line::new("warning", bold(AnsiColor::Yellow)).say(text)
}

/// The names of what has changed.
fn changed(files: &[PathBuf]) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let short = |file: &PathBuf| file.strip_prefix(&here).unwrap_or(file).display().to_string();
    let names: Vec<String> = files.iter().take(3).map(short).collect();
    let more = if files.len() > 3 { format!(" and {} more", files.len() - 3) } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// A stage of a run, with its final metrics if it has a result.
fn record_json(record: &StageRecord, metrics: Option<&BTreeMap<String, Option<f64>>>) -> Value {
    json!({
        "stage": record.stage,
        "kind": record.kind,
        "outcome": record.outcome,
        "key": record.key,
        "reasons": record.reasons,
        "seconds": record.duration,
        "metrics": metrics,
        "error": record.error,
        "log": if record.outcome == Outcome::Failed { Some(&record.log) } else { None },
    })
}
