//! `pipe ablate`: which of the changes between two runs made the difference.

use std::{collections::BTreeSet, path::Path, process::ExitCode};

use anstyle::Style;
use clap::Args;
use jiff::Timestamp;
use pipe_stages::contract::Better;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Failure, Globals,
    again::Again,
    compare::words::p_value,
    device::DeviceOption,
    execute::{INTERRUPTED, join, request_until, run_anew, stop_on_signals},
    globals::root_words_for,
    history::{self, json_text},
    line::Line,
    metrics::{arrow, better},
    plan::plan,
    report::{fitted, table_width},
    table::Columns,
    targets::quoted,
    units::{counted, difference, measured},
    view::{self, Progress},
};
use crate::{
    cache::Cache,
    contrast,
    engine::{Force, Planned, Request, Verdict},
    exec::Stop,
    names::RunId,
    pipeline::{Pipeline, Recorded, load_recorded},
    record::RunStatus,
    runs::{
        LoadedRun, RunsDb,
        ablation::{Change, changes, part},
        lineage::What,
        seeds::{Contrast, Spread},
    },
};

/// Columns that the old and the new value of a change may take.
const VALUES: usize = 24;

/// Say which of the changes between two runs made the difference in a metric
///
/// Each change of the pipeline that the metric can come from is made alone in the first run, and left out
/// alone of the second: two runs a change, of which only the stages behind it are computed, and nothing
/// that any run has computed already. What changes give alone need not add up to what they give together.
/// Files from outside are those of today in all of them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe ablate run_12 run_15 eval.lora.accuracy
  pipe ablate run_12 run_15 eval.lora.accuracy -n            what it would cost
  pipe ablate run_12 run_15 eval.lora.accuracy --seeds 1,2,3   and whether it is more than chance")]
pub(super) struct Ablate {
    /// The first run: `run_12`, `12`, `@last`, `@last~1` or a tag
    #[arg(value_name = "RUN")]
    first: String,
    /// The run with the changes
    #[arg(value_name = "RUN")]
    second: String,
    /// `STAGE.METRIC`
    metric: String,
    /// Measure each with these seeds of the pipeline in place of its own: mean, spread and Welch's t-test
    #[arg(long, value_name = "SEED", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Say what would be computed, and compute nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    device: DeviceOption,
    /// Cores that stages may use together [default: all]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A pipeline to be measured.
struct Variant<'r> {
    title: String,
    /// The run that it is made of.
    run: &'r LoadedRun,
    /// What is otherwise, as an option of `pipe run`.
    set: Option<(String, String)>,
    document: Value,
}

/// What came of a variant, one a seed.
#[derive(Debug, Clone, Default, Serialize)]
struct Outcome {
    /// The metric; `None` where it is undefined or was not had.
    values: Vec<Option<f64>>,
    /// The runs that were made for it.
    runs: Vec<RunId>,
    /// Why there is no value.
    problem: Option<String>,
}

impl Outcome {
    fn spread(&self) -> Option<Spread> {
        Spread::of(&self.values.iter().map(|value| *value).collect::<Option<Vec<_>>>()?)
    }
}

/// Where variants are measured.
struct Bench<'b> {
    verb: &'b Ablate,
    globals: &'b Globals,
    history: &'b mut RunsDb,
    cache: &'b Cache,
    stop: &'b Stop,
    /// The stage that has the metric, and what the stage calls it.
    stage: &'b str,
    metric: &'b str,
    root: &'b Path,
    again: Vec<String>,
}

impl Ablate {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let root = globals.project_root(None)?;
        let mut history = RunsDb::open_existing(&root.join("runs.db"))?;
        let first = history.load(history.find(&self.first)?)?;
        let second = history.load(history.find(&self.second)?)?;
        let (stage, metric, recorded) = self.metric(&history, [&first, &second])?;
        let mut found = changes(&first, &second, &stage);
        if !self.seeds.is_empty() {
            // Each is measured with these.
            found.retain(|change| change.name != "seed");
        }
        if found.is_empty() {
            let runs = format!("{} and {}", first.info.run, second.info.run);
            let message = format!("no change of the pipeline between {runs} can decide `{}`", self.metric);
            let command = format!("pipe compare {} {}", first.info.run, second.info.run);
            return Err(Failure::input(message).help(format!("`{command}` says what differed")));
        }
        let variants = variants(&first, &second, &found, &stage);
        let stop = Stop::default();
        let cache = Cache::open(&root.join("cache")).heeding(stop.halt());
        let again = self.again(globals, &first, &second);
        let (history, cache, stop) = (&mut history, &cache, &stop);
        let mut bench = Bench {
            verb: &self,
            globals,
            history,
            cache,
            stop,
            stage: &stage,
            metric: &metric,
            root: &root,
            again,
        };
        if self.dry_run {
            return bench.print_plan(&variants);
        }
        let running = stop.clone();
        stop_on_signals(stop, move || Progress::Auto.stopping(&running));
        let _hold = join(cache, &|text| globals.say(text))?;
        let mut outcomes = Vec::new();
        for (at, variant) in variants.iter().enumerate() {
            match bench.measure(variant, &format!("{} of {}", at + 1, variants.len()))? {
                Some(outcome) => outcomes.push(outcome),
                None => return Ok(ExitCode::from(INTERRUPTED)),
            }
        }
        let measured = second.stages.iter().find(|known| known.stage == stage);
        let better = measured.map_or(Better::Neither, |known| better(&known.kind, &known.params, &metric));
        let runs = [first.info.run, second.info.run];
        let recorded = self.seeds.is_empty().then_some(recorded);
        let ablation = Ablation { runs, metric: &self.metric, better, recorded, changes: &found, outcomes };
        let code = u8::from(
            ablation.outcomes.iter().any(|outcome| !outcome.runs.is_empty() && outcome.problem.is_some()),
        );
        let text = if self.json { json_text(&ablation.json()) } else { ablation.text(&variants) };
        Failure::after(code, history::print(globals, &text).map(drop))
    }

    /// The stage and the name of the metric, and its value in both runs.
    fn metric(
        &self,
        history: &RunsDb,
        runs: [&LoadedRun; 2],
    ) -> Result<(String, String, [Option<f64>; 2]), Failure> {
        let mut found = (String::new(), String::new(), [None; 2]);
        for (at, run) in runs.into_iter().enumerate() {
            let asked = history.asked(run, &self.metric)?;
            let What::Metric(metric, value) = asked.what else {
                let message = format!("`{}` is no metric of {}", self.metric, run.info.run);
                let help = format!("`pipe show {} --all` lists the metrics", run.info.run);
                return Err(Failure::input(message).help(help));
            };
            if run.resolved["stages"].get(&asked.stage).is_none() {
                let message = format!("the pipeline of {} is no longer in `runs.db`", run.info.run);
                return Err(Failure::input(message));
            }
            (found.0, found.1, found.2[at]) = (asked.stage, metric, value);
        }
        Ok(found)
    }

    /// The command that a person would give again.
    fn again(&self, globals: &Globals, first: &LoadedRun, second: &LoadedRun) -> Vec<String> {
        let mut words = vec!["pipe".to_owned(), "ablate".to_owned()];
        words.extend([first, second].map(|run| run.info.run.to_string()));
        words.push(quoted(&self.metric));
        words.extend(globals.root_words());
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        words.extend((!seeds.is_empty()).then(|| format!("--seeds {}", seeds.join(","))));
        words.extend(self.device.words());
        words.extend(self.jobs.map(|jobs| format!("-j {jobs}")));
        words
    }
}

/// Both runs, then for each change the first with it and the second without.
fn variants<'r>(
    first: &'r LoadedRun,
    second: &'r LoadedRun,
    changes: &[Change],
    stage: &str,
) -> Vec<Variant<'r>> {
    let whole = |run: &'r LoadedRun| Variant {
        title: run.info.run.to_string(),
        run,
        set: None,
        document: part(&run.resolved, stage),
    };
    let mut all = vec![whole(first), whole(second)];
    for change in changes {
        let (old, new) = (&first.resolved, &second.resolved);
        all.push(Variant {
            title: format!("{} with {}", first.info.run, words(change)),
            run: first,
            set: setting(change, change.to.as_ref()),
            document: change.made(old, new, stage),
        });
        all.push(Variant {
            title: format!("{} without {}", second.info.run, words(change)),
            run: second,
            set: setting(change, change.from.as_ref()),
            document: change.undone(old, new, stage),
        });
    }
    all
}

/// What is set by the option `--set` that writes `value`, and that option.
fn setting(change: &Change, value: Option<&Value>) -> Option<(String, String)> {
    let value = match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    change.is_setting().then(|| (change.name.clone(), format!("{}={value}", change.name)))
}

/// `lora.rank 4 → 16`
fn words(change: &Change) -> String {
    format!("{} {}", change.name, values(change))
}

/// `4 → 16`
fn values(change: &Change) -> String {
    let texts = contrast::texts(&[change.from.as_ref(), change.to.as_ref()], "–");
    contrast::shortened(&texts, VALUES / 2 - 1).join(" → ")
}

impl Bench<'_> {
    /// Measures a variant with each seed; `None` if that was stopped.
    fn measure(&mut self, variant: &Variant<'_>, place: &str) -> Result<Option<Outcome>, Failure> {
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
        if let Some(value) = self.known(&plan(&request, self.cache)?) {
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
        Ok(value.map_or(Once::Failed(run), |value| Once::Ran(run, value)))
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
    fn known(&self, planned: &[Planned]) -> Option<Option<f64>> {
        let plan = planned.iter().find(|plan| plan.stage == self.stage)?;
        let key = plan.key.filter(|_| matches!(plan.verdict, Verdict::Cached(_)))?;
        let made = self.cache.execution(key)?;
        let metric = made.metrics.iter().find(|it| it.step.is_none() && it.name == self.metric);
        Some(metric.and_then(|metric| metric.value))
    }

    fn print_plan(&self, variants: &[Variant<'_>]) -> Result<ExitCode, Failure> {
        let (mut text, mut documents) = (String::new(), Vec::new());
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
            text += &match &problem {
                Some(problem) => format!("{title}: cannot be: {problem}\n"),
                None if wanted == 0 => format!("{title}: known\n"),
                None => format!("{title}: {wanted} of {} would run\n", counted(all, "stage")),
            };
            documents.push(json!({"variant": title, "stages": all, "run": wanted, "problem": problem}));
        }
        if self.verb.json {
            text = json_text(&json!(documents));
        }
        self.globals.print(text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What came out.
struct Ablation<'a> {
    runs: [RunId; 2],
    metric: &'a str,
    better: Better,
    /// What the runs had, if that can be compared.
    recorded: Option<[Option<f64>; 2]>,
    changes: &'a [Change],
    /// Of the variants.
    outcomes: Vec<Outcome>,
}

impl Ablation<'_> {
    /// Both runs.
    fn ends(&self) -> [&Outcome; 2] {
        [&self.outcomes[0], &self.outcomes[1]]
    }

    /// Each change with what came of it made alone, and left out alone.
    fn rows(&self) -> impl Iterator<Item = (&Change, [&Outcome; 2])> {
        let pairs = self.outcomes[2..].chunks_exact(2).map(|pair| [&pair[0], &pair[1]]);
        self.changes.iter().zip(pairs)
    }

    /// What a step from `old` to `new` gives.
    fn effect(&self, old: &Outcome, new: &Outcome) -> Option<Contrast> {
        Some(Contrast::new(self.better, old.spread()?, new.spread()?))
    }

    /// What each change gives: made alone in the first run, made last in the second.
    fn effects(&self, pair: [&Outcome; 2]) -> [Option<Contrast>; 2] {
        let [first, second] = self.ends();
        [self.effect(first, pair[0]), self.effect(pair[1], second)]
    }

    fn json(&self) -> Value {
        let [first, second] = self.ends();
        let changes = self.rows().map(|(change, pair)| {
            let [made, undone] = self.effects(pair);
            json!({
                "name": change.name, "from": change.from, "to": change.to,
                "made": pair[0], "undone": pair[1],
                "effect_made": made, "effect_undone": undone,
            })
        });
        json!({
            "metric": self.metric, "better": self.better, "runs": self.runs,
            "first": first, "second": second, "effect": self.effect(first, second),
            "changes": changes.collect::<Vec<_>>(),
        })
    }

    fn text(&self, variants: &[Variant<'_>]) -> String {
        let [first, second] = self.runs;
        let heading = format!("{} {}", self.metric, arrow(self.better));
        let [old, new] = self.ends();
        let mut text = format!(
            "{}: {} in {first}, {} in {second}, {}\n\n",
            heading.trim_end(),
            value(old),
            value(new),
            effect(self.effect(old, new)),
        );
        let (with, without) = (format!("{first} WITH"), format!("{second} WITHOUT"));
        let headings = ["CHANGE", "", with.as_str(), "EFFECT", without.as_str(), "EFFECT"];
        let mut table = Columns::new(&headings).right([2, 3, 4, 5]);
        for (change, pair) in self.rows() {
            let [made, undone] = self.effects(pair).map(effect);
            let [with, without] = pair.map(value);
            table.row(vec![change.name.clone(), values(change), with, made, without, undone]);
        }
        text += &table.text_within(table_width(), 2, &[2, 2]);
        let remarks = self.remarks(variants);
        if !remarks.is_empty() {
            let lines = remarks.iter().map(|remark| fitted(&format!("{remark}\n"), " "));
            text += &format!("\n{}", lines.collect::<String>());
        }
        text
    }

    fn remarks(&self, variants: &[Variant<'_>]) -> Vec<String> {
        let mut remarks: Vec<String> = variants
            .iter()
            .zip(&self.outcomes)
            .filter_map(|(variant, outcome)| {
                Some(format!("{}: {}", variant.title, outcome.problem.as_ref()?))
            })
            .collect();
        let ends = self.runs.iter().zip(self.ends()).zip(self.recorded.into_iter().flatten());
        for ((run, outcome), recorded) in ends.filter(|((_, it), recorded)| it.values != [*recorded]) {
            if outcome.problem.is_none() {
                let had = measured(recorded);
                remarks
                    .push(format!("{run} had {had}: files from outside or versions are not those of then"));
            }
        }
        let [first, second] = self.ends();
        let alone: Option<Vec<f64>> =
            self.rows().map(|(_, pair)| Some(self.effects(pair)[0]?.difference)).collect();
        if let ([_, _, ..], Some(alone), Some(whole)) = (self.changes, alone, self.effect(first, second)) {
            remarks.push(format!(
                "alone the changes give {} in sum, together {}",
                difference(Some(alone.iter().sum())),
                difference(Some(whole.difference))
            ));
        }
        match first.values.len() {
            1 => remarks
                .push("one seed: how much of this is chance is not known; `--seeds 1,2,3` tells".into()),
            _ => remarks.push("mean ± sd over the seeds, p by Welch's t-test, of each by itself".into()),
        }
        remarks
    }
}

/// `0.71250`, or `0.71250 ± 0.00100` of several seeds.
fn value(outcome: &Outcome) -> String {
    let Some(spread) = outcome.spread() else { return "–".into() };
    let sd = spread.sd.map(|sd| format!(" ± {}", measured(Some(sd)))).unwrap_or_default();
    measured(Some(spread.mean)) + &sd
}

/// `+0.02250`, or `+0.02250 (p 0.003)` of several seeds.
fn effect(contrast: Option<Contrast>) -> String {
    let Some(contrast) = contrast else { return "–".into() };
    let p = contrast.p.map(|p| format!(" (p {})", p_value(p))).unwrap_or_default();
    difference(Some(contrast.difference)) + &p
}

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
