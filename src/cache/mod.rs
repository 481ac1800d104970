//! Every output by content, and which execution gave it: `cache/v1/`.
//!
//! ```text
//! objects/ab/cdef…        contents by BLAKE3, read-only
//! results/ab/<key>.json   the truth: one Execution, written once, last
//! index.db                an accelerator over results/ and stats; rebuilt when missing or damaged
//! manifests/ab/cdef…      which files a folder had that a result used, to say later which changed
//! scratch/<key>/          lock, attempt-<id>/ (being written), checkpoint/ (survives a kill),
//!                         left/ (outputs that could not be taken)
//! verify/<id>/            the same for a result that is computed again to compare
//! .gitignore              keeps all of it out of git
//! lock                    held by runs together, or alone by who removes things
//! ```
//!
//! A missing or damaged object is a miss, never a wrong answer. Everything here can be
//! recomputed: deleting the folder costs time, not knowledge.

mod audit;
mod changed;
mod collect;
mod durable;
mod hold;
mod index;
mod loan;
mod manifests;
mod objects;
mod orphans;
mod outside;
mod results;
mod scratch;
mod stamps;
mod stat;
mod sweep;
mod tree;
mod vigil;
mod walk;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    digest::{ActionKey, Digest},
    halt::Halt,
    pattern::PatternError,
    record::{Artifact, Execution, FileChanges},
};
use index::Index;
use outside::Looks;

pub use audit::{Audit, Damage};
pub use changed::Changed;
pub use collect::{Contents, Removal, StoredResult, removal};
pub use hold::Hold;
pub use index::Mark;
pub use loan::Loan;
pub use outside::Outside;
pub use scratch::{Claim, Scratch};
pub use stamps::Stamps;
pub use sweep::Leftovers;

/// The folder layout's version, part of the path.
const LAYOUT: &str = "v1";
/// Executions of at least this many seconds are forced to the disk before they count.
const WORTH_SYNCING: f64 = 1.0;

/// A cache that cannot be used.
#[derive(Debug, Error, Diagnostic)]
pub enum CacheError {
    /// A file operation failed.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried, such as `write`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An input outside the cache is not there.
    #[error("input `{}` does not exist", path.display())]
    Missing {
        /// The file or folder.
        path: PathBuf,
    },
    /// An input outside the cache that is a folder, a pipe or a device.
    #[error("input `{}` is not a file", path.display())]
    NoFile {
        /// What it is called.
        path: PathBuf,
    },
    /// Hashing a file, or waiting for a lock, was given up, since what it was for is to end.
    #[error("stopped while {what} `{}`", path.display())]
    Halted {
        /// What was given up, such as `hashing`.
        what: &'static str,
        /// The file or lock.
        path: PathBuf,
    },
    /// A pattern is malformed, or a folder below it cannot be read.
    #[error(transparent)]
    Pattern(PatternError),
    /// A link of a folder leads to nothing.
    #[error("`{}` is a link to nothing: remove the link, or make what it leads to", path.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
    },
    /// A link leads to a folder above it.
    #[error("`{}` leads back to a folder above it", path.display())]
    Loop {
        /// The link.
        path: PathBuf,
    },
}

impl CacheError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// What the cache knows of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// A whole result.
    Hit(Hit),
    /// No result.
    Miss,
    /// There was a result whose contents are damaged or gone; the text says how.
    Lost(String),
}

/// A result, as much of it as deciding needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The execution that gave it.
    pub execution: String,
    /// The run that executed it; `None` where that is known to be one of another history.
    pub run: Option<crate::names::RunId>,
    /// What it computed on.
    pub device: Option<String>,
    /// The outputs.
    pub outputs: Vec<Artifact>,
}

impl Hit {
    /// What deciding needs of `execution`.
    pub fn of(execution: &Execution) -> Self {
        Self {
            execution: execution.id.clone(),
            run: Some(execution.run),
            device: execution.device.clone(),
            outputs: execution.outputs.clone(),
        }
    }
}

/// The cache of one project.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    index: Index,
    looks: Looks,
    halt: Halt,
}

impl Cache {
    /// Opens the cache below `folder`; creates nothing, so that reading works where writing does not.
    pub fn open(folder: &Path) -> Self {
        let folder = folder.join(LAYOUT);
        let index = Index::open(&folder);
        Self { folder, index, looks: Looks::default(), halt: Halt::default() }
    }

    /// Gives up hashing what a stage would read and waiting to join, with [`CacheError::Halted`], once `halt` is
    /// raised. What a stage has written is still taken in: it may be the work of hours.
    #[must_use]
    pub fn heeding(self, halt: Halt) -> Self {
        Self { halt, ..self }
    }

    /// Joins those who work in the cache, until the value is dropped: nothing is removed meanwhile.
    ///
    /// Waits while somebody removes things; `wait` is called before that.
    pub fn join(&self, wait: &mut dyn FnMut()) -> Result<Hold, CacheError> {
        hold::join(&self.folder, &self.halt, wait)
    }

    /// Keeps everybody else out until the value is dropped; `None` while others work in the cache.
    pub fn alone(&self) -> Result<Option<Hold>, CacheError> {
        hold::alone(&self.folder)
    }

    /// Makes the folders, which git leaves alone, and an index that can be written, or says why that is not
    /// possible.
    pub fn make_writable(&self) -> Result<(), CacheError> {
        for part in ["objects", "results", "scratch"] {
            let path = self.folder.join(part);
            std::fs::create_dir_all(&path).map_err(CacheError::io("create", &path))?;
            tempfile::tempfile_in(&path).map_err(CacheError::io("write to", &path))?;
        }
        // Without it everything works as well.
        let ignoring = File::create_new(self.folder.join(".gitignore"));
        let _ = ignoring.and_then(|mut file| file.write_all(b"*\n"));
        self.index.make_writable();
        Ok(())
    }

    /// Looks for a whole result of `key`; the error is [`CacheError::Halted`] alone.
    pub fn get(&self, key: ActionKey) -> Result<Lookup, CacheError> {
        let hit = match self.index.result(key) {
            Some(hit) => hit,
            None => match results::read(&self.folder, key) {
                Some(execution) => {
                    self.index.add_result(&execution);
                    Hit::of(&execution)
                }
                None => return Ok(Lookup::Miss),
            },
        };
        for output in &hit.outputs {
            if let Some(damage) = self.flaw_unless(&self.halt, output.digest)? {
                let (digest, port) = (output.digest.short(), &output.port);
                let how = format!("object {digest} of output `{port}` is {}", damage.word());
                return Ok(Lookup::Lost(how));
            }
        }
        Ok(Lookup::Hit(hit))
    }

    /// Ends a series of lookups: the next ones see what other processes found meanwhile.
    pub fn end_lookups(&self) {
        self.index.end_reading();
    }

    /// The whole record behind `key`, metrics included.
    pub fn execution(&self, key: ActionKey) -> Option<Execution> {
        results::read(&self.folder, key)
    }

    /// Where the bytes of `digest` lie.
    pub fn object(&self, digest: Digest) -> PathBuf {
        objects::path(&self.folder, digest)
    }

    /// The digest of the bytes of any file.
    pub fn digest(&self, file: &Path) -> Result<Digest, CacheError> {
        objects::hash_unless(&self.halt, file)
    }

    /// What is wrong with the stored bytes of `digest`, if anything.
    pub fn flaw(&self, digest: Digest) -> Option<Damage> {
        self.flaw_unless(&Halt::default(), digest).expect("nothing ends it early")
    }

    fn flaw_unless(&self, halt: &Halt, digest: Digest) -> Result<Option<Damage>, CacheError> {
        let path = self.object(digest);
        let Ok(stat) = stat::Stat::of(&path) else { return Ok(Some(Damage::Missing)) };
        if self.index.object(digest) == Some(stat) {
            return Ok(None);
        }
        match objects::hash_unless(halt, &path) {
            Ok(found) if found == digest => {
                self.index.add_object(digest, stat);
                Ok(None)
            }
            Err(halted @ CacheError::Halted { .. }) => Err(halted),
            Ok(_) | Err(_) => Ok(Some(Damage::Damaged)),
        }
    }

    /// Takes a file that a stage wrote into the store and returns its digest and size.
    ///
    /// `checkpoint` is the stage's folder of checkpoints, in which the file may have names, too. `seconds` is
    /// what it took to make: results worth it are forced to the disk.
    pub fn keep_object(
        &self,
        file: &Path,
        checkpoint: &Path,
        seconds: f64,
    ) -> Result<(Digest, u64), CacheError> {
        let is_right = |digest, stat| self.index.object(digest) == Some(stat);
        let sync = seconds >= WORTH_SYNCING;
        let (digest, stat) = objects::keep(&self.folder, file, checkpoint, sync, is_right)?;
        self.index.add_object(digest, stat);
        Ok((digest, stat.size))
    }

    /// Records `execution` as the result of its key. Its objects must be in the store.
    pub fn keep_result(&self, execution: &Execution) -> Result<(), CacheError> {
        results::write(&self.folder, execution, execution.duration >= WORTH_SYNCING)?;
        self.index.add_result(execution);
        Ok(())
    }

    /// The place where the stage behind `key` works and keeps its checkpoints.
    pub fn scratch(&self, key: ActionKey) -> Scratch {
        Scratch::new(self.folder.join("scratch").join(key.to_string()))
    }

    /// A place like [`Self::scratch`] for computing again what there is a result of.
    pub fn bench(&self, id: &str) -> Scratch {
        Scratch::new(self.folder.join("verify").join(id))
    }

    /// Removes what killed runs left, or only counts it, but for checkpoints of keys that are `wanted`.
    pub fn sweep(&self, wanted: &BTreeSet<ActionKey>, really: bool) -> Result<Leftovers, CacheError> {
        sweep::sweep(&self.folder, wanted, really)
    }

    /// All results.
    pub fn executions(&self) -> impl Iterator<Item = Execution> {
        results::all(&self.folder)
    }

    /// Hashes every object and reads every result again.
    pub fn audit(&self) -> Audit {
        audit::audit(&self.folder, &self.index)
    }

    /// Removes what `audit` found damaged and is still so, and results that lack an object.
    ///
    /// Others may have worked here since: what they have computed again is whole.
    pub fn repair(&self, audit: &Audit) -> Result<(), CacheError> {
        let mut still = audit.clone();
        still.flawed.retain(|digest, (_, keys)| {
            let needs =
                |execution: Execution| execution.outputs.iter().any(|output| output.digest == *digest);
            keys.retain(|key| self.execution(*key).is_some_and(needs));
            self.flaw(*digest).is_some()
        });
        self.remove(&still.removal())?;
        let unreadable = still.unreadable.iter().filter(|file| !results::is_readable(&self.folder, file));
        unreadable.map(PathBuf::as_path).try_for_each(collect::remove_file)
    }

    /// Everything that lies in the cache.
    pub fn contents(&self) -> Contents {
        collect::contents(&self.folder)
    }

    /// Removes results and objects.
    pub fn remove(&self, removal: &Removal) -> Result<(), CacheError> {
        collect::remove(&self.folder, &self.index, removal)
    }

    /// The contents of a file outside the cache.
    pub fn file(&self, root: &Path, file: &Path) -> Result<Outside, CacheError> {
        outside::file(&self.index, &self.halt, root, file)
    }

    /// The contents of a folder outside the cache.
    pub fn folder(&self, root: &Path, folder: &Path) -> Result<Outside, CacheError> {
        outside::folder(&self.index, &self.halt, &self.looks, root, folder)
    }

    /// The contents of the files outside the cache that match `pattern`.
    pub fn glob(&self, root: &Path, pattern: &str) -> Result<Outside, CacheError> {
        outside::glob(&self.index, &self.halt, &self.looks, root, pattern)
    }

    /// The first file of `outside` that is not what it was then, if that is known.
    pub fn first_changed(&self, outside: &Outside) -> Option<Changed> {
        changed::first(&self.index, outside)
    }

    /// The digest of a file outside the cache, if its stat says that it is known.
    pub fn known_file(&self, root: &Path, file: &Path) -> Option<Digest> {
        outside::known_file(&self.index, root, file)
    }

    /// The digest of a folder outside the cache, if the stats of its files say that it is known.
    ///
    /// Where they do not, [`Self::folder`] goes on from what was listed.
    pub fn known_folder(&self, root: &Path, folder: &Path) -> Option<Digest> {
        outside::known_folder(&self.index, &self.looks, root, folder)
    }

    /// The same for the files that match `pattern`, and [`Self::glob`].
    pub fn known_glob(&self, root: &Path, pattern: &str) -> Option<Digest> {
        outside::known_glob(&self.index, &self.looks, root, pattern)
    }

    /// The stats of `objects`, if all are known to have the right bytes.
    pub fn stamps(&self, objects: &[Digest]) -> Option<Stamps> {
        Stamps::of(&self.index, objects)
    }

    /// Whether the objects still have the stats that they had then.
    pub fn are_as_stamped(&self, stamps: &Stamps) -> bool {
        stamps.hold(&self.folder)
    }

    /// The state before lookups whose outcome is to be kept by [`Self::keep_repeat`].
    pub fn mark(&self) -> Mark {
        self.index.mark()
    }

    /// Keeps what a run of `file` found until a result is added or removed; not at all if that has
    /// happened since `mark`.
    pub fn keep_repeat(&self, file: &Path, found: &impl Serialize, mark: Mark) {
        self.index.keep_repeat(file, found, mark);
    }

    /// What [`Self::keep_repeat`] kept.
    pub fn repeat<T: DeserializeOwned>(&self, file: &Path) -> Option<T> {
        self.index.repeat(file)
    }

    /// Which files of a folder or pattern are others than those behind the digest `before`, which a
    /// result used; `None` where that is not known.
    pub fn file_changes(&self, before: Digest, now: &Outside) -> Option<FileChanges> {
        manifests::changes(&self.folder, &self.index, before, now)
    }

    /// Remembers the files of an input that a result used, for [`Self::file_changes`].
    pub fn keep_manifest(&self, outside: &Outside) -> Result<(), CacheError> {
        manifests::keep(&self.folder, &self.index, outside)
    }
}
