//! What a command that ended well has left.

use std::{error::Error, fs, io, os::unix::fs::PermissionsExt, path::Path};

use tempfile::NamedTempFile;

use super::{Invocation, metrics};
use crate::{
    contract::{Event, Job, StageError},
    data::folder::Folder,
};

/// Takes what a command that ended well has left: its outputs are there, its metrics are read, and in the
/// place of each of its folders lies one file that holds it.
pub fn collect(job: &Job, invocation: &Invocation) -> Result<Vec<Event>, StageError> {
    for (name, path) in &job.outputs {
        if invocation.folders.contains(name) {
            check_folder(name, path)?;
        } else {
            check_file(name, path)?;
        }
    }
    let metrics = invocation.metrics.as_ref();
    let metrics = metrics.map_or(Ok(Vec::new()), |metrics| metrics::read(&metrics.name, &metrics.path))?;
    if !invocation.folders.is_empty() {
        pack(job, invocation)?;
    }
    Ok(metrics)
}

fn check_file(name: &str, path: &Path) -> Result<(), StageError> {
    if path.is_file() {
        return Ok(());
    }
    if path.is_dir() {
        let help = format!("write `{name}/` under `outputs`: with the slash, an output is a folder");
        return Err(StageError::new(format!("output `{name}` is a folder")).help(help));
    }
    if path.exists() {
        let help = format!("write a file to `{{out.{name}}}`, not a pipe, socket or device");
        return Err(StageError::new(format!("output `{name}` is no file")).help(help));
    }
    Err(not_written(name).help(format!("the command must write to `{{out.{name}}}`")))
}

fn check_folder(name: &str, path: &Path) -> Result<(), StageError> {
    if path.is_dir() {
        return Ok(());
    }
    if path.exists() {
        let help = format!(
            "the command must make a folder there, as with `mkdir -p {{out.{name}}}`; \
             for a file, write `{name}` under `outputs`, without the slash"
        );
        return Err(StageError::new(format!("output `{name}` is no folder")).help(help));
    }
    let help = format!("the command must make a folder there, as with `mkdir -p {{out.{name}}}`");
    Err(not_written(name).help(help))
}

fn not_written(name: &str) -> StageError {
    StageError::new(format!("the command ended without writing its output `{name}`"))
}

/// Packs every folder among the outputs.
fn pack(job: &Job, invocation: &Invocation) -> Result<(), StageError> {
    let mut folders = Vec::new();
    for (name, path) in &job.outputs {
        if invocation.folders.contains(name) {
            folders.push((name, path, Folder::list(path).map_err(not_kept(name))?));
        } else if path.is_symlink() {
            // What it leads to may lie in one of the folders.
            copy_linked(path).map_err(not_kept(name))?;
        }
    }
    // A link of one folder may lead into another.
    let removing = !folders.iter().any(|(_, _, folder)| folder.has_links());
    let mut packed = Vec::new();
    for (name, path, folder) in folders {
        let tar = beside(path).map_err(not_kept(name))?;
        folder.pack(tar.as_file(), removing).map_err(not_kept(name))?;
        packed.push((name, path, tar));
    }
    packed.into_iter().try_for_each(|(name, path, tar)| replace(path, tar).map_err(not_kept(name)))
}

fn not_kept<E: Error + Send + Sync + 'static>(name: &str) -> impl FnOnce(E) -> StageError {
    move |err| StageError::new(format!("output `{name}` cannot be kept")).because(err)
}

/// A new file in the folder of `path`, with the permissions that files usually have.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let mut new = tempfile::Builder::new();
    new.permissions(fs::Permissions::from_mode(0o666)).tempfile_in(place_of(path))
}

fn place_of(output: &Path) -> &Path {
    output.parent().expect("an output lies in a folder")
}

/// Puts a copy in place of a link.
fn copy_linked(path: &Path) -> io::Result<()> {
    let copy = beside(path)?;
    fs::copy(path, &copy)?;
    copy.persist(path)?;
    Ok(())
}

/// Puts `file` in place of a folder, or of a link to one.
fn replace(folder: &Path, file: NamedTempFile) -> io::Result<()> {
    if folder.is_symlink() {
        fs::remove_file(folder)?;
        file.persist(folder)?;
    } else {
        // A folder that it may not write to, as Go leaves, cannot be removed at once: it goes with the attempt.
        let aside = tempfile::tempdir_in(place_of(folder))?;
        fs::rename(folder, aside.path())?;
        file.persist(folder)?;
    }
    Ok(())
}
