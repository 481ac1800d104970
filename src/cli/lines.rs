//! The lines that stay of a run: what is said of each thing that happens in it.

use std::rc::Rc;

use anstyle::{AnsiColor, Style};
use pipe_stages::contract::Better;

use super::{
    failing::Failing,
    line::{Line, bold, dim},
    reasons, units,
    view::About,
};
use crate::{
    engine::{Found, RunEvent, first_words},
    metrics::{better, is_detail},
    record::{Execution, Outcome, Reason, StageRecord},
    resources::Bytes,
};

/// More stages than this that were found in the cache are told as one number.
const LISTED: usize = 40;
/// Names of stages are padded to the longest of them, up to this many columns.
const NAME_WIDTH: usize = 40;
/// How many figures of a stage are told when it is done.
const FIGURES: usize = 3;

/// Says what happens.
pub struct Lines<'a> {
    about: Rc<About<'a>>,
    /// The columns of the terminal, where running stages are shown in other ways.
    terminal: Option<usize>,
    name_width: usize,
    cached: usize,
    /// Whether it was said that a stage gets less than it asks for.
    has_told_share: bool,
}

impl<'a> Lines<'a> {
    /// For a run that is watched line by line.
    pub fn new(about: Rc<About<'a>>) -> Self {
        let name_width = name_width(&about.wanted);
        Self { about, terminal: None, name_width, cached: 0, has_told_share: false }
    }

    /// For a terminal of `width` columns that shows stages while they run.
    pub fn on_terminal(&mut self, width: usize) {
        self.terminal = Some(width);
    }

    /// What is said of an event.
    pub fn of(&mut self, event: &RunEvent) -> Vec<Line> {
        let mut lines = match event {
            RunEvent::Started { stage, .. } => self.less(stage),
            _ => Vec::new(),
        };
        lines.extend(match event {
            RunEvent::Idle | RunEvent::Looking { .. } | RunEvent::Reported { .. } => Vec::new(),
            RunEvent::Started { .. } | RunEvent::Waiting { .. } if self.terminal.is_some() => Vec::new(),
            RunEvent::Started { stage, reasons, .. } => {
                vec![self.stage("running", AnsiColor::Cyan, stage, &reasons::line(reasons))]
            }
            RunEvent::Waiting { stage, holder } => {
                let text = format!("for {holder}, which is computing it");
                vec![self.stage("waiting", AnsiColor::Yellow, stage, &text)]
            }
            RunEvent::Retrying { stage, retry, of, error } => {
                let text = format!("retry {retry} of {of}: {}", first_words(error));
                vec![self.stage("retrying", AnsiColor::Yellow, stage, &text)]
            }
            RunEvent::Finished { record, execution, differs } => {
                let mut lines = self.finished(record, execution.as_deref());
                if !differs.is_empty() {
                    let text = format!(
                        "{} gave other bytes than the stored result with the same key ({}): it is not deterministic",
                        record.stage,
                        units::list(differs)
                    );
                    let line = Line::new("warning", bold(AnsiColor::Yellow)).say(text);
                    lines.extend(line.wrapped(self.terminal.unwrap_or(usize::MAX)));
                }
                lines
            }
        });
        match self.terminal {
            Some(width) => lines.into_iter().map(|line| line.cut(width)).collect(),
            None => lines,
        }
    }

    /// What is left to say when nothing more happens.
    pub fn rest(&self) -> Option<Line> {
        (self.cached > LISTED).then(|| many_cached(self.cached))
    }

    fn finished(&mut self, record: &StageRecord, execution: Option<&Execution>) -> Vec<Line> {
        let took = units::duration(record.duration);
        let stage = &record.stage;
        let retried = record.reasons.iter().find(|reason| matches!(reason, Reason::Retried { .. }));
        let attempts = retried.map(|reason| format!(", {}", reasons::words(reason))).unwrap_or_default();
        match record.outcome {
            Outcome::Ran => {
                let memory = units::size(execution.map_or(0, |execution| execution.peak_memory));
                let mut text = format!("{took:<12} {memory}{attempts}");
                if self.terminal.is_some() {
                    text = format!("{took:<12} {memory:<6}");
                    let figures = execution.map(|execution| figures(record, execution)).unwrap_or_default();
                    let why = reasons::line(&record.reasons);
                    [figures, why].iter().filter(|part| !part.is_empty()).for_each(|part| {
                        text += "  ";
                        text += part;
                    });
                }
                vec![self.stage("done", AnsiColor::Green, stage, &text)]
            }
            Outcome::Cached => {
                self.cached += 1;
                if self.about.wanted.len() > LISTED {
                    return Vec::new();
                }
                vec![cached(stage, &record.reasons, self.name_width)]
            }
            Outcome::Failed => {
                let mut lines =
                    vec![self.stage("failed", AnsiColor::Red, stage, &format!("after {took}{attempts}"))];
                lines.extend(self.failing(record).lines(self.terminal));
                lines
            }
            // The run was stopped before it came to this stage.
            Outcome::Skipped if record.reasons.is_empty() => Vec::new(),
            Outcome::Skipped => {
                vec![self.stage("skipped", AnsiColor::Yellow, stage, &reasons::line(&record.reasons))]
            }
            Outcome::Interrupted => vec![self.stage("stopped", AnsiColor::Yellow, stage, "")],
        }
    }

    /// What is said, once in a run, of a stage that asks for more cores or memory than there are.
    fn less(&mut self, stage: &str) -> Vec<Line> {
        let (Some(spec), capacity) = (self.about.pipeline.stages.get(stage), self.about.capacity) else {
            return Vec::new();
        };
        let cores = spec.resources.cpus.filter(|cpus| *cpus > capacity.cpus);
        let memory = spec.resources.memory.filter(|memory| memory.0 > capacity.memory);
        let (asked, given) = match (cores, memory) {
            _ if self.has_told_share => return Vec::new(),
            (Some(cores), _) => (units::counted(cores, "core"), capacity.cpus.to_string()),
            (None, Some(memory)) => (format!("{memory} of memory"), Bytes(capacity.memory).to_string()),
            (None, None) => return Vec::new(),
        };
        self.has_told_share = true;
        let text = format!("{stage} asks for {asked} and gets {given}, all that this run may use");
        let line = Line::new("note", bold(AnsiColor::Yellow)).say(text);
        line.wrapped(self.terminal.unwrap_or(usize::MAX))
    }

    fn failing<'r>(&'r self, record: &'r StageRecord) -> Failing<'r> {
        let place = self.about.pipeline.places.stage(&record.stage);
        Failing { record, run: self.about.run, place, again: &self.about.again }
    }

    fn stage(&self, verb: &str, color: AnsiColor, stage: &str, text: &str) -> Line {
        let words = format!("{stage:<width$}  {text}", width = self.name_width);
        Line::new(verb, bold(color)).then(Style::new(), words.trim_end())
    }
}

/// What is said of a run that found all `stages`.
pub fn found(stages: &[Found]) -> Vec<Line> {
    if stages.len() > LISTED {
        return vec![many_cached(stages.len())];
    }
    let names: Vec<String> = stages.iter().map(|found| found.stage.clone()).collect();
    let width = name_width(&names);
    let line = |found: &Found| {
        let reason = Reason::Satisfied { since: found.since, device: found.device.clone() };
        cached(&found.stage, &[reason], width)
    };
    stages.iter().map(line).collect()
}

fn cached(stage: &str, reasons: &[Reason], width: usize) -> Line {
    Line::new("cached", dim()).say(format!("{stage:<width$}  {}", reasons::line(reasons)))
}

fn many_cached(count: usize) -> Line {
    Line::new("cached", dim()).say(units::counted(count, "stage"))
}

/// The columns that names of stages are padded to.
pub fn name_width(stages: &[String]) -> usize {
    stages.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(NAME_WIDTH)
}

/// The figures that a person looks for first: accuracies, else whatever has a better direction.
fn figures(record: &StageRecord, execution: &Execution) -> String {
    let is_final =
        |name: &str| better(&record.kind, &record.params, name) != Better::Neither && !is_detail(name);
    let final_metrics = execution.metrics.iter().filter(|metric| metric.step.is_none());
    let mut main: Vec<_> = final_metrics.filter(|metric| is_final(&metric.name)).collect();
    if main.iter().any(|metric| metric.name.ends_with("accuracy")) {
        main.retain(|metric| metric.name.ends_with("accuracy"));
    }
    let told = main.iter().take(FIGURES);
    told.map(|metric| format!("{} {}", metric.name, short(metric.value))).collect::<Vec<_>>().join(", ")
}

/// A figure in three digits after the point at most, since there is little room.
fn short(value: Option<f64>) -> String {
    match value {
        Some(value) if value.fract() != 0.0 && value.abs() >= 0.001 => format!("{value:.3}"),
        value => units::measured(value),
    }
}
