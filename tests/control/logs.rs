//! What a stage has said before it is recorded: while it runs, and after its `pipe` was killed.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use rustix::process::Signal;

use crate::lab::{Lab, send, wait_until};

/// `train` says something, waits for `go`, and says something else.
const TRAINING: &str = "stages:
  prepare: { kind: shell, with: { command: 'echo 1 > {out.x}', outputs: [x] } }
  train:
    kind: shell
    in: { x: prepare }
    with:
      command: 'echo begins; until test -e go; do sleep 0.01; done; echo ends; cp {in.x} {out.y}'
      outputs: [y]
  evaluate: { kind: shell, in: { y: train }, with: { command: 'echo tested; cp {in.y} {out.z}', outputs: [z] } }
";

/// Waits until `train` is known to have begun and has said so.
fn wait_for_begin(lab: &Lab) {
    wait_until("a word of `train`", || lab.pipe(&["logs", "@last", "train"]).stdout == "begins\n");
}

#[test]
fn logs_of_a_running_stage_are_what_it_has_said_so_far() {
    let lab = Lab::new(TRAINING);
    let mut pipe = lab.start_until(&[], "running train");
    wait_for_begin(&lab);
    let said = lab.pipe(&["logs", "@last", "train"]).success();
    assert_eq!([said.stdout, said.stderr], ["begins\n", "`train` is running in run_1\n"]);
    assert_eq!(lab.pipe(&["logs", "1", "train", "--tail", "0"]).success().stdout, "");
    let said = lab.pipe(&["logs", "@last", "evaluate"]).success();
    assert_eq!([said.stdout, said.stderr], ["", "`evaluate` has not started in run_1\n"]);
    insta::assert_snapshot!(lab.pipe(&["logs", "@last", "trian"]).ends_with_code(2).stderr, @"
    x run_1 has no stage `trian`
    help: did you mean `train`?
    ");
    insta::assert_snapshot!(lab.pipe(&["logs"]).ends_with_code(2).stderr, @"
    x name a stage of run_1 to see its log
    help: it has prepare, evaluate, train: `pipe logs run_1 prepare`
    ");
    lab.write("go", "");
    assert!(pipe.wait().unwrap().success());
    assert_eq!(lab.pipe(&["logs", "@last", "train"]).success().stdout, "begins\nends\n");
}

#[test]
fn follow_prints_what_a_stage_says_until_it_has_ended() {
    let lab = Lab::new(TRAINING);
    let mut pipe = lab.start_until(&[], "running train");
    wait_for_begin(&lab);
    let follow = |stage: &str| {
        let mut command = lab.command(&["logs", "@last", stage, "--follow"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (mut train, mut evaluate) = (follow("train"), follow("evaluate"));
    let mut heard = BufReader::new(train.stdout.take().unwrap());
    let mut text = String::new();
    heard.read_line(&mut text).unwrap();
    assert_eq!(text, "begins\n");
    let mut remark = String::new();
    BufReader::new(evaluate.stderr.take().unwrap()).read_line(&mut remark).unwrap();
    assert_eq!(remark, "`evaluate` has not started in run_1\n");
    lab.write("go", "");
    heard.read_to_string(&mut text).unwrap();
    assert_eq!(text, "begins\nends\n");
    assert!(train.wait().unwrap().success() && pipe.wait().unwrap().success());
    let evaluated = evaluate.wait_with_output().unwrap();
    assert_eq!((evaluated.status.code(), evaluated.stdout.as_slice()), (Some(0), &b"tested\n"[..]));
    assert_eq!(lab.pipe(&["logs", "@last", "train", "-f"]).success().stdout, "begins\nends\n");
}

#[test]
fn logs_of_a_stage_whose_pipe_was_killed_are_what_it_had_said() {
    let lab = Lab::new(TRAINING);
    let mut pipe = lab.start_until(&[], "running train");
    wait_for_begin(&lab);
    send(Signal::KILL, i32::try_from(pipe.id()).unwrap());
    pipe.wait().unwrap();
    let remark = "run_1 was killed while `train` ran; this is what it had said\n";
    for more in [&[][..], &["--follow"]] {
        let said = lab.pipe(&[&["logs", "@last", "train"], more].concat()).success();
        assert_eq!([said.stdout.as_str(), &said.stderr], ["begins\n", remark]);
    }
    let said = lab.pipe(&["logs", "@last", "evaluate", "--follow"]).success();
    assert_eq!([said.stdout, said.stderr], ["", "`evaluate` had not started when run_1 was killed\n"]);
    lab.write("go", "");
    lab.run(&[]).success();
    let said = lab.pipe(&["logs", "run_1", "train"]).success();
    let remark = "run_1 was killed while `train` ran, and what it had said was removed since\n";
    assert_eq!([said.stdout.as_str(), &said.stderr], ["", remark]);
}
