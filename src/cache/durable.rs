//! Files that are whole or not there, and still there after a power cut where they are worth it.
//!
//! Results that took [`WORTH_SYNCING`](super::WORTH_SYNCING) are forced to the disk before they count, objects
//! first: contents, then names. Others may be lost with the last seconds before the cut, or be of length
//! zero: both are a miss, and what they took is less than waiting for the disk would.

use std::{
    fs::{File, Permissions, create_dir_all},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::Builder;

use super::CacheError;

/// What everybody may do with a new file whom the umask does not keep from it.
const USUAL: u32 = 0o666;

/// Writes a file in one step, with its folder: readers see nothing, or all of it.
pub(super) fn write(target: &Path, bytes: &[u8], sync: bool) -> Result<(), CacheError> {
    let shelf = target.parent().expect("what is kept lies in a folder");
    let failed = || CacheError::io("write", target);
    create_dir_all(shelf).map_err(CacheError::io("create", shelf))?;
    // A temporary file is its owner's alone; what becomes of it is for all who share the project.
    let permissions = Permissions::from_mode(USUAL);
    let mut file = Builder::new().permissions(permissions).tempfile_in(shelf).map_err(failed())?;
    file.write_all(bytes).map_err(failed())?;
    if sync {
        file.as_file().sync_all().map_err(failed())?;
    }
    file.persist(target).map_err(|err| failed()(err.error))?;
    if sync {
        sync_name(target);
    }
    Ok(())
}

/// Forces the name of `file` to the disk, which was put in its place just now, and that of its shelf, which
/// may be new. Where the file system knows no such thing, it is left to the system.
pub(super) fn sync_name(file: &Path) {
    for folder in file.ancestors().skip(1).take(2) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}
