//! `pipe tag`: names for runs.

use clap::Args;
use jiff::Timestamp;

use crate::runs::{RunsDb, RunsError};

/// Give a run a name, or take it away
#[derive(Debug, Clone, Args)]
pub struct Tag {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    pub run: String,
    /// The name; it works wherever a run is named, and moves if another run has it
    pub name: String,
    /// Take the name away from the run
    #[arg(long)]
    pub remove: bool,
}

impl Tag {
    /// Changes the tags and says what was done.
    pub fn text(&self, db: &mut RunsDb, now: Timestamp) -> Result<String, RunsError> {
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
