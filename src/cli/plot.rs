//! `pipe plot`: the course of a metric, in the terminal or as an SVG file.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    Failure, Globals,
    braille::Canvas,
    history,
    metrics::is_detail,
    out::write,
    report::table_width,
    table::{BOLD, styled},
    units::{list, measured},
};
use crate::{
    report::{self, Subject},
    runs::Series,
};

/// Widest and highest drawing in a terminal, in characters.
const WIDEST: usize = 100;
const ROWS: usize = 16;

/// Draw how a metric went, step by step
///
/// In the terminal, or as the chart that `pipe report` has of it, with its validation where there is one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe plot @last lora.loss
  pipe plot @last lora.loss --out loss.svg")]
pub(super) struct Plot {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    run: String,
    /// `STAGE.METRIC` with values at steps; without it those that there are are named
    metric: Option<String>,
    /// Write an SVG file
    #[arg(long, short, value_name = "FILE.svg")]
    out: Option<PathBuf>,
}

impl Plot {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        if let Some(path) = self.out.as_ref().filter(|path| path.extension().is_none_or(|it| it != "svg")) {
            return Err(Failure::input(format!("`{}` does not end in `.svg`", path.display()))
                .help("only SVG is drawn; browsers and `rsvg-convert` make other forms of it"));
        }
        let db = history::open(globals)?;
        let run = db.load(db.find(&self.run)?)?;
        let id = run.info.run;
        let series = db.series(id, |_| true)?;
        let Some(metric) = &self.metric else {
            return Err(with_those_there_are(Failure::input("no metric is named"), &series));
        };
        // Of a stage that was started several times and failed, the latest attempt is drawn.
        let wanted = series.iter().rev().find(|it| format!("{}.{}", it.stage, it.metric) == *metric);
        let unknown = || Failure::input(format!("`{metric}` has no values at steps in {id}"));
        let wanted = wanted.ok_or_else(|| with_those_there_are(unknown(), &series))?.clone();
        let points: Vec<(u64, f64)> =
            wanted.points.iter().filter_map(|(step, value)| Some((*step, (*value)?))).collect();
        if points.is_empty() {
            return Err(Failure::input(format!("`{metric}` is undefined at every step of {id}")));
        }
        let Some(path) = &self.out else {
            let head = format!("{}, of {id}\n", styled(BOLD, metric));
            return history::print(globals, &(head + &drawn(&points, table_width().min(WIDEST))));
        };
        let subject = Subject { run, series, predictions: BTreeMap::new(), texts: BTreeMap::new() };
        let svg = report::curve_svg(&subject, &wanted.stage, &wanted.metric).expect("it has points");
        write(path, svg)?;
        globals.say(format_args!("wrote {}", path.display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// Names the metrics that can be drawn.
fn with_those_there_are(failure: Failure, series: &[Series]) -> Failure {
    let names = series.iter().filter(|it| !is_detail(&it.metric));
    let mut names: Vec<String> = names.map(|it| format!("{}.{}", it.stage, it.metric)).collect();
    names.dedup();
    match names.len() {
        0 => failure.help("no stage of this run measured anything step by step"),
        1..=20 => failure.help(format!("these have values at steps: {}", list(&names))),
        more => {
            let (first, more) = (names[..20].join(", "), more - 20);
            failure.help(format!("these and {more} more have values at steps: {first}"))
        }
    }
}

/// A drawing of this width, its axes labelled.
fn drawn(points: &[(u64, f64)], width: usize) -> String {
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)))
    };
    let (first, last) = ends(&mut points.iter().map(|point| point.0 as f64));
    let (low, high) = ends(&mut points.iter().map(|point| point.1));
    let (top, bottom) = (measured(Some(high)), measured(Some(low)));
    let margin = top.chars().count().max(bottom.chars().count());
    let mut canvas = Canvas::new(width.saturating_sub(margin + 2).max(10), ROWS);
    // A single value lies in the middle.
    let share = |value: f64, low: f64, high: f64| if high > low { (value - low) / (high - low) } else { 0.5 };
    canvas.line(
        points.iter().map(|(step, value)| (share(*step as f64, first, last), share(*value, low, high))),
    );
    let mut text = String::new();
    for (row, line) in canvas.text().enumerate() {
        let label = match row {
            0 => top.as_str(),
            row if row + 1 == ROWS && high > low => bottom.as_str(),
            _ => "",
        };
        writeln!(text, "{label:>margin$} │{}", line.trim_end_matches('\u{2800}')).expect("a text grows");
    }
    let columns = width.saturating_sub(margin + 2).max(10);
    writeln!(text, "{:margin$} └{}", "", "─".repeat(columns)).expect("a text grows");
    let (first, last) = (format!("step {first}"), last.to_string());
    let gap = columns.saturating_sub(first.len());
    writeln!(text, "{:margin$}  {first}{last:>gap$}", "").expect("a text grows");
    text
}
