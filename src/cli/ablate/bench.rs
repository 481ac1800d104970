//! Measures a metric of pipelines that no file has, or says what that would cost.

use std::{collections::BTreeSet, path::Path, process::ExitCode};

use anstyle::Style;
use jiff::Timestamp;
use serde_json::json;

use super::{Ablate, Variant, told::Outcome};
use crate::{
    cache::Cache,
    cli::{
        Failure, Globals,
        again::Again,
        execute::{request_until, run_anew},
        globals::root_words_for,
        history::json_text,
        line::Line,
        plan::plan,
        units::counted,
        view,
    },
    engine::{Force, Planned, Request, Verdict},
    exec::Stop,
    names::RunId,
    pipeline::{Pipeline, Recorded, load_recorded},
    record::RunStatus,
    runs::RunsDb,
};

/// Where variants are measured.
pub(super) struct Bench<'b> {
    pub verb: &'b Ablate,
    pub globals: &'b Globals,
    pub history: &'b mut RunsDb,
    pub cache: &'b Cache,
    pub stop: &'b Stop,
    /// The stage that has the metric, and what the stage calls it.
    pub stage: &'b str,
    pub metric: &'b str,
    pub root: &'b Path,
    pub again: Vec<String>,
}

/// The metric of a stage that has a result; `None` where it is undefined.
struct Final(Option<f64>);

/// What came of one pipeline.
enum Once {
    /// It was computed before.
    Known(Option<f64>),
    /// It was computed in this run.
    Ran(RunId, Option<f64>),
    /// A stage of this run failed.
    Failed(RunId),
    /// It is no pipeline that can be run.
    Refused(String),
    Stopped,
}

impl Bench<'_> {
    /// Measures a variant with each seed; `None` if that was stopped.
    pub fn measure(&mut self, variant: &Variant<'_>, place: &str) -> Result<Option<Outcome>, Failure> {
        let mut outcome = Outcome::default();
        for seed in self.seeds() {
            let title =
                seed.map_or_else(|| variant.title.clone(), |seed| format!("{}, seed {seed}", variant.title));
            match self.measure_once(variant, seed, &format!("{place}: {title}"))? {
                Once::Stopped => return Ok(None),
                Once::Known(value) => outcome.values.push(value),
                Once::Ran(run, value) => {
                    outcome.runs.push(run);
                    outcome.values.push(value);
                }
                Once::Failed(run) => {
                    outcome.runs.push(run);
                    outcome.values.push(None);
                    outcome.problem.get_or_insert(format!("failed in {run}: `pipe show {run}`"));
                }
                Once::Refused(problem) => {
                    outcome.problem = Some(format!("cannot be: {problem}"));
                    break;
                }
            }
        }
        Ok(Some(outcome))
    }

    fn seeds(&self) -> Vec<Option<u64>> {
        match self.verb.seeds.as_slice() {
            [] => vec![None],
            seeds => seeds.iter().collect::<BTreeSet<_>>().into_iter().copied().map(Some).collect(),
        }
    }

    fn measure_once(
        &mut self,
        variant: &Variant<'_>,
        seed: Option<u64>,
        title: &str,
    ) -> Result<Once, Failure> {
        let pipeline = match self.pipeline(variant, seed) {
            Ok(pipeline) => pipeline,
            Err(problem) => return Ok(Once::Refused(problem)),
        };
        let mut request = self.request(&pipeline)?;
        if let Some(Final(value)) = self.known(&plan(&request, self.cache)?) {
            return Ok(Once::Known(value));
        }
        view::print(&Line::new("ablate", Style::new().bold()).say(title));
        let demanded = self.verb.device.demanded()?;
        let ask = |request: &Request<'_>| plan(request, self.cache);
        let devices = self.verb.device.for_request(demanded, &mut request, &ask)?;
        devices.told().iter().for_each(view::print);
        let mut logs = vec!["pipe".to_owned(), "logs".to_owned()];
        logs.extend(root_words_for(self.root, None));
        let again = Again { base: self.again.clone(), logs, ..Again::default() };
        let (run, status) = run_anew(&request, self.cache, devices.worker, self.stop, again)?;
        self.history.note(run, &format!("ablate {title}"), Timestamp::now())?;
        if status == RunStatus::Interrupted {
            return Ok(Once::Stopped);
        }
        let value = self.known(&plan(&request, self.cache)?);
        Ok(value.map_or(Once::Failed(run), |Final(value)| Once::Ran(run, value)))
    }

    /// The pipeline of a variant, or what is wrong with it.
    fn pipeline(&self, variant: &Variant<'_>, seed: Option<u64>) -> Result<Pipeline, String> {
        let mut document = variant.document.clone();
        let mut sets = variant.run.info.sets.clone();
        if let Some((name, set)) = &variant.set {
            sets.retain(|known| known.split('=').next() != Some(name));
            sets.push(set.clone());
        }
        if let Some(seed) = seed {
            document["seed"] = json!(seed);
            sets.push(format!("seed={seed}"));
        }
        let info = &variant.run.info;
        let title = info.run.to_string();
        let recorded = Recorded {
            title: &title,
            file: &info.file,
            name: &info.pipeline,
            profiles: &info.profiles,
            sets: &sets,
            resolved: &document,
        };
        load_recorded(&recorded, self.root, pipe_stages::kinds())
            .map_err(|errors| errors.problems.first().map_or_else(|| errors.to_string(), ToString::to_string))
    }

    fn request<'p>(&self, pipeline: &'p Pipeline) -> Result<Request<'p>, Failure> {
        request_until(pipeline, vec![self.stage.to_owned()], Force::None, self.verb.jobs)
    }

    /// The metric, if its stage has a result.
    fn known(&self, planned: &[Planned]) -> Option<Final> {
        let plan = planned.iter().find(|plan| plan.stage == self.stage)?;
        let key = plan.key.filter(|_| matches!(plan.verdict, Verdict::Cached(_)))?;
        let made = self.cache.execution(key)?;
        let metric = made.metrics.iter().find(|it| it.step.is_none() && it.name == self.metric);
        Some(Final(metric.and_then(|metric| metric.value)))
    }

    pub fn print_plan(&self, variants: &[Variant<'_>]) -> Result<ExitCode, Failure> {
        let (mut lines, mut documents) = (Vec::new(), Vec::new());
        for variant in variants {
            let (mut wanted, mut all, mut problem) = (0, 0, None);
            for seed in self.seeds() {
                match self.pipeline(variant, seed) {
                    Ok(pipeline) => {
                        let planned = plan(&self.request(&pipeline)?, self.cache)?;
                        all += planned.len();
                        let is_wanted = |plan: &&Planned| !matches!(plan.verdict, Verdict::Cached(_));
                        wanted += planned.iter().filter(is_wanted).count();
                    }
                    Err(found) => problem = Some(found),
                }
            }
            let title = &variant.title;
            lines.push(match &problem {
                Some(problem) => format!("{title}: cannot be: {problem}"),
                None if wanted == 0 => format!("{title}: known"),
                None => format!("{title}: {wanted} of {} would run", counted(all, "stage")),
            });
            documents.push(json!({"variant": title, "stages": all, "run": wanted, "problem": problem}));
        }
        if documents.iter().filter(|document| document["run"] != 0).count() > 1 {
            lines.push("what several need is computed once".to_owned());
        }
        let text = if self.verb.json { json_text(&json!(documents)) } else { lines.join("\n") + "\n" };
        self.globals.print(text)?;
        Ok(ExitCode::SUCCESS)
    }
}
