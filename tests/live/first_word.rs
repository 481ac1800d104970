//! Something is said before anything that may take long, and Ctrl-C is heard meanwhile.

use std::{
    fs::{self, File},
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::lab::{Lab, send, wait_until};

/// What nobody waits for who has pressed Ctrl-C; the terabyte takes minutes.
const AT_ONCE: Duration = Duration::from_secs(5);

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

/// Whether a process has a file open.
fn opens(process: &Child, file: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let file = file.canonicalize().unwrap();
    descriptors.filter_map(Result::ok).any(|entry| fs::read_link(entry.path()).is_ok_and(|it| it == file))
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

#[test]
fn ctrl_c_is_heard_while_an_input_is_hashed() {
    let ends = |arguments: &[&str], line: &str| {
        let lab = endless();
        let mut pipe = lab.start_until(arguments, line);
        wait_until("a look at the input", || opens(&pipe, &lab.path("endless")));
        send(Signal::INT, pipe.id().cast_signed());
        let sent = Instant::now();
        assert_eq!(pipe.wait().unwrap().code(), Some(130));
        assert!(sent.elapsed() < AT_ONCE, "it took {:?}", sent.elapsed());
        lab
    };
    let lab = ends(&[], "run run_1");
    assert_eq!(lab.ask::<String>("SELECT status FROM run"), "interrupted");
    assert_eq!(lab.ask::<String>("SELECT outcome FROM stage"), "skipped");
    // Before a run of chosen stages begins it is known what they lack: no run is recorded yet.
    let lab = ends(&["--until", "read"], "starting");
    assert!(!lab.path("runs.db").exists());
}
