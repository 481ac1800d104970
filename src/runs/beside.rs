//! Files that lie beside the database: its log of changes, copies, what was set aside.

use std::path::{Path, PathBuf};

/// The file whose name is that of `path` and `ending`, such as `runs.db-wal`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
