//! Where two packed folders differ: in which of their files, and where in those.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use blake3::{Hash, Hasher};
use tar::Archive;
use tempfile::NamedTempFile;

use super::PIECE;
use crate::data::difference::{self, Comparison};

/// A file in an archive.
#[derive(PartialEq)]
struct Packed {
    is_executable: bool,
    hash: Hash,
    /// Where its bytes begin.
    start: u64,
    size: u64,
}

/// Compares two folders that [`super::Folder::pack`] wrote; numbers may be `tolerance` apart, and with 0
/// every byte counts. Files that differ are written to `scratch` meanwhile.
pub fn compare(old: &Path, new: &Path, tolerance: f64, scratch: &Path) -> io::Result<Comparison> {
    let (before, after) = (files(old)?, files(new)?);
    let mut largest = None;
    for name in before.keys().chain(after.keys()) {
        let shown = name.display();
        let place = match (before.get(name), after.get(name)) {
            (Some(_), None) => format!("file `{shown}` is missing"),
            (None, _) => format!("file `{shown}` is new"),
            (Some(a), Some(b)) if a.is_executable != b.is_executable => {
                format!("file `{shown}` is {}executable", if b.is_executable { "" } else { "not " })
            }
            (Some(a), Some(b)) if a.hash == b.hash => continue,
            (Some(a), Some(b)) => {
                let (a, b) = (a.taken_from(old, scratch)?, b.taken_from(new, scratch)?);
                match difference::compare(a.path(), b.path(), tolerance)? {
                    Comparison::Identical => continue,
                    Comparison::Within { largest: apart } => {
                        largest = Some(largest.map_or(apart, |largest: f64| largest.max(apart)));
                        continue;
                    }
                    Comparison::Different { place, largest } => {
                        return Ok(Comparison::Different {
                            place: format!("file `{shown}`: {place}"),
                            largest,
                        });
                    }
                }
            }
        };
        return Ok(Comparison::Different { place, largest: None });
    }
    Ok(largest.map_or(Comparison::Identical, |largest| Comparison::Within { largest }))
}

/// The files that are packed in `tar`, by name.
fn files(tar: &Path) -> io::Result<BTreeMap<PathBuf, Packed>> {
    let mut archive = Archive::new(BufReader::with_capacity(PIECE, File::open(tar)?));
    let packed = archive.entries()?.map(|entry| {
        let mut entry = entry?;
        let name = entry.path()?.components().collect();
        let is_executable = entry.header().mode()? & 0o100 != 0;
        let (start, size) = (entry.raw_file_position(), entry.size());
        let hash = Hasher::new().update_reader(&mut entry)?.finalize();
        Ok((name, Packed { is_executable, hash, start, size }))
    });
    packed.collect()
}

impl Packed {
    /// The file, out of the archive that it is packed in.
    fn taken_from(&self, tar: &Path, scratch: &Path) -> io::Result<NamedTempFile> {
        let mut tar = File::open(tar)?;
        tar.seek(SeekFrom::Start(self.start))?;
        let mut file = NamedTempFile::new_in(scratch)?;
        io::copy(&mut tar.take(self.size), &mut file)?;
        Ok(file)
    }
}
