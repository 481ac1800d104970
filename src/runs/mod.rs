//! `runs.db`: what was run, what came out, and what it cost.
//!
//! The only code that knows the database. It survives the cache: everything that a
//! comparison, a log or a reproduction needs is in here, compact. `docs/runs-db.md` tells
//! people how to ask it with `sqlite3`.
//!
//! [`RunsDb`] is written by one process per run and read by any number. Numbers of runs
//! come from `AUTOINCREMENT`: never given twice, also not to two processes at once.
//! A run whose process was killed stays `running` in the table; readers are told
//! [`State::Killed`] when that process is seen to be gone.

pub mod ablation;
mod beside;
pub mod column;
pub mod compare;
mod differences;
mod durations;
mod error;
pub mod evidence;
pub mod expected;
pub mod filter;
mod known;
pub mod lineage;
mod load;
mod methods;
mod name;
mod packed;
mod pairing;
mod read;
mod salvage;
mod schema;
pub mod seeds;
mod select;
mod series;
pub mod sweep;
mod tags;
mod test_set;
pub mod unmeasured;
mod words;
mod write;

pub use error::RunsError;
pub use load::{Attempt, LoadedRun, LoadedStage, Origin, StageLog, stages_in_words};
pub use read::{Git, Outcomes, Previous, RunInfo, State};
pub use salvage::Salvaged;
pub use select::{Cell, Selection};
pub use series::Series;
pub use tags::{Note, check_tag};

use std::{
    convert::Infallible,
    fs::Permissions,
    io::ErrorKind,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior, config::DbConfig};
use tempfile::TempDir;

use beside::beside;

/// How long to wait for another process that writes.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open `runs.db`.
#[derive(Debug)]
pub struct RunsDb {
    conn: Connection,
    path: PathBuf,
    /// Device and inode of the file that was opened.
    own: Option<(u64, u64)>,
    /// A private copy that is read in place of a database that cannot be locked.
    _copy: Option<TempDir>,
}

impl RunsDb {
    /// Opens the database at `path`, creating it when there is none.
    ///
    /// One of an older version is migrated, after a copy was put beside it
    /// (`runs.db.v1.bak`); one of a newer version is an error. What cannot be written is not opened:
    /// SQLite would leave files beside it that cannot be written either, and nobody could go on.
    pub fn open(path: &Path) -> Result<Self, RunsError> {
        let failed = |source| RunsError::database(path, source);
        error::is_writable(path)?;
        let mut conn = Connection::open(path).map_err(failed)?;
        conn.busy_timeout(PATIENCE).map_err(failed)?;
        // A killed `pipe` loses nothing with NORMAL; a power cut may lose the last transactions, never more.
        conn.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        conn.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        conn.set_prepared_statement_cache_capacity(64);
        // Else a query is planned anew for each value that is bound to it.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
        schema::migrate(&mut conn, path, schema::STEPS)?;
        let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(failed)?;
        if mode != "wal" {
            // Fails when another process opens the new database just now; then that one does it.
            let _ = conn.pragma_update(None, "journal_mode", "wal");
        }
        Ok(Self { conn, path: path.to_owned(), own: identity(path), _copy: None })
    }

    /// Opens the database at `path` for asking: it is an error when nothing was recorded yet.
    ///
    /// Where nothing can be written, not even a lock, a copy is read, and writing is an error: what gives room
    /// on a full disk has to know what is needed.
    pub fn open_existing(path: &Path) -> Result<Self, RunsError> {
        match path.try_exists() {
            Ok(false) => Err(RunsError::None { path: path.to_owned() }),
            Ok(true) => match Self::open(path) {
                Err(err) if err.takes_nothing() => Self::open_copy(path),
                opened => opened,
            },
            Err(source) => Err(RunsError::File { what: "look for", path: path.to_owned(), source }),
        }
    }

    fn open_copy(path: &Path) -> Result<Self, RunsError> {
        let failed = |path: &Path, source| RunsError::File {
            what: "copy, to read it,",
            path: path.to_owned(),
            source,
        };
        let folder = tempfile::tempdir().map_err(|source| failed(path, source))?;
        let copy = folder.path().join("runs.db");
        // The copies can be written, whatever the originals allow.
        for ending in ["", "-wal"] {
            let (from, to) = (beside(path, ending), beside(&copy, ending));
            match std::fs::copy(&from, &to) {
                Err(err) if err.kind() == ErrorKind::NotFound && ending == "-wal" => continue,
                copied => copied.map_err(|source| failed(&from, source))?,
            };
            let permissions = Permissions::from_mode(0o600);
            std::fs::set_permissions(&to, permissions).map_err(|source| failed(&from, source))?;
        }
        let Self { conn, .. } = Self::open(&copy)?;
        let refused = |source| RunsError::database(path, source);
        conn.pragma_update(None, "query_only", true).map_err(refused)?;
        Ok(Self { conn, path: path.to_owned(), own: None, _copy: Some(folder) })
    }

    /// Whether what was written can be found: the file may be removed or replaced while it is open.
    fn is_in_place(&self) -> bool {
        self.own.is_none() || self.own == identity(&self.path)
    }

    fn read<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, RunsError> {
        ask(&self.conn).map_err(|source| RunsError::database(&self.path, source))
    }

    /// Carries `change` out as one transaction.
    fn write<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, RunsError> {
        self.try_write(|tx| change(tx).map(Ok::<T, Infallible>)).map(|Ok(result)| result)
    }

    /// Carries `change` out as one transaction, or nothing of it when its result is an inner error.
    fn try_write<T, E>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T, E>>,
    ) -> Result<Result<T, E>, RunsError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate);
        tx.and_then(|tx| {
            let result = change(&tx)?;
            if result.is_ok() {
                tx.commit()?;
            }
            Ok(result)
        })
        .map_err(|source| RunsError::database(&self.path, source))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// `time` as the database keeps it: UTC with microseconds, so that texts sort like times.
fn time_text(time: Timestamp) -> String {
    format!("{time:.6}")
}
