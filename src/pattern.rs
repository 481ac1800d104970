//! Files that a pattern such as `reviews/**/*.jsonl` names.

use std::{
    io,
    path::{Path, PathBuf},
};

use globset::{Glob, GlobBuilder};
use thiserror::Error;
use walkdir::{DirEntry, WalkDir};

/// A pattern that names no files.
#[derive(Debug, Error)]
pub enum PatternError {
    /// The pattern is not well formed.
    #[error("`{pattern}` is not a pattern")]
    Malformed {
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
    /// A folder could not be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable {
        /// The folder or entry.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The files below `root` that match `pattern`, as paths relative to `root`, sorted.
///
/// `*` and `?` stay within one folder, `**` crosses folders. A pattern may begin with folders
/// outside of `root` or be absolute. Symbolic links to files count, those to folders are not
/// followed. What `pipe` keeps in the project's `cache/v1` is no input, so no pattern crosses into it.
pub fn matching_files(root: &Path, pattern: &str) -> Result<Vec<PathBuf>, PatternError> {
    let malformed = |source| PatternError::Malformed { pattern: pattern.to_owned(), source };
    let (folder, rest) = split(pattern);
    let glob: Glob = GlobBuilder::new(rest).literal_separator(true).build().map_err(malformed)?;
    let matcher = glob.compile_matcher();
    let base = root.join(folder);
    if !base.is_dir() {
        return Ok(Vec::new());
    }
    let own = own_folder(root, &base);
    let is_input = |entry: &DirEntry| own.as_deref() != Some(entry.path());
    let mut found = Vec::new();
    for entry in WalkDir::new(&base).sort_by_file_name().into_iter().filter_entry(is_input) {
        let entry = entry.map_err(|err| PatternError::Unreadable {
            path: err.path().unwrap_or(&base).to_path_buf(),
            source: err.into(),
        })?;
        let below = entry.path().strip_prefix(&base).unwrap_or(entry.path());
        if matcher.is_match(below) && entry.path().is_file() {
            found.push(Path::new(folder).join(below));
        }
    }
    found.sort();
    Ok(found)
}

/// The folder of the cache as a walk from `base` comes to it; `None` where it does not.
fn own_folder(root: &Path, base: &Path) -> Option<PathBuf> {
    let cache = root.canonicalize().ok()?.join("cache/v1");
    let below = cache.strip_prefix(base.canonicalize().ok()?).ok()?;
    (!below.as_os_str().is_empty()).then(|| base.join(below))
}

/// The first of `files` below `root`, be they there or not, that `pattern` names.
pub fn names_one_of<'f>(root: &Path, pattern: &str, files: &[&'f str]) -> Option<&'f str> {
    let (folder, rest) = split(pattern);
    let matcher = GlobBuilder::new(rest).literal_separator(true).build().ok()?.compile_matcher();
    let base = root.join(folder);
    let base = base.canonicalize().unwrap_or(base);
    let is_named = |file: &&&str| {
        let file = root.join(file);
        file.strip_prefix(&base).is_ok_and(|below| matcher.is_match(below))
    };
    files.iter().find(is_named).copied()
}

/// The folders that a pattern begins with, and the rest of it from the first segment with a
/// special character on (the last segment at least).
fn split(pattern: &str) -> (&str, &str) {
    let special = pattern.find(['*', '?', '[', '{', '\\']).unwrap_or(pattern.len());
    match pattern[..special].rfind('/') {
        Some(0) => ("/", &pattern[1..]),
        Some(slash) => (&pattern[..slash], &pattern[slash + 1..]),
        None => ("", pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files.
    fn project(files: &[&str]) -> tempfile::TempDir {
        let lab = tempfile::tempdir().unwrap();
        for file in files {
            let path = lab.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        lab
    }

    fn names(root: &Path, pattern: &str) -> Vec<String> {
        let files = matching_files(root, pattern).unwrap();
        files.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn a_pattern_names_files_in_order_and_stays_in_its_folder() {
        let lab = project(&["in/b.txt", "in/a.txt", "in/deep/c.txt", "in/d.csv", "other.txt"]);
        let names = |pattern: &str| names(lab.path(), pattern);
        assert_eq!(names("in/*.txt"), ["in/a.txt", "in/b.txt"]);
        assert_eq!(names("in/**/*.txt"), ["in/a.txt", "in/b.txt", "in/deep/c.txt"]);
        assert_eq!(names("*.txt"), ["other.txt"]);
        assert_eq!(names("in/d.csv"), ["in/d.csv"]);
        assert_eq!(names("nowhere/*"), [""; 0]);
        assert_eq!(names("in"), [""; 0]);
        let absolute = format!("{}/in/d.*", lab.path().display());
        assert_eq!(names(&absolute), [format!("{}/in/d.csv", lab.path().display())]);
        assert!(matching_files(lab.path(), "in/[").is_err());
    }

    #[test]
    fn a_pattern_does_not_cross_into_what_pipe_keeps() {
        let lab = project(&["cache/v1/scratch/a.txt", "cache/own.txt", "sub/cache/v1/b.txt", "c.txt"]);
        let names = |pattern: &str| names(lab.path(), pattern);
        let below = format!("{}/**/*.txt", lab.path().display());
        assert_eq!(names("**/*.txt"), ["c.txt", "cache/own.txt", "sub/cache/v1/b.txt"]);
        assert_eq!(names("cache/**/*.txt"), ["cache/own.txt"]);
        assert_eq!(names("sub/../**/*.txt").len(), 3);
        assert_eq!(names(&below).len(), 3);
    }
}
