//! What stages measured step by step, the same metric of several runs in one chart.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

use maud::{Markup, html};

use super::{
    COLOURS, Subject, colour,
    plot::{Figure, Frame, Legend, data_table, smoothed, thinned},
};
use crate::{
    meant::{in_order, labels, part},
    names::base,
    units::{counted, measured},
};

/// Charts that are drawn.
const MOST: usize = 60;
/// Points of all curves together, about eleven bytes each.
const POINTS: usize = 30_000;
/// Points of one curve.
const FINEST: usize = 600;
/// Curves with more points than this get a smooth line over what was measured.
const NOISY: usize = 100;
/// Rows of the table behind a chart.
const ROWS: usize = 20;

/// Curves that look different from each other: [`COLOURS`], each as a line, dotted and pale.
pub const LOOKS: usize = 3 * COLOURS;

/// One line of a chart.
struct Curve<'a> {
    /// The runs that have it.
    runs: Vec<String>,
    stage: &'a str,
    /// The metric without its stage.
    metric: &'a str,
    execution: &'a str,
    points: Vec<(u64, f64)>,
}

/// One chart for each metric of each stage of the file; a `validation_…` joins the metric it validates.
pub(super) fn curves(subjects: &[Subject]) -> Markup {
    let charts = charts(subjects);
    let lines: usize = charts.iter().take(MOST).map(|(_, lines)| lines.len()).sum();
    let finest = (POINTS / lines.max(1)).clamp(30, FINEST);
    let hidden = charts.len().saturating_sub(MOST);
    html! {
        div.charts {
            @for (at, ((stage, metric), lines)) in charts.iter().take(MOST).enumerate() {
                (chart(&format!("curve-{}", at + 1), stage, metric, lines, subjects.len() > 1, finest).markup())
            }
        }
        @if charts.is_empty() { p { "No stage measured anything step by step." } }
        @if hidden > 0 { p.remark { (counted(hidden, "chart")) " more are not drawn; runs.db has their values." } }
    }
}

type Charts<'a> = Vec<((&'a str, &'a str), Vec<Curve<'a>>)>;

fn charts(subjects: &[Subject]) -> Charts<'_> {
    let mut charts: Charts<'_> = Vec::new();
    for subject in subjects {
        for series in &subject.series {
            let metric = series.metric.as_str();
            let name = (base(&series.stage), metric.strip_prefix("validation_").unwrap_or(metric));
            let at = charts.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
                charts.push((name, Vec::new()));
                charts.len() - 1
            });
            let lines = &mut charts[at].1;
            let run = subject.run.info.run.to_string();
            let same = |line: &&mut Curve<'_>| {
                (line.execution, line.stage, line.metric) == (&series.execution, &series.stage, metric)
            };
            match lines.iter_mut().find(same) {
                Some(line) => line.runs.push(run),
                None => lines.push(Curve {
                    runs: vec![run],
                    stage: &series.stage,
                    metric,
                    execution: &series.execution,
                    points: series
                        .points
                        .iter()
                        .filter_map(|(step, value)| Some((*step, (*value)?)))
                        .collect(),
                }),
            }
        }
    }
    charts.retain(|(_, lines)| lines.iter().any(|line| !line.points.is_empty()));
    charts.iter_mut().for_each(|(_, lines)| lines.sort_by(|a, b| in_order(a.stage, b.stage)));
    // What is trained for comes first, in each stage.
    let rank = |metric: &str| match metric {
        "loss" => 0,
        "accuracy" => 1,
        "learning_rate" => 2,
        "gradient_norm" => 3,
        _ => 4,
    };
    let stages: Vec<&str> = charts.iter().map(|((stage, _), _)| *stage).collect();
    let first: BTreeMap<&str, usize> =
        stages.iter().enumerate().rev().map(|(at, stage)| (*stage, at)).collect();
    charts.sort_by_key(|((stage, metric), _)| (first[stage], rank(metric)));
    charts
}

/// The chart of `metric` of `stage`, by the file's name, as an SVG file of its own; nothing if it has no
/// values at steps.
pub fn curve_svg(subject: &Subject, stage: &str, metric: &str) -> Option<String> {
    let wanted = (stage, metric.strip_prefix("validation_").unwrap_or(metric));
    let charts = charts(std::slice::from_ref(subject));
    let ((stage, metric), lines) = charts.iter().find(|(name, _)| *name == wanted)?;
    Some(chart("curve", stage, metric, lines, false, FINEST).svg().into_string())
}

fn chart(id: &str, stage: &str, metric: &str, lines: &[Curve<'_>], of_runs: bool, finest: usize) -> Figure {
    let mut stages: Vec<&str> = lines.iter().map(|line| line.stage).collect();
    stages.dedup();
    let stage = if base(stages[0]) == stages[0] { stage.to_owned() } else { part(&stages) };
    let parts: HashMap<&str, Cow<'_, str>> = stages.iter().copied().zip(labels(&stages)).collect();
    let is_matrix = stages.len() > 1;
    let several = of_runs || is_matrix;
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let points = || lines.iter().flat_map(|line| &line.points);
    let steps = ends(&mut points().map(|point| point.0 as f64));
    let frame = Frame::new(steps, ends(&mut points().map(|point| point.1)));
    let executions: Vec<_> = lines.iter().map(|line| (line.stage, line.execution)).collect();
    let class = |at: usize, line: &Curve<'_>| {
        // A validation has the colour of its run, dashed; within one run it has its own.
        let number = if several {
            let own = (line.stage, line.execution);
            let first = executions.iter().position(|execution| *execution == own).unwrap_or(at);
            executions[..first]
                .iter()
                .enumerate()
                .filter(|(at, other)| executions[..*at].iter().all(|seen| seen != *other))
                .count()
        } else {
            at
        };
        let dashed = if line.metric == metric { "" } else { " dashed" };
        let round = ["", " dotted", " pale"][number / COLOURS % 3];
        format!("{}{round}{dashed}", colour(number))
    };
    let label = |line: &Curve<'_>| {
        let mut words: Vec<String> = Vec::new();
        words.extend(is_matrix.then(|| parts[line.stage].to_string()));
        words.extend(of_runs.then(|| line.runs.join(", ")));
        words.extend((!several || line.metric != metric).then(|| line.metric.to_owned()));
        words.join(", ")
    };
    let labels: Vec<String> = lines.iter().map(label).collect();
    let drawing = html! {
        (frame.axes("step", metric))
        @for (at, line) in lines.iter().enumerate() {
            @let is_noisy = line.points.len() > NOISY;
            path.{ "line " (class(at, line)) @if is_noisy { " faint" } } d=(frame.line(&thinned(&line.points, finest))) {
                title { (labels[at]) }
            }
            @if is_noisy {
                path.{ "line smooth " (class(at, line)) } d=(frame.line(&thinned(&smoothed(&line.points, line.points.len() / 40), finest / 2))) {
                    title { (labels[at]) ", smoothed" }
                }
            }
        }
    };
    let mut description = format!("{stage}.{metric} from step {} to {}.", steps.0, steps.1);
    for (line, label) in lines.iter().zip(&labels) {
        if let (Some(first), Some(last)) = (line.points.first(), line.points.last()) {
            let (first, last) = (measured(Some(first.1)), measured(Some(last.1)));
            write!(description, " {label}: {first} to {last}.").expect("a text grows");
        }
    }
    if lines.iter().any(|line| line.points.len() > NOISY) {
        description.push_str(" Faint: as measured. Bold: mean of neighbours.");
    }
    let legend = if lines.len() > 1 {
        let entry = |(at, line)| Legend { class: class(at, line), label: labels[at].clone() };
        let mut legend: Vec<Legend> = lines.iter().enumerate().take(LOOKS).map(entry).collect();
        if lines.len() > LOOKS {
            let label = format!("and {} more, which look alike", lines.len() - LOOKS);
            legend.push(Legend { class: String::new(), label });
        }
        legend
    } else {
        Vec::new()
    };
    let caption = format!("{stage}.{metric}");
    Figure { id: id.into(), caption, description, legend, drawing, data: table(lines, &labels) }
}

/// About [`ROWS`] steps, the first and the last among them.
fn table(lines: &[Curve<'_>], labels: &[String]) -> Markup {
    let by_step: Vec<BTreeMap<u64, f64>> =
        lines.iter().map(|line| line.points.iter().copied().collect()).collect();
    let mut steps: Vec<u64> = by_step.iter().flat_map(BTreeMap::keys).copied().collect();
    steps.sort_unstable();
    steps.dedup();
    let every = steps.len().div_ceil(ROWS).max(1);
    let last = steps.len().saturating_sub(1);
    // Where a validation was measured, its step is worth more than a round one.
    let sparse = by_step.iter().filter(|values| values.len() <= ROWS).max_by_key(|values| values.len());
    let is_shown = |at: usize, step: u64| {
        at == 0 || at == last || sparse.map_or(at.is_multiple_of(every), |values| values.contains_key(&step))
    };
    let shown = steps.iter().enumerate().filter(|(at, step)| is_shown(*at, **step));
    let rows: Vec<Vec<String>> = shown
        .map(|(_, step)| {
            let values = by_step.iter().map(|values| measured(values.get(step).copied()));
            [step.to_string()].into_iter().chain(values).collect()
        })
        .collect();
    let headings: Vec<&str> = ["step"].into_iter().chain(labels.iter().map(String::as_str)).collect();
    data_table(&headings, &rows)
}
