//! The layout of `runs.db` and how an older one becomes the current one.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior, backup::Backup};

use super::{RunsError, beside::beside};

/// Step `n` turns version `n` into version `n + 1`; version 0 is an empty file.
pub(super) const STEPS: &[&str] = &[include_str!("schema_v1.sql"), include_str!("schema_v2.sql")];

/// `pipe` in ASCII: marks the file as ours.
const APPLICATION_ID: u32 = 0x7069_7065;

/// Brings the database at `path` to the version after all `steps`, or says why not.
///
/// Before anything is changed, a copy is put beside the database: `runs.db.v1.bak`.
pub(super) fn migrate(conn: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), RunsError> {
    let failed = |source| RunsError::database(path, source);
    let known = steps.len() as u32;
    let found = version(conn, path)?;
    if found == known {
        return Ok(());
    }
    let too_new = |found| RunsError::Newer { path: path.to_owned(), found, known };
    if found > known {
        return Err(too_new(found));
    }
    if found > 0 {
        back_up(conn, path, found)?;
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Another process may have migrated while this one waited for the lock.
    let found = version(&tx, path)?;
    if found > known {
        return Err(too_new(found));
    }
    for step in &steps[found as usize..] {
        tx.execute_batch(step).map_err(failed)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    tx.pragma_update(None, "user_version", known).map_err(failed)?;
    tx.commit().map_err(failed)
}

/// The version of the layout: 0 for an empty file.
fn version(conn: &Connection, path: &Path) -> Result<u32, RunsError> {
    let failed = |source| RunsError::database(path, source);
    let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
    let found = number("user_version").map_err(failed)?;
    let application = number("application_id").map_err(failed)?;
    let is_empty =
        || conn.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get::<_, bool>(0));
    match (application, found) {
        (APPLICATION_ID, _) => Ok(found),
        (0, 0) if is_empty().map_err(failed)? => Ok(0),
        _ => Err(RunsError::NotOurs { path: path.to_owned() }),
    }
}

/// Copies the database beside itself under a name that does not exist yet.
fn back_up(conn: &Connection, path: &Path, version: u32) -> Result<PathBuf, RunsError> {
    let failed = |source| RunsError::database(path, source);
    let unfinished = beside(path, &format!(".v{version}.bak.{}", std::process::id()));
    let mut copy = Connection::open(&unfinished).map_err(failed)?;
    Backup::new(conn, &mut copy)
        .and_then(|backup| backup.run_to_completion(1024, std::time::Duration::ZERO, None))
        .map_err(failed)?;
    drop(copy);
    let mut finished = beside(path, &format!(".v{version}.bak"));
    let mut count = 1;
    while finished.exists() {
        count += 1;
        finished = beside(path, &format!(".v{version}.bak{count}"));
    }
    std::fs::rename(&unfinished, &finished).map_err(|source| RunsError::File {
        what: "write the backup",
        path: finished.clone(),
        source,
    })?;
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str =
        "CREATE TABLE run (id INTEGER PRIMARY KEY, file TEXT); INSERT INTO run VALUES (7, 'a.yaml')";
    const SECOND: &str = "ALTER TABLE run ADD COLUMN seed INTEGER NOT NULL DEFAULT 1337";
    const BROKEN: &str = "ALTER TABLE run ADD COLUMN host TEXT; INSERT INTO nowhere VALUES (1)";

    fn query(path: &Path, sql: &str) -> rusqlite::Result<i64> {
        Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0))
    }

    #[test]
    fn an_older_database_is_changed_step_by_step_and_a_copy_of_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.db");
        let mut conn = Connection::open(&path).unwrap();
        migrate(&mut conn, &path, &[FIRST]).unwrap();
        migrate(&mut conn, &path, &[FIRST]).unwrap();
        let backup = folder.path().join("runs.db.v1.bak");
        assert!(!backup.exists(), "nothing was changed, nothing to keep");

        migrate(&mut conn, &path, &[FIRST, SECOND]).unwrap();
        assert_eq!(query(&path, "SELECT seed FROM run WHERE id = 7").unwrap(), 1337);
        assert_eq!(query(&path, "PRAGMA user_version").unwrap(), 2);
        assert_eq!(query(&backup, "PRAGMA user_version").unwrap(), 1);
        assert_eq!(query(&backup, "SELECT id FROM run").unwrap(), 7);
        assert!(query(&backup, "SELECT seed FROM run").is_err());
    }

    #[test]
    fn a_step_that_fails_leaves_the_database_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.db");
        let mut conn = Connection::open(&path).unwrap();
        migrate(&mut conn, &path, &[FIRST]).unwrap();
        migrate(&mut conn, &path, &[FIRST, SECOND, BROKEN]).unwrap_err();
        assert_eq!(query(&path, "PRAGMA user_version").unwrap(), 1);
        assert!(query(&path, "SELECT seed FROM run").is_err());
        assert!(folder.path().join("runs.db.v1.bak").exists());
        migrate(&mut conn, &path, &[FIRST, SECOND]).unwrap();
        assert!(folder.path().join("runs.db.v1.bak2").exists(), "an earlier backup is never overwritten");
    }
}
