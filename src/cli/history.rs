//! How verbs reach `runs.db`, and how they print what they found there.

use std::process::ExitCode;

use serde::Serialize;

use super::{Failure, Globals};
use crate::runs::RunsDb;

/// Opens the project's `runs.db`, which must exist.
pub(super) fn open(globals: &Globals) -> Result<RunsDb, Failure> {
    Ok(RunsDb::open_existing(&globals.project_root(None)?.join("runs.db"))?)
}

/// Prints `text`, in colour where that is wanted.
pub(super) fn print(globals: &Globals, text: &str) -> Result<ExitCode, Failure> {
    if globals.colors_output() {
        globals.print(text)?;
    } else {
        globals.print(anstream::adapter::strip_str(text))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `value` as JSON for people and programs, with its line end.
pub(super) fn json_text(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain values serialize to JSON");
    text.push('\n');
    text
}

/// A line of comma-separated values, quoted where that is needed (RFC 4180).
pub(super) fn csv_line(cells: &[String]) -> String {
    let quoted = cells.iter().map(|cell| {
        if cell.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.clone()
        }
    });
    quoted.collect::<Vec<_>>().join(",") + "\n"
}
