//! What can go wrong with `runs.db`.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use rusqlite::ErrorCode;
use rustix::{
    fs::{Access, access, statvfs},
    io::Errno,
};
use thiserror::Error;

use super::beside::beside;
use crate::names::RunId;

/// A disk with less room than this is full for a database: it grows by pages and a shared index.
const NEEDED: u64 = 64 * 1024;

/// A record of runs that cannot be read or written, or a name that is not in it.
#[derive(Debug, Error, Diagnostic)]
pub enum RunsError {
    /// The database could not do what was asked.
    #[error("cannot use `{path}`")]
    #[diagnostic(help(
        "check that the folder can be written and the disk is not full; `pipe` waits 10 seconds for another that writes"
    ))]
    Database {
        /// The database.
        path: PathBuf,
        /// What it says.
        #[source]
        source: rusqlite::Error,
    },
    /// A file beside the database could not be written.
    #[error("cannot {what} `{path}`")]
    File {
        /// Such as `write the backup`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is a database, but something else's.
    #[error("`{path}` was not made by `pipe`")]
    #[diagnostic(help("move it away, or choose another project root with `--root`"))]
    NotOurs {
        /// The database.
        path: PathBuf,
    },
    /// A newer `pipe` has changed the layout.
    #[error(
        "`{path}` has schema version {found}, and this `pipe` ({version}) knows up to {known}",
        version = env!("CARGO_PKG_VERSION")
    )]
    #[diagnostic(help("use the newer `pipe` that wrote it"))]
    Newer {
        /// The database.
        path: PathBuf,
        /// The version it has.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// There is no database yet.
    #[error("no runs are recorded here yet: there is no `{path}`")]
    #[diagnostic(help("start with `pipe run FILE`"))]
    None {
        /// Where it would be.
        path: PathBuf,
    },
    /// The file was removed or replaced while a run wrote to it.
    #[error("`{path}` was removed or replaced while {run} went on, which is not recorded")]
    #[diagnostic(help("its results are in the cache: the same command finds them and records a run"))]
    Gone {
        /// The run.
        run: RunId,
        /// Where the database was.
        path: PathBuf,
    },
    /// No run has this name.
    #[error("there is no run `{name}`")]
    UnknownRun {
        /// As the person wrote it.
        name: String,
        /// What may have been meant.
        #[help]
        help: String,
    },
    /// The run has no stage of this name.
    #[error("{run} has no stage `{stage}`")]
    UnknownStage {
        /// The run.
        run: RunId,
        /// As the person wrote it.
        stage: String,
        /// What may have been meant.
        #[help]
        help: String,
    },
    /// No run has a metric or parameter of this name.
    #[error("no run has `{name}`")]
    UnknownColumn {
        /// As the person wrote it.
        name: String,
        /// What may have been meant.
        #[help]
        help: String,
    },
    /// The tag could be taken for something else.
    #[error("`{name}` cannot be a tag")]
    #[diagnostic(help(
        "a tag starts with a letter, goes on with letters, digits, `.`, `_`, `-`, `/`, has at most 64 characters and is not like `run_12`"
    ))]
    BadTag {
        /// As the person wrote it.
        name: String,
    },
    /// No run has the tag that shall be removed.
    #[error("{run} has no tag `{name}`")]
    NoSuchTag {
        /// The run.
        run: RunId,
        /// As the person wrote it.
        name: String,
        /// The tags it has.
        #[help]
        help: String,
    },
    /// Runs that are compared were tested on different items.
    #[error("{a} and {b} were tested on different items: {what}")]
    OtherTestSet {
        /// One of them.
        a: String,
        /// The other.
        b: String,
        /// An item that shows it.
        what: String,
        /// The input that differs.
        #[help]
        help: String,
    },
    /// A run alone has nothing to compare.
    #[error("{run} has no two methods to compare, and no sweep")]
    #[diagnostic(help(
        "name a second run, let a stage of kind `evaluate` take the predictions of both, or give a stage a `matrix`"
    ))]
    OneMethod {
        /// The run.
        run: RunId,
    },
    /// The run has nothing of this name whose lineage could be told.
    #[error("{run} has no metric, output or stage `{name}`")]
    NoLineage {
        /// The run.
        run: RunId,
        /// As the person wrote it.
        name: String,
        /// What may have been meant.
        #[help]
        help: String,
    },
    /// The name means several things of the run, where one is wanted.
    #[error("{count} are meant by `{name}` in {run}")]
    Several {
        /// The run.
        run: RunId,
        /// As the person wrote it.
        name: String,
        /// How many, of what.
        count: String,
        /// Which there are, and how one is named.
        #[help]
        help: String,
    },
    /// The stage has no result in the run.
    #[error("stage `{stage}` has no result in {run}, where it {} {outcome}", if *outcome == "failed" { "has" } else { "was" })]
    NoResult {
        /// The run.
        run: RunId,
        /// The stage.
        stage: String,
        /// What became of it.
        outcome: &'static str,
        /// Where more is said.
        #[help]
        help: String,
    },
    /// Records refer to executions that are not recorded.
    #[error("{} of the results are not recorded in `{path}`: {}", ids.len(), ids.join(", "))]
    #[diagnostic(help("this is a bug in `pipe`: results are recorded before the stages they satisfy"))]
    UnknownExecutions {
        /// Those that are missing.
        ids: Vec<String>,
        /// The database.
        path: PathBuf,
    },
}

impl RunsError {
    /// The database, if it is damaged: pages, or values that no `pipe` wrote.
    pub fn damaged(&self) -> Option<&Path> {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, SqliteFailure, Utf8Error,
        };
        let Self::Database { path, source } = self else { return None };
        let is_damage = match source {
            SqliteFailure(err, _) => matches!(err.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase),
            FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..) => true,
            _ => false,
        };
        is_damage.then_some(path)
    }

    /// What `source` means for the database at `path`: by itself it does not tell a full disk, or one
    /// that is read-only, from other failures.
    pub(super) fn database(path: &Path, source: rusqlite::Error) -> Self {
        use ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure};
        let path = path.to_owned();
        let may_be_the_disk = matches!(
            source.sqlite_error_code(),
            Some(CannotOpen | DiskFull | PermissionDenied | ReadOnly | SystemIoFailure)
        );
        match may_be_the_disk.then(|| refusal(&path)).flatten() {
            Some((path, source)) => Self::File { what: "write", path, source },
            None => Self::Database { path, source },
        }
    }

    /// Whether the database cannot be used because nothing can be written where it lies.
    pub(super) fn takes_nothing(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
        matches!(self, Self::File { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem | StorageFull))
    }

    /// Whether the database or the disk failed, rather than that something was asked for that is not there.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Database { .. } | Self::File { .. } | Self::Gone { .. } | Self::UnknownExecutions { .. }
        )
    }
}

/// Which file of the database at `path` the system takes no data for, and why, if it does not.
fn refusal(path: &Path) -> Option<(PathBuf, io::Error)> {
    if let Err(RunsError::File { path, source, .. }) = is_writable(path) {
        return Some((path, source));
    }
    let room = statvfs(folder_of(path)).ok()?;
    (room.f_bavail * room.f_frsize < NEEDED).then(|| (path.to_owned(), Errno::NOSPC.into()))
}

/// Whether the database at `path` can be written, with the files that SQLite has beside it; the error
/// names the one that cannot.
pub(super) fn is_writable(path: &Path) -> Result<(), RunsError> {
    let places = [folder_of(path).to_owned(), path.to_owned(), beside(path, "-wal"), beside(path, "-shm")];
    for (number, place) in places.into_iter().enumerate() {
        match access(&place, Access::WRITE_OK) {
            Err(Errno::NOENT) | Ok(()) => {}
            Err(errno) => {
                let path = if number == 0 { path.to_owned() } else { place };
                return Err(RunsError::File { what: "write", path, source: errno.into() });
            }
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
