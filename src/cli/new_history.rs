//! What is told when a run makes a new `runs.db`.

use std::path::Path;

use anstyle::AnsiColor;

use super::{
    line::{Line, bold},
    targets::quoted,
};
use crate::git;

/// What is to be known of the `runs.db` that was made in `root`, which the person named or not.
pub(super) fn notes(root: &Path, is_named: bool) -> Vec<Line> {
    let mut notes = Vec::new();
    // One that was found has the folder: it had no `runs.db`.
    if !is_named && !root.join("pipelines").is_dir() {
        let root = root.display();
        notes.push(format!("`{root}` is a project now; `--root DIR` names another"));
    }
    if git::would_add(root, "runs.db") {
        let here = std::env::current_dir().and_then(|here| here.canonicalize()).unwrap_or_default();
        let file = root.join(".gitignore");
        let file = quoted(&file.strip_prefix(here).unwrap_or(&file).display().to_string());
        notes.push(format!("keep `runs.db` out of git: `echo 'runs.db*' >> {file}`"));
    }
    notes.into_iter().map(|text| Line::new("note", bold(AnsiColor::Yellow)).say(text).whole()).collect()
}
