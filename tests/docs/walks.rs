//! What a reader is led through works as shown, from the first command to the last.

use std::{fs, path::Path};

use crate::{lab::Lab, transcript::is_true};

/// A folder with the pipelines that ship, as after a clone.
fn clone() -> Lab {
    let lab = empty();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for entry in fs::read_dir(shipped).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), lab.path("pipelines").join(entry.file_name())).unwrap();
        }
    }
    lab
}

fn empty() -> Lab {
    let lab = Lab::new("");
    fs::remove_file(lab.path("pipelines/p.yaml")).unwrap();
    lab
}

#[test]
fn the_walk_from_a_fresh_clone_goes_as_it_is_written() {
    is_true("walk.md", &clone());
}

#[test]
fn the_tutorial_goes_as_it_is_written() {
    is_true("tutorial.md", &empty());
}

#[test]
fn a_program_becomes_a_stage_as_the_guide_says() {
    is_true("stage-kinds.md", &empty());
}
