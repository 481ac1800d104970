//! Where one stage execution works: a lock, the attempt being written, its checkpoints.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
    thread,
    time::Duration,
};

use pipe_stages::data::folder::unpack_while;

use super::{CacheError, Outside, orphans};
use crate::{
    halt::Halt,
    process::{has_ended, this_process},
};

/// How long processes that were told to end may take before they are told again.
const ENDING: Duration = Duration::from_millis(5);

/// The folder of one key below `scratch/`.
#[derive(Debug, Clone)]
pub struct Scratch {
    folder: PathBuf,
}

/// The right to execute one key, held until it is dropped by this process and by every
/// process that inherited the descriptor.
///
/// With it goes what the attempt has written but for its checkpoints, as far as it can be removed.
#[derive(Debug)]
pub struct Claim {
    folder: PathBuf,
    lock: File,
    attempt: String,
    is_finished: bool,
}

impl Scratch {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Claims the key, or returns `None` while another process holds it.
    ///
    /// `attempt` names the attempt and `holder` tells others who has it, on one line. What an attempt
    /// that was killed left behind is removed, except its checkpoints, and what it left running is ended.
    pub fn claim(&self, attempt: &str, holder: &str) -> Result<Option<Claim>, CacheError> {
        let path = self.folder.join("lock");
        loop {
            fs::create_dir_all(&self.folder).map_err(CacheError::io("create", &self.folder))?;
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let mut lock = match file {
                Ok(file) => file,
                // The holder finished and removed the folder between the two calls.
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
                Err(err) => return Err(CacheError::io("open", &path)(err)),
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if self.is_left_behind() && orphans::end(&lock) > 0 => {
                    // The kernel takes a moment to end them.
                    thread::sleep(ENDING);
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(err)) => return Err(CacheError::io("lock", &path)(err)),
            }
            if !is_still_at(&lock, &path) {
                continue;
            }
            let text = format!("{holder}\n{}\n", this_process().unwrap_or_default());
            lock.set_len(0)
                .and_then(|()| lock.write_all(text.as_bytes()))
                .map_err(CacheError::io("write", &path))?;
            let (folder, attempt) = (self.folder.clone(), attempt.to_owned());
            let claim = Claim { folder, lock, attempt, is_finished: false };
            claim.remove_attempts();
            let _ = remove_folder(&claim.left());
            for folder in [claim.outputs(), claim.checkpoint()] {
                fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
            }
            return Ok(Some(claim));
        }
    }

    /// Whether the `pipe` that wrote the lock has ended, and others of its stage have not.
    ///
    /// Asked twice: one that has just taken the lock has yet to write its own name over that of a dead one.
    fn is_left_behind(&self) -> bool {
        let has_lost_its_pipe = || {
            let text = fs::read_to_string(self.folder.join("lock")).unwrap_or_default();
            text.lines().nth(1).is_some_and(has_ended)
        };
        has_lost_its_pipe() && {
            thread::sleep(50 * ENDING);
            has_lost_its_pipe()
        }
    }

    /// The folder of the attempt with this name: its log and events.
    pub fn attempt(&self, attempt: &str) -> PathBuf {
        folder_of(&self.folder, attempt)
    }

    /// Whether a process works here.
    pub(super) fn is_held(&self) -> bool {
        let lock = File::open(self.folder.join("lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Who holds the key, as it said itself; empty if nobody does.
    pub fn holder(&self) -> String {
        let text = fs::read_to_string(self.folder.join("lock")).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    }
}

impl Claim {
    /// The locked file, to be inherited by the process that executes the stage.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// The folder of this attempt: its log and events.
    pub fn folder(&self) -> PathBuf {
        folder_of(&self.folder, &self.attempt)
    }

    /// The folder that outputs are written to.
    pub fn outputs(&self) -> PathBuf {
        self.folder().join("out")
    }

    /// Where the stage finds an input from outside: of a pattern, a folder of links to the files that match, under
    /// their relative names, and to no others.
    pub fn input(&self, port: &str, outside: &Outside) -> Result<PathBuf, CacheError> {
        if outside.names().is_empty() {
            return Ok(outside.path.clone());
        }
        let folder = self.folder().join("in").join(port);
        for name in outside.names() {
            // Of a pattern that leaves the project, only the names of folders and files are kept.
            let names = name.components().filter(|part| matches!(part, Component::Normal(_)));
            let link = folder.join(names.collect::<PathBuf>());
            let parent = link.parent().expect("a link lies in the folder");
            fs::create_dir_all(parent).map_err(CacheError::io("create", parent))?;
            symlink(outside.path.join(name), &link).map_err(CacheError::io("create", &link))?;
        }
        Ok(folder)
    }

    /// Where the stage finds an input that is a folder packed in `object`: a copy of its own, with files that
    /// nobody may write to. Given up with [`CacheError::Halted`] once `halt` is raised.
    pub fn folder_input(&self, port: &str, object: &Path, halt: &Halt) -> Result<PathBuf, CacheError> {
        let folder = self.folder().join("in").join(port);
        match unpack_while(object, &folder, true, &|| !halt.is_raised()) {
            Ok(()) => Ok(folder),
            Err(_) if halt.is_raised() => Err(CacheError::Halted { what: "unpacking", path: folder }),
            Err(source) => Err(CacheError::Io { what: "unpack", path: folder, source }),
        }
    }

    /// The folder that survives a kill.
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint")
    }

    /// Where that is kept which an attempt wrote and the cache could not take.
    fn left(&self) -> PathBuf {
        self.folder.join("left")
    }

    /// Keeps the outputs of this attempt beside it, for a person to look at; `None` if there are none, or they
    /// cannot be kept. The next claim removes them.
    pub fn leave(&self) -> Option<PathBuf> {
        let is_empty = fs::read_dir(self.outputs()).ok()?.next().is_none();
        (!is_empty && fs::rename(self.outputs(), self.left()).is_ok()).then(|| self.left())
    }

    /// Removes everything: the result is kept, no checkpoint is needed any more.
    ///
    /// What cannot be removed stays until [`Cache::sweep`](super::Cache::sweep): it is in nobody's way.
    pub fn finish(mut self) {
        self.is_finished = true;
        self.remove_attempts();
        let _ = remove_folder(&self.checkpoint());
        let _ = fs::remove_file(self.folder.join("lock"));
        // Another `pipe` may have made a new lock here already.
        let _ = fs::remove_dir(&self.folder);
    }

    fn remove_attempts(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        for entry in entries {
            if entry.file_name().to_string_lossy().starts_with("attempt-") {
                let _ = remove_folder(&entry.path());
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // After the end another `pipe` may be at work in a folder of the same name.
        if !self.is_finished {
            self.remove_attempts();
        }
    }
}

/// The folder of an attempt, in that of its key.
fn folder_of(folder: &Path, attempt: &str) -> PathBuf {
    folder.join(format!("attempt-{attempt}"))
}

/// Removes a folder with all that is in it, also where a command has left folders that cannot be written
/// to, as Go does with its modules.
fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            open_up(folder)?;
            fs::remove_dir_all(folder)
        }
        removed => removed,
    }
}

/// Lets the owner write to a folder and all below it.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether the locked file is still the one at `path`, not one that a finished holder removed.
fn is_still_at(lock: &File, path: &Path) -> bool {
    match (lock.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => held.ino() == there.ino() && held.dev() == there.dev(),
        _ => false,
    }
}
