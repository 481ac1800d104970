//! `pipe compare`: runs side by side.

use std::{fmt::Write, process::ExitCode};

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Failure, Globals,
    history::{self, json_text},
    metrics::{arrow, better, is_detail},
    table::{Columns, DIM, styled},
    units::{ago, counted, difference, measured, shortened},
};
use crate::{
    names::RunId,
    runs::{
        LoadedRun, RunsDb, RunsError,
        compare::{Comparison, Difference, MetricRow, Verdict, What, compare},
    },
};

/// Compare runs: what differed, and the metrics side by side
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe compare run_12 run_15
  pipe compare baseline @last~1 @last
  pipe compare baseline @last --md > comparison.md")]
pub(super) struct Compare {
    /// Two or more of `run_12`, `12`, `@last`, `@last~1`, tags; the first is compared with
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<String>,
    /// Show every metric: of bins and tensors, and those that runs share
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    form: Form,
}

/// Other forms than tables for a terminal.
#[derive(Debug, Args)]
#[group(multiple = false)]
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
}

impl Compare {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let text = self.text(&history::open(globals)?, Timestamp::now())?;
        history::print(globals, &text)
    }

    fn text(&self, db: &RunsDb, now: Timestamp) -> Result<String, RunsError> {
        let runs: Result<Vec<LoadedRun>, RunsError> =
            self.runs.iter().map(|name| db.find(name).and_then(|run| db.load(run))).collect();
        let runs = runs?;
        let comparison = compare(&runs, better);
        Ok(match self.form {
            Form { json: true, .. } => json_text(&comparison),
            Form { csv: true, .. } => comma_separated(&comparison),
            Form { md: true, .. } => markdown(&comparison, self.all),
            Form { .. } => plain(&runs, &comparison, self.all, now),
        })
    }
}

fn plain(runs: &[LoadedRun], comparison: &Comparison, all: bool, now: Timestamp) -> String {
    let mut heads = Columns::new(&["RUN", "STATUS", "WHEN", "PIPELINE", "TAGS"]).coloured(1);
    for LoadedRun { info, .. } in runs {
        let with: Vec<&str> = [&info.pipeline]
            .into_iter()
            .chain(&info.profiles)
            .chain(&info.sets)
            .map(String::as_str)
            .collect();
        heads.row(vec![
            info.run.to_string(),
            info.state.word().into(),
            ago(info.started, now),
            shortened(&with.join(" "), 40),
            info.tags.join(" "),
        ]);
    }
    let mut text = heads.text();
    if comparison.differences.is_empty() {
        text.push_str("\nnothing differed\n");
    } else {
        let headings: Vec<String> = ["WHAT DIFFERED".into()]
            .into_iter()
            .chain(comparison.runs.iter().map(RunId::to_string))
            .collect();
        let mut table = Columns::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
        for difference in &comparison.differences {
            let limit = if all { usize::MAX } else { 60 / runs.len().max(2) };
            let values = difference.values.iter();
            let cells = values.map(|value| shortened(&written(difference.what, value.as_ref()), limit));
            table.row([subject(difference)].into_iter().chain(cells).collect());
        }
        text.push('\n');
        text.push_str(&table.text());
    }
    let chosen = Chosen::of(comparison, all);
    if !chosen.rows.is_empty() {
        text.push('\n');
        text.push_str(&metric_table(comparison, &chosen.rows));
    }
    let remarks = chosen.remarks(runs.len());
    if !remarks.is_empty() {
        text.push('\n');
    }
    for remark in remarks {
        writeln!(text, "{}", styled(DIM, &remark)).expect("a text grows");
    }
    text
}

/// The metrics to be shown, and how many are not.
struct Chosen<'a> {
    rows: Vec<&'a MetricRow>,
    shared: usize,
    equal: usize,
    details: usize,
}

impl<'a> Chosen<'a> {
    fn of(comparison: &'a Comparison, all: bool) -> Self {
        let mut chosen = Chosen { rows: Vec::new(), shared: 0, equal: 0, details: 0 };
        for row in &comparison.metrics {
            match row {
                _ if all => chosen.rows.push(row),
                row if row.shared => chosen.shared += 1,
                row if is_detail(&row.name) => chosen.details += 1,
                row if row.verdicts.iter().all(|verdict| *verdict == Verdict::Equal) => chosen.equal += 1,
                row => chosen.rows.push(row),
            }
        }
        chosen
    }

    fn remarks(&self, runs: usize) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.shared > 0 {
            let who = if runs == 2 { "both" } else { "all" };
            remarks.push(format!("{} equal: executed once, shared by {who}", counted(self.shared, "metric")));
        }
        if self.equal > 0 {
            remarks.push(format!("{} equal though executed again", counted(self.equal, "metric")));
        }
        if self.details > 0 {
            remarks.push(format!("{} of bins and tensors hidden", counted(self.details, "metric")));
        }
        if let Some(last) = remarks.last_mut() {
            last.push_str("; `--all` shows every one");
        }
        remarks
    }
}

fn metric_table(comparison: &Comparison, rows: &[&MetricRow]) -> String {
    let two = comparison.runs.len() == 2;
    let mut headings: Vec<String> = vec!["METRIC".into(), String::new()];
    for (at, run) in comparison.runs.iter().enumerate() {
        headings.push(run.to_string());
        if at > 0 {
            headings.push(if two { "DIFFERENCE".into() } else { "Δ".into() });
        }
    }
    headings.push(if two { String::new() } else { "BEST".into() });
    let last = headings.len() - 1;
    let mut table =
        Columns::new(&headings.iter().map(String::as_str).collect::<Vec<_>>()).right(2..last).coloured(last);
    for row in rows {
        let mut cells = vec![format!("{}.{}", row.stage, row.name), arrow(row.better).to_string()];
        for (at, value) in row.values.iter().enumerate() {
            cells.push(measured(*value));
            if at > 0 {
                cells.push(difference(row.differences[at]));
            }
        }
        cells.push(if two { verdict(row.verdicts[1]).into() } else { best(comparison, row) });
        table.row(cells);
    }
    table.text()
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Equal => "=",
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Changed | Verdict::Unknown => "",
    }
}

/// The run whose value is best, where one direction is better and one run is alone in it.
fn best(comparison: &Comparison, row: &MetricRow) -> String {
    use pipe_stages::contract::Better;
    let sign = match row.better {
        Better::Higher => 1.0,
        Better::Lower => -1.0,
        Better::Neither => return String::new(),
    };
    let best = row.values.iter().flatten().map(|value| sign * value).fold(f64::NEG_INFINITY, f64::max);
    let mut winners = row
        .values
        .iter()
        .zip(&comparison.runs)
        .filter(|(value, _)| value.is_some_and(|value| sign * value >= best));
    match (winners.next(), winners.next()) {
        (Some((_, run)), None) => run.to_string(),
        _ => String::new(),
    }
}

/// `lora.rank`, `input train.reviews (data/x.jsonl)`, `commit`.
fn subject(difference: &Difference) -> String {
    let dotted = |separator: &str| {
        let parts = [difference.stage.as_deref().unwrap_or_default(), &difference.name];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(separator)
    };
    match difference.what {
        What::Parameter => dotted("."),
        What::Device => format!("device of {}", shortened(&difference.name, 40)),
        what if difference.stage.is_none() => what.words().into(),
        What::Source => format!("{} takes", dotted(".")),
        what => format!("{} {}", what.words(), dotted(".")),
    }
}

fn written(what: What, value: Option<&Value>) -> String {
    match (what, value) {
        (What::Patch, None) => "none".into(),
        (_, None) => "–".into(),
        (What::Commit | What::Input | What::Patch, Some(Value::String(hash))) => {
            hash.chars().take(12).collect()
        }
        (_, Some(Value::String(text))) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        (_, Some(Value::Null)) => "null".into(),
        (_, Some(value)) => value.to_string(),
    }
}

/// One table for all: `what,stage,name,run_1,run_2,…,difference_run_2,…,verdict_run_2,…`.
fn comma_separated(comparison: &Comparison) -> String {
    let others = || comparison.runs.iter().skip(1);
    let mut cells: Vec<String> = vec!["what".into(), "stage".into(), "name".into()];
    cells.extend(comparison.runs.iter().map(RunId::to_string));
    cells.extend(others().map(|run| format!("difference_{run}")));
    cells.extend(others().map(|run| format!("verdict_{run}")));
    let mut text = line(&cells);
    for difference in &comparison.differences {
        let word = word_of(difference.what);
        let mut cells = vec![word, difference.stage.clone().unwrap_or_default(), difference.name.clone()];
        cells.extend(difference.values.iter().map(|value| match value {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        }));
        cells.extend(std::iter::repeat_n(String::new(), 2 * others().count()));
        text.push_str(&line(&cells));
    }
    let number = |value: &Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    for row in &comparison.metrics {
        let mut cells = vec!["metric".into(), row.stage.clone(), row.name.clone()];
        cells.extend(row.values.iter().map(number));
        cells.extend(row.differences.iter().skip(1).map(number));
        cells.extend(row.verdicts.iter().skip(1).map(word_of));
        text.push_str(&line(&cells));
    }
    text
}

/// The word that stands for `value` in JSON.
fn word_of(value: impl serde::Serialize) -> String {
    let word = serde_json::to_value(value).expect("a plain enum is a word");
    word.as_str().unwrap_or_default().into()
}

fn line(cells: &[String]) -> String {
    let quoted = cells.iter().map(|cell| {
        if cell.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.clone()
        }
    });
    quoted.collect::<Vec<_>>().join(",") + "\n"
}

fn markdown(comparison: &Comparison, all: bool) -> String {
    let row = |cells: Vec<String>| {
        let cells: Vec<String> =
            cells.into_iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let runs = || comparison.runs.iter().map(RunId::to_string);
    let mut text = String::new();
    if !comparison.differences.is_empty() {
        text.push_str(&row(["what differed".to_owned()].into_iter().chain(runs()).collect()));
        text.push_str(&row(vec!["---".into(); comparison.runs.len() + 1]));
        for difference in &comparison.differences {
            let values = difference.values.iter().map(|value| written(difference.what, value.as_ref()));
            text.push_str(&row([subject(difference)].into_iter().chain(values).collect()));
        }
        text.push('\n');
    }
    let others = || comparison.runs.iter().enumerate().skip(1);
    let mut headings: Vec<String> = ["metric".to_owned()].into_iter().chain(runs()).collect();
    headings.extend(others().map(|(_, run)| format!("{run} less {}", comparison.runs[0])));
    let right = headings.len() - 1;
    text.push_str(&row(headings));
    text.push_str(&row(["---".to_owned()].into_iter().chain(vec!["--:".into(); right]).collect()));
    for metric in Chosen::of(comparison, all).rows {
        let name = format!("{}.{} {}", metric.stage, metric.name, arrow(metric.better));
        let mut cells = vec![name.trim_end().to_owned()];
        cells.extend(metric.values.iter().map(|value| measured(*value)));
        cells.extend(others().map(|(at, _)| {
            let text = format!("{} {}", difference(metric.differences[at]), verdict(metric.verdicts[at]));
            text.trim_end().to_owned()
        }));
        text.push_str(&row(cells));
    }
    text
}

#[cfg(test)]
mod tests {
    use pipe_stages::contract::Better;

    use super::*;

    fn comparison(runs: usize, rows: &[(&str, Better, &[Option<f64>])]) -> Comparison {
        let row = |(name, better, values): &(&str, Better, &[Option<f64>])| {
            MetricRow::new("eval", name, *better, values.to_vec(), false)
        };
        let runs = (1..=runs as i64).map(RunId).collect();
        Comparison { runs, differences: vec![], metrics: rows.iter().map(row).collect() }
    }

    fn table(comparison: &Comparison) -> String {
        let text = metric_table(comparison, &comparison.metrics.iter().collect::<Vec<_>>());
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn the_better_direction_decides_what_a_difference_means() {
        let rows: [(&str, Better, &[Option<f64>]); 5] = [
            ("accuracy", Better::Higher, &[Some(0.5), Some(0.75)]),
            ("loss", Better::Lower, &[Some(0.5), Some(0.75)]),
            ("count", Better::Neither, &[Some(10.0), Some(12.0)]),
            ("auc", Better::Higher, &[Some(0.5), Some(0.5)]),
            ("f1", Better::Higher, &[None, Some(0.5)]),
        ];
        insta::assert_snapshot!(table(&comparison(2, &rows)), @"
        METRIC              run_1    run_2  DIFFERENCE
        eval.accuracy  ↑  0.50000  0.75000    +0.25000  better
        eval.loss      ↓  0.50000  0.75000    +0.25000  worse
        eval.count             10       12          +2
        eval.auc       ↑  0.50000  0.50000           0  =
        eval.f1        ↑        –  0.50000           –
        ");
        let colour =
            metric_table(&comparison(2, &rows), &comparison(2, &rows).metrics.iter().collect::<Vec<_>>());
        assert!(colour.contains("\u{1b}[32mbetter\u{1b}[0m") && colour.contains("\u{1b}[31mworse\u{1b}[0m"));
    }

    #[test]
    fn among_many_runs_the_best_is_named() {
        let rows: [(&str, Better, &[Option<f64>]); 4] = [
            ("accuracy", Better::Higher, &[Some(0.5), Some(0.75), None]),
            ("loss", Better::Lower, &[Some(0.5), Some(0.75), Some(0.25)]),
            ("count", Better::Neither, &[Some(10.0), Some(12.0), Some(10.0)]),
            ("auc", Better::Higher, &[Some(0.5), Some(0.75), Some(0.75)]),
        ];
        insta::assert_snapshot!(table(&comparison(3, &rows)), @"
        METRIC              run_1    run_2         Δ    run_3         Δ  BEST
        eval.accuracy  ↑  0.50000  0.75000  +0.25000        –         –  run_2
        eval.loss      ↓  0.50000  0.75000  +0.25000  0.25000  -0.25000  run_3
        eval.count             10       12        +2       10         0
        eval.auc       ↑  0.50000  0.75000  +0.25000  0.75000  +0.25000
        ");
    }
}
