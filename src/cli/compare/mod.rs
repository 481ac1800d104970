//! `pipe compare`: runs side by side, or the methods and sweeps of one run, and which differences are real.

mod bins;
mod chosen;
mod csv;
mod parts;
mod sheet;
pub(super) mod sweeps;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use clap::Args;
use jiff::Timestamp;
use pipe_stages::data::parse_predictions;

use super::{
    Failure, Globals,
    history::{self, json_text},
    metrics::better,
    report::table_width,
};
use crate::{
    names::RunId,
    runs::{
        LoadedRun, RunsDb, RunsError,
        compare::{Comparison, compare, compare_methods},
        evidence::{Bootstrap, Contests},
    },
};

/// How often a difference is drawn again.
const RESAMPLES: usize = 10_000;

/// Compare runs: what differed, the metrics side by side, and which differences are real
///
/// Of one run, its methods are compared: the predictions that its `evaluate` stage takes; and the instances
/// of each stage with a `matrix`: which combination of values is best, and whether by more than seeds give.
///
/// Where two have predictions on the same reviews, McNemar's exact test and a paired bootstrap say
/// whether one is better. Runs that differ in their seeds alone are one configuration: mean ± standard
/// deviation, and Welch's t-test between configurations. See docs/compare.md.
#[allow(clippy::doc_markdown, reason = "these words are printed")]
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe compare run_12 run_15
  pipe compare run_12                       zero-shot, LoRA and fine-tuned of one run
  pipe compare @last                        after a sweep: which combination is best
  pipe compare baseline @last~1 @last
  pipe compare baseline @last --md > comparison.md
  pipe compare baseline @last --html > comparison.html")]
pub(super) struct Compare {
    /// `run_12`, `12`, `@last`, `@last~1` or tags; the first is what others are compared with
    #[arg(required = true, num_args = 1.., value_name = "RUN")]
    runs: Vec<String>,
    /// Show every metric: of bins and tensors, and those that runs share
    #[arg(long)]
    all: bool,
    /// Compare also what was tested on different reviews, without saying what is real
    #[arg(long)]
    any_test_set: bool,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 1337, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    form: Form,
}

/// Other forms than tables for a terminal.
#[derive(Debug, Args)]
#[group(multiple = false)]
#[allow(clippy::struct_excessive_bools, reason = "at most one of them is given")]
struct Form {
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write comma-separated values
    #[arg(long)]
    csv: bool,
    /// Write markdown tables
    #[arg(long)]
    md: bool,
    /// Write one HTML file that needs nothing else
    #[arg(long)]
    html: bool,
}

impl Compare {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let text = self.text(globals, &history::open(globals)?, Timestamp::now())?;
        history::print(globals, &text)
    }

    fn text(&self, globals: &Globals, db: &RunsDb, now: Timestamp) -> Result<String, RunsError> {
        let named: Vec<RunId> = self.runs.iter().map(|name| db.find(name)).collect::<Result<_, _>>()?;
        let (mut named, again) = each_once(named);
        again.iter().for_each(|run| globals.say(format_args!("note: {run} is named more than once")));
        if named.len() == 1 && !again.is_empty() {
            named.push(named[0]);
        }
        let runs: Vec<LoadedRun> = named.into_iter().map(|run| db.load(run)).collect::<Result<_, _>>()?;
        let (mut comparison, contests) = match runs.as_slice() {
            [run] => {
                let methods = compare_methods(run, better);
                let run = run.info.run;
                (methods.ok_or(RunsError::OneMethod { run })?, Contests::within(&runs[0]))
            }
            runs => (compare(runs, better), Contests::of_runs(runs)),
        };
        let lost = self.weigh(db, &mut comparison, &contests)?;
        Ok(match self.form {
            Form { json: true, .. } => json_text(&comparison),
            Form { csv: true, .. } => csv::comma_separated(&comparison),
            Form { .. } => {
                let wanted = parts::Wanted { globals, all: self.all, now, lost };
                let sheet = parts::sheet(&runs, &comparison, &wanted);
                match self.form {
                    Form { md: true, .. } => sheet::markdown(&sheet),
                    Form { html: true, .. } => sheet::html(&sheet, &title(&comparison)),
                    Form { .. } => sheet::plain(&sheet, table_width()),
                }
            }
        })
    }

    /// Adds the evidence of predictions, and returns how many are not kept.
    fn weigh(
        &self,
        db: &RunsDb,
        comparison: &mut Comparison,
        contests: &Contests,
    ) -> Result<usize, RunsError> {
        let mut predictions = BTreeMap::new();
        let mut lost = 0;
        for digest in contests.needs() {
            let csv = db.predictions(digest)?;
            // What was kept is what a stage could read.
            match csv.and_then(|csv| parse_predictions("runs.db", csv.as_slice()).ok()) {
                Some(rows) => drop(predictions.insert(digest, rows)),
                None => lost += 1,
            }
        }
        match contests.decide(&predictions, Bootstrap { resamples: RESAMPLES, seed: self.seed }) {
            Err(RunsError::OtherTestSet { .. }) if self.any_test_set => {}
            // Runs of several configurations are compared by configuration.
            evidence => {
                let evidence = evidence?;
                if comparison.groups.len() < 2 {
                    comparison.evidence = evidence;
                }
            }
        }
        Ok(lost)
    }
}

/// What a page is called: the runs, or the methods of one.
fn title(comparison: &Comparison) -> String {
    if comparison.columns.is_empty() {
        return comparison.runs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" · ");
    }
    comparison.columns.join(" · ")
}

/// `runs` without repetitions, and those that are repeated.
fn each_once(runs: Vec<RunId>) -> (Vec<RunId>, BTreeSet<RunId>) {
    let (mut once, mut again) = (Vec::new(), BTreeSet::new());
    for run in runs {
        if once.contains(&run) {
            again.insert(run);
        } else {
            once.push(run);
        }
    }
    (once, again)
}
