//! Files that are asked for with `--out`.

use std::{fs, io, path::Path};

use super::Failure;

/// Writes a file, and makes the folder that it is in.
pub(super) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    folder_of(path).and_then(|_| fs::write(path, bytes)).map_err(|err| cannot_write(path, &err))
}

/// The folder in which `path` lies, made if it is not there.
pub(super) fn folder_of(path: &Path) -> io::Result<&Path> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    Ok(folder)
}

/// Why nothing can be written to `path`: a place where none can be is input that cannot be used.
pub(super) fn cannot_write(path: &Path, err: &io::Error) -> Failure {
    use io::ErrorKind::{AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, NotFound};
    let is_no_place =
        matches!(err.kind(), AlreadyExists | InvalidFilename | IsADirectory | NotADirectory | NotFound);
    let code = if is_no_place { 2 } else { 1 };
    Failure::input(format!("cannot write `{}`: {err}", path.display())).exit(code)
}
