//! Which runs are listed, in which order, and what is shown of them.

use jiff::Timestamp;
use rusqlite::{Connection, ToSql, types::Value};

use super::{RunInfo, RunsDb, RunsError, column::Column, filter::Filter, read, time_text};
use crate::{names::RunId, process};

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Those that meet this.
    pub filter: Option<Filter>,
    /// In the order of this column, falling if so said; else the latest first.
    pub sort: Option<(Column, bool)>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Those that were removed, in place of those that were not.
    pub removed: bool,
    /// What to tell of each.
    pub columns: Vec<Column>,
}

/// What a run has in a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing.
    Nothing,
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// Several texts, or none.
    List(Vec<String>),
}

impl RunsDb {
    /// The runs that are meant, each with its cells.
    pub fn select(&self, selection: &Selection) -> Result<Vec<(RunInfo, Vec<Cell>)>, RunsError> {
        self.read(|conn| {
            let mut params = Vec::new();
            let mut sql = format!("SELECT {}", read::RUN_COLUMNS);
            for column in &selection.columns {
                sql.push_str(", ");
                sql.push_str(&column.sql(&mut params));
            }
            sql.push_str(if selection.removed {
                " FROM run WHERE run.removed IS NOT NULL"
            } else {
                " FROM run WHERE run.removed IS NULL"
            });
            if let Some(filter) = &selection.filter {
                sql.push_str(" AND ");
                sql.push_str(&filter.sql(&mut params));
            }
            sql.push_str(" ORDER BY ");
            if let Some((column, falls)) = &selection.sort {
                sql.push_str(&column.sql(&mut params));
                sql.push_str(if *falls { " DESC NULLS LAST, " } else { " ASC NULLS LAST, " });
            }
            sql.push_str("run.id DESC LIMIT :limit");
            let limit = selection.limit.map_or(-1, |limit| limit as i64);
            let killed = if sql.contains(":killed") { killed(conn)? } else { String::new() };
            let mut query = conn.prepare(&sql)?;
            let mut set = |name: &str, value: &dyn ToSql| -> rusqlite::Result<()> {
                match query.parameter_index(name)? {
                    Some(at) => query.raw_bind_parameter(at, value),
                    None => Ok(()),
                }
            };
            for (at, text) in params.iter().enumerate() {
                set(&format!(":p{at}"), text)?;
            }
            set(":limit", &limit)?;
            set(":killed", &killed)?;
            let mut found = Vec::new();
            let mut rows = query.raw_query();
            while let Some(row) = rows.next()? {
                let info = read::run_info(row)?;
                let cells = selection.columns.iter().enumerate().map(|(at, column)| {
                    Ok(match row.get(read::RUN_COLUMN_COUNT + at)? {
                        Value::Text(_) if column.is_list() => {
                            Cell::List(read::json(row, read::RUN_COLUMN_COUNT + at)?)
                        }
                        Value::Integer(number) => Cell::Number(number as f64),
                        Value::Real(number) => Cell::Number(number),
                        Value::Text(text) => Cell::Text(text),
                        Value::Null | Value::Blob(_) => Cell::Nothing,
                    })
                });
                found.push((info, cells.collect::<rusqlite::Result<Vec<_>>>()?));
            }
            drop(rows);
            read::label_all(conn, &mut found)?;
            Ok(found)
        })
    }

    /// Puts `run` out of sight, or back; returns whether that changed anything.
    ///
    /// What it executed stays, since other runs may share it. Its tags stay its own until another
    /// run is given them.
    pub fn set_removed(&mut self, run: RunId, removed: Option<Timestamp>) -> Result<bool, RunsError> {
        let changed = self.write(|tx| {
            let time = removed.map(time_text);
            tx.execute(
                "UPDATE run SET removed = ?1 WHERE id = ?2 AND (removed IS NULL) <> (?1 IS NULL)",
                (time, run.0),
            )
        })?;
        Ok(changed > 0)
    }
}

/// The runs whose process is gone without a word, as a JSON list.
fn killed(conn: &Connection) -> rusqlite::Result<String> {
    let mut query = conn.prepare("SELECT id, process FROM run WHERE status = 'running'")?;
    let running = query.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?)))?;
    let mut ids = Vec::new();
    for one in running {
        let (id, process) = one?;
        if process.is_some_and(|process| process::has_ended(&process)) {
            ids.push(id);
        }
    }
    Ok(serde_json::Value::from(ids).to_string())
}
