//! The Large Movie Review Dataset (Maas et al. 2011) as it is published.
//!
//! Reviews are files `…/{train,test}/{pos,neg}/ID_RATING.txt` in a tar archive, packed with
//! gzip or plain, or in a folder. An archive is read as a stream and never unpacked. All
//! else in it, the unlabelled reviews among them, is passed over.

use std::{
    cell::Cell,
    cmp::Ordering,
    fs::File,
    io::{self, BufReader, Read},
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use flate2::read::MultiGzDecoder;
use tar::Archive;
use walkdir::WalkDir;

use crate::{contract::StageError, data::Review};

/// The first two bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Bytes of a tar archive come in blocks; one of zeros ends it.
const BLOCK: usize = 512;

/// Half of the dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// For training.
    Train,
    /// Held out.
    Test,
}

impl Split {
    /// The name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }
}

/// Where a review stands. The order is that of [`Place::id`] with numbers taken as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    split: Split,
    label: u8,
    number: u64,
    rating: u8,
}

impl Place {
    /// The place that `path` names, if it is that of a review.
    fn of(path: &Path) -> Option<Self> {
        let mut names = path.iter().rev().map(|name| name.to_str());
        let (number, rating) = names.next()??.strip_suffix(".txt")?.split_once('_')?;
        let label = match names.next()?? {
            "neg" => 0,
            "pos" => 1,
            _ => return None,
        };
        let split = match names.next()?? {
            "train" => Split::Train,
            "test" => Split::Test,
            _ => return None,
        };
        let place = Self { split, label, number: digits(number)?, rating: digits(rating)?.try_into().ok()? };
        (place.id().rsplit('/').next() == path.file_name()?.to_str()).then_some(place)
    }

    fn id(self) -> String {
        let label = if self.label == 1 { "pos" } else { "neg" };
        format!("{}/{label}/{}_{}.txt", self.split.name(), self.number, self.rating)
    }
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The reviews of both splits, each sorted by id with its numbers taken as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AclImdb {
    /// For training.
    pub train: Vec<Review>,
    /// Held out.
    pub test: Vec<Review>,
    /// Files that are no labelled review.
    pub passed_over: u64,
}

/// Reads the archive or folder at `path`, calling `progress` with the reviews read so far.
///
/// # Errors
///
/// A file that is no archive, a truncated or damaged archive, one with absolute paths or
/// `..`, text that is not UTF-8, a review that is there twice, and no reviews at all.
pub fn read(path: &Path, progress: impl Fn(u64)) -> Result<AclImdb, StageError> {
    let metadata = std::fs::metadata(path).map_err(|err| StageError::io("read", path, err))?;
    let mut found = Found { reviews: Vec::new(), passed_over: 0, progress };
    if metadata.is_dir() {
        read_folder(path, &mut found)?;
    } else {
        read_archive(path, &mut found)?;
    }
    found.sort(path)
}

/// What has been read so far, in the order of the archive.
struct Found<P> {
    reviews: Vec<(Place, String)>,
    passed_over: u64,
    progress: P,
}

impl<P: Fn(u64)> Found<P> {
    fn add(&mut self, place: Place, text: Vec<u8>) -> Result<(), StageError> {
        let text = String::from_utf8(text).map_err(|err| {
            StageError::new(format!("review `{}` is not UTF-8 text", place.id())).because(err.utf8_error())
        })?;
        self.reviews.push((place, text));
        (self.progress)(self.reviews.len() as u64);
        Ok(())
    }

    fn sort(mut self, path: &Path) -> Result<AclImdb, StageError> {
        if self.reviews.is_empty() {
            let message = format!("`{}` has no reviews inside", path.display());
            return Err(StageError::new(message).help(format!(
                "reviews are files `{{train,test}}/{{pos,neg}}/ID_RATING.txt`; {} other files were passed over",
                self.passed_over
            )));
        }
        self.reviews.sort_by_key(|(place, _)| *place);
        if let Some(pair) = self.reviews.windows(2).find(|pair| pair[0].0.cmp(&pair[1].0) == Ordering::Equal)
        {
            let id = pair[0].0.id();
            return Err(StageError::new(format!("review `{id}` is in `{}` twice", path.display())));
        }
        let mut sorted = AclImdb { passed_over: self.passed_over, ..AclImdb::default() };
        for (place, text) in self.reviews {
            let review = Review {
                id: place.id(),
                label: place.label,
                rating: Some(place.rating),
                text,
                synthetic: false,
            };
            match place.split {
                Split::Train => sorted.train.push(review),
                Split::Test => sorted.test.push(review),
            }
        }
        Ok(sorted)
    }
}

fn read_folder(folder: &Path, found: &mut Found<impl Fn(u64)>) -> Result<(), StageError> {
    for entry in WalkDir::new(folder).follow_links(true) {
        let entry = entry.map_err(|err| {
            StageError::new(format!("cannot read the folder `{}`", folder.display())).because(err)
        })?;
        if !entry.file_type().is_file() {
            continue;
        }
        let inside = entry.path().strip_prefix(folder).expect("an entry lies in its folder");
        match Place::of(inside) {
            None => found.passed_over += 1,
            Some(place) => {
                let text = std::fs::read(entry.path());
                found.add(place, text.map_err(|err| StageError::io("read", entry.path(), err))?)?;
            }
        }
    }
    Ok(())
}

fn read_archive(path: &Path, found: &mut Found<impl Fn(u64)>) -> Result<(), StageError> {
    let mut file = File::open(path).map_err(|err| StageError::io("read", path, err))?;
    let mut start = Vec::new();
    file.by_ref().take(2).read_to_end(&mut start).map_err(|err| StageError::io("read", path, err))?;
    if start.is_empty() {
        return Err(StageError::new(format!("`{}` is empty", path.display())));
    }
    let is_gzip = start == GZIP;
    let file = BufReader::with_capacity(1 << 16, io::Cursor::new(start).chain(file));
    let bytes: Box<dyn Read> = if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let end = Rc::new(End::default());
    let mut archive = Archive::new(Watched { bytes, end: Rc::clone(&end) });
    let mut last = None;
    let result = read_entries(&mut archive, found, &mut last);
    let failed = match result {
        // What follows the last entry holds the checksum of a gzip file.
        Ok(()) => io::copy(&mut archive.into_inner(), &mut io::sink()).err(),
        Err(Failure::Archive(err)) => Some(err),
        Err(Failure::Stage(err)) => return Err(err),
    };
    let whole = failed.is_none() && end.zeros.get() >= BLOCK;
    if whole {
        return Ok(());
    }
    let place = last.map_or(String::new(), |entry| format!(" after `{}`", entry.display()));
    let message = if end.reached.get() && (is_gzip || !place.is_empty()) {
        format!("the archive `{}` is truncated: it ends early{place}", path.display())
    } else if place.is_empty() {
        format!("`{}` is no tar archive, packed with gzip or plain", path.display())
    } else {
        format!("the archive `{}` is damaged{place}", path.display())
    };
    let err = StageError::new(message).help("get the archive again, and check its hash");
    Err(match failed {
        Some(cause) => err.because(cause),
        None => err,
    })
}

/// Why entries could not be read.
enum Failure {
    /// The bytes are no whole archive.
    Archive(io::Error),
    /// They are, but what is in it cannot be used.
    Stage(StageError),
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        Failure::Archive(err)
    }
}

/// Reads every review of `archive`; `last` tells how far that went.
fn read_entries(
    archive: &mut Archive<Watched>,
    found: &mut Found<impl Fn(u64)>,
    last: &mut Option<PathBuf>,
) -> Result<(), Failure> {
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            let message = format!("the archive has an entry outside its folder: `{}`", path.display());
            let err = StageError::new(message).help("such an archive is not to be trusted: get another");
            return Err(Failure::Stage(err));
        }
        if entry.header().entry_type().is_file() {
            match Place::of(&path) {
                None => found.passed_over += 1,
                Some(place) => {
                    let mut text = Vec::new();
                    entry.read_to_end(&mut text)?;
                    if text.len() as u64 != entry.size() {
                        return Err(Failure::Archive(io::ErrorKind::UnexpectedEof.into()));
                    }
                    found.add(place, text).map_err(Failure::Stage)?;
                }
            }
        }
        *last = Some(path);
    }
    Ok(())
}

/// How the bytes of an archive ended.
#[derive(Default)]
struct End {
    /// Whether the last byte has been read.
    reached: Cell<bool>,
    /// Zeros at the end of what has been read.
    zeros: Cell<usize>,
}

/// The bytes of an archive, watched: the crate `tar` takes an archive that was cut between
/// two entries for a whole one.
struct Watched {
    bytes: Box<dyn Read>,
    end: Rc<End>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.bytes.read(buffer);
        match &result {
            Ok(0) => self.end.reached.set(self.end.reached.get() || !buffer.is_empty()),
            Ok(count) => {
                let zeros = buffer[..*count].iter().rev().take_while(|byte| **byte == 0).count();
                let before = if zeros == *count { self.end.zeros.get() } else { 0 };
                self.end.zeros.set(before.saturating_add(zeros));
            }
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => self.end.reached.set(true),
            Err(_) => {}
        }
        result
    }
}
