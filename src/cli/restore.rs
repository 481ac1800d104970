//! `pipe restore`: brings removed runs back.

use std::process::ExitCode;

use clap::Args;

use super::{Failure, Globals, history};
use crate::runs::{RunsDb, RunsError};

/// Bring removed runs back
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe restore run_12
  pipe runs --removed                       which there are")]
pub(super) struct Restore {
    /// `run_12`, `12`, `@last`, `@last~1` or tags
    #[arg(required = true, num_args = 1.., value_name = "RUN")]
    runs: Vec<String>,
}

impl Restore {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let text = self.text(&mut history::open(globals)?)?;
        history::print(globals, &text)
    }

    fn text(&self, db: &mut RunsDb) -> Result<String, RunsError> {
        let mut text = String::new();
        for name in &self.runs {
            let run = db.find(name)?;
            let said = if db.set_removed(run, None)? {
                format!("{run} is back\n")
            } else {
                format!("{run} was not removed\n")
            };
            text.push_str(&said);
        }
        Ok(text)
    }
}
