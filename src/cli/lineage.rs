//! `pipe lineage`: what a metric or an output came from.

use std::{collections::BTreeSet, fmt::Write, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    Failure, Globals,
    history::{self, json_text},
    report::{fitted, table_width},
    table::{BOLD, DIM, styled},
    units::{date_and_time, duration, measured},
};
use crate::{
    fingerprint::leaves,
    runs::{
        RunInfo,
        lineage::{Asked, Input, Lineage, Source, Step, What},
    },
};

/// Tell what a metric or an output came from, back to the files from outside
///
/// Every stage with what it read, by hash; the parameters that decided its bytes; the run that computed
/// it, with commit, machine and device. Everything comes from `runs.db`: `cache/` may be gone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe lineage @last eval.lora.accuracy
  pipe lineage run_12 lora.model                  an output
  pipe lineage run_12 'lora[rank=8].model'        of a matrix
  pipe lineage run_12 3fa9c0d1                    the output whose hash begins so
  pipe lineage @last eval --dot | dot -Tsvg > lineage.svg
  pipe lineage @last eval --json | jq '.steps[].computed_by'")]
pub(super) struct LineageOf {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    run: String,
    /// `STAGE.METRIC`, `STAGE.OUTPUT`, `STAGE`, or the beginning of an output's hash
    #[arg(value_name = "METRIC|OUTPUT")]
    of: String,
    /// Print one JSON document
    #[arg(long, conflicts_with = "dot")]
    json: bool,
    /// Print a graph for Graphviz
    #[arg(long)]
    dot: bool,
}

/// Levels of the tree that are drawn: each takes three columns.
const DEEPEST: usize = 20;

impl LineageOf {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let db = history::open(globals)?;
        let run = db.load(db.find(&self.run)?)?;
        let (asked, id) = (db.asked(&run, &self.of)?, run.info.run);
        let lineage = db.lineage(run, &asked.stage)?;
        if self.json {
            let mut document = json!(lineage);
            document["run"] = json!(id);
            document["of"] = json!(asked);
            globals.print(json_text(&document))?;
        } else if self.dot {
            globals.print(dot(&lineage))?;
        } else {
            let headline = fitted(&format!("{}, of {id}", headline(&asked)), "  ");
            let text = format!("{headline}\n\n{}", text(&lineage, table_width()));
            history::print(globals, &text)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn headline(asked: &Asked) -> String {
    match &asked.what {
        What::Metric(name, Some(value)) => {
            format!("{} {}", styled(BOLD, &format!("{}.{name}", asked.stage)), measured(Some(*value)))
        }
        What::Metric(name, None) => styled(BOLD, &format!("{}.{name}", asked.stage)),
        What::Output(output) => {
            format!("{} {}", styled(BOLD, &format!("{}.{}", asked.stage, output.port)), output.digest)
        }
        What::Result => styled(BOLD, &asked.stage),
    }
}

fn text(lineage: &Lineage, width: usize) -> String {
    let mut text = String::new();
    if let Some(first) = lineage.steps.first() {
        writeln!(text, "{}", first.stage).expect("a text grows");
        branches(&mut text, lineage, first, 0, "", &mut BTreeSet::from([0]));
    }
    writeln!(text, "\n{}", styled(BOLD, "STAGES")).expect("a text grows");
    for step in &lineage.steps {
        writeln!(text, "{}", fitted(&computed(step), "    ")).expect("a text grows");
        let params = leaves(&step.params);
        let words = params.iter().map(|(path, value)| format!("{path}={value}"));
        let lines = wrapped(words, width);
        lines.lines().for_each(|line| writeln!(text, "{}", fitted(line, "    ")).expect("a text grows"));
    }
    if !lineage.runs.is_empty() {
        writeln!(text, "\n{}", styled(BOLD, "RUNS")).expect("a text grows");
        lineage.runs.iter().for_each(|run| text.push_str(&made_by(run, width)));
    }
    text
}

/// The inputs of `step` and what they came from, a line each; what is shown above is not shown again.
fn branches(
    text: &mut String,
    lineage: &Lineage,
    step: &Step,
    level: usize,
    indent: &str,
    shown: &mut BTreeSet<usize>,
) {
    if level == DEEPEST && !step.inputs.is_empty() {
        writeln!(text, "{indent}└─ … `--json` has what is before it").expect("a text grows");
        return;
    }
    for (at, input) in step.inputs.iter().enumerate() {
        let is_last = at + 1 == step.inputs.len();
        let (branch, below) = if is_last { ("└─", "   ") } else { ("├─", "│  ") };
        let line = format!("{} {}", source(lineage, input), styled(DIM, &input.digest.short()));
        let next = match &input.from {
            Source::Step { at, .. } => Some((*at, &lineage.steps[*at])),
            _ => None,
        };
        let is_new = next.is_none_or(|(at, _)| shown.insert(at));
        let above =
            if is_new || next.is_some_and(|(_, next)| next.inputs.is_empty()) { "" } else { ", see above" };
        let line = format!("{indent}{branch} {}: {line}{above}", input.port);
        writeln!(text, "{}", fitted(&line, &format!("{indent}{below}   "))).expect("a text grows");
        if let (Some((_, next)), true) = (next, is_new) {
            branches(text, lineage, next, level + 1, &format!("{indent}{below}"), shown);
        }
    }
}

/// `lora.model`, `file reviews.jsonl`.
fn source(lineage: &Lineage, input: &Input) -> String {
    match &input.from {
        Source::Step { at, port, .. } => format!("{}.{port}", lineage.steps[*at].stage),
        Source::File(path) => format!("file {path}"),
        Source::Dir(path) => format!("dir {path}"),
        Source::Glob(pattern) => format!("glob {pattern}"),
        Source::Unknown => "written by no stage that is recorded here".to_owned(),
    }
}

/// `lora  lora v2, seed 1337, in run_3, 2.5 s on cpu (avx2, 2 threads)`.
fn computed(step: &Step) -> String {
    let seed = step.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
    let run = step.computed_by.map_or_else(|| "elsewhere".to_owned(), |run| format!("in {run}"));
    let name =
        if step.computed_as == step.stage { String::new() } else { format!(" as {}", step.computed_as) };
    let device = step.device.as_ref().map(|device| format!(" on {device}")).unwrap_or_default();
    let stage = styled(BOLD, &step.stage);
    let took = duration(step.seconds);
    format!("{stage}  {} v{}{seed}, {run}{name}, {took}{device}", step.kind, step.kind_version)
}

/// When and from what a run was started.
fn made_by(run: &RunInfo, width: usize) -> String {
    let code = match &run.git {
        None => "no commit".to_owned(),
        Some(git) => {
            let commit: String = git.commit.chars().take(12).collect();
            let patch = git.patch.map(|patch| format!(" (patch {})", patch.short())).unwrap_or_default();
            let dirty = if git.dirty { format!(" with uncommitted changes{patch}") } else { String::new() };
            format!("commit {commit}{dirty}")
        }
    };
    let parts = [date_and_time(run.started), code, format!("pipe {} on {}", run.version, run.host)]
        .map(|it| it + ",");
    let run = styled(BOLD, &run.run.to_string());
    format!("{run}\n{}", wrapped(parts, width).trim_end().trim_end_matches(',')) + "\n"
}

/// `words` with two blanks before each line, as many on a line as fit.
fn wrapped(words: impl IntoIterator<Item = String>, width: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in words {
        let length = word.chars().count();
        if column > 0 && column + 1 + length <= width {
            text.push(' ');
            column += 1;
        } else {
            text.push_str(if column > 0 { "\n  " } else { "  " });
            column = 2;
        }
        text.push_str(&word);
        column += length;
    }
    if column > 0 { text + "\n" } else { text }
}

fn dot(lineage: &Lineage) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = "digraph lineage {\n  node [shape=box, style=rounded];\n".to_owned();
    let mut line = |text: String| writeln!(out, "  {text};").expect("a text grows");
    let mut outside = BTreeSet::new();
    // Two stages that computed the same have the same execution.
    let name = |step: &Step| quoted(&format!("{} {}", step.stage, step.execution));
    for step in &lineage.steps {
        let run = step.computed_by.map_or_else(|| "elsewhere".to_owned(), |run| run.to_string());
        let label = quoted(&format!("{}\n{} v{}, {run}", step.stage, step.kind, step.kind_version));
        line(format!("{} [label={}]", name(step), label.replace('\n', "\\n")));
        for input in &step.inputs {
            let from = match &input.from {
                Source::Step { at, .. } => name(&lineage.steps[*at]),
                _ => {
                    let id = quoted(&input.digest.to_string());
                    if outside.insert(input.digest) {
                        let label = quoted(&format!("{}\n{}", source(lineage, input), input.digest.short()));
                        line(format!("{id} [label={}, shape=note]", label.replace('\n', "\\n")));
                    }
                    id
                }
            };
            line(format!("{from} -> {} [label={}]", name(step), quoted(&input.port)));
        }
    }
    out + "}\n"
}
