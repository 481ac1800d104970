//! Who works in a cache: any number of runs side by side, or one who removes things, alone.
//!
//! An OS lock on `cache/v1/lock`. It ends with the process that holds it, and a run that starts
//! while things are removed waits until that is over, so it never sees half of a removal.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use super::CacheError;

/// The right to work in a cache, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    /// None where no lock can be had: what cannot be written cannot be removed from either.
    _lock: Option<File>,
}

/// Joins those who work in the cache at `folder`; `wait` is called if somebody is alone there.
pub(super) fn join(folder: &Path, wait: &mut dyn FnMut()) -> Result<Hold, CacheError> {
    let path = folder.join("lock");
    let _ = std::fs::create_dir_all(folder);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let Ok(lock) = opened.or_else(|_| File::open(&path)) else {
        return Ok(Hold { _lock: None });
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Hold { _lock: Some(lock) }),
        Err(TryLockError::WouldBlock) => {
            wait();
            lock.lock_shared().map_err(CacheError::io("lock", &path))?;
            Ok(Hold { _lock: Some(lock) })
        }
        // A file system without locks: there `alone` fails.
        Err(TryLockError::Error(_)) => Ok(Hold { _lock: None }),
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
