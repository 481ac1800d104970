//! A damaged `runs.db`: what can still be read goes into a new one.
//!
//! Tables are read forwards and backwards up to the damage, and what lies between is cut in halves
//! until only what cannot be read is left out. The damaged file stays, under another name.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params_from_iter, types::Value};

use super::{RunsDb, RunsError, beside::beside, packed, write::copy_records};
use crate::names::RunId;

/// Every table, parents first, and the whole number that its rows are found by.
const TABLES: [(&str, Option<&str>); 12] = [
    ("content", Some("id")),
    ("run", Some("id")),
    ("execution", Some("id")),
    ("definition", Some("id")),
    ("stage_record", Some("run")),
    ("metric_name", Some("id")),
    ("final_value", Some("execution")),
    ("step_value", Some("execution")),
    ("histogram_value", Some("rowid")),
    ("artifact_record", Some("execution")),
    ("tag", None),
    ("note", Some("id")),
];

/// What rows that were lost leave without an owner.
const DANGLING: &str = "
    UPDATE run SET git_patch = NULL WHERE git_patch NOT IN (SELECT digest FROM content);
    UPDATE execution SET run = NULL WHERE run NOT IN (SELECT id FROM run);
    DELETE FROM stage_record WHERE run NOT IN (SELECT id FROM run)
        OR definition NOT IN (SELECT id FROM definition);
    UPDATE stage_record SET execution = NULL WHERE execution NOT IN (SELECT id FROM execution);
    UPDATE stage_record SET log = NULL WHERE log NOT IN (SELECT digest FROM content);
    DELETE FROM final_value WHERE execution NOT IN (SELECT id FROM execution)
        OR name NOT IN (SELECT id FROM metric_name);
    DELETE FROM step_value WHERE execution NOT IN (SELECT id FROM execution)
        OR name NOT IN (SELECT id FROM metric_name);
    DELETE FROM histogram_value WHERE execution NOT IN (SELECT id FROM execution)
        OR name NOT IN (SELECT id FROM metric_name);
    DELETE FROM artifact_record WHERE execution NOT IN (SELECT id FROM execution);
    DELETE FROM tag WHERE run NOT IN (SELECT id FROM run);
    DELETE FROM note WHERE run NOT IN (SELECT id FROM run);";

/// How often a table is asked at most; a table whose root is damaged would be asked for ever.
const PATIENCE: usize = 20_000;

/// What was saved of a damaged database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// Where the damaged file is now.
    pub aside: PathBuf,
    /// Runs that the new database has.
    pub saved: usize,
    /// Runs that it has not.
    pub lost: usize,
    /// Saved runs that lack stages.
    pub incomplete: usize,
}

impl RunsDb {
    /// Puts a database with everything that can be read in place of the damaged one at `path`, which
    /// is moved aside. Returns `None`, and does nothing, if nothing is wrong with it.
    ///
    /// Numbers of runs go on after the highest that is known, `highest` among them.
    pub fn salvage(path: &Path, highest: i64) -> Result<Option<Salvaged>, RunsError> {
        if Self::open(path).is_ok_and(|db| db.is_whole()) {
            return Ok(None);
        }
        let file = |what, path: &Path| {
            let path = path.to_owned();
            move |source| RunsError::File { what, path, source }
        };
        let unfinished = beside(path, &format!(".salvage.{}", std::process::id()));
        let mut new = Self::open(&unfinished)?;
        let failed = |source| RunsError::database(&unfinished, source);
        new.conn.pragma_update(None, "journal_mode", "delete").map_err(failed)?;
        new.conn.pragma_update(None, "foreign_keys", false).map_err(failed)?;
        let patched = beside(path, &format!(".patched.{}", std::process::id()));
        if let Some(old) = readable(path, &unfinished, &patched) {
            copy(&old, &mut new.conn).map_err(failed)?;
        }
        let _ = fs::remove_file(&patched);
        let (known, saved, incomplete) = new.tidy(highest).map_err(failed)?;
        drop(new);
        let mut aside = beside(path, ".damaged-1");
        for number in 2.. {
            if !aside.exists() {
                break;
            }
            aside = beside(path, &format!(".damaged-{number}"));
        }
        // At no moment is there no database, nor the new one beside the old one's log of changes.
        fs::hard_link(path, &aside)
            .or_else(|_| fs::copy(path, &aside).map(|_| ()))
            .map_err(file("move the damaged database to", &aside))?;
        let log = beside(path, "-wal");
        for moved in [fs::rename(&log, beside(&aside, "-wal")), fs::remove_file(beside(path, "-shm"))] {
            match moved {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(file("move aside", &log)(err));
                }
                _ => {}
            }
        }
        fs::rename(&unfinished, path).map_err(file("replace", path))?;
        let lost = (known as usize).saturating_sub(saved);
        Ok(Some(Salvaged { aside, saved, lost, incomplete }))
    }

    /// Whether every page and every run can be read.
    fn is_whole(&self) -> bool {
        let found: rusqlite::Result<String> =
            self.conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
        let can_be_loaded = |run: RunId| self.load(run).is_ok() && self.patch(run).is_ok();
        found.is_ok_and(|found| found == "ok")
            && self.runs(None).is_ok_and(|runs| runs.iter().all(|info| can_be_loaded(info.run)))
    }

    /// Removes what makes no sense after rows were lost. Returns the highest number of a run, how
    /// many there are, and how many of them lack stages.
    fn tidy(&mut self, highest: i64) -> rusqlite::Result<(i64, usize, usize)> {
        let numbers = |conn: &Connection, sql: &str| -> rusqlite::Result<Vec<i64>> {
            conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        let tx = self.conn.transaction()?;
        let known: i64 = tx.query_row(
            "SELECT max((SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'run'),
                        (SELECT coalesce(max(id), 0) FROM run), (SELECT coalesce(max(run), 0) FROM stage_record),
                        (SELECT coalesce(max(run), 0) FROM execution))",
            [],
            |row| row.get(0),
        )?;
        for digest in broken_contents(&tx)? {
            tx.execute("DELETE FROM content WHERE digest = ?", [digest])?;
        }
        for run in numbers(
            &tx,
            "SELECT id FROM run WHERE repeats IS NOT NULL AND repeats NOT IN (SELECT id FROM run)",
        )? {
            let shared = tx.query_row("SELECT repeats FROM run WHERE id = ?", [run], |row| row.get(0))?;
            copy_records(&tx, RunId(run), shared)?;
            tx.execute("UPDATE run SET repeats = NULL, stages_digest = NULL WHERE id = ?", [run])?;
        }
        tx.execute_batch(DANGLING)?;
        // What is left of a run may not be all that it found: none after it may share that.
        tx.execute("UPDATE run SET stages_digest = NULL", [])?;
        tx.execute("DELETE FROM sqlite_sequence WHERE name = 'run'", [])?;
        tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('run', ?)", [known.max(highest)])?;
        tx.commit()?;
        for run in numbers(&self.conn, "SELECT id FROM run ORDER BY id DESC")? {
            if self.load(RunId(run)).is_err() {
                self.conn.execute("DELETE FROM stage_record WHERE run = ?", [run])?;
                self.conn.execute("UPDATE run SET repeats = NULL WHERE repeats = ?", [run])?;
                if self.load(RunId(run)).is_err() {
                    self.conn.execute("DELETE FROM run WHERE id = ?", [run])?;
                }
            }
        }
        self.conn.execute_batch(DANGLING)?;
        let saved = numbers(&self.conn, "SELECT count(*) FROM run")?[0];
        let incomplete = numbers(
            &self.conn,
            "SELECT count(*) FROM run WHERE ran + cached + failed + skipped + interrupted >
             (SELECT count(*) FROM stage_record WHERE stage_record.run = coalesce(run.repeats, run.id))",
        )?[0];
        Ok((if known > 0 { known } else { highest }, saved as usize, incomplete as usize))
    }
}

/// Opens what is damaged for reading, if need be as a copy with the first page of a whole database:
/// that page is the same in every database of this layout.
fn readable(path: &Path, whole: &Path, patched: &Path) -> Option<Connection> {
    let open = |path: &Path| {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        // A file that was cut short is read as far as it goes.
        conn.pragma_update(None, "writable_schema", true).ok()?;
        let is_ours = conn.prepare("SELECT id FROM run").is_ok();
        is_ours.then_some(conn)
    };
    open(path).or_else(|| {
        let (mut bytes, whole) = (fs::read(path).ok()?, fs::read(whole).ok()?);
        let page = match u16::from_be_bytes([*whole.get(16)?, *whole.get(17)?]) {
            1 => 65_536,
            size => usize::from(size),
        };
        bytes.get_mut(..page)?.copy_from_slice(whole.get(..page)?);
        // Neither written with a log of changes, nor of a known number of pages.
        bytes[18..20].fill(1);
        bytes[28..32].fill(0);
        fs::write(patched, bytes).ok()?;
        open(patched)
    })
}

/// Copies every row that can be read.
fn copy(old: &Connection, new: &mut Connection) -> rusqlite::Result<()> {
    let tx = new.transaction()?;
    for (table, by) in TABLES {
        let columns: Vec<String> = tx
            .prepare("SELECT name FROM pragma_table_info(?)")?
            .query_map([table], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let marks = vec!["?"; columns.len()].join(", ");
        let insert = format!("INSERT OR IGNORE INTO {table} ({}) VALUES ({marks})", columns.join(", "));
        let mut rows = Rows { old, new: &tx, table, columns: &columns, insert };
        match by {
            Some(by) => rows.copy_around(by)?,
            None => {
                for order in ["ASC", "DESC"] {
                    let _ = rows.copy_until_damage(&format!("ORDER BY {} {order}", columns[0]), "0")?;
                }
            }
        }
    }
    let sequence: Option<i64> = old
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'run'", [], |row| row.get(0))
        .optional()
        .unwrap_or_default();
    if let Some(sequence) = sequence {
        tx.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'run'", [sequence])?;
        tx.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'run', ?
             WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'run')",
            [sequence],
        )?;
    }
    tx.commit()
}

struct Rows<'a> {
    old: &'a Connection,
    new: &'a Connection,
    table: &'a str,
    columns: &'a [String],
    insert: String,
}

impl Rows<'_> {
    /// Copies the rows around damage, found by the whole number `by`.
    fn copy_around(&mut self, by: &str) -> rusqlite::Result<()> {
        let mut ranges = VecDeque::from([(0, i64::from(u32::MAX))]);
        for _ in 0..PATIENCE {
            let Some((low, high)) = ranges.pop_front() else { break };
            let rest = format!("WHERE {by} BETWEEN {low} AND {high} ORDER BY {by}");
            let Err(first) = self.copy_until_damage(&rest, by)? else { continue };
            let Err(last) = self.copy_until_damage(&format!("{rest} DESC"), by)? else { continue };
            // Rows beside the damage may share their number with rows behind it.
            let (from, to) = (first.unwrap_or(low), last.unwrap_or(high));
            if (from, to) != (low, high) && from <= to {
                ranges.push_back((from, to));
            } else if low < high {
                let middle = low + (high - low) / 2;
                ranges.extend([(low, middle), (middle + 1, high)]);
            }
        }
        Ok(())
    }

    /// Copies rows until one cannot be reached; then the error has `by` of the last one that could.
    fn copy_until_damage(&mut self, rest: &str, by: &str) -> rusqlite::Result<Result<(), Option<i64>>> {
        let sql = format!("SELECT {}, {by} FROM {} {rest}", self.columns.join(", "), self.table);
        let Ok(mut select) = self.old.prepare_cached(&sql) else { return Ok(Err(None)) };
        let Ok(mut rows) = select.query([]) else { return Ok(Err(None)) };
        let mut insert = self.new.prepare_cached(&self.insert)?;
        let mut last = None;
        loop {
            match rows.next() {
                Ok(None) => return Ok(Ok(())),
                Err(_) => return Ok(Err(last)),
                Ok(Some(row)) => {
                    last = row.get(self.columns.len()).ok().or(last);
                    let values = (0..self.columns.len()).map(|at| row.get(at));
                    // Texts that are none any more belong to no row that anyone could read.
                    if let Ok(values) = values.collect::<Result<Vec<Value>, _>>() {
                        insert.execute(params_from_iter(values))?;
                    }
                }
            }
        }
    }
}

/// Contents that are not what their digest says.
fn broken_contents(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let digests: Vec<String> = conn
        .prepare("SELECT digest FROM content")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let is_right = |digest: &String| {
        let bytes = packed::find(conn, digest).ok().flatten();
        bytes.is_some_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == digest)
    };
    Ok(digests.into_iter().filter(|digest| !is_right(digest)).collect())
}
