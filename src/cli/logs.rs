//! `pipe logs`: what a stage said.

use std::process::ExitCode;

use clap::Args;

use super::{Failure, Globals, history};
use crate::{
    record::Outcome,
    runs::{RunsDb, RunsError},
};

/// Print the end of a stage's log
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe logs @last lora --tail 20")]
pub(super) struct Logs {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    run: String,
    /// The stage
    stage: String,
    /// Print only the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

/// A log for standard output, and a remark about it for standard error.
struct Said {
    text: String,
    /// Where it comes from, or why there is none.
    remark: Option<String>,
}

impl Logs {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let said = self.said(&history::open(globals)?)?;
        if let Some(remark) = said.remark {
            globals.say(remark);
        }
        globals.print(said.text)?;
        Ok(ExitCode::SUCCESS)
    }

    fn said(&self, db: &RunsDb) -> Result<Said, RunsError> {
        let run = db.find(&self.run)?;
        let log = db.log(run, &self.stage)?;
        let stage = &self.stage;
        let remark = match (&log.text, &log.from, log.outcome) {
            (_, Some((from, name)), _) if name == stage => {
                Some(format!("`{stage}` was cached in {run}; this is its log in {from}"))
            }
            (_, Some((from, name)), _) => {
                Some(format!("`{stage}` was cached in {run}; this is the log of `{name}` in {from}"))
            }
            (None, None, _) => {
                Some(format!("`{stage}` was cached in {run} and computed elsewhere; its log is not here"))
            }
            (Some(text), None, Outcome::Skipped) if text.is_empty() => {
                Some(format!("`{stage}` did not run in {run}: a stage that it needs failed"))
            }
            (Some(text), None, _) if text.is_empty() => Some(format!("`{stage}` said nothing in {run}")),
            _ => None,
        };
        let text = log.text.unwrap_or_default();
        Ok(Said { text: self.tail.map_or(text.as_str(), |count| tail(&text, count)).to_owned(), remark })
    }
}

/// The last `count` lines of `text`.
fn tail(text: &str, count: usize) -> &str {
    let lines = text.trim_end_matches('\n');
    match count.checked_sub(1) {
        None => "",
        Some(before) => lines.rmatch_indices('\n').nth(before).map_or(text, |(at, _)| &text[at + 1..]),
    }
}
