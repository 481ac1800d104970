//! The folder that a project's paths are relative to.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Finds the project root: `given` if there is one, else the nearest folder at or above the
/// pipeline `file` (without one: above the working directory) that holds `pipelines/` or
/// `runs.db`, else the working directory.
///
/// The search does not leave a git work tree: what lies above it, such as a `runs.db` in the home folder, is
/// another project's.
///
/// The path returned is absolute and free of symbolic links.
///
/// # Errors
///
/// If `given` is not a folder that can be entered, if there is no working directory, or if the name of the
/// root is not UTF-8.
pub fn project_root(given: Option<&Path>, file: Option<&Path>) -> io::Result<PathBuf> {
    if let Some(given) = given {
        let root = given.canonicalize()?;
        return if root.is_dir() { named(root) } else { Err(io::ErrorKind::NotADirectory.into()) };
    }
    let here = std::env::current_dir()?.canonicalize()?;
    let start = file.and_then(folder_of).unwrap_or_else(|| here.clone());
    let work_tree = start.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(Path::new("/"));
    let mut inside = start.ancestors().take_while(|dir| dir.starts_with(work_tree));
    let found = inside.find(|dir| dir.join("pipelines").is_dir() || dir.join("runs.db").is_file());
    named(found.map_or(here, Path::to_path_buf))
}

/// `root`, if it can be told to a stage and recorded.
fn named(root: PathBuf) -> io::Result<PathBuf> {
    match root.to_str() {
        Some(_) => Ok(root),
        None => Err(io::Error::other("its name is not text in UTF-8, give it another one")),
    }
}

/// `file` as a path relative to `root` where it lies below it, else as an absolute path.
///
/// Returns `file` unchanged if its folder does not exist.
pub fn relative_to_root(root: &Path, file: &Path) -> PathBuf {
    let (Some(folder), Some(name)) = (folder_of(file), file.file_name()) else { return file.to_path_buf() };
    let file = folder.join(name);
    file.strip_prefix(root).map_or_else(|_| file.clone(), Path::to_path_buf)
}

fn folder_of(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    parent.canonicalize().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_nearest_folder_with_pipelines_or_runs() {
        let lab = tempfile::tempdir().unwrap();
        let lab = lab.path().canonicalize().unwrap();
        std::fs::create_dir_all(lab.join("outer/pipelines/deep")).unwrap();
        std::fs::create_dir_all(lab.join("outer/inner/notes")).unwrap();
        std::fs::write(lab.join("outer/inner/runs.db"), "").unwrap();
        let root = |file: &str| project_root(None, Some(&lab.join(file))).unwrap();
        assert_eq!(root("outer/pipelines/a.yaml"), lab.join("outer"));
        assert_eq!(root("outer/pipelines/deep/a.yaml"), lab.join("outer"));
        assert_eq!(root("outer/inner/notes/../notes/a.yaml"), lab.join("outer/inner"));
        assert_eq!(project_root(Some(&lab), Some(&lab.join("outer/pipelines/a.yaml"))).unwrap(), lab);
        let file = relative_to_root(&lab.join("outer"), &lab.join("outer/inner/../pipelines/a.yaml"));
        assert_eq!(file, Path::new("pipelines/a.yaml"));
        assert!(project_root(Some(&lab.join("nowhere")), None).is_err());
    }

    #[test]
    fn the_root_is_not_looked_for_outside_of_the_git_work_tree() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        std::fs::create_dir_all(home.join("repository/experiments")).unwrap();
        std::fs::write(home.join("runs.db"), "").unwrap();
        let file = home.join("repository/experiments/a.yaml");
        let root = || project_root(None, Some(&file)).unwrap();
        assert_eq!(root(), home);
        // In a work tree besides the first it is a file.
        std::fs::write(home.join("repository/.git"), "gitdir: elsewhere").unwrap();
        assert_eq!(root(), std::env::current_dir().unwrap().canonicalize().unwrap());
        std::fs::write(home.join("repository/runs.db"), "").unwrap();
        assert_eq!(root(), home.join("repository"));
    }
}
