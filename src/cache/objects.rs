//! File contents by their hash, read-only.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::{CacheError, stat::Stat};
use crate::digest::Digest;

/// Files from this size on are hashed by all cores through a memory map.
const LARGE: u64 = 1 << 20;

/// Where the bytes of `digest` lie below the cache's folder.
pub(super) fn path(folder: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    folder.join("objects").join(&name[..2]).join(&name[2..])
}

/// The digest of a file's bytes.
pub(super) fn hash_file(file: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    if fs::metadata(file)?.len() >= LARGE {
        hasher.update_mmap_rayon(file)?;
    } else {
        hasher.update_reader(File::open(file)?)?;
    }
    Ok(Digest::from(hasher.finalize()))
}

/// Moves `file` into the store under its hash; `sync` forces it to the disk first.
///
/// An object that is there already and `is_right` by its stat stays: a stage may be reading it, and
/// some programs refuse a file that is replaced meanwhile.
pub(super) fn keep(
    folder: &Path,
    file: &Path,
    sync: bool,
    is_right: impl Fn(Digest, Stat) -> bool,
) -> Result<(Digest, Stat), CacheError> {
    let digest = hash_file(file).map_err(CacheError::io("read", file))?;
    let target = path(folder, digest);
    if let Ok(stat) = Stat::of(&target)
        && is_right(digest, stat)
    {
        fs::remove_file(file).map_err(CacheError::io("remove", file))?;
        return Ok((digest, stat));
    }
    let shelf = target.parent().expect("an object lies in a folder");
    fs::create_dir_all(shelf).map_err(CacheError::io("create", shelf))?;
    if sync {
        File::open(file).and_then(|file| file.sync_all()).map_err(CacheError::io("write", file))?;
    }
    let mut permissions = fs::metadata(file).map_err(CacheError::io("read", file))?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(file, permissions).map_err(CacheError::io("write", file))?;
    // Replaces an object of the same name, which may be damaged.
    fs::rename(file, &target).map_err(CacheError::io("write", &target))?;
    let stat = Stat::of(&target).map_err(CacheError::io("read", &target))?;
    Ok((digest, stat))
}

/// All objects with their sizes.
pub(super) fn all(folder: &Path) -> impl Iterator<Item = (Digest, u64)> {
    let entries =
        WalkDir::new(folder.join("objects")).min_depth(2).max_depth(2).into_iter().filter_map(Result::ok);
    entries.filter_map(|entry| {
        let shelf = entry.path().parent()?.file_name()?.to_str()?;
        let digest = format!("{shelf}{}", entry.file_name().to_str()?).parse().ok()?;
        Some((digest, entry.metadata().ok()?.len()))
    })
}
