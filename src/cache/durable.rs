//! What is still there after a power cut.
//!
//! Results that took [`WORTH_SYNCING`](super::WORTH_SYNCING) are forced to the disk before they count, objects
//! first: contents, then names. Others may be lost with the last seconds before the cut, or be of length
//! zero: both are a miss, and what they took is less than waiting for the disk would.

use std::{fs::File, path::Path};

/// Forces the name of `file` to the disk, which was put in its place just now, and that of its shelf, which
/// may be new. Where the file system knows no such thing, it is left to the system.
pub(super) fn sync_name(file: &Path) {
    for folder in file.ancestors().skip(1).take(2) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}
