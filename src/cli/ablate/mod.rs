//! `pipe ablate`: which of the changes between two runs made the difference.

mod bench;
mod told;

use std::process::ExitCode;

use clap::Args;
use pipe_stages::contract::Better;
use serde_json::Value;

use super::{
    Failure, Globals,
    device::DeviceOption,
    execute::{INTERRUPTED, join, stop_on_signals},
    history::{self, json_text},
    metrics::better,
    targets::quoted,
    view::Progress,
};
use crate::{
    cache::Cache,
    contrast,
    exec::Stop,
    runs::{
        LoadedRun, RunsDb,
        ablation::{Change, changes, part},
        lineage::What,
    },
};
use bench::Bench;
use told::Ablation;

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
