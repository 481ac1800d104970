//! What the file system tells of a file without reading it.

use std::{fs::Metadata, io, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

/// A clock tick of the kernel, which stamps files, is at most 10 ms.
const TICK: i64 = 20_000_000;
/// What file systems of other machines and old ones may round times to.
const COARSE: i64 = 2_000_000_000;

/// File systems of this machine that store times in nanoseconds, by the magic number of `statfs`:
/// ext4, XFS, Btrfs, tmpfs, F2FS, ZFS, bcachefs and overlays of them.
const FINE: [u32; 8] =
    [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0xF2F5_2010, 0x2FC1_2FC1, 0xCA45_1A4E, 0x794C_7630];

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
    /// Bytes of [`Self::to_bytes`].
    pub const BYTES: usize = 40;
    /// No file has it: it stands for a stat that cannot be trusted.
    pub const NONE: Self = Self { size: 0, modified: 0, changed: 0, inode: 0, device: 0 };

    /// Follows links.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }

    /// Whether size or time of write say that somebody wrote since the file had the stat `before`.
    pub fn was_written_after(&self, before: &Self) -> bool {
        (self.size, self.modified) != (before.size, before.modified)
    }

    /// Its numbers, one after another.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let numbers = [self.size, self.modified as u64, self.changed as u64, self.inode, self.device]
            .map(u64::to_le_bytes);
        let mut bytes = [0; Self::BYTES];
        bytes.copy_from_slice(numbers.as_flattened());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let (numbers, _) = bytes.as_chunks::<8>();
        let number = |at: usize| u64::from_le_bytes(numbers[at]);
        Self {
            size: number(0),
            modified: number(1) as i64,
            changed: number(2) as i64,
            inode: number(3),
            device: number(4),
        }
    }

    /// From when on, in nanoseconds since 1970, a later write must show in the stat.
    ///
    /// `is_fine` says that the file lies on a file system that [`has_fine_times`].
    pub fn settles(self, is_fine: bool) -> i64 {
        // A whole second is what ext4 says where its inodes have no room for more.
        let is_fine = is_fine && self.changed % 1_000_000_000 != 0;
        self.modified.max(self.changed).saturating_add(if is_fine { TICK } else { COARSE })
    }
}

/// Whether the file system at `path` is one whose times show every later write.
pub(super) fn has_fine_times(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|told| FINE.contains(&(told.f_type as u32)))
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

impl From<&Metadata> for Stat {
    fn from(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

impl From<&rustix::fs::Stat> for Stat {
    fn from(told: &rustix::fs::Stat) -> Self {
        Self {
            size: told.st_size as u64,
            modified: nanoseconds(told.st_mtime, told.st_mtime_nsec as i64),
            changed: nanoseconds(told.st_ctime, told.st_ctime_nsec as i64),
            inode: told.st_ino,
            device: told.st_dev,
        }
    }
}
