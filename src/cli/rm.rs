//! `pipe rm`: puts runs out of sight.

use std::process::ExitCode;

use super::{Failure, Globals, history};
use crate::runs::{RunsDb, RunsError};
use clap::Args;
use jiff::Timestamp;

/// Put runs out of sight; `pipe restore` brings them back
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe rm run_12 run_13
  pipe runs --removed")]
pub(super) struct Rm {
    /// `run_12`, `12`, `@last`, `@last~1` or tags
    #[arg(required = true, num_args = 1.., value_name = "RUN")]
    runs: Vec<String>,
}

impl Rm {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let text = self.text(globals, &mut history::open(globals)?, Timestamp::now())?;
        history::print(globals, &text)
    }

    fn text(&self, globals: &Globals, db: &mut RunsDb, now: Timestamp) -> Result<String, RunsError> {
        // All are looked up first, so that `@last @last~1` means what was seen.
        let runs: Result<Vec<_>, _> = self.runs.iter().map(|name| db.find(name)).collect();
        let mut text = String::new();
        for run in runs? {
            let said = if db.set_removed(run, Some(now))? {
                globals.rooted(&format!("{run} is removed; `pipe restore {run}` brings it back\n"))
            } else {
                format!("{run} was removed before\n")
            };
            text.push_str(&said);
        }
        Ok(text)
    }
}
