//! The process of a command, and many of them.

use std::fmt::Write;

use rustix::process::Signal;

use crate::lab::{Lab, send, wait_until};

#[test]
fn a_chain_of_two_thousand_commands_runs_and_is_found_again() {
    let mut pipeline =
        "stages:\n  s0: { kind: shell, with: { command: [touch, '{out.o}'], outputs: [o] } }\n".to_owned();
    for at in 1..2_000 {
        let stage = "with: { command: [cp, '{in.x}', '{out.o}'], outputs: [o], params: { at: ";
        writeln!(pipeline, "  s{at}: {{ kind: shell, in: {{ x: s{} }}, {stage}{at} }} }} }}", at - 1)
            .unwrap();
    }
    let lab = Lab::new(&pipeline);
    assert!(lab.run(&[]).success().stderr.contains("2000 ran, 0 cached"));
    assert!(lab.run(&[]).success().stderr.contains("nothing to do, 2000 cached"));
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM stage WHERE run = 2 AND outcome = 'cached'"), 2_000);
}

#[test]
fn a_command_dies_with_a_killed_pipe_and_the_next_run_need_not_wait() {
    let lab = Lab::new(
        "stages:
  wait:
    kind: shell
    with: { command: 'echo $$ > pid; test -e go || exec sleep 600; echo done > {out.text}', outputs: [text] }
",
    );
    let mut pipe = lab.start_until(&[], "running");
    let process = || std::fs::read_to_string(lab.path("pid")).ok()?.trim().parse().ok();
    wait_until("the command", || process().is_some());
    let process = process().unwrap();
    send(Signal::KILL, i32::try_from(pipe.id()).unwrap());
    pipe.wait().unwrap();
    wait_until("its end", || !runs(process));
    lab.write("go", "");
    assert_eq!(lab.run(&[]).success().stages("done"), ["wait"]);
}

/// A command that starts another one and notes its number and that of the process that started the command.
const STARTS_ANOTHER: &str = "stages:
  wait:
    kind: shell
    with:
      command: 'test -e pids || { sleep 600 & echo $! $PPID > some; mv some pids; wait; }; echo done > {out.text}'
      outputs: [text]
";

/// The numbers that it noted, once it has.
fn noted(lab: &Lab) -> [i32; 2] {
    wait_until("the command", || lab.path("pids").exists());
    let text = std::fs::read_to_string(lab.path("pids")).unwrap();
    text.split_whitespace().map(|number| number.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap()
}

/// Whether a process has not ended; a zombie has: whoever inherited it is slow to notice.
fn runs(process: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn what_a_command_started_dies_with_a_killed_pipe() {
    let lab = Lab::new(STARTS_ANOTHER);
    let mut pipe = lab.start_until(&[], "running");
    let [started, _] = noted(&lab);
    assert!(runs(started));
    send(Signal::KILL, i32::try_from(pipe.id()).unwrap());
    pipe.wait().unwrap();
    wait_until("its end", || !runs(started));
}

#[test]
fn what_all_of_pipe_left_when_it_was_killed_is_ended_by_the_next_run() {
    let lab = Lab::new(STARTS_ANOTHER);
    let mut pipe = lab.start_until(&[], "running");
    let [started, launcher] = noted(&lab);
    send(Signal::STOP, launcher);
    send(Signal::KILL, i32::try_from(pipe.id()).unwrap());
    pipe.wait().unwrap();
    send(Signal::KILL, launcher);
    assert!(runs(started));
    assert_eq!(lab.run(&[]).success().stages("done"), ["wait"]);
    wait_until("its end", || !runs(started));
}

#[test]
fn a_stage_fails_where_what_started_it_was_killed() {
    let lab = Lab::new(STARTS_ANOTHER);
    let mut pipe = lab.start_until(&[], "running");
    let [_, launcher] = noted(&lab);
    send(Signal::KILL, launcher);
    assert_eq!(pipe.wait().unwrap().code(), Some(1));
    let error: String = lab.ask("SELECT error FROM stage_record");
    assert_eq!(error, "cannot wait for `sh`\nbecause `pipe launch` has ended");
    assert_eq!(lab.run(&[]).success().stages("done"), ["wait"]);
}

#[test]
fn a_command_has_an_empty_input_and_its_low_descriptors_to_itself() {
    let lab = Lab::new(
        "stages:
  stage:
    kind: shell
    with: { command: 'ls -l /proc/self/fd > fds; exec 3> {out.text}; wc -c >&3', outputs: [text] }
",
    );
    lab.run(&[]).success();
    let text = std::fs::read_to_string(lab.path("fds")).unwrap();
    let lock = text.lines().find(|line| line.ends_with("/lock")).expect("the lock is held");
    let (descriptor, _) = lock.rsplit_once(" -> ").unwrap();
    let descriptor: u32 = descriptor.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(descriptor >= 10, "{text}");
    assert!(text.contains(" 0 -> /dev/null"), "{text}");
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let lab = Lab::new(
        "stages:\n  s: { kind: shell, with: { command: [no_such_program, '{out.o}'], outputs: [o] } }\n",
    );
    let failed = lab.run(&[]).ends_with_code(1);
    assert!(failed.stderr.contains("cannot start `no_such_program`\n"), "{}", failed.stderr);
}

#[test]
fn what_a_killed_run_had_finished_is_found_and_recorded_as_its_own() {
    let lab = Lab::new(
        "stages:
  fast: { kind: shell, with: { command: 'echo 1 > {out.text}', outputs: [text] } }
  slow:
    kind: shell
    in: { text: fast }
    with: { command: 'test -e go || exec sleep 600; cp {in.text} {out.text}', outputs: [text] }
",
    );
    let mut pipe = lab.start_until(&[], "running slow");
    send(Signal::KILL, i32::try_from(pipe.id()).unwrap());
    pipe.wait().unwrap();
    lab.write("go", "");
    assert_eq!(lab.run(&[]).success().stages("done"), ["slow"]);
    assert_eq!(lab.ask::<i64>("SELECT run FROM execution WHERE stage = 'fast' AND duration IS NOT NULL"), 1);
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM artifact WHERE stage = 'fast' AND run = 2"), 1);
}

#[test]
fn more_commands_run_side_by_side_than_usual_limits_of_open_files_let_be() {
    let mut pipeline = "stages:\n".to_owned();
    for at in 0..80 {
        let command = format!("sleep 0.5; ulimit -Sn > {{out.o}}; : {at}");
        writeln!(pipeline, "  s{at}: {{ kind: shell, with: {{ command: '{command}', outputs: [o] }} }}")
            .unwrap();
    }
    let lab = Lab::new(&pipeline);
    let run = lab.command(&["run", "pipelines/p.yaml", "-j", "80"]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -Sn 80; exec \"$@\"", "sh"]).arg(run.get_program()).args(run.get_args());
    let output = limited.current_dir(lab.path("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [limit] = &lab.files("cache/v1/objects")[..] else { panic!("all have one limit") };
    assert_eq!(std::fs::read_to_string(limit).unwrap(), "80\n");
}
