//! `pipe note`: remarks on runs.

use clap::Args;
use jiff::Timestamp;

use crate::runs::{RunsDb, RunsError};

/// Add a remark to a run
#[derive(Debug, Clone, Args)]
pub struct Note {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    pub run: String,
    /// What to remember
    #[arg(required = true, num_args = 1..)]
    pub text: Vec<String>,
}

impl Note {
    /// Adds the remark and says so.
    pub fn text(&self, db: &mut RunsDb, now: Timestamp) -> Result<String, RunsError> {
        let run = db.find(&self.run)?;
        db.note(run, self.text.join(" ").trim(), now)?;
        Ok(format!("noted on {run}\n"))
    }
}
