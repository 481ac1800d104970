//! What several test files share: running a stage, and finding the reference values.
#![allow(dead_code)] // each test file uses its part

pub mod lab;
pub mod made_up;
pub mod tiny;

use std::{env, path::PathBuf};

/// The file or folder `part` of the reference values; nothing, with a message, where there is none.
///
/// Looked for in `PIPE_REFERENCE`, then in the copy beside the tests, then beside the project.
///
/// # Panics
///
/// If `PIPE_REFERENCE` names no folder: other values must not take its place unseen.
pub fn reference(part: &str) -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let places = [here.join("tests/reference"), here.join("../../shared/reference")];
    let places = given("PIPE_REFERENCE").into_iter().chain(places);
    found(part, places.map(|folder| folder.join(part)).collect())
}

/// The archive of the 50,000 labelled reviews; nothing, with a message, where there is none.
///
/// # Panics
///
/// If `PIPE_IMDB` names no file.
pub fn imdb_archive() -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let beside = here.join("../../shared/data/aclImdb_labelled.tar.gz");
    found("the review archive", vec![given("PIPE_IMDB").unwrap_or(beside)])
}

/// The path in the variable `name`, if that is set.
fn given(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(name).filter(|value| !value.is_empty())?);
    assert!(path.exists(), "`{name}` is set to `{}`, which does not exist", path.display());
    Some(path)
}

/// The first of `places` that exists.
///
/// # Panics
///
/// If none does although `PIPE_REQUIRE_REFERENCE=1` is set.
fn found(what: &str, places: Vec<PathBuf>) -> Option<PathBuf> {
    let path = places.iter().find(|path| path.exists()).cloned();
    if path.is_none() {
        let required = env::var_os("PIPE_REQUIRE_REFERENCE").is_some_and(|value| value == "1");
        assert!(!required, "{what} not found in {places:?}");
        eprintln!("skipped: {what} not found in {places:?}");
    }
    path
}
