//! Whether the files that a pipeline takes from outside are there.

use std::{
    fs,
    path::{Component, Path},
};

use super::{Source, StageSpec, places::Spot, problem::Finding, suggest::Suggestions};
use crate::pattern::{PatternError, matching_files};

/// Looks at every file, folder and pattern that `stage` takes: what is missing, and what ties
/// the pipeline to this machine.
pub(super) fn look(
    root: &Path,
    stage: &StageSpec,
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
        if let Some(found) = problem(root, source, suggestions) {
            missing.push(found.at(spot.clone()));
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

fn problem(root: &Path, source: &Source, suggestions: &Suggestions) -> Option<Finding> {
    let missing = |message: String| Finding::new("missing_file", message);
    match source {
        Source::Output { .. } => None,
        Source::File(path) => match fs::metadata(root.join(path)) {
            Ok(metadata) if metadata.is_dir() => Some(
                missing(format!("`{}` is a folder", path.display()))
                    .help(format!("write `{{ dir: {} }}`", path.display())),
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

fn unreadable(
    what: &str,
    root: &Path,
    path: &Path,
    err: &std::io::Error,
    suggestions: &Suggestions,
) -> Finding {
    if err.kind() != std::io::ErrorKind::NotFound {
        return Finding::new("missing_file", format!("cannot read {what} `{}`: {err}", path.display()));
    }
    let found = Finding::new("missing_file", format!("{what} `{}` does not exist", path.display()));
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
