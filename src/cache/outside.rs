//! Files and folders that no stage wrote, known by content behind a stat cache.
//!
//! The index keeps one record for each file, folder level and pattern: the hash of its listing
//! (names and stats) and its digest. While the listing is the same, nothing more is looked at; where it
//! is not, only the levels that differ are read, and only files whose own stat differs are hashed.
//! A stat counts only if a write after the hashing must have changed it.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rayon::prelude::*;

use super::{
    CacheError,
    index::{Index, Seen},
    objects,
    stat::{Stat, has_fine_times},
    tree::{self, Entry, Tree},
    vigil::Vigil,
    walk::Listing,
};
use crate::{digest::Digest, halt::Halt, pattern::matching_files};

/// Longest wait for a file that was written just now to settle.
const PATIENCE: i64 = 20_000_000;
/// The listing of a record that cannot be trusted.
const NO_LISTING: [u8; 32] = [0; 32];

/// An input outside the cache, as it was when it was looked at.
#[derive(Debug, Clone)]
pub struct Outside {
    /// The hash of its contents.
    pub digest: Digest,
    /// The file, or the folder that relative names start from.
    pub path: PathBuf,
    what: What,
    listing: [u8; 32],
}

#[derive(Debug, Clone)]
enum What {
    File,
    /// Watched since before it was listed; with its device and inode.
    Folder {
        vigil: Vigil,
        own: (u64, u64),
    },
    Glob {
        pattern: String,
        names: Vec<PathBuf>,
    },
}

impl Outside {
    /// The files that a pattern named, relative to [`Self::path`]; none for a file or a folder.
    pub fn names(&self) -> &[PathBuf] {
        if let What::Glob { names, .. } = &self.what { names } else { &[] }
    }

    /// Whether a file was written, replaced, added or removed since it was looked at.
    pub fn has_changed(&self) -> bool {
        if let What::Folder { vigil, own } = &self.what
            && vigil.saw_nothing()
            && leads_to(&self.path, *own)
        {
            return false;
        }
        self.listed().is_none_or(|listing| listing.hash != self.listing)
    }

    /// What it is now; none if it cannot be listed.
    pub(super) fn listed(&self) -> Option<Listing> {
        match &self.what {
            What::File => Stat::of(&self.path).map(|stat| of_file(&self.path, stat)).ok(),
            What::Folder { .. } => Listing::of(&self.path, None).ok(),
            What::Glob { pattern, .. } => Listed::glob(&self.path, pattern).ok().map(|listed| listed.listing),
        }
    }

    /// The name of its record in the index; none for a file, whose digest says all.
    pub(super) fn record(&self) -> Option<Vec<u8>> {
        match &self.what {
            What::File => None,
            What::Folder { .. } => Some(folder_record(&self.path)),
            What::Glob { pattern, .. } => Some(glob_record(&self.path, pattern)),
        }
    }
}

/// A listing, and the files that a pattern named for it.
#[derive(Debug)]
struct Listed {
    names: Vec<PathBuf>,
    listing: Listing,
}

impl Listed {
    fn folder(path: &Path, looks: &Looks) -> Result<Self, CacheError> {
        Ok(Self { names: Vec::new(), listing: Listing::of(path, Some(looks.vigil()))? })
    }

    fn glob(root: &Path, pattern: &str) -> Result<Self, CacheError> {
        let names = matching_files(root, pattern).map_err(CacheError::Pattern)?;
        let listing = of_files(root, &names)?;
        Ok(Self { names, listing })
    }
}

/// What the looks of one process share.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Watches all folders together: one event makes all of them be looked at again.
    vigil: OnceLock<Vigil>,
    /// What was listed and not looked up yet, by the name of its record.
    listed: Mutex<HashMap<Vec<u8>, Listed>>,
}

impl Looks {
    fn vigil(&self) -> &Vigil {
        self.vigil.get_or_init(Vigil::begin)
    }

    /// The digest of what was listed, if that is known; else keeps the list for who asks the long way.
    fn known(&self, index: &Index, record: Vec<u8>, listed: Listed) -> Option<Digest> {
        let digest = known(index, &record, &listed.listing);
        if digest.is_none() {
            self.listed().insert(record, listed);
        }
        digest
    }

    fn take(&self, record: &[u8]) -> Option<Listed> {
        self.listed().remove(record)
    }

    fn listed(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Listed>> {
        self.listed.lock().expect("keeping a list does not panic")
    }
}

/// The digest of one file, if its stat is known.
pub(super) fn known_file(index: &Index, root: &Path, file: &Path) -> Option<Digest> {
    let path = root.join(file);
    known(index, &file_record(&path), &of_file(&path, Stat::of(&path).ok()?))
}

/// The digest of a folder, if its listing is known; else the listing is kept for [`folder`].
pub(super) fn known_folder(index: &Index, looks: &Looks, root: &Path, folder: &Path) -> Option<Digest> {
    let path = root.join(folder);
    looks.known(index, folder_record(&path), Listed::folder(&path, looks).ok()?)
}

/// The same for the files that match `pattern`, and [`glob`].
pub(super) fn known_glob(index: &Index, looks: &Looks, root: &Path, pattern: &str) -> Option<Digest> {
    looks.known(index, glob_record(root, pattern), Listed::glob(root, pattern).ok()?)
}

fn known(index: &Index, record: &[u8], listing: &Listing) -> Option<Digest> {
    index.outside(record).filter(|(known, _)| *known == listing.hash).map(|(_, digest)| digest)
}

/// Looks at one file; `file` is relative to `root` or absolute.
pub(super) fn file(index: &Index, halt: &Halt, root: &Path, file: &Path) -> Result<Outside, CacheError> {
    let path = root.join(file);
    let stat = match Stat::of(&path) {
        // A pipe or a device would be read without an end.
        Ok(_) if !path.is_file() => return Err(CacheError::NoFile { path }),
        Ok(stat) => stat,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(CacheError::Missing { path }),
        Err(err) => return Err(CacheError::io("read", &path)(err)),
    };
    let record = file_record(&path);
    let listing = of_file(&path, stat);
    let digest = match known(index, &record, &listing) {
        Some(digest) => digest,
        None => {
            let settles = stat.settles(has_fine_times(&path));
            let hashed_at = now_or_settled([settles].into_iter());
            let digest = objects::hash_unless(halt, &path)?;
            let trusted = if settles < hashed_at { listing.hash } else { NO_LISTING };
            index.add_outside(&record, Seen { listing: trusted, digest, record: Vec::new() });
            digest
        }
    };
    Ok(Outside { digest, path, what: What::File, listing: listing.hash })
}

/// Looks at all files of a folder, links followed.
pub(super) fn folder(
    index: &Index,
    halt: &Halt,
    looks: &Looks,
    root: &Path,
    folder: &Path,
) -> Result<Outside, CacheError> {
    let path = root.join(folder);
    if !path.is_dir() {
        return Err(CacheError::Missing { path });
    }
    let record = folder_record(&path);
    let Listed { listing, .. } = looks.take(&record).map_or_else(|| Listed::folder(&path, looks), Ok)?;
    let digest = look(index, halt, &record, &listing)?.digest;
    let digest = digest.unwrap_or_else(|| tree::digest(&[]));
    let what = What::Folder { vigil: looks.vigil().clone(), own: listing.own };
    Ok(Outside { digest, path, what, listing: listing.hash })
}

/// Looks at all files that match `pattern`, which is relative to `root`.
pub(super) fn glob(
    index: &Index,
    halt: &Halt,
    looks: &Looks,
    root: &Path,
    pattern: &str,
) -> Result<Outside, CacheError> {
    let record = glob_record(root, pattern);
    let Listed { names, listing } = looks.take(&record).map_or_else(|| Listed::glob(root, pattern), Ok)?;
    let Some(digest) = look(index, halt, &record, &listing)?.digest else {
        return Err(CacheError::Missing { path: root.join(pattern) });
    };
    let what = What::Glob { pattern: pattern.to_owned(), names };
    Ok(Outside { digest, path: root.to_owned(), what, listing: listing.hash })
}

/// Whether `path` still leads to this device and inode: another folder may stand in place of a watched one.
fn leads_to(path: &Path, own: (u64, u64)) -> bool {
    Stat::of(path).is_ok_and(|stat| (stat.device, stat.inode) == own)
}

fn of_file(path: &Path, stat: Stat) -> Listing {
    Listing::flat(path, [(OsStr::new(""), stat)].into_iter())
}

fn of_files(root: &Path, names: &[PathBuf]) -> Result<Listing, CacheError> {
    let stat = |name: &PathBuf| {
        let path = root.join(name);
        Stat::of(&path).map_err(CacheError::io("read", &path))
    };
    let stats = names.iter().map(stat).collect::<Result<Vec<_>, _>>()?;
    Ok(Listing::flat(root, names.iter().map(|name| name.as_os_str()).zip(stats)))
}

fn file_record(path: &Path) -> Vec<u8> {
    [b"file:", path.as_os_str().as_bytes()].concat()
}

/// The name of the record of a folder.
pub(super) fn folder_record(path: &Path) -> Vec<u8> {
    [b"dir:", path.as_os_str().as_bytes()].concat()
}

fn glob_record(root: &Path, pattern: &str) -> Vec<u8> {
    [b"glob:", root.as_os_str().as_bytes(), b"\0", pattern.as_bytes()].concat()
}

/// What a listing contains.
struct Contents {
    /// `None` where there is no file at all.
    digest: Option<Digest>,
    /// Whether the same listing will mean the same contents.
    is_settled: bool,
}

/// The digest of what `listing` lists, from its record or from the files.
fn look(index: &Index, halt: &Halt, record: &[u8], listing: &Listing) -> Result<Contents, CacheError> {
    if let Some((known, digest)) = index.outside(record)
        && known == listing.hash
    {
        return Ok(Contents { digest: Some(digest), is_settled: true });
    }
    let below = |folder: &Listing| look(index, halt, &folder_record(&folder.path), folder);
    let folders: Vec<Contents> = if let [one] = listing.folders.as_slice() {
        vec![below(one)?]
    } else {
        listing.folders.par_iter().map(below).collect::<Result<_, _>>()?
    };
    let known = index.outside_record(record).and_then(|bytes| Known::from_bytes(&bytes)).unwrap_or_default();
    let mut is_settled = folders.iter().all(|folder| folder.is_settled);
    let mut entries = Vec::new();
    for (file, stat) in hash_files(halt, listing, &known)? {
        is_settled &= stat != Stat::NONE;
        entries.push((file, stat));
    }
    for (folder, contents) in listing.folders.iter().zip(&folders) {
        let name = folder.path.file_name().unwrap_or_default().as_bytes().to_vec();
        entries.extend(contents.digest.map(|digest| (Entry { name, is_folder: true, digest }, Stat::NONE)));
    }
    if entries.is_empty() {
        return Ok(Contents { digest: None, is_settled });
    }
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let (entries, stats) = entries.into_iter().unzip();
    let known = Known { tree: Tree { entries }, stats };
    let tree = known.tree.to_bytes();
    let digest = tree::digest(&tree);
    let trusted = if is_settled { listing.hash } else { NO_LISTING };
    index.add_outside(record, Seen { listing: trusted, digest, record: known.to_bytes(&tree) });
    Ok(Contents { digest: Some(digest), is_settled })
}

/// The files of one level with their digests, hashing those that `known` does not have with the same
/// stat. The stat returned is [`Stat::NONE`] where it cannot be trusted.
fn hash_files(halt: &Halt, listing: &Listing, known: &Known) -> Result<Vec<(Entry, Stat)>, CacheError> {
    let mut files = Vec::new();
    let mut unknown = Vec::new();
    for (name, stat) in listing.files() {
        match known.digest(name.as_bytes(), stat) {
            Some(digest) => {
                files.push((Entry { name: name.as_bytes().to_vec(), is_folder: false, digest }, stat));
            }
            None => unknown.push((name, stat)),
        }
    }
    if unknown.is_empty() {
        return Ok(files);
    }
    let is_fine = has_fine_times(&listing.path);
    let own_device = Stat::of(&listing.path).map_or(0, |stat| stat.device);
    let settles = |stat: Stat| stat.settles(is_fine && stat.device == own_device);
    let hashed_at = now_or_settled(unknown.iter().map(|(_, stat)| settles(*stat)));
    let hashed: Vec<(Entry, Stat)> = unknown
        .into_par_iter()
        .map(|(name, stat)| {
            let path = listing.path.join(name);
            let digest = objects::hash_unless(halt, &path)?;
            let entry = Entry { name: name.as_bytes().to_vec(), is_folder: false, digest };
            Ok((entry, if settles(stat) < hashed_at { stat } else { Stat::NONE }))
        })
        .collect::<Result<_, CacheError>>()?;
    files.extend(hashed);
    Ok(files)
}

/// The time, once those of `settles` have passed that lie less than [`PATIENCE`] ahead.
fn now_or_settled(settles: impl Iterator<Item = i64>) -> i64 {
    let now = now();
    let near = settles.map(|at| at - now).filter(|left| (0..=PATIENCE).contains(left)).max();
    let Some(left) = near else { return now };
    thread::sleep(Duration::from_nanos(left.unsigned_abs() + 1));
    self::now()
}

fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX)
}

/// What the index keeps of one level: its tree, and the stat that each file was hashed with.
#[derive(Default)]
pub(super) struct Known {
    pub tree: Tree,
    stats: Vec<Stat>,
}

impl Known {
    /// The digest of the file called `name` if it still has the stat that it was hashed with.
    fn digest(&self, name: &[u8], stat: Stat) -> Option<Digest> {
        let at = self.tree.place(name)?;
        let entry = &self.tree.entries[at];
        (!entry.is_folder && self.stats[at] == stat).then_some(entry.digest)
    }

    /// The stat that the entry called `name` was hashed with.
    pub fn stat(&self, name: &[u8]) -> Option<Stat> {
        self.tree.place(name).map(|at| self.stats[at])
    }

    fn to_bytes(&self, tree: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.stats.len() * Stat::BYTES + tree.len());
        bytes.extend_from_slice(&(self.stats.len() as u32).to_le_bytes());
        self.stats.iter().for_each(|stat| bytes.extend_from_slice(&stat.to_bytes()));
        bytes.extend_from_slice(tree);
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (stats, tree) = split_record(bytes)?;
        let stats: Vec<Stat> = stats.as_chunks().0.iter().map(|stat| Stat::from_bytes(*stat)).collect();
        let tree = Tree::from_bytes(tree)?;
        (tree.entries.len() == stats.len()).then_some(Self { tree, stats })
    }
}

/// The tree in a record of the index.
pub(super) fn tree_in(record: &[u8]) -> Option<&[u8]> {
    split_record(record).map(|(_, tree)| tree)
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(Stat::BYTES)?)
}
