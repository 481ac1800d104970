//! From what a person types to a run: `run_12`, `12`, `@last`, `@last~1`, a tag.

use pipe_stages::nearest;

use super::{RunsDb, RunsError, tags};
use crate::names::RunId;

impl RunsDb {
    /// The run that `name` means; an unknown one is an error that says which there are.
    pub fn find(&self, name: &str) -> Result<RunId, RunsError> {
        let found = if let Some(back) = steps_back(name) {
            self.read(|conn| {
                let mut latest = conn.prepare_cached(
                    "SELECT id FROM run WHERE removed IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?",
                )?;
                let mut rows = latest.query_map([back], |row| row.get(0).map(RunId))?;
                rows.next().transpose()
            })?
        } else if let Some(number) = number(name) {
            self.read(|conn| conn.prepare_cached("SELECT 1 FROM run WHERE id = ?")?.exists([number.0]))?
                .then_some(number)
        } else {
            self.read(|conn| tags::tagged(conn, name))?
        };
        found.ok_or_else(|| self.unknown_run(name))
    }

    /// Why no run is in sight, where none is.
    pub fn why_none(&self) -> Result<String, RunsError> {
        let is_removed = self.read(|conn| conn.prepare("SELECT 1 FROM run")?.exists([]))?;
        Ok(if is_removed {
            "every run is removed; `pipe runs --removed` lists them, `pipe restore RUN` brings one back"
                .into()
        } else {
            "no run is recorded yet; start with `pipe run FILE`".into()
        })
    }

    pub(super) fn unknown_run(&self, name: &str) -> RunsError {
        let names = |sql| {
            self.read(|conn| {
                conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()
            })
        };
        let latest = names("SELECT 'run_' || id FROM run WHERE removed IS NULL ORDER BY id DESC LIMIT 5")
            .unwrap_or_default();
        let tags = names("SELECT name FROM tag ORDER BY name").unwrap_or_default();
        let near = nearest(name, tags.iter().map(String::as_str));
        let help = match (near, latest.as_slice()) {
            (Some(tag), _) => format!("did you mean the tag `{tag}`?"),
            (None, []) => self.why_none().unwrap_or_default(),
            (None, [only]) => format!("there is one run, {only}; `@last` means it"),
            (None, latest) => format!(
                "the latest are {}; write `run_12`, `12`, `@last`, `@last~1` or a tag",
                latest.join(", ")
            ),
        };
        RunsError::UnknownRun { name: name.into(), help }
    }
}

/// `@last` is 0, `@last~2` is 2.
fn steps_back(name: &str) -> Option<i64> {
    match name.strip_prefix("@last")? {
        "" => Some(0),
        rest => rest.strip_prefix('~')?.parse().ok().filter(|back| *back >= 0),
    }
}

fn number(name: &str) -> Option<RunId> {
    let digits = name.strip_prefix("run_").unwrap_or(name);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number > 0).map(RunId)
}
