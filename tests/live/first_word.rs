//! Something is said before anything that may take long.

use std::fs::File;

use rustix::process::Signal;

use crate::lab::{Lab, send};

/// A project with an input that takes many minutes to hash: a terabyte of nothing.
pub fn endless() -> Lab {
    let lab = Lab::new(
        "stages:
  read: { kind: shell, in: { x: { file: endless } }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
",
    );
    File::create(lab.path("endless")).and_then(|file| file.set_len(1 << 40)).unwrap();
    lab
}

#[test]
fn the_headline_comes_before_inputs_are_hashed() {
    let lab = endless();
    let mut pipe = lab.start_until(&[], "run run_1: pipelines/p.yaml, 1 stage\n");
    send(Signal::KILL, pipe.id().cast_signed());
    pipe.wait().unwrap();
}

#[test]
fn what_has_to_be_known_before_a_run_begins_is_not_waited_for_in_silence() {
    let lab = endless();
    let mut pipe = lab.start_until(&["--until", "read"], "starting pipelines/p.yaml\n");
    send(Signal::KILL, pipe.id().cast_signed());
    pipe.wait().unwrap();
}
