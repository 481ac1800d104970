//! The files below a folder and their stats, as quickly as the system tells them.
//!
//! Links are followed. One call a file, relative to its folder's descriptor: a path would be
//! looked up from the root for each of them.

use std::{
    ffi::OsStr,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, fstat, openat, statat},
    io::Errno,
};

use super::{CacheError, stat::Stat, vigil::Vigil};

/// Bytes that the system may fill with names at a time.
const NAMES: usize = 64 * 1024;

/// One folder, in the order in which the system lists it.
#[derive(Debug)]
pub(super) struct Listing {
    /// The folder.
    pub path: PathBuf,
    /// Its device and inode; zeros where single files were listed.
    pub own: (u64, u64),
    /// Its files: stat, length of the name and name of each, one after another.
    files: Vec<u8>,
    /// The folders in it.
    pub folders: Vec<Listing>,
    /// The hash of all this, folders included: equal while no file changed, came or went.
    pub hash: [u8; 32],
}

/// A folder that is being listed, with those above it.
struct Above<'a> {
    device: u64,
    inode: u64,
    above: Option<&'a Above<'a>>,
}

impl Above<'_> {
    fn contains(&self, device: u64, inode: u64) -> bool {
        (self.device, self.inode) == (device, inode)
            || self.above.is_some_and(|above| above.contains(device, inode))
    }
}

impl Listing {
    /// Lists all that lies below `folder`, which `vigil` watches from then on.
    pub fn of(folder: &Path, vigil: Option<&Vigil>) -> Result<Self, CacheError> {
        list(folder.to_owned(), None, vigil)
    }

    /// A listing of one level, of these files.
    pub fn flat<'a>(path: &Path, files: impl Iterator<Item = (&'a OsStr, Stat)>) -> Self {
        let mut bytes = Vec::new();
        files.for_each(|(name, stat)| add(&mut bytes, name.as_bytes(), stat));
        Self::new(path.to_owned(), (0, 0), bytes, Vec::new())
    }

    /// The names and stats of the files.
    pub fn files(&self) -> impl Iterator<Item = (&OsStr, Stat)> {
        let mut rest = self.files.as_slice();
        std::iter::from_fn(move || {
            let (stat, after) = rest.split_first_chunk()?;
            let (length, after) = after.split_first_chunk()?;
            let (name, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some((OsStr::from_bytes(name), Stat::from_bytes(*stat)))
        })
    }

    fn new(path: PathBuf, own: (u64, u64), files: Vec<u8>, folders: Vec<Self>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&files);
        for folder in &folders {
            let name = folder.path.file_name().unwrap_or_default().as_bytes();
            // A name has no zero byte and a file no name of 0 bytes: this is no file.
            hasher.update(&[0; Stat::BYTES + 4]).update(name).update(&[0]).update(&folder.hash);
        }
        Self { path, own, files, folders, hash: *hasher.finalize().as_bytes() }
    }
}

fn add(files: &mut Vec<u8>, name: &[u8], stat: Stat) {
    files.extend_from_slice(&stat.to_bytes());
    files.extend_from_slice(&(name.len() as u32).to_le_bytes());
    files.extend_from_slice(name);
}

fn list(path: PathBuf, above: Option<&Above<'_>>, vigil: Option<&Vigil>) -> Result<Listing, CacheError> {
    let failed = |path: &Path, err: Errno| CacheError::io("list", path)(err.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, &path, flags, Mode::empty()).map_err(|err| failed(&path, err))?;
    let own = fstat(&folder).map_err(|err| failed(&path, err))?;
    if above.is_some_and(|above| above.contains(own.st_dev, own.st_ino)) {
        return Err(CacheError::Loop { path });
    }
    let unseen = || vigil.into_iter().for_each(Vigil::give_up);
    vigil.into_iter().for_each(|vigil| vigil.watch(&path));
    let mut files = Vec::new();
    let mut folders = Vec::new();
    {
        let mut space = Vec::with_capacity(NAMES);
        let space: &mut [MaybeUninit<u8>] = space.spare_capacity_mut();
        let mut entries = RawDir::new(&folder, space);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|err| failed(&path, err))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let below = || path.join(OsStr::from_bytes(name.to_bytes()));
            if entry.file_type() == FileType::Directory {
                folders.push(below());
                continue;
            }
            let told = statat(&folder, name, AtFlags::empty()).map_err(|err| {
                if err == Errno::NOENT && entry.file_type() == FileType::Symlink {
                    return CacheError::BrokenLink { path: below() };
                }
                failed(&below(), err)
            })?;
            if entry.file_type() != FileType::RegularFile || told.st_nlink > 1 {
                unseen();
            }
            match FileType::from_raw_mode(told.st_mode) {
                FileType::RegularFile => add(&mut files, name.to_bytes(), Stat::from(&told)),
                FileType::Directory => folders.push(below()),
                _ => {}
            }
        }
    }
    drop(folder);
    let here = Above { device: own.st_dev, inode: own.st_ino, above };
    let folders = if let [_, _, ..] = folders.as_slice() {
        folders.into_par_iter().map(|path| list(path, Some(&here), vigil)).collect::<Result<_, _>>()?
    } else {
        folders.into_iter().map(|path| list(path, Some(&here), vigil)).collect::<Result<_, _>>()?
    };
    Ok(Listing::new(path, (own.st_dev, own.st_ino), files, folders))
}
