//! `pipe runs`: the runs that were recorded, latest first.

use std::{fmt::Write, process::ExitCode};

use clap::Args;
use jiff::Timestamp;

use super::{
    Failure, Globals,
    history::{self, json_text},
    table::{Columns, DIM, styled},
    units::{ago, duration, shortened},
};
use crate::runs::{RunInfo, RunsDb, RunsError};

/// List recorded runs, latest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe runs
  pipe runs --limit 5
  pipe runs --all --json | jq -r '.[] | select(.state == \"failed\") | .run'")]
pub(super) struct Runs {
    /// How many to list
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    /// List all
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Write JSON: a list with one object a run
    #[arg(long)]
    json: bool,
}

impl Runs {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let text = self.text(&history::open(globals)?, Timestamp::now())?;
        history::print(globals, &text)
    }

    fn text(&self, db: &RunsDb, now: Timestamp) -> Result<String, RunsError> {
        let mut runs = db.runs((!self.all).then_some(self.limit.saturating_add(1)))?;
        let is_cut = !self.all && runs.len() > self.limit;
        if is_cut {
            runs.pop();
        }
        if self.json {
            return Ok(json_text(&runs));
        }
        if runs.is_empty() {
            return Ok("no run is recorded yet; start with `pipe run FILE`\n".into());
        }
        let mut table = Columns::new(&["RUN", "STATUS", "WHEN", "PIPELINE", "RAN", "CACHED", "TOOK", "TAGS"])
            .right([4, 5, 6])
            .coloured(1);
        for run in &runs {
            table.row(row(run, now));
        }
        let mut text = table.text();
        if is_cut {
            let rest = format!("the latest {}; `pipe runs --all` lists every run", runs.len());
            text.push_str(&styled(DIM, &rest));
            text.push('\n');
        }
        Ok(text)
    }
}

fn row(run: &RunInfo, now: Timestamp) -> Vec<String> {
    let with: Vec<&str> = [run.pipeline.as_str()]
        .into_iter()
        .chain(run.profiles.iter().map(String::as_str))
        .chain(run.sets.iter().map(String::as_str))
        .collect();
    let mut labels = run.tags.join(" ");
    if let Some(note) = run.notes.last() {
        let space = if labels.is_empty() { "" } else { " " };
        let line = note.text.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(labels, "{space}“{}”", shortened(&line, 24)).expect("a text grows");
    }
    vec![
        run.run.to_string(),
        run.state.word().into(),
        ago(run.started, now),
        shortened(&with.join(" "), 24),
        run.outcomes.ran.to_string(),
        run.outcomes.cached.to_string(),
        run.seconds.map(duration).unwrap_or_default(),
        labels,
    ]
}
