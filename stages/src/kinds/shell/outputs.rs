//! What a command writes: how its outputs are declared, where they are written, what is left of them.

use std::{
    collections::BTreeMap,
    error::Error,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::NamedTempFile;

use super::{Invocation, Params, metrics};
use crate::{
    contract::{Event, Job, StageError},
    data::folder::Folder,
};

/// An output as the parameter `outputs` has it: `model`, `plot.svg`, or the folder `model/`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Declared<'a> {
    /// The name of the port.
    pub name: &'a str,
    /// The name with its ending.
    pub file_name: &'a str,
    pub is_folder: bool,
}

impl<'a> Declared<'a> {
    pub fn of(text: &'a str) -> Self {
        let file_name = text.strip_suffix('/').unwrap_or(text);
        let name = file_name.split('.').next().unwrap_or(file_name);
        Self { name, file_name, is_folder: file_name.len() < text.len() }
    }
}

/// Where a command writes an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file or folder: where the output is taken from, but that the name may have an ending.
    pub path: PathBuf,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// Where the outputs of `job` are written.
pub(super) fn written(job: &Job, params: &Params) -> BTreeMap<String, Written> {
    let written = |output: Declared<'_>| {
        let path = job.outputs.get(output.name)?.with_file_name(output.file_name);
        Some((output.name.to_owned(), Written { path, is_folder: output.is_folder }))
    };
    params.declared().filter_map(written).collect()
}

/// What the file of an output is called with its ending, as the parameters `params` of a stage of this kind say.
pub fn file_name<'a>(params: &'a Value, output: &'a str) -> &'a str {
    let outputs = params.get("outputs").and_then(Value::as_array).into_iter().flatten();
    let declared = outputs.filter_map(Value::as_str).map(Declared::of);
    declared
        .filter(|declared| declared.name == output)
        .map(|declared| declared.file_name)
        .next()
        .unwrap_or(output)
}

/// Takes what a command that ended well has left: its outputs are there, its metrics are read, and in the
/// place of each of its folders lies one file that holds it.
pub fn collect(job: &Job, invocation: &Invocation) -> Result<Vec<Event>, StageError> {
    for (name, Written { path, is_folder }) in &invocation.outputs {
        if *is_folder { check_folder(name, path)? } else { check_file(name, path)? }
    }
    let metrics = metrics::read(&invocation.metrics)?;
    if invocation.outputs.values().any(|written| written.is_folder) {
        pack(invocation)?;
    }
    for (name, Written { path, .. }) in &invocation.outputs {
        let place = &job.outputs[name];
        if path != place {
            fs::rename(path, place).map_err(not_kept(name))?;
        }
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
    let help = match with_another_ending(name, path) {
        Some(other) => {
            format!("it wrote `{other}`: write `{other}` under `outputs`, and `{{out.{name}}}` ends so")
        }
        None => format!("the command must write to `{{out.{name}}}`"),
    };
    Err(not_written(name).help(help))
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

/// What was written in place of an output by a program that gave the file an ending.
fn with_another_ending(name: &str, path: &Path) -> Option<String> {
    let entries = fs::read_dir(place_of(path)).ok()?.filter_map(Result::ok);
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.find(|other| Declared::of(other).name == name)
}

fn not_written(name: &str) -> StageError {
    StageError::new(format!("the command ended without writing its output `{name}`"))
}

/// Packs every folder among the outputs.
fn pack(invocation: &Invocation) -> Result<(), StageError> {
    let mut folders = Vec::new();
    for (name, Written { path, is_folder }) in &invocation.outputs {
        if *is_folder {
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
