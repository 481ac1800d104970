//! Who works in a cache: any number of runs side by side, or one who removes things, alone.
//!
//! An OS lock on `cache/v1/lock`. It ends with the process that holds it, and a run that starts
//! while things are removed waits until that is over, so it never sees half of a removal.

use std::{
    fs::{File, TryLockError},
    path::Path,
    thread,
    time::Duration,
};

use super::CacheError;
use crate::halt::Halt;

/// How often the lock is asked for while somebody is alone.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The right to work in a cache, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    /// None where no lock can be had: what cannot be written cannot be removed from either.
    _lock: Option<File>,
}

/// Joins those who work in the cache at `folder`; `wait` is called if somebody is alone there, who is waited
/// for until `halt` is raised.
pub(super) fn join(folder: &Path, halt: &Halt, wait: &mut dyn FnMut()) -> Result<Hold, CacheError> {
    let path = folder.join("lock");
    let _ = std::fs::create_dir_all(folder);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let Ok(lock) = opened.or_else(|_| File::open(&path)) else {
        return Ok(Hold { _lock: None });
    };
    let mut is_waiting = false;
    loop {
        match lock.try_lock_shared() {
            Ok(()) => return Ok(Hold { _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) if halt.is_raised() => {
                return Err(CacheError::Halted { what: "waiting for", path });
            }
            Err(TryLockError::WouldBlock) => {
                if !is_waiting {
                    wait();
                }
                is_waiting = true;
                thread::sleep(ASK_AGAIN);
            }
            // A file system without locks: there `alone` fails.
            Err(TryLockError::Error(_)) => return Ok(Hold { _lock: None }),
        }
    }
}

/// Works alone in the cache at `folder`, or returns `None` while others do.
pub(super) fn alone(folder: &Path) -> Result<Option<Hold>, CacheError> {
    if !folder.is_dir() {
        return Ok(Some(Hold { _lock: None }));
    }
    let path = folder.join("lock");
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let lock = opened.map_err(CacheError::io("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(Hold { _lock: Some(lock) })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(err)) => Err(CacheError::io("lock", &path)(err)),
    }
}
