//! A run whose talk cannot be written goes on without it.

use std::fs::File;

use crate::lab::Lab;

/// The exit code of `pipe` whose standard error is on a full disk.
fn unheard(lab: &Lab, arguments: &[&str]) -> Option<i32> {
    let full = File::options().write(true).open("/dev/full").unwrap();
    lab.command(arguments).stderr(full).status().unwrap().code()
}

#[test]
fn what_cannot_be_said_is_no_problem_of_a_run() {
    let lab = Lab::new(
        "stages:
  a: { kind: shell, with: { command: 'echo 1 > {out.x}', outputs: [x] } }
  b: { kind: shell, in: { x: a }, with: { command: 'cp {in.x} {out.x}', outputs: [x] } }
",
    );
    assert_eq!(unheard(&lab, &["run", "pipelines/p.yaml"]), Some(0));
    assert_eq!(unheard(&lab, &["run", "pipelines/p.yaml", "--progress", "json"]), Some(0));
    assert_eq!(unheard(&lab, &["run", "pipelines/p.yaml"]), Some(0));
    assert_eq!(unheard(&lab, &["reproduce", "run_1", "--force"]), Some(0));
    assert_eq!(lab.ask::<String>("SELECT group_concat(status) FROM run"), "done,done,done,done");
    lab.edit("echo 1", "exit 1; echo 1");
    assert_eq!(unheard(&lab, &["run", "pipelines/p.yaml"]), Some(1));
}
