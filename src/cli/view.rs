//! How a run is shown while it happens, all of it on standard error: lines, on a terminal with a
//! live part below them, or JSON.

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;

use super::{
    Failure, Globals,
    again::Again,
    late::Late,
    line::{Line, bold},
    lines::Lines,
    live::Live,
    progress::Events,
};
use crate::{
    engine::{Capacity, RunEvent, Summary},
    exec::Stop,
    names::RunId,
    pipeline::Pipeline,
};

/// After this long without a word the person is told that something has begun.
const PATIENCE: Duration = Duration::from_millis(120);

/// How a run is shown while it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// On a terminal lines and a live view of what runs, else lines
    Auto,
    /// Lines
    Plain,
    /// A JSON object a line; docs/progress.md describes them
    Json,
}

/// What is known of a run before it begins.
pub struct About<'a> {
    /// Its number.
    pub run: RunId,
    /// What is run.
    pub pipeline: &'a Pipeline,
    /// The stages that it is about, each after those that it takes from.
    pub wanted: Vec<String>,
    /// What its stages may use together.
    pub capacity: Capacity,
    /// The command that a person would give again.
    pub again: Again,
    /// Knows the processes of the stages.
    pub stop: &'a Stop,
    /// Seconds that a stage of this name took before.
    pub earlier: &'a dyn Fn(&str) -> Option<f64>,
}

/// Shows one run.
pub enum View<'a> {
    /// As lines.
    Plain(Lines<'a>),
    /// As lines above what runs.
    Live(Live<'a>),
    /// As JSON.
    Json(Events<'a>),
}

/// How a run ended, in values and in words.
pub struct Ended<'a> {
    /// In values.
    pub summary: &'a Summary,
    /// Seconds that it took.
    pub seconds: f64,
    /// In words.
    pub line: Line,
}

impl Progress {
    /// Says that a run of `file` is being prepared: at once to a program, to a person if it takes
    /// noticeably long.
    pub fn starting(self, file: &Path) -> Option<Late> {
        if self == Progress::Json {
            Events::starting(file);
            return None;
        }
        let line = Line::new("starting", Style::new().bold()).say(file.display().to_string());
        Some(Late::new(PATIENCE, move || print(&line)))
    }

    /// Says something that concerns no stage.
    pub fn remark(self, text: &str) {
        match self {
            Progress::Json => Events::remark(text),
            Progress::Auto | Progress::Plain => tell(text),
        }
    }

    /// Says in a line something that concerns no stage.
    pub fn say(self, line: &Line) {
        match self {
            Progress::Json => Events::remark(&anstream::adapter::strip_str(&line.to_string()).to_string()),
            Progress::Auto | Progress::Plain => print(line),
        }
    }

    /// Tells why a run could not begin or go on, and returns the exit code, if that is for a program.
    pub fn failure(self, failure: Failure, globals: &Globals) -> Result<ExitCode, Failure> {
        match failure {
            // A damaged database is seen to elsewhere.
            Failure::Told { exit, .. } if self == Progress::Json && failure.damaged_database().is_none() => {
                Events::failure(&failure.words(globals), exit);
                Ok(ExitCode::from(exit))
            }
            failure => Err(failure),
        }
    }

    /// Says at once that Ctrl-C was heard, where stages run that may take a while to end; a live view
    /// says so itself.
    pub fn stopping(self, stop: &Stop) {
        if self != Progress::Json && !self.is_live() && !stop.running().is_empty() {
            print(&stopping());
        }
    }

    fn is_live(self) -> bool {
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        self == Progress::Auto && !is_dumb && std::io::stderr().is_terminal()
    }
}

impl<'a> View<'a> {
    /// Shows a run from its first line, the `headline`.
    pub fn new(progress: Progress, about: About<'a>, headline: &str) -> Self {
        let about = Rc::new(about);
        let line = Line::new("run", Style::new().bold()).say(headline);
        match progress {
            Progress::Json => View::Json(Events::new(about)),
            _ if progress.is_live() => View::Live(Live::new(about, line)),
            _ => {
                print(&line);
                View::Plain(Lines::new(about))
            }
        }
    }

    /// Shows one event.
    pub fn observe(&mut self, event: &RunEvent) {
        match self {
            View::Plain(lines) => lines.of(event).iter().for_each(print),
            View::Live(live) => live.observe(event),
            View::Json(events) => events.observe(event),
        }
    }

    /// Shows that nothing more happens, and how the run ended, if it came to that.
    pub fn close(self, ended: Option<&Ended<'_>>) {
        let (rest, width) = match self {
            View::Plain(lines) => (lines.rest(), None),
            View::Live(live) => (live.close(), Some(Live::width())),
            View::Json(events) => {
                ended.iter().for_each(|ended| events.ended(ended.summary, ended.seconds));
                return;
            }
        };
        for line in rest.into_iter().chain(ended.map(|ended| ended.line.clone())) {
            match width {
                Some(width) => line.wrapped(width).iter().for_each(print),
                None => print(&line),
            }
        }
    }
}

/// What is said when Ctrl-C was pressed while stages run.
pub fn stopping() -> Line {
    let text = "what runs is asked to end; Ctrl-C again kills it";
    Line::new("stopping", bold(AnsiColor::Yellow)).say(text)
}

/// Prints a line of talk.
pub fn print(line: &Line) {
    tell(line);
}

/// Writes a line to standard error. A reader that has gone or a disk that is full is no problem of the run:
/// it goes on without its talk.
fn tell(line: impl Display) {
    let line = format!("{line}\n");
    let _ = anstream::stderr().lock().write_all(line.as_bytes());
}
