//! `index.db`: answers without reading files what `results/` and the file system also know.
//!
//! Every failure here means "not known": the caller then looks at the files themselves.
//! A missing, damaged or older index is made anew from the results, also when the damage shows
//! only in use.

use std::{
    collections::BTreeMap,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, config::DbConfig, params,
};

use super::{Hit, results, stat::Stat};
use crate::{
    digest::{ActionKey, Digest},
    record::Execution,
};

/// How long one process waits for another that writes.
const PATIENCE: Duration = Duration::from_secs(10);
const SCHEMA_VERSION: i64 = 3;
const SCHEMA: &str = "
    CREATE TABLE result  (key BLOB PRIMARY KEY, execution TEXT NOT NULL, run INTEGER NOT NULL,
                          device TEXT, outputs TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE object  (digest BLOB PRIMARY KEY, stat BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE outside (name BLOB PRIMARY KEY, listing BLOB NOT NULL, digest BLOB NOT NULL,
                          record BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE repeat  (file BLOB PRIMARY KEY, found BLOB NOT NULL) WITHOUT ROWID;
    CREATE TRIGGER result_added   AFTER INSERT ON result BEGIN DELETE FROM repeat; END;
    CREATE TRIGGER result_removed AFTER DELETE ON result BEGIN DELETE FROM repeat; END;
";

/// The open index, or none where there is no folder yet or it cannot be written.
#[derive(Debug)]
pub(super) struct Index {
    folder: PathBuf,
    connection: Mutex<Option<Connection>>,
    /// Whether questions are asked within one transaction, which spares locking for each of them.
    ///
    /// It only reads: whoever writes ends it first, so that no other `pipe` waits for this one.
    is_reading: AtomicBool,
    /// What was found outside the cache and could not be written, by its name.
    unwritten: Mutex<BTreeMap<Vec<u8>, Seen>>,
}

/// The state of the index at one moment, of which other processes can be seen to have written since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(Option<i64>);

impl Mark {
    /// Whether there was an index yet.
    pub fn is_known(self) -> bool {
        self.0.is_some()
    }
}

/// What was found outside the cache.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The hash of its listing.
    pub listing: [u8; 32],
    /// The hash of its contents.
    pub digest: Digest,
    /// The names, stats and digests of files behind it, for what has more than one.
    pub record: Vec<u8>,
}

impl Index {
    /// Opens the index in `folder`, made anew if need be; without a folder it stays closed.
    pub fn open(folder: &Path) -> Self {
        let connection = folder.is_dir().then(|| connect(folder)).flatten();
        Self {
            folder: folder.to_owned(),
            connection: Mutex::new(connection),
            is_reading: AtomicBool::new(false),
            unwritten: Mutex::default(),
        }
    }

    /// Opens an index that could not be opened before its folder was made.
    pub fn make_writable(&self) {
        let mut connection = self.lock();
        if connection.is_none() {
            *connection = connect(&self.folder);
        }
        drop(connection);
        // What cannot be written even now goes back there, so the lock must not be held.
        let unwritten = std::mem::take(&mut *self.unwritten());
        for (name, seen) in unwritten {
            self.add_outside(&name, seen);
        }
    }

    /// Ends a series of questions: the next ones are answered with what others wrote meanwhile.
    pub fn end_reading(&self) {
        if let Some(connection) = self.lock().as_ref() {
            self.end_transaction(connection);
        }
    }

    fn end_transaction(&self, connection: &Connection) {
        if self.is_reading.swap(false, Ordering::Relaxed) {
            let _ = connection.execute_batch("COMMIT");
        }
    }

    /// The result of `key`, if it is known here.
    pub fn result(&self, key: ActionKey) -> Option<Hit> {
        self.ask(
            "SELECT execution, run, device, outputs FROM result WHERE key = ?",
            params![key.as_bytes()],
            |row| {
                let outputs: String = row.get(3)?;
                Ok(serde_json::from_str(&outputs).ok().and_then(|outputs| {
                    Some(Hit {
                        execution: row.get(0).ok()?,
                        run: Some(crate::names::RunId(row.get(1).ok()?)),
                        device: row.get(2).ok()?,
                        outputs,
                    })
                }))
            },
        )
        .flatten()
    }

    /// Remembers the result of an execution.
    pub fn add_result(&self, execution: &Execution) {
        self.tell(|connection| add_result(connection, execution));
    }

    /// The stat that an object had when its bytes were last seen to be right.
    pub fn object(&self, digest: Digest) -> Option<Stat> {
        self.ask("SELECT stat FROM object WHERE digest = ?", params![digest.as_bytes()], |row| {
            Ok(decode(row.get_ref(0)?.as_blob()?))
        })
        .flatten()
    }

    /// Remembers that an object with this stat has the right bytes.
    pub fn add_object(&self, digest: Digest, stat: Stat) {
        self.tell(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO object VALUES (?, ?)")?
                .execute(params![digest.as_bytes(), encode(&stat)])
        });
    }

    /// Forgets the result of `key`.
    pub fn forget_result(&self, key: ActionKey) {
        self.tell(|connection| connection.execute("DELETE FROM result WHERE key = ?", [key.as_bytes()]));
    }

    /// Forgets an object.
    pub fn forget_object(&self, digest: Digest) {
        self.tell(|connection| {
            connection.execute("DELETE FROM object WHERE digest = ?", [digest.as_bytes()])
        });
    }

    /// The hash of the listing of something outside the cache, and its digest.
    pub fn outside(&self, name: &[u8]) -> Option<([u8; 32], Digest)> {
        if let Some(seen) = self.unwritten().get(name) {
            return Some((seen.listing, seen.digest));
        }
        self.ask("SELECT listing, digest FROM outside WHERE name = ?", params![name], |row| {
            Ok((row.get(0)?, Digest::from(row.get::<_, [u8; 32]>(1)?)))
        })
    }

    /// The names, stats and digests of files behind it.
    pub fn outside_record(&self, name: &[u8]) -> Option<Vec<u8>> {
        if let Some(seen) = self.unwritten().get(name) {
            return Some(seen.record.clone());
        }
        self.ask("SELECT record FROM outside WHERE name = ?", params![name], |row| row.get(0))
    }

    /// Remembers what was found outside the cache: while this process lives if nothing can be written.
    pub fn add_outside(&self, name: &[u8], seen: Seen) {
        let is_written =
            self.tell(|connection| {
                connection
                    .prepare_cached("INSERT OR REPLACE INTO outside VALUES (?, ?, ?, ?)")?
                    .execute(params![name, seen.listing, seen.digest.as_bytes(), seen.record])
            });
        if !is_written {
            self.unwritten().insert(name.to_owned(), seen);
        }
    }

    /// The state from here on.
    pub fn mark(&self) -> Mark {
        self.end_reading();
        Mark(self.lock().as_ref().and_then(|connection| version(connection).ok()))
    }

    /// Keeps what a run of `file` found, unless another process has written since `mark`.
    pub fn keep_repeat(&self, file: &Path, found: &impl serde::Serialize, mark: Mark) {
        self.tell(|connection| {
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            if mark != Mark(Some(version(&transaction)?)) {
                return Ok(0);
            }
            transaction
                .prepare_cached("INSERT OR REPLACE INTO repeat VALUES (?, ?)")?
                .execute(params![file.as_os_str().as_bytes(), encode(found)])?;
            transaction.commit().map(|()| 1)
        });
    }

    /// What [`Self::keep_repeat`] kept, unless a result was added or removed since.
    pub fn repeat<T: serde::de::DeserializeOwned>(&self, file: &Path) -> Option<T> {
        let file = file.as_os_str().as_bytes();
        self.ask("SELECT found FROM repeat WHERE file = ?", params![file], |row| {
            Ok(decode(row.get_ref(0)?.as_blob()?))
        })
        .flatten()
    }

    fn ask<T>(
        &self,
        question: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Option<T> {
        let mut connection = self.lock();
        let answer = connection.as_ref().map(|connection| {
            if !self.is_reading.swap(true, Ordering::Relaxed) {
                connection.execute_batch("BEGIN")?;
            }
            let mut statement = connection.prepare_cached(question)?;
            statement.query_row(values, read).optional()
        });
        answer?.map_err(|err| self.renew_if_damaged(&mut connection, &err)).ok().flatten()
    }

    /// Returns whether it was written. An accelerator that forgets is slower, not wrong.
    fn tell(&self, statement: impl FnOnce(&Connection) -> rusqlite::Result<usize>) -> bool {
        let mut connection = self.lock();
        let told = connection.as_ref().map(|connection| {
            self.end_transaction(connection);
            statement(connection)
        });
        match told {
            Some(Err(err)) => {
                self.renew_if_damaged(&mut connection, &err);
                false
            }
            written => written.is_some(),
        }
    }

    fn renew_if_damaged(&self, connection: &mut Option<Connection>, err: &rusqlite::Error) {
        if is_damage(err) {
            *connection = None;
            self.is_reading.store(false, Ordering::Relaxed);
            *connection = anew(&self.folder);
        }
    }

    fn unwritten(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Seen>> {
        self.unwritten.lock().expect("looking things up does not panic")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().expect("no question to the index panics")
    }
}

fn connect(folder: &Path) -> Option<Connection> {
    match existing(&folder.join("index.db")) {
        Ok(Some(connection)) => Some(connection),
        Ok(None) => anew(folder),
        // Others may hold it longer than this one waits: it may be whole.
        Err(err) if is_passing(&err) => None,
        Err(_) => anew(folder),
    }
}

/// Makes the index anew in its file: others may have it open, who would else write where nobody looks, and
/// remove the log of the new one when they close theirs.
fn anew(folder: &Path) -> Option<Connection> {
    let file = folder.join("index.db");
    if file.is_file() {
        match emptied(&file).and_then(|connection| filled(folder, connection)) {
            Ok(connection) => return Some(connection),
            Err(err) if is_passing(&err) => return None,
            Err(_) => {}
        }
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.join(format!("index.db{suffix}")));
    }
    Connection::open(&file).and_then(|connection| filled(folder, connection)).ok()
}

/// The index if it is there and can be used as it is.
fn existing(file: &Path) -> rusqlite::Result<Option<Connection>> {
    if !file.is_file() {
        return Ok(None);
    }
    let connection = Connection::open(file)?;
    prepare(&connection)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let has_tables = connection.prepare("SELECT 1 FROM result, object, outside, repeat LIMIT 1").is_ok();
    Ok((version == SCHEMA_VERSION && has_tables).then_some(connection))
}

/// A database without anything in the same file, whatever was in it; its locks keep others out meanwhile.
fn emptied(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, true)?;
    connection.execute_batch("VACUUM")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, false)?;
    Ok(connection)
}

/// The index of all results in `connection`, unless another process has just written it there.
fn filled(folder: &Path, mut connection: Connection) -> rusqlite::Result<Connection> {
    prepare(&connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != SCHEMA_VERSION {
        transaction.execute_batch(SCHEMA)?;
        for execution in results::all(folder) {
            add_result(&transaction, &execution)?;
        }
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    Ok(connection)
}

fn is_damage(err: &rusqlite::Error) -> bool {
    matches!(err.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether another time nothing may be wrong.
fn is_passing(err: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory};
    let passing = [DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory];
    err.sqlite_error_code().is_some_and(|code| passing.contains(&code))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // After a power cut the index may be damaged; it is then made anew.
    connection.pragma_update(None, "synchronous", "OFF")
}

fn add_result(connection: &Connection, execution: &Execution) -> rusqlite::Result<usize> {
    let outputs = serde_json::to_string(&execution.outputs).expect("artifacts serialize to JSON");
    connection.prepare_cached("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?, ?)")?.execute(params![
        execution.key.as_bytes(),
        execution.id,
        execution.run.0,
        execution.device,
        outputs
    ])
}

/// A number that changes when another connection has written.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain values encode")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
