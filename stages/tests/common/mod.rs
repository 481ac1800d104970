//! What several test files share: running a stage, and finding the reference values.
#![allow(dead_code)] // each test file uses its part

pub mod lab;
pub mod made_up;
pub mod tiny;

use std::{env, path::PathBuf};

/// The folder of reference values; nothing, with a message, where there is none.
pub fn reference() -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    found("reference values", "PIPE_REFERENCE", &[here.join("../../shared/reference")])
}

/// The folder of reference values that holds `part`, which may be a copy beside the tests.
pub fn reference_part(part: &str) -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let places = [here.join("tests/reference"), here.join("../../shared/reference")];
    let given = env::var_os("PIPE_REFERENCE").map(|folder| PathBuf::from(folder).join(part));
    let places = given.into_iter().chain(places.map(|folder| folder.join(part))).collect::<Vec<_>>();
    found(part, "", &places)
}

/// The archive of the 50,000 labelled reviews; nothing, with a message, where there is none.
pub fn imdb_archive() -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    found("the review archive", "PIPE_IMDB", &[here.join("../../shared/data/aclImdb_labelled.tar.gz")])
}

/// The path in the variable `name`, else the first of `places` that exists.
///
/// # Panics
///
/// If nothing is found although `PIPE_REQUIRE_REFERENCE=1` is set.
fn found(what: &str, name: &str, places: &[PathBuf]) -> Option<PathBuf> {
    let given = env::var_os(name).filter(|_| !name.is_empty()).map(PathBuf::from);
    let path = given.into_iter().chain(places.iter().cloned()).find(|path| path.exists());
    if path.is_none() {
        let required = env::var_os("PIPE_REQUIRE_REFERENCE").is_some_and(|value| value == "1");
        assert!(!required, "{what} not found in {places:?}");
        eprintln!("skipped: {what} not found in {places:?}");
    }
    path
}
