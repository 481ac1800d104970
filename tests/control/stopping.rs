//! Ctrl-C, SIGTERM, and two runs in one folder.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use rustix::process::Signal;

use crate::lab::{Lab, send, wait_until};

/// The processes below the project that run `sleep`.
fn sleeping(lab: &Lab) -> usize {
    let here = lab.path("").canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let is_ours = |path: &std::path::PathBuf| {
        std::fs::read_link(path.join("cwd")).is_ok_and(|folder| folder == here)
            && std::fs::read(path.join("cmdline")).is_ok_and(|line| line.starts_with(b"sleep\0"))
    };
    processes.map(|entry| entry.path()).filter(is_ours).count()
}

fn number(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

/// What an interrupted run left in its scratch folders besides checkpoints and locks.
fn half_written(lab: &Lab) -> Vec<std::path::PathBuf> {
    let is_attempt = |file: &std::path::PathBuf| {
        file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("attempt-"))
    };
    lab.files("cache/v1/scratch").into_iter().filter(is_attempt).collect()
}

const MANY: &str = "stages:
  a: { kind: shell, with: { command: 'sleep 321 & sleep 322; wait' } }
  b: { kind: shell, with: { command: 'sleep 323 & sleep 324; wait' } }
  c: { kind: shell, with: { command: 'sleep 325 & sleep 326; wait' } }
  later: { kind: shell, with: { command: 'touch later' } }
";

#[test]
fn ctrl_c_and_sigterm_stop_all_stages_with_what_they_started() {
    for signal in [Signal::INT, Signal::TERM] {
        let lab = Lab::new(MANY);
        let mut pipe = lab.start_until(&["-j", "3"], "running");
        wait_until("six sleeps", || sleeping(&lab) == 6);
        send(signal, number(&pipe));
        assert_eq!(pipe.wait().unwrap().code(), Some(130));
        assert_eq!(sleeping(&lab), 0);
        assert_eq!(half_written(&lab), [""; 0].map(std::path::PathBuf::from));
        assert_eq!(lab.ask::<String>("SELECT status FROM run"), "interrupted");
        assert_eq!(lab.ask::<i64>("SELECT count(*) FROM stage WHERE outcome = 'interrupted'"), 3);
        assert!(!lab.path("later").exists());
    }
}

#[test]
fn a_second_ctrl_c_ends_at_once_and_leaves_no_process() {
    let lab = Lab::new(
        "stages:
  deaf: { kind: shell, with: { command: 'trap \"\" TERM; sleep 321 & while :; do sleep 322; done' } }
",
    );
    let mut command = lab.command(&["run", "pipelines/p.yaml"]);
    let mut pipe = command.stderr(Stdio::piped()).spawn().unwrap();
    wait_until("two sleeps", || sleeping(&lab) == 2);
    send(Signal::INT, number(&pipe));
    // It waits for the command, which ignores that it was asked to end, and says so.
    let mut lines = BufReader::new(pipe.stderr.take().unwrap()).lines().map(Result::unwrap);
    let told = lines.find(|line| line.contains("stopping")).unwrap();
    assert_eq!(told, " stopping what runs is asked to end; Ctrl-C again kills it");
    send(Signal::INT, number(&pipe));
    assert_eq!(pipe.wait().unwrap().code(), Some(130));
    wait_until("the end of what it started", || sleeping(&lab) == 0);
}

#[test]
fn ctrl_c_is_no_failure_to_be_retried() {
    let lab = Lab::new(
        "stages:
  long: { kind: shell, retry: 5, with: { command: 'echo x >> started; sleep 321' } }
",
    );
    let mut pipe = lab.start_until(&[], "running long");
    wait_until("a sleep", || sleeping(&lab) == 1);
    send(Signal::INT, number(&pipe));
    assert_eq!(pipe.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_to_string(lab.path("started")).unwrap(), "x\n");
    assert_eq!(lab.ask::<String>("SELECT outcome FROM stage"), "interrupted");
}

/// A stage that waits for `go` and fails if `fail` is there.
const GATED: &str = "stages:
  gated:
    kind: shell
    with: { command: 'echo x >> started; until test -e go; do sleep 0.01; done; test ! -e fail; echo 1 > {out.y}', outputs: [y] }
";

#[test]
fn ctrl_c_ends_a_run_that_waits_for_another() {
    let lab = Lab::new(GATED);
    let mut first = lab.start_until(&[], "running gated");
    wait_until("the first", || lab.path("started").exists());
    let mut second = lab.start_until(&[], "waiting");
    send(Signal::INT, number(&second));
    assert_eq!(second.wait().unwrap().code(), Some(130));
    assert_eq!(lab.ask::<String>("SELECT outcome FROM stage WHERE run = 2"), "interrupted");
    lab.write("go", "");
    assert!(first.wait().unwrap().success(), "the first is not disturbed");
}

#[test]
fn ctrl_c_ends_a_run_that_waits_until_things_are_removed() {
    let lab = Lab::new("stages: { a: { kind: shell, with: { command: 'touch done' } } }");
    std::fs::create_dir_all(lab.path("cache/v1")).unwrap();
    let lock = std::fs::File::create(lab.path("cache/v1/lock")).unwrap();
    lock.lock().unwrap();
    let mut pipe = lab.start_until(&[], "waiting until another `pipe` has removed things");
    send(Signal::INT, number(&pipe));
    assert_eq!(pipe.wait().unwrap().code(), Some(130));
    assert!(!lab.path("done").exists() && !lab.path("runs.db").exists());
}

#[test]
fn a_second_run_says_for_whom_it_waits_and_takes_the_result_of_the_first() {
    let lab = Lab::new(GATED);
    let mut first = lab.start_until(&[], "running gated");
    wait_until("the first", || lab.path("started").exists());
    let whom = format!("for run_1 (process {})", first.id());
    let mut second = lab.start_until(&[], &whom);
    lab.write("go", "");
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(lab.path("started")).unwrap(), "x\n", "computed once");
    assert_eq!(lab.ask::<String>("SELECT outcome FROM stage WHERE run = 2"), "cached");
}

#[test]
fn when_the_first_fails_the_second_tries_for_itself() {
    let lab = Lab::new(GATED);
    let mut first = lab.start_until(&[], "running gated");
    wait_until("the first", || lab.path("started").exists());
    let mut second = lab.start_until(&[], "waiting");
    // Both fail: that the second did, and not only heard of it, is told by `started`.
    lab.write("fail", "");
    lab.write("go", "");
    assert_eq!(first.wait().unwrap().code(), Some(1));
    assert_eq!(second.wait().unwrap().code(), Some(1));
    assert_eq!(std::fs::read_to_string(lab.path("started")).unwrap(), "x\nx\n");
}

#[test]
fn when_the_first_is_killed_the_second_goes_on() {
    let lab = Lab::new(GATED);
    let mut first = lab.start_until(&[], "running gated");
    wait_until("the first", || lab.path("started").exists());
    let mut second = lab.start_until(&[], "waiting");
    send(Signal::KILL, number(&first));
    first.wait().unwrap();
    wait_until("another start", || std::fs::read_to_string(lab.path("started")).unwrap() == "x\nx\n");
    lab.write("go", "");
    assert!(second.wait().unwrap().success());
    assert_eq!(lab.ask::<String>("SELECT outcome FROM stage WHERE run = 2"), "ran");
}

#[test]
fn ctrl_c_also_stops_a_run_that_began_again_since_the_history_was_damaged() {
    let lab = Lab::new("stages: { a: { kind: shell, with: { command: 'sleep 321' } } }\n");
    lab.write("runs.db", "this is no database, and has a header that says so".repeat(99));
    let mut pipe = lab.start_until(&[], "running");
    wait_until("a sleep", || sleeping(&lab) == 1);
    send(Signal::INT, number(&pipe));
    assert_eq!(pipe.wait().unwrap().code(), Some(130));
    assert_eq!(sleeping(&lab), 0);
}

#[test]
fn a_record_that_is_removed_while_the_run_goes_on_is_missed() {
    let lab = Lab::new(
        "stages: { a: { kind: shell, with: { command: 'rm -f runs.db*; echo 1 > {out.x}', outputs: [x] } } }",
    );
    let said = lab.run(&[]).ends_with_code(1);
    assert!(said.stderr.contains("runs.db` was removed or replaced while run_1 went on"), "{}", said.stderr);
    lab.run(&[]).success();
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM run"), 1);
}

/// What the stage `a` gave that the latest run had.
fn digest(lab: &Lab) -> String {
    lab.ask("SELECT digest FROM artifact WHERE stage = 'a' ORDER BY run DESC LIMIT 1")
}

#[test]
fn a_result_is_found_though_another_pipe_made_the_index_anew_meanwhile() {
    let lab = Lab::new(
        "stages:
  a: { kind: shell, with: { command: 'until test -e go; do sleep 0.01; done; cat /proc/sys/kernel/random/uuid > {out.x}', outputs: [x] } }
",
    );
    lab.write("go", "");
    lab.run(&[]).success();
    let first = digest(&lab);
    std::fs::remove_file(lab.path("go")).unwrap();
    let mut forced = lab.start_until(&["--force"], "running a");
    // As if the index were of another version of `pipe`.
    let index = rusqlite::Connection::open(lab.path("cache/v1/index.db")).unwrap();
    index.pragma_update(None, "user_version", 1).unwrap();
    drop(index);
    lab.run(&["-n"]).success();
    lab.write("go", "");
    assert!(forced.wait().unwrap().success());
    let second = digest(&lab);
    assert_ne!(first, second);
    assert_eq!(lab.run(&["--json"]).success().code, Some(0));
    assert_eq!(digest(&lab), second, "the result that was replaced is not found again");
}
