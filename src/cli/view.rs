//! What a person sees of a run while it happens: lines on standard error, one for every stage
//! that ran, and on a terminal a live line for every stage that is running.

use std::{collections::HashMap, io::IsTerminal, time::Duration};

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pipe_stages::contract::Event;

use super::{reasons, units};
use crate::{
    engine::RunEvent,
    record::{Outcome, Reason, StageRecord},
};

/// More stages than this that were found in the cache are told as one number.
const LISTED: usize = 40;
const VERB_WIDTH: usize = 9;

/// Shows one run.
pub struct View {
    bars: MultiProgress,
    running: HashMap<String, Running>,
    stages: usize,
    name_width: usize,
    is_live: bool,
    cached: usize,
}

struct Running {
    bar: Option<ProgressBar>,
    latest: Option<String>,
}

impl View {
    /// A view of a run over stages of these names.
    pub fn new(stages: &[String]) -> Self {
        let is_live = std::io::stderr().is_terminal();
        let target = if is_live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            bars: MultiProgress::with_draw_target(target),
            running: HashMap::new(),
            stages: stages.len(),
            name_width: stages.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(24),
            is_live,
            cached: 0,
        }
    }

    /// Prints a line that begins with a verb, such as `running`.
    pub fn say(&self, verb: &str, style: Style, text: &str) {
        let line = format!("{style}{verb:>VERB_WIDTH$}{style:#} {text}");
        if self.is_live {
            // Above the live lines.
            self.bars.suspend(|| anstream::eprintln!("{line}"));
        } else {
            anstream::eprintln!("{line}");
        }
    }

    /// Shows one event.
    pub fn observe(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Idle => {}
            RunEvent::Started { stage, reasons, .. } => self.started(stage, reasons),
            RunEvent::Waiting { stage, holder } => {
                self.stage(
                    "waiting",
                    AnsiColor::Yellow,
                    stage,
                    &format!("for {holder}, which is computing it"),
                );
            }
            RunEvent::Reported { stage, event, .. } => self.reported(stage, event),
            RunEvent::Retrying { stage, retry, of, error } => {
                self.end_bar(stage);
                let error = error.lines().next().unwrap_or_default();
                self.stage("retrying", AnsiColor::Yellow, stage, &format!("retry {retry} of {of}: {error}"));
            }
            RunEvent::Finished { record, execution, differs } => {
                self.end_bar(&record.stage);
                let peak = execution.as_ref().map_or(0, |execution| execution.peak_memory);
                self.finished(record, peak);
                if !differs.is_empty() {
                    let text = format!(
                        "{} gave other bytes than the stored result with the same key ({}): it is not deterministic",
                        record.stage,
                        units::list(differs)
                    );
                    self.say("warning", AnsiColor::Yellow.on_default().bold(), &text);
                }
            }
        }
    }

    /// Ends the live lines.
    pub fn close(&mut self) {
        if self.cached > LISTED {
            self.say("cached", dim(), &units::counted(self.cached, "stage"));
        }
        let _ = self.bars.clear();
    }

    fn started(&mut self, stage: &str, reasons: &[Reason]) {
        self.stage("running", AnsiColor::Cyan, stage, &reasons::line(reasons));
        let bar = self.is_live.then(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            bar.set_style(spinner());
            bar.set_prefix(format!("{stage:<width$}", width = self.name_width));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        self.running.insert(stage.to_owned(), Running { bar, latest: None });
    }

    fn end_bar(&mut self, stage: &str) {
        if let Some(Running { bar: Some(bar), .. }) = self.running.remove(stage) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn reported(&mut self, stage: &str, event: &Event) {
        let Some(Running { bar: Some(bar), latest }) = self.running.get_mut(stage) else { return };
        match event {
            Event::Progress { done, total, unit } => {
                if let Some(total) = total {
                    if bar.length().is_none() {
                        bar.set_style(if unit == "bytes" { bytes_bar() } else { counted_bar() });
                    }
                    bar.set_length(*total);
                }
                bar.set_position(*done);
                let latest = latest.clone().unwrap_or_default();
                bar.set_message(if unit == "bytes" { latest } else { format!("{unit} {latest}") });
            }
            Event::Metric { name, value: Some(value), .. } if name == "loss" => {
                *latest = Some(format!("loss {value:.4}"));
            }
            _ => {}
        }
    }

    fn finished(&mut self, record: &StageRecord, peak_memory: u64) {
        let took = units::duration(record.duration);
        let stage = &record.stage;
        let retried = record.reasons.iter().find(|reason| matches!(reason, Reason::Retried { .. }));
        let attempts = retried.map(|reason| format!(", {}", reasons::words(reason))).unwrap_or_default();
        match record.outcome {
            Outcome::Ran => {
                let text = format!("{took:<12} {}{attempts}", units::size(peak_memory));
                self.stage("done", AnsiColor::Green, stage, &text);
            }
            Outcome::Cached => self.found(stage, &record.reasons),
            Outcome::Failed => {
                self.stage("failed", AnsiColor::Red, stage, &format!("after {took}{attempts}"));
                for line in record.error.as_deref().unwrap_or_default().lines() {
                    self.say("", Style::new(), line);
                }
            }
            // The run was stopped before it came to this stage.
            Outcome::Skipped if record.reasons.is_empty() => {}
            Outcome::Skipped => {
                self.stage("skipped", AnsiColor::Yellow, stage, &reasons::line(&record.reasons));
            }
            Outcome::Interrupted => self.stage("stopped", AnsiColor::Yellow, stage, ""),
        }
    }

    /// Shows a stage whose result was found.
    pub fn found(&mut self, stage: &str, reasons: &[Reason]) {
        self.cached += 1;
        if self.stages <= LISTED {
            let text = format!("{stage:<width$}  {}", reasons::line(reasons), width = self.name_width);
            self.say("cached", dim(), &text);
        }
    }

    fn stage(&self, verb: &str, color: AnsiColor, stage: &str, text: &str) {
        let line = format!("{stage:<width$}  {text}", width = self.name_width);
        self.say(verb, color.on_default().bold(), line.trim_end());
    }
}

fn dim() -> Style {
    Style::new().dimmed()
}

fn spinner() -> ProgressStyle {
    style("        {spinner} {prefix}  {elapsed} {msg}")
}

fn counted_bar() -> ProgressStyle {
    style("        {spinner} {prefix}  {bar:16} {human_pos}/{human_len} {msg}  {eta} left")
}

fn bytes_bar() -> ProgressStyle {
    style("        {spinner} {prefix}  {bar:16} {bytes}/{total_bytes} {bytes_per_sec}  {eta} left")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is written here").progress_chars("━━╌")
}
