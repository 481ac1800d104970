//! A page of `docs/` that is kept beside what it is made from.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What brings the pages up to date.
pub const WRITE: &str = "PIPE_DOCS=write cargo test --release -p pipe --test docs";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// Whether pages are to be written anew.
pub fn is_writing() -> bool {
    std::env::var_os("PIPE_DOCS").is_some_and(|value| value == "write")
}

/// The page as it is kept; nothing if there is none yet.
pub fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_default()
}

/// Writes the page anew.
pub fn write(name: &str, text: &str) {
    fs::write(path(name), text).unwrap();
}

/// The page is `made`, or is now.
#[track_caller]
pub fn is_current(name: &str, made: &str) {
    if is_writing() {
        write(name, made);
    }
    assert!(read(name) == made, "docs/{name} is outdated: run\n  {WRITE}");
}
