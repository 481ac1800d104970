//! What the file system tells of a file without reading it.

use std::{fs::Metadata, io, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

/// Two equal stats mean equal contents, unless the file was written while it was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stat {
    /// Bytes.
    pub size: u64,
    /// Time of the last write, nanoseconds since 1970.
    pub modified: i64,
    /// Time of the last change of contents or attributes, nanoseconds since 1970; cannot be set by hand.
    pub changed: i64,
    /// Number of the file on its device.
    pub inode: u64,
    /// The device.
    pub device: u64,
}

impl Stat {
    /// Follows links.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Stat {
    fn from(metadata: &Metadata) -> Self {
        let nanoseconds =
            |seconds: i64, nanoseconds: i64| seconds.saturating_mul(1_000_000_000) + nanoseconds;
        Self {
            size: metadata.size(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}
