//! `pipe reproduce`: runs a run again from its record and compares what comes out.

use std::{
    collections::HashMap,
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Failure, Globals,
    again::Again,
    device::{DeviceOption, Wants, any_asks_for_gpu},
    execute::{INTERRUPTED, join, request_until, run_anew, stop_on_signals},
    globals::root_words_for,
    history::{self, json_text},
    plan::{plan, plan_json, plan_lines},
    reasons,
    targets::quoted,
    verify::{as_json, line, summary, tolerance, was_on_gpu},
    view::{self, Progress},
};
use crate::{
    cache::Cache,
    digest::Digest,
    engine::{self, Force, Planned, Tools, Unchecked, Verification, Verified},
    exec::{ProcessExecutor, Stop},
    git,
    names::RunId,
    pipeline::{Pipeline, Recorded, load_recorded},
    record::{Reason, RunStatus},
    runs::{LoadedRun, LoadedStage, RunsDb},
};

/// Run a run again from its record and say whether the same came out
///
/// What is run is the pipeline as `runs.db` keeps it, profiles and settings applied, so the file may
/// have changed or be gone; what differs between the record and today is said first: commit, uncommitted
/// changes, versions. It becomes a run of its own. Results that the cache still has are found as ever
/// and count as not checked; `--force` computes them again. Exit code 0 if all outputs and metrics are
/// as recorded, 1 if not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe reproduce run_12                        what is missing is computed, and compared
  pipe reproduce run_12 --force                everything is computed again
  pipe reproduce run_12 -n                     what differs today, and what would be computed
  pipe reproduce run_12 --worktree ../run_12   from its commit and its uncommitted changes
  pipe reproduce run_12 --force --tolerance 1e-6

`pipe verify` computes single results again from the inputs that they had, and keeps nothing.")]
pub(super) struct Reproduce {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    run: String,
    /// Compute results again that the cache still has
    #[arg(long)]
    force: bool,
    /// Check the recorded commit out into this new folder with git, apply the recorded uncommitted changes,
    /// and run there, with a cache and a `runs.db` of its own
    #[arg(long, value_name = "DIR")]
    worktree: Option<PathBuf>,
    /// How far apart numbers may be: absolutely, and relative to those above 1; counts may never
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, value_parser = tolerance)]
    tolerance: f64,
    /// Say what differs today and what would be computed, and run nothing
    #[arg(short = 'n', long, conflicts_with = "worktree")]
    dry_run: bool,
    #[command(flatten)]
    device: DeviceOption,
    /// Cores that stages may use together [default: all]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<u16>>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Reproduce {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let home = globals.project_root(None)?;
        let history = RunsDb::open_existing(&home.join("runs.db"))?;
        let then = self.record(&history)?;
        let id = then.info.run;
        let root = match &self.worktree {
            None => home,
            Some(folder) => self.check_out(globals, &history, &then, &home, folder)?,
        };
        let title = id.to_string();
        let recorded = Recorded {
            title: &title,
            file: &then.info.file,
            name: &then.info.pipeline,
            profiles: &then.info.profiles,
            sets: &then.info.sets,
            resolved: &then.resolved,
        };
        let pipeline = load_recorded(&recorded, &root, pipe_stages::kinds())?;
        let differences = differences(&then, &pipeline);
        differences.iter().for_each(|it| globals.say(it.words()));
        let wanted: Vec<String> = then.stages.iter().map(|stage| stage.stage.clone()).collect();
        let force = if self.force { Force::All } else { Force::None };
        let stop = Stop::default();
        let cache = Cache::open(&root.join("cache")).heeding(stop.halt());
        let mut request = request_until(&pipeline, wanted, force, self.jobs.map(NonZero::get))?;
        if self.dry_run {
            return self.print_plan(globals, id, &differences, &plan(&request, &cache)?);
        }
        let running = stop.clone();
        stop_on_signals(&stop, move || Progress::Auto.stopping(&running));
        let _hold = join(&cache, &|text| globals.say(text))?;
        let again = self.again(globals, id, &pipeline);
        let on_gpu = then.stages.iter().any(was_on_gpu);
        let wants = Wants { model: on_gpu, gpus: any_asks_for_gpu(&pipeline), told: true };
        let devices = self.device.find(wants)?;
        devices.lend_to(&mut request);
        devices.told().iter().for_each(view::print);
        let (run, status) = run_anew(&request, &cache, devices.worker, &stop, again)?;
        if status == RunStatus::Interrupted {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        let again = RunsDb::open_existing(&root.join("runs.db"))?.load(run)?;
        let now: HashMap<&str, &LoadedStage> =
            again.stages.iter().map(|stage| (stage.stage.as_str(), stage)).collect();
        let told = self.compare(&history, &then, &now, &cache, &root)?;
        let changed: Vec<Vec<Reason>> = then
            .stages
            .iter()
            .map(|stage| engine::changed(stage, now.get(stage.stage.as_str()).copied(), &then.resolved))
            .collect();
        let is_wrong = |verdict: &Option<Verified>| {
            !matches!(verdict, Some(Verified::Identical | Verified::Within(_) | Verified::Unchecked(_)))
        };
        let code = u8::from(told.iter().any(|(_, verdict)| is_wrong(verdict)));
        Failure::after(code, self.tell(globals, (id, run), &differences, &told, &changed))
    }

    /// The record that is to be reproduced, which says of one stage at least what came out.
    fn record(&self, history: &RunsDb) -> Result<LoadedRun, Failure> {
        let record = history.load(history.find(&self.run)?)?;
        let id = record.info.run;
        if record.resolved.is_null() {
            return Err(Failure::input(format!("the pipeline of {id} is no longer in `runs.db`")));
        }
        if record.stages.is_empty() {
            let file = quoted(&record.info.file.display().to_string());
            let message = format!("{id} ended before it recorded a stage: there is nothing to compare");
            return Err(
                Failure::input(message).help(format!("`pipe run {file}` runs its pipeline as it is now"))
            );
        }
        Ok(record)
    }

    fn print_plan(
        &self,
        globals: &Globals,
        id: RunId,
        differences: &[Differs],
        plan: &[Planned],
    ) -> Result<ExitCode, Failure> {
        if self.json {
            let stages: Vec<Value> = plan.iter().map(plan_json).collect();
            let document = json!({"run": id, "differences": differences, "stages": stages});
            globals.print(json_text(&document))?;
        } else {
            globals.print(plan_lines(plan))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The command that a person would give again.
    fn again(&self, globals: &Globals, id: RunId, pipeline: &Pipeline) -> Again {
        let words = |words: [&str; 2]| words.map(str::to_owned).to_vec();
        let mut base = [words(["pipe", "reproduce"]), vec![id.to_string()]].concat();
        base.extend(globals.root_words());
        base.extend(self.force.then(|| "--force".to_owned()));
        let folder = self.worktree.as_ref().map(|folder| quoted(&folder.display().to_string()));
        base.extend(folder.map(|folder| format!("--worktree {folder}")));
        base.extend((self.tolerance > 0.0).then(|| format!("--tolerance {:e}", self.tolerance)));
        base.extend(self.device.words());
        base.extend(self.jobs.map(|jobs| format!("-j {jobs}")));
        let mut logs = words(["pipe", "logs"]);
        logs.extend(root_words_for(&pipeline.root, None));
        Again { base, logs, ..Again::default() }
    }

    /// The project in a checkout of the recorded commit.
    fn check_out(
        &self,
        globals: &Globals,
        history: &RunsDb,
        then: &LoadedRun,
        home: &Path,
        folder: &Path,
    ) -> Result<PathBuf, Failure> {
        let id = then.info.run;
        let Some(recorded) = &then.info.git else {
            return Err(Failure::input(format!("{id} was not started in a git checkout"))
                .help("leave out `--worktree`: its pipeline can be run here"));
        };
        let patch = history.patch(id)?;
        if recorded.dirty && patch.is_none() {
            globals.say("the uncommitted changes of the record are not kept: they were larger than 16 MiB");
        }
        let project = git::check_out(home, folder, &recorded.commit, &patch.unwrap_or_default())?;
        globals.say(format_args!("running in {}", project.display()));
        project.canonicalize().map_err(|err| {
            Failure::input(format!("cannot use `{}`: {err}", project.display()))
                .help("the project was not in git when the run was started")
        })
    }

    /// What came of every stage of the record.
    fn compare<'a>(
        &self,
        history: &RunsDb,
        then: &'a LoadedRun,
        now: &HashMap<&str, &LoadedStage>,
        cache: &Cache,
        root: &Path,
    ) -> Result<Vec<(&'a str, Option<Verified>)>, Failure> {
        let (executor, stop) = (ProcessExecutor::new(PathBuf::new(), &[]), Stop::default());
        let tools = Tools { cache, executor: &executor, stop: &stop, root };
        let kept = |digest| history.predictions(digest).ok().flatten();
        let how =
            Verification { device: None, gpu: None, threads: 1, tolerance: self.tolerance, kept: &kept };
        let scratch = tempfile::tempdir().map_err(Failure::error)?;
        let stages = then.stages.iter().map(|stage| {
            let verdict = engine::reproduced(
                stage,
                now.get(stage.stage.as_str()).copied(),
                &tools,
                &how,
                scratch.path(),
            );
            Ok((stage.stage.as_str(), Some(verdict.map_err(|err| Failure::error(err).exit(1))?)))
        });
        stages.collect()
    }

    fn tell(
        &self,
        globals: &Globals,
        (then, again): (RunId, RunId),
        differences: &[Differs],
        told: &[(&str, Option<Verified>)],
        changed: &[Vec<Reason>],
    ) -> Result<(), Failure> {
        if self.json {
            let stages: Vec<Value> = told
                .iter()
                .zip(changed)
                .map(|((stage, verdict), changed)| {
                    let mut document = as_json(stage, verdict.as_ref());
                    document["changed"] = json!(changed);
                    document
                })
                .collect();
            return globals.print(json_text(&json!({
                "run": then, "again": again, "tolerance": self.tolerance,
                "differences": differences, "stages": stages,
            })));
        }
        for ((stage, verdict), changed) in told.iter().zip(changed) {
            history::print(globals, &line(stage, verdict.as_ref()))?;
            if !changed.is_empty() {
                globals.print(format_args!(
                    "             not the recorded computation: {}\n",
                    reasons::line(changed)
                ))?;
            }
        }
        let place =
            self.worktree.as_ref().map(|folder| format!(" of {}", folder.display())).unwrap_or_default();
        globals.say(summary(&format!("{then} as {again}{place}"), told));
        if told.iter().any(|(_, verdict)| *verdict == Some(Verified::Unchecked(Unchecked::Found))) {
            globals.say("`--force` computes again what was found in the cache");
        }
        Ok(())
    }
}

/// Something about the record that is otherwise today.
#[derive(Debug, PartialEq, Serialize)]
struct Differs {
    what: String,
    recorded: Option<String>,
    now: Option<String>,
}

impl Differs {
    fn words(&self) -> String {
        let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        format!("{}: {} in the record, {} today", self.what, word(&self.recorded), word(&self.now))
    }
}

/// How code and versions of today differ from the record; inputs are compared by what is run.
fn differences(then: &LoadedRun, pipeline: &Pipeline) -> Vec<Differs> {
    let now = git::state(&pipeline.root);
    let recorded = then.info.git.as_ref();
    let short = |commit: &String| commit.chars().take(12).collect::<String>();
    let patch = |is_dirty: bool, digest: Option<Digest>| {
        is_dirty
            .then(|| digest.map_or_else(|| "some".to_owned(), |digest| format!("patch {}", digest.short())))
    };
    let hash = |patch: &Vec<u8>| (!patch.is_empty()).then(|| Digest::from(blake3::hash(patch)));
    let mut all = vec![
        (
            "commit".to_owned(),
            recorded.map(|git| short(&git.commit)),
            now.as_ref().map(|git| short(&git.commit)),
        ),
        (
            "uncommitted changes".to_owned(),
            recorded.and_then(|git| patch(git.dirty, git.patch)),
            now.as_ref().and_then(|git| patch(git.is_dirty, hash(&git.patch))),
        ),
        ("pipe".to_owned(), Some(then.info.version.clone()), Some(env!("CARGO_PKG_VERSION").to_owned())),
    ];
    let mut kinds: Vec<(&str, u32, u32)> = Vec::new();
    for stage in &then.stages {
        let Some(spec) = pipeline.stages.get(&stage.stage) else { continue };
        let kind = (spec.kind.name, stage.kind_version, spec.kind.version);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    all.extend(kinds.into_iter().map(|(name, then, now)| {
        (format!("kind {name}"), Some(format!("version {then}")), Some(format!("version {now}")))
    }));
    let differing = all.into_iter().filter(|(_, recorded, now)| recorded != now);
    differing.map(|(what, recorded, now)| Differs { what, recorded, now }).collect()
}
