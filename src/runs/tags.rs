//! Tags and notes: what people say about runs.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;

use super::{RunsDb, RunsError, read, time_text};
use crate::names::RunId;

/// A remark on a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// When it was made.
    pub created: Timestamp,
    /// What it says.
    pub text: String,
}

/// Whether `name` can be a tag: it starts with a letter, is short, and is not like `run_12`.
pub fn check_tag(name: &str) -> Result<(), RunsError> {
    let starts_well = name.starts_with(char::is_alphabetic);
    let goes_on_well = name.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
    let is_short = name.chars().count() <= 64;
    let like_a_run = name.strip_prefix("run_").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()));
    if starts_well && goes_on_well && is_short && !like_a_run {
        Ok(())
    } else {
        Err(RunsError::BadTag { name: name.into() })
    }
}

impl RunsDb {
    /// Gives `run` the tag `name` and returns the run that had it before, if another.
    pub fn tag(&mut self, run: RunId, name: &str, now: Timestamp) -> Result<Option<RunId>, RunsError> {
        check_tag(name)?;
        self.write(|tx| {
            let before = tagged(tx, name)?;
            tx.execute(
                "INSERT INTO tag (name, run, created) VALUES (?, ?, ?)
                 ON CONFLICT (name) DO UPDATE SET run = excluded.run, created = excluded.created",
                (name, run.0, time_text(now)),
            )?;
            Ok(before.filter(|before| *before != run))
        })
    }

    /// Takes the tag `name` from `run`.
    pub fn remove_tag(&mut self, run: RunId, name: &str) -> Result<(), RunsError> {
        let removed =
            self.write(|tx| tx.execute("DELETE FROM tag WHERE name = ? AND run = ?", (name, run.0)))?;
        if removed > 0 {
            return Ok(());
        }
        let (tags, owner) = self.read(|conn| Ok((tags_of(conn, run)?, tagged(conn, name)?)))?;
        let help = match (owner, tags.join("`, `")) {
            (Some(owner), _) => format!("{owner} has it: `pipe tag {owner} {name} --remove`"),
            (None, tags) if tags.is_empty() => format!("{run} has no tags"),
            (None, tags) => format!("it has `{tags}`"),
        };
        Err(RunsError::NoSuchTag { run, name: name.into(), help })
    }

    /// Adds a remark to `run`.
    pub fn note(&mut self, run: RunId, text: &str, now: Timestamp) -> Result<(), RunsError> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO note (run, created, text) VALUES (?, ?, ?)",
                (run.0, time_text(now), text),
            )?;
            Ok(())
        })
    }
}

/// Tags and notes by run.
pub(super) type Labels = (HashMap<RunId, Vec<String>>, HashMap<RunId, Vec<Note>>);

/// Everything that was said of any run.
pub(super) fn all(conn: &Connection) -> rusqlite::Result<Labels> {
    let (mut tags, mut notes) = Labels::default();
    let mut query = conn.prepare_cached("SELECT run, name FROM tag ORDER BY name")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        tags.entry(RunId(row.get(0)?)).or_default().push(row.get(1)?);
    }
    let mut query = conn.prepare_cached("SELECT run, created, text FROM note ORDER BY id")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let note = Note { created: read::time(row, 1)?, text: row.get(2)? };
        notes.entry(RunId(row.get(0)?)).or_default().push(note);
    }
    Ok((tags, notes))
}

/// The run that has the tag `name`, also one that was removed.
pub(super) fn tagged(conn: &Connection, name: &str) -> rusqlite::Result<Option<RunId>> {
    let find = "SELECT run FROM tag WHERE name = ?";
    conn.prepare_cached(find)?.query_row([name], |row| row.get(0).map(RunId)).optional()
}

pub(super) fn tags_of(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<String>> {
    let find = "SELECT name FROM tag WHERE run = ? ORDER BY name";
    conn.prepare_cached(find)?.query_map([run.0], |row| row.get(0))?.collect()
}

pub(super) fn notes_of(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<Note>> {
    let find = "SELECT created, text FROM note WHERE run = ? ORDER BY id";
    conn.prepare_cached(find)?
        .query_map([run.0], |row| Ok(Note { created: read::time(row, 0)?, text: row.get(1)? }))?
        .collect()
}
