//! `pipe plot`: the course of a metric, in the terminal or as an SVG file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::PathBuf,
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use clap::Args;

use super::{
    Failure, Globals,
    braille::Canvas,
    history,
    metrics::is_detail,
    out::write,
    report::table_width,
    table::{BOLD, styled},
    units::{counted, list, measured},
};
use crate::{
    meant::{self, in_order, join, meant},
    names::{base, split_stage},
    report::{self, LOOKS, Subject},
    runs::Series,
};

/// Widest and highest drawing in a terminal, in characters.
const WIDEST: usize = 100;
const ROWS: usize = 16;
/// The colours of several curves; they come round again.
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Magenta,
    AnsiColor::Green,
    AnsiColor::Blue,
    AnsiColor::Red,
];
/// Most curves that are named.
const LISTED: usize = 24;

/// Draw how a metric went, step by step
///
/// In the terminal, or as the chart that `pipe report` has of it, with its validation where there is one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe plot @last lora.loss
  pipe plot @last lora.loss --out loss.svg
  pipe plot @last 'lora[rank=8].loss'        one of a matrix; `lora.loss` draws all of them")]
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
        let unknown = || Failure::input(format!("`{metric}` has no values at steps in {id}"));
        let wanted = wanted(&series, metric);
        let Some(first) = wanted.first() else { return Err(with_those_there_are(unknown(), &series)) };
        let curves: Vec<Curve<'_>> = wanted.iter().map(|series| Curve::of(series)).collect();
        if curves.iter().all(|curve| curve.points.is_empty()) {
            return Err(Failure::input(format!("`{metric}` is undefined at every step of {id}")));
        }
        let stages: Vec<&str> = curves.iter().map(|curve| curve.stage).collect();
        let looks = if self.out.is_some() { LOOKS } else { COLOURS.len() };
        if let Some(part) = meant::smaller(&stages).filter(|_| stages.len() > looks) {
            let part = join(&part, split_stage(metric).1);
            let count = counted(stages.len(), "curve");
            globals.say(format_args!(
                "{count} are more than the {looks} that can be told apart; `{part}` draws a part of them"
            ));
        }
        let Some(path) = &self.out else {
            let name = join(&meant::part(&stages), Some(&first.metric)).into_owned();
            let head = format!("{}, of {id}\n", styled(BOLD, &name));
            return history::print(globals, &(head + &drawn(&curves, table_width().min(WIDEST))));
        };
        let (stage, metric) = (base(&first.stage).to_owned(), first.metric.clone());
        let is_wanted = |series: &Series| stages.contains(&series.stage.as_str());
        let series = series.iter().filter(|series| is_wanted(series)).cloned().collect();
        let subject = Subject { run, series, predictions: BTreeMap::new(), texts: BTreeMap::new() };
        let svg = report::curve_svg(&subject, &stage, &metric).expect("it has points");
        write(path, svg)?;
        globals.say(format_args!("wrote {}", path.display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// One line of a drawing.
struct Curve<'a> {
    stage: &'a str,
    points: Vec<(u64, f64)>,
}

impl<'a> Curve<'a> {
    fn of(series: &'a Series) -> Self {
        let points = series.points.iter().filter_map(|(step, value)| Some((*step, (*value)?))).collect();
        Self { stage: &series.stage, points }
    }
}

/// The series that `metric` means, in the order of a matrix. Of a stage that was started several times and
/// failed, it is that of the latest attempt.
fn wanted<'a>(series: &'a [Series], metric: &str) -> Vec<&'a Series> {
    let (stage, name) = split_stage(metric);
    let named: BTreeMap<&str, &Series> = series
        .iter()
        .filter(|it| Some(it.metric.as_str()) == name)
        .map(|it| (it.stage.as_str(), it))
        .collect();
    let mut stages = meant(stage, named.keys().copied()).unwrap_or_default();
    stages.sort_by(|a, b| in_order(a, b));
    stages.into_iter().map(|stage| named[stage]).collect()
}

/// Names the metrics that can be drawn.
fn with_those_there_are(failure: Failure, series: &[Series]) -> Failure {
    let names = series.iter().filter(|it| !is_detail(&it.metric));
    let mut names: Vec<String> = names.map(|it| format!("{}.{}", base(&it.stage), it.metric)).collect();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
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
fn drawn(curves: &[Curve<'_>], width: usize) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)))
    };
    let (first, last) = ends(&mut points().map(|point| point.0 as f64));
    let (low, high) = ends(&mut points().map(|point| point.1));
    let (top, bottom) = (measured(Some(high)), measured(Some(low)));
    let margin = top.chars().count().max(bottom.chars().count());
    let mut canvas = Canvas::new(width.saturating_sub(margin + 2).max(10), ROWS);
    // A single value lies in the middle.
    let share = |value: f64, low: f64, high: f64| if high > low { (value - low) / (high - low) } else { 0.5 };
    for Curve { points, .. } in curves {
        let place = |(step, value): &(u64, f64)| (share(*step as f64, first, last), share(*value, low, high));
        canvas.line(points.iter().map(place));
    }
    let style = |line: usize| match curves.len() {
        1 => Style::new(),
        _ => COLOURS[line % COLOURS.len()].on_default(),
    };
    let mut text = String::new();
    for (row, line) in canvas.text(style).enumerate() {
        let label = match row {
            0 => top.as_str(),
            row if row + 1 == ROWS && high > low => bottom.as_str(),
            _ => "",
        };
        writeln!(text, "{label:>margin$} │{line}").expect("a text grows");
    }
    let columns = width.saturating_sub(margin + 2).max(10);
    writeln!(text, "{:margin$} └{}", "", "─".repeat(columns)).expect("a text grows");
    let (first, last) = (format!("step {first}"), last.to_string());
    let gap = columns.saturating_sub(first.len());
    writeln!(text, "{:margin$}  {first}{last:>gap$}", "").expect("a text grows");
    if curves.len() > 1 {
        text.push_str(&legend(curves, style));
    }
    text
}

/// What each colour stands for, from the curve that ends highest to that which ends lowest.
fn legend(curves: &[Curve<'_>], style: impl Fn(usize) -> Style) -> String {
    let stages: Vec<&str> = curves.iter().map(|curve| curve.stage).collect();
    let labels = meant::labels(&stages);
    let width = labels.iter().map(|label| label.len()).max().unwrap_or(0);
    let mut entries: Vec<(f64, String)> = Vec::new();
    for (at, (curve, label)) in curves.iter().zip(labels).enumerate() {
        let (Some(first), Some(last)) = (curve.points.first(), curve.points.last()) else { continue };
        let mark = styled(style(at), "━━");
        let ends = format!("{} → {}", measured(Some(first.1)), measured(Some(last.1)));
        entries.push((last.1, format!("{mark} {label:<width$}  {ends}\n")));
    }
    entries.sort_by(|a, b| b.0.total_cmp(&a.0));
    if entries.len() > LISTED {
        let half = LISTED / 2;
        let left_out = entries.len() - LISTED;
        entries.splice(half..half + left_out, [(0.0, format!("   … {left_out} more\n"))]);
    }
    entries.into_iter().map(|(_, entry)| entry).collect()
}
