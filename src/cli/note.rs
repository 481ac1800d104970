//! `pipe note`: remarks on runs.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::{Failure, Globals, history};
use crate::runs::{RunsDb, RunsError};

/// Add a remark to a run
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe note @last \"warmup as in the article\"")]
pub(super) struct Note {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    run: String,
    /// What to remember
    #[arg(required = true, num_args = 1..)]
    text: Vec<String>,
}

impl Note {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        if self.text.iter().all(|word| word.trim().is_empty()) {
            return Err(Failure::input("the note is empty").help("write what to remember after the run"));
        }
        let text = self.text(&mut history::open(globals)?, Timestamp::now())?;
        history::print(globals, &text)
    }

    fn text(&self, db: &mut RunsDb, now: Timestamp) -> Result<String, RunsError> {
        let run = db.find(&self.run)?;
        db.note(run, self.text.join(" ").trim(), now)?;
        Ok(format!("noted on {run}\n"))
    }
}
