//! Whether the files that a pipeline takes from outside are there.

use std::{
    ffi::OsStr,
    fs,
    path::{Component, Path},
};

use walkdir::WalkDir;

use super::{Source, StageSpec, places::Spot, problem::Finding, suggest::Suggestions};
use crate::pattern::{PatternError, matching_files, names_one_of};

/// What `pipe` itself writes in a project, during each run.
const OWN: [&str; 4] = ["cache/v1", "runs.db", "runs.db-wal", "runs.db-shm"];
/// Files that are among it in every project, by which a pattern is known that names some of it.
const OWN_FILES: [&str; 5] = ["cache/v1/index.db", "cache/v1/lock", "runs.db", "runs.db-wal", "runs.db-shm"];

/// The code of what is said of a file that is not there.
pub(super) const MISSING: &str = "missing_file";

/// Looks at every file, folder and pattern that `stage` takes: what is missing, and what ties
/// the pipeline to this machine. Of folders each entry is looked at only where that `is_thorough`.
pub(super) fn look(
    root: &Path,
    stage: &StageSpec,
    is_thorough: bool,
    suggestions: &Suggestions,
) -> (Vec<Finding>, Vec<Finding>) {
    let (mut missing, mut notes) = (Vec::new(), Vec::new());
    for (port, source) in &stage.inputs {
        let (what, path) = match source {
            Source::Output { .. } => continue,
            Source::File(path) => ("file", path.as_path()),
            Source::Dir(path) => ("dir", path.as_path()),
            Source::Glob(pattern) => ("glob", Path::new(pattern)),
        };
        let spot = Spot::value(&["stages", &stage.name, "in", port, what]);
        if let Some(found) = own(root, source).or_else(|| problem(root, source, suggestions)) {
            missing.push(found.at(spot.clone()));
        } else if is_thorough && let Source::Dir(path) = source {
            missing.extend(broken_link(root, path).map(|found| found.at(spot.clone())));
        }
        let outside = path.components().any(|part| part == Component::ParentDir);
        if path.is_absolute() || outside {
            let how = if path.is_absolute() { "is an absolute path" } else { "may leave the project" };
            let message = format!("`{}` {how}: the pipeline runs only where it exists", path.display());
            notes.push(Finding::new("outside_of_project", message).at(spot));
        }
    }
    (missing, notes)
}

/// What is wrong with a source that holds what `pipe` itself writes: it is another one after every run.
fn own(root: &Path, source: &Source) -> Option<Finding> {
    if let Source::File(path) | Source::Dir(path) = source
        && leads_elsewhere(path)
    {
        return None;
    }
    // A folder that is not there has no other name.
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let root = real(root);
    let owned = OWN.map(|own| (own, root.join(own)));
    let (what, own) = match source {
        Source::Output { .. } => return None,
        Source::File(path) => {
            let file = real(&root.join(path));
            (format!("`{}`", path.display()), owned.iter().find(|(_, own)| file.starts_with(own))?.0)
        }
        Source::Dir(path) => {
            let folder = real(&root.join(path));
            let overlaps = |own: &Path| own.starts_with(&folder) || folder.starts_with(own);
            (format!("`{}`", path.display()), owned.iter().find(|(_, own)| overlaps(own))?.0)
        }
        Source::Glob(pattern) => (format!("`{pattern}`"), names_one_of(&root, pattern, &OWN_FILES)?),
    };
    let message = match source {
        Source::File(_) => format!("{what} is written by `pipe` itself during each run"),
        _ => format!("{what} holds `{own}`, which `pipe` itself writes during each run"),
    };
    let help = "name only what the stage reads: a folder or pattern beside `cache/` and `runs.db`".to_owned();
    Some(Finding::new("own_files", message).help(help))
}

/// Whether a path leads to nothing of ours by its names alone, without a look at the disk.
fn leads_elsewhere(path: &Path) -> bool {
    let mut parts = path.components();
    let is_ours = |name: &OsStr| OWN.iter().any(|own| Path::new(own).starts_with(name));
    matches!(parts.next(), Some(Component::Normal(name)) if !is_ours(name))
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn problem(root: &Path, source: &Source, suggestions: &Suggestions) -> Option<Finding> {
    let missing = |message: String| Finding::new(MISSING, message);
    match source {
        Source::Output { .. } => None,
        Source::File(path) => match fs::metadata(root.join(path)) {
            Ok(metadata) if metadata.is_dir() => Some(
                missing(format!("`{}` is a folder", path.display()))
                    .help(format!("write `{{ dir: {} }}`", path.display())),
            ),
            Ok(metadata) if !metadata.is_file() => Some(
                missing(format!("`{}` is a pipe or a device, not a file", path.display()))
                    .help("write what it gives to a file, and name that".to_owned()),
            ),
            Ok(_) => None,
            Err(err) => Some(unreadable("file", root, path, &err, suggestions)),
        },
        Source::Dir(path) => match fs::metadata(root.join(path)) {
            Ok(metadata) if metadata.is_dir() => None,
            Ok(_) => Some(
                missing(format!("`{}` is not a folder", path.display()))
                    .help(format!("write `{{ file: {} }}`", path.display())),
            ),
            Err(err) => Some(unreadable("folder", root, path, &err, suggestions)),
        },
        Source::Glob(pattern) => match matching_files(root, pattern) {
            Ok(files) if files.is_empty() => {
                let help = format!("patterns are relative to the project root, `{}`", root.display());
                Some(missing(format!("no file matches `{pattern}`")).help(help))
            }
            Ok(_) => None,
            Err(PatternError::Malformed { pattern, source }) => {
                Some(missing(format!("`{pattern}` is not a pattern: {}", source.kind())))
            }
            Err(PatternError::Unreadable { path, source }) => {
                Some(missing(format!("cannot read `{}`: {source}", path.display())))
            }
        },
    }
}

/// The first link of a folder that leads nowhere.
fn broken_link(root: &Path, folder: &Path) -> Option<Finding> {
    let top = root.join(folder);
    let walk = WalkDir::new(&top).follow_links(true).sort_by_file_name();
    let failed = walk.into_iter().find_map(Result::err)?;
    let link = failed.path()?.to_owned();
    let is_link = fs::symlink_metadata(&link).is_ok_and(|metadata| metadata.is_symlink());
    if !is_link || failed.loop_ancestor().is_some() {
        return None;
    }
    let shown = folder.join(link.strip_prefix(&top).unwrap_or(&link));
    let found = Finding::new(MISSING, format!("`{}` is a link to nothing", shown.display()));
    Some(found.help("remove the link, or make what it leads to".to_owned()))
}

fn unreadable(
    what: &str,
    root: &Path,
    path: &Path,
    err: &std::io::Error,
    suggestions: &Suggestions,
) -> Finding {
    if err.kind() != std::io::ErrorKind::NotFound {
        return Finding::new(MISSING, format!("cannot read {what} `{}`: {err}", path.display()));
    }
    let found = Finding::new(MISSING, format!("{what} `{}` does not exist", path.display()));
    let near = near_file(&root.join(path), suggestions).map(|name| path.with_file_name(name));
    found.help(match near {
        Some(near) => format!("did you mean `{}`?", near.display()),
        None => format!("paths are relative to the project root, `{}`", root.display()),
    })
}

/// The name in the folder of `path` that is nearest to the missing one.
pub(super) fn near_file(path: &Path, suggestions: &Suggestions) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).ok()?.take(1_000).flatten();
    let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    suggestions.nearest(wanted, names.iter().map(String::as_str)).map(str::to_owned)
}
