//! The stages of a run as a graph, each with its state and time.

use std::{collections::HashMap, fmt::Write};

use maud::{Markup, html};
use serde_json::Value;

use super::{
    graph::{BOX, Layout, layout},
    plot::px,
};
use crate::{
    names::{base, split_stage},
    record::Outcome,
    runs::{LoadedRun, LoadedStage},
    units::{counted, duration, shortened},
};

/// More stages than this make no picture that anyone could read.
const MOST: usize = 150;
/// Characters of a name that a box has room for.
const NAME: usize = 23;
/// Characters of what is below it.
const STATE: usize = 26;

/// The graph of `run`; `id` is unique in the page.
pub(super) fn dag(id: &str, run: &LoadedRun) -> Markup {
    if run.stages.len() > MOST {
        return html! {
            p { (counted(run.stages.len(), "stage")) " are too many for a picture; the table below lists them." }
        };
    }
    if run.stages.is_empty() {
        return html! { p { "No stage was reached." } };
    }
    let edges = edges(run);
    let Layout { boxes, lines, size: (width, height) } = layout(run.stages.len(), &edges);
    let caption = format!("Stages of {}", run.info.run);
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "Graph: " (caption) } {
            svg.dag id=(id) role="img" width=(px(width)) height=(px(height))
                viewBox={ "0 0 " (px(width)) " " (px(height)) } aria-labelledby={ (id) "-title " (id) "-desc" } {
                title id={ (id) "-title" } { (caption) }
                desc id={ (id) "-desc" } { (described(run, &edges)) }
                @for line in &lines { path.edge d=(curve(line)) {} }
                @for (stage, (x, y)) in run.stages.iter().zip(&boxes) {
                    g.node.(stage.outcome.word()) transform={ "translate(" (px(*x)) " " (px(*y)) ")" } {
                        title { (stage.stage) ", kind " (stage.kind) ": " (state(stage)) }
                        rect width=(BOX.0) height=(BOX.1) rx="6" {}
                        @let (name, about) = words(stage);
                        text x="10" y="18" { (shortened(&name, NAME)) }
                        text.state x="10" y="33" { (about) }
                    }
                }
            }
        }
    }
}

/// The two lines in the box of `stage`: of a matrix the first is what tells it from others.
fn words(stage: &LoadedStage) -> (String, String) {
    let name = &stage.stage;
    match name.strip_prefix(base(name)).and_then(|at| at.strip_prefix('[')?.strip_suffix(']')) {
        Some(at) => (at.to_owned(), shortened(&format!("{}: {}", base(name), state(stage)), STATE)),
        None => (name.clone(), state(stage)),
    }
}

/// `ran, 12.3 s`, `cached, run_1`, `failed, 2.0 s`.
pub(super) fn state(stage: &LoadedStage) -> String {
    let word = stage.outcome.word();
    let about = match (stage.outcome, &stage.execution) {
        (Outcome::Skipped, _) => None,
        (Outcome::Cached, Some(made)) => {
            Some(made.run.map_or_else(|| "from elsewhere".into(), |run| format!("from {run}")))
        }
        (_, made) => made.as_ref().map(|made| made.duration).or(stage.duration).map(duration),
    };
    about.map_or_else(|| word.to_owned(), |about| format!("{word}, {about}"))
}

/// Which stage takes from which, by their places in the run.
fn edges(run: &LoadedRun) -> Vec<(usize, usize)> {
    let places: HashMap<&str, usize> =
        run.stages.iter().enumerate().map(|(at, stage)| (stage.stage.as_str(), at)).collect();
    let mut edges = Vec::new();
    for (to, stage) in run.stages.iter().enumerate() {
        for (_, source) in sources(run, &stage.stage) {
            let from = source.as_str().map(|source| split_stage(source).0);
            edges.extend(from.and_then(|from| Some((*places.get(from)?, to))));
        }
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// What the pipeline says that a stage takes, by input: `stage.port`, or a map with a path.
fn sources<'a>(run: &'a LoadedRun, stage: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let inputs = run.resolved.get("stages").and_then(|stages| stages.get(stage)?.get("in"));
    inputs.and_then(Value::as_object).into_iter().flatten()
}

fn described(run: &LoadedRun, edges: &[(usize, usize)]) -> String {
    let told = run.stages.iter().enumerate().map(|(at, stage)| {
        let from: Vec<&str> = edges
            .iter()
            .filter(|(_, to)| *to == at)
            .map(|(from, _)| run.stages[*from].stage.as_str())
            .collect();
        let takes = if from.is_empty() { String::new() } else { format!(", takes from {}", from.join(", ")) };
        format!("{}: {}{takes}.", stage.stage, state(stage))
    });
    told.collect::<Vec<_>>().join(" ")
}

/// A soft line through `points`: level at each of them.
fn curve(points: &[(f64, f64)]) -> String {
    let mut path = format!("M{} {}", px(points[0].0), px(points[0].1));
    for two in points.windows(2) {
        let ((x, y), (to_x, to_y)) = (two[0], two[1]);
        if (y - to_y).abs() < 0.05 {
            write!(path, "H{}", px(to_x)).expect("a text grows");
        } else {
            let half = px(f64::midpoint(x, to_x));
            let (y, to_x, to_y) = (px(y), px(to_x), px(to_y));
            write!(path, "C{half} {y} {half} {to_y} {to_x} {to_y}").expect("a text grows");
        }
    }
    path
}
