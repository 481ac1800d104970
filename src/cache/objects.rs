//! File contents by their hash, read-only.

use std::{
    fs::{self, DirEntry, File, Metadata},
    io::{self, Read},
    mem,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use tempfile::NamedTempFile;
use walkdir::WalkDir;

use super::{CacheError, durable::sync_name, stat::Stat};
use crate::{digest::Digest, halt::Halt};

/// Files from this size on are hashed by all cores.
const LARGE: u64 = 1 << 20;
/// Bytes that are read while those before them are hashed.
const BLOCK: u64 = 4 << 20;
/// How long before it came an object says that it was last written: every later write shows in that
/// time, also one within the same tick of the clock and one to a file system that rounds.
const BEFORE: Duration = Duration::from_mins(1);

/// Where the bytes of `digest` lie below the cache's folder.
pub(super) fn path(folder: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    folder.join("objects").join(&name[..2]).join(&name[2..])
}

/// The digest of a file's bytes.
///
/// They are read, not mapped: whoever cuts a mapped file short ends this process.
pub(super) fn hash_file(file: &Path) -> io::Result<Digest> {
    hash_while(file, &|| true).map(|digest| digest.expect("nothing ends it early"))
}

/// The same, given up once `halt` is raised.
pub(super) fn hash_unless(halt: &Halt, file: &Path) -> Result<Digest, CacheError> {
    let digest = hash_while(file, &|| !halt.is_raised()).map_err(CacheError::io("read", file))?;
    digest.ok_or_else(|| CacheError::Halted { what: "hashing", path: file.to_owned() })
}

/// The digest of a file's bytes; `None` if before one of its blocks it did not go on.
fn hash_while(file: &Path, goes_on: &dyn Fn() -> bool) -> io::Result<Option<Digest>> {
    let file = File::open(file)?;
    let mut hasher = blake3::Hasher::new();
    if !goes_on() {
        return Ok(None);
    }
    if file.metadata()?.len() < LARGE {
        hasher.update_reader(file)?;
        return Ok(Some(Digest::from(hasher.finalize())));
    }
    let read = |block: &mut Vec<u8>| {
        block.clear();
        (&file).take(BLOCK).read_to_end(block)
    };
    let (mut block, mut next) = (Vec::new(), Vec::new());
    read(&mut block)?;
    while !block.is_empty() {
        if !goes_on() {
            return Ok(None);
        }
        let hash = || {
            hasher.update_rayon(&block);
        };
        rayon::join(hash, || read(&mut next)).1?;
        mem::swap(&mut block, &mut next);
    }
    Ok(Some(Digest::from(hasher.finalize())))
}

/// Moves `file` into the store under its hash; `sync` forces it to the disk first.
///
/// A whole object that is there already stays: a stage may be reading it, which would take another
/// file in its place for a change, and some programs refuse a file that is replaced meanwhile.
/// `is_right` tells from its stat that it is whole. Other names of `file` in the folder `checkpoint` end
/// with the attempt.
pub(super) fn keep(
    folder: &Path,
    file: &Path,
    checkpoint: &Path,
    sync: bool,
    is_right: impl Fn(Digest, Stat) -> bool,
) -> Result<(Digest, Stat), CacheError> {
    make_its_own(file, checkpoint)?;
    let digest = hash_file(file).map_err(CacheError::io("read", file))?;
    let target = path(folder, digest);
    let whole = || {
        let stat = Stat::of(&target).ok()?;
        let is_whole = is_right(digest, stat) || hash_file(&target).is_ok_and(|found| found == digest);
        is_whole.then_some(stat)
    };
    if let Some(stat) = whole() {
        fs::remove_file(file).map_err(CacheError::io("remove", file))?;
        return Ok((digest, stat));
    }
    let shelf = target.parent().expect("an object lies in a folder");
    fs::create_dir_all(shelf).map_err(CacheError::io("create", shelf))?;
    let written = File::open(file).and_then(|file| {
        // Where times cannot be set, a write shows as long as the clock moves on.
        let _ = file.set_modified(SystemTime::now() - BEFORE);
        if sync { file.sync_all() } else { Ok(()) }
    });
    written.map_err(CacheError::io("write", file))?;
    let mut permissions = fs::metadata(file).map_err(CacheError::io("read", file))?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(file, permissions).map_err(CacheError::io("write", file))?;
    match renameat_with(CWD, file, CWD, &target, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        // Another stage has just kept the same bytes, or what lies there is damaged.
        Err(Errno::EXIST) if let Some(stat) = whole() => {
            fs::remove_file(file).map_err(CacheError::io("remove", file))?;
            return Ok((digest, stat));
        }
        // Damaged, or a file system that cannot tell.
        Err(_) => fs::rename(file, &target).map_err(CacheError::io("write", &target))?,
    }
    if sync {
        sync_name(&target);
    }
    let stat = Stat::of(&target).map_err(CacheError::io("read", &target))?;
    Ok((digest, stat))
}

/// Puts a copy in place of a link, of either kind, to a file that has another name too: who writes
/// there would write into the object. Names in `checkpoint` do not count: states of gigabytes are kept
/// there until the result is recorded.
fn make_its_own(file: &Path, checkpoint: &Path) -> Result<(), CacheError> {
    let found = fs::symlink_metadata(file).map_err(CacheError::io("read", file))?;
    if found.is_file() && (found.nlink() == 1 || found.nlink() == 1 + names_in(checkpoint, &found)) {
        return Ok(());
    }
    let folder = file.parent().expect("an output lies in a folder");
    let copy = NamedTempFile::new_in(folder).map_err(CacheError::io("write to", folder))?;
    fs::copy(file, &copy).map_err(CacheError::io("copy", file))?;
    copy.persist(file).map_err(|err| CacheError::io("write", file)(err.error))?;
    Ok(())
}

/// How many names in `folder` the file has that `found` is of.
fn names_in(folder: &Path, found: &Metadata) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let is_it = |entry: DirEntry| {
        entry.metadata().is_ok_and(|other| (other.dev(), other.ino()) == (found.dev(), found.ino()))
    };
    entries.map(is_it).map(u64::from).sum()
}

/// What lies among the objects and is none, such as what `gzip` made of an object that a stage gave it.
pub(super) fn strays(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = WalkDir::new(folder.join("objects")).min_depth(1).max_depth(2).into_iter();
    let is_stray = |entry: &walkdir::DirEntry| match entry.depth() {
        1 => !entry.file_type().is_dir(),
        _ => digest_of(entry).is_none() || !entry.file_type().is_file(),
    };
    entries.filter_map(Result::ok).filter(is_stray).map(walkdir::DirEntry::into_path)
}

/// The digest that an entry of a shelf is named for.
fn digest_of(entry: &walkdir::DirEntry) -> Option<Digest> {
    let shelf = entry.path().parent()?.file_name()?.to_str()?;
    format!("{shelf}{}", entry.file_name().to_str()?).parse().ok()
}

/// All objects with their sizes.
pub(super) fn all(folder: &Path) -> impl Iterator<Item = (Digest, u64)> {
    let entries =
        WalkDir::new(folder.join("objects")).min_depth(2).max_depth(2).into_iter().filter_map(Result::ok);
    entries.filter_map(|entry| Some((digest_of(&entry)?, entry.metadata().ok()?.len())))
}

/// Removes what lies at `path`, whatever it is.
pub(super) fn remove(path: &Path) -> Result<(), CacheError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(err) => Err(err),
    };
    match removed {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(CacheError::io("remove", path)(err)),
        _ => Ok(()),
    }
}
