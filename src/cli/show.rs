//! `pipe show`: one run, what it executed and what came out.

use std::{collections::BTreeMap, fmt::Write, process::ExitCode};

use clap::Args;
use jiff::Timestamp;
use pipe_stages::contract::Better;
use serde_json::json;

use super::{
    Failure, Globals,
    compare::sweeps::{Hidden, table_text},
    expected,
    history::{self, json_text},
    metrics::{arrow, better, is_detail},
    reasons,
    report::{fitted, table_width},
    table::{BAD, BOLD, Columns, DIM, style_of, styled},
    targets::quoted,
    units::{ago, counted, date_and_time, duration, measured, shortened, size, visible},
};
use crate::{
    names::base,
    record::{Outcome, Reason},
    runs::{
        LoadedRun, LoadedStage, RunInfo, RunsDb, RunsError,
        compare::natural,
        expected::expected,
        sweep::{Sweep, SweepMetric, sweeps},
    },
};

/// How many stages say why they ran.
const REASONS: usize = 20;

/// Show one run: how it was made, its stages, its metrics
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe show                                 the latest run
  pipe show run_12 --json | jq '.stages[].execution.metrics'")]
pub(super) struct Show {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    #[arg(default_value = "@last")]
    run: String,
    /// Show the metrics of every bin and tensor as well
    #[arg(long)]
    all: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let text = self.text(globals, &history::open(globals)?, Timestamp::now())?;
        history::print(globals, &text)
    }

    fn text(&self, globals: &Globals, db: &RunsDb, now: Timestamp) -> Result<String, RunsError> {
        let run = db.load(db.find(&self.run)?)?;
        if self.json {
            let mut json = serde_json::to_value(&run).expect("a run serializes to JSON");
            json["expected"] = json!(expected(&run));
            return Ok(json_text(&json));
        }
        let mut text = header(&run.info, now);
        if !run.stages.is_empty() {
            text.push('\n');
            text.push_str(&stages(&run));
            text.push_str(&reasons(&run));
        }
        for stage in run.stages.iter().filter(|stage| stage.outcome == Outcome::Failed) {
            text.push_str(&failure(globals, &run.info, stage));
        }
        text.push_str(&metrics(globals, &run, self.all));
        let expected = expected::text(&expected(&run));
        if !expected.is_empty() {
            text.push('\n');
            text.push_str(&expected);
        }
        Ok(text)
    }
}

fn header(run: &RunInfo, now: Timestamp) -> String {
    let word = run.state.word();
    let took = run.seconds.map(|seconds| format!(", took {}", duration(seconds))).unwrap_or_default();
    let when = date_and_time(run.started);
    let mut text = format!(
        "{}  {}  {}\n",
        styled(BOLD, &run.run.to_string()),
        styled(style_of(word), word),
        match ago(run.started, now) {
            date if when.starts_with(&date) => format!("{when}{took}"),
            ago => format!("{ago} ({when}{took})"),
        },
    );
    let mut line = |name: &str, value: String| {
        let line = format!("{}{}", styled(DIM, &format!("{name:<10}")), visible(&value));
        writeln!(text, "{}", fitted(&line, "          ")).expect("a text grows");
    };
    let words: Vec<String> = run.command.iter().map(|word| quoted(word)).collect();
    line("command", format!("pipe {}", words.join(" ")));
    line("pipeline", format!("{} ({}), seed {}", run.pipeline, run.file.display(), run.seed));
    if !run.profiles.is_empty() {
        line("profiles", run.profiles.join(", "));
    }
    if !run.sets.is_empty() {
        line("set", run.sets.join(", "));
    }
    if let Some(git) = &run.git {
        let commit: String = git.commit.chars().take(12).collect();
        line("commit", format!("{commit}{}", if git.dirty { ", with uncommitted changes" } else { "" }));
    }
    line("made by", format!("pipe {} on {}, {}", run.version, run.host, counted(run.cpus, "core")));
    if !run.tags.is_empty() {
        line("tags", run.tags.join(", "));
    }
    for note in &run.notes {
        line("note", format!("{} ({})", note.text, ago(note.created, now)));
    }
    text
}

fn stages(run: &LoadedRun) -> String {
    let mut table = Columns::new(&["STAGE", "STATE", "FROM", "TOOK", "CPU", "MEMORY", "DEVICE"])
        .right([3, 4, 5])
        .coloured(1);
    for stage in &run.stages {
        let made = stage.execution.as_ref();
        let since = made.filter(|_| stage.outcome == Outcome::Cached).map(|made| match made.run {
            Some(since) if made.stage == stage.stage => since.to_string(),
            Some(since) => format!("{since} ({})", shortened(&made.stage, 16)),
            None => "elsewhere".into(),
        });
        let took = made.map(|made| made.duration).or(stage.duration);
        table.row(vec![
            stage.stage.clone(),
            stage.outcome.word().into(),
            since.unwrap_or_default(),
            took.filter(|_| stage.outcome != Outcome::Skipped).map(duration).unwrap_or_default(),
            made.map(|made| duration(made.cpu)).unwrap_or_default(),
            made.map(|made| size(made.peak_memory)).unwrap_or_default(),
            made.and_then(|made| made.device.clone()).unwrap_or_default(),
        ]);
    }
    table.text()
}

/// Why stages ran that had run before, a line each.
fn reasons(run: &LoadedRun) -> String {
    let mut text = String::new();
    let told = |stage: &&LoadedStage| !matches!(stage.reasons.as_slice(), [] | [Reason::NeverRun]);
    let mut stages = run.stages.iter().filter(told);
    for stage in stages.by_ref().take(REASONS) {
        let words: Vec<String> = stage.reasons.iter().map(reasons::words).collect();
        let line = format!("{}  {}", stage.stage, words.join("; "));
        writeln!(text, "{}", fitted(&line, "  ")).expect("a text grows");
    }
    let more = stages.count();
    if more > 0 {
        writeln!(text, "{}", styled(DIM, &format!("and {more} more; `--json` has all")))
            .expect("a text grows");
    }
    if text.is_empty() { text } else { format!("\n{}\n{text}", styled(BOLD, "WHY")) }
}

fn failure(globals: &Globals, run: &RunInfo, stage: &LoadedStage) -> String {
    let error = stage.error.as_deref().unwrap_or("it did not say why");
    let mut lines = error.lines().map(|line| visible(&line.replace('\t', "    ")).into_owned());
    let mut error = lines.next().unwrap_or_default();
    // An error that ends with the code says it itself.
    if let Some(code) = stage.exit_code.filter(|_| !error.contains("exit code")) {
        write!(error, " (exit code {code})").expect("a text grows");
    }
    lines.for_each(|line| write!(error, "\n{line}").expect("a text grows"));
    let logs = globals.rooted(&format!("`pipe logs {} {}`", run.run, quoted(&stage.stage)));
    format!("\n{} `{}`: {error}\n  {logs} shows what it said\n", styled(BAD, "failed"), stage.stage)
}

/// A block of metrics for each stage, and a table for the instances of one.
fn metrics(globals: &Globals, run: &LoadedRun, all: bool) -> String {
    let stages = &run.stages;
    let sweeps: Vec<Sweep> = sweeps(run, better).into_iter().filter(Sweep::compares).collect();
    let sweep_of =
        |stage: &str| sweeps.iter().find(|sweep| sweep.stage == base(stage) && stage != base(stage));
    let mut text = String::new();
    let mut hidden = Hidden::default();
    let mut told: Vec<&str> = Vec::new();
    let mut has_best = false;
    for stage in stages {
        if let Some(sweep) = sweep_of(&stage.stage) {
            if told.contains(&sweep.stage.as_str()) {
                continue;
            }
            told.push(&sweep.stage);
            if !all {
                hidden.add(sweep);
            }
            if let Some(table) = table_text(sweep, all, table_width()) {
                let is_best =
                    |metric: &SweepMetric| !metric.best.is_empty() && (all || !is_detail(&metric.name));
                has_best |= sweep.metrics.iter().any(is_best);
                write!(text, "\n{table}").expect("a text grows");
            }
            continue;
        }
        let Some(execution) = &stage.execution else { continue };
        let named: BTreeMap<_, _> =
            execution.metrics.iter().map(|(name, value)| (natural(name), (name, *value))).collect();
        let (shown, details): (Vec<_>, Vec<_>) =
            named.into_values().partition(|(name, _)| all || !is_detail(name));
        hidden.details += details.len();
        if shown.is_empty() {
            continue;
        }
        writeln!(text, "\n{}", styled(BOLD, &stage.stage)).expect("a text grows");
        let width = shown.iter().map(|(name, _)| visible(name).chars().count()).max().unwrap_or(0);
        for (name, value) in shown {
            let arrow = arrow(better(&stage.kind, &stage.params, name));
            let name = visible(name);
            writeln!(text, "  {name:<width$} {arrow} {:>12}", measured(value)).expect("a text grows");
        }
    }
    let directed = stages.iter().any(|stage| {
        let names = stage.execution.iter().flat_map(|execution| execution.metrics.keys());
        names.into_iter().any(|name| better(&stage.kind, &stage.params, name) != Better::Neither)
    });
    let mut remarks = Vec::new();
    if directed {
        remarks.push("↑ higher is better, ↓ lower is better".to_owned());
    }
    if has_best {
        let compare = globals.rooted(&format!("`pipe compare {}`", run.info.run));
        remarks.push(format!("* best of its column; whether by more than chance: {compare}"));
    }
    remarks.extend(hidden.remarks());
    if !remarks.is_empty() {
        text.push('\n');
    }
    for remark in remarks {
        writeln!(text, "{}", styled(DIM, &remark)).expect("a text grows");
    }
    text
}
