//! `pipe tag`: names for runs.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::{Failure, Globals, history};
use crate::runs::{RunsDb, RunsError};

/// Give a run a name, or take it away
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe tag @last baseline         from now on `baseline` is this run
  pipe compare baseline @last
  pipe tag baseline baseline --remove")]
pub(super) struct Tag {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    run: String,
    /// The name; it works wherever a run is named, and moves if another run has it
    name: String,
    /// Take the name away from the run
    #[arg(long)]
    remove: bool,
}

impl Tag {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let text = self.text(&mut history::open(globals)?, Timestamp::now())?;
        history::print(globals, &text)
    }

    fn text(&self, db: &mut RunsDb, now: Timestamp) -> Result<String, RunsError> {
        let (run, name) = (db.find(&self.run)?, &self.name);
        if self.remove {
            db.remove_tag(run, name)?;
            return Ok(format!("{run} is no longer `{name}`\n"));
        }
        Ok(match db.tag(run, name, now)? {
            Some(before) => format!("{run} is now `{name}`, which was {before}\n"),
            None => format!("{run} is now `{name}`\n"),
        })
    }
}
