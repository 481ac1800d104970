//! A failure: what still runs, what is tried again, and what is said of the rest.

use std::process::Stdio;

use crate::lab::Lab;

const TWO_FAIL: &str = "stages:
  bad: { kind: shell, with: { command: 'exit 3 # {out.y}', outputs: [y] } }
  after: { kind: shell, in: { x: bad }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
  deep: { kind: shell, in: { x: after }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
  worse: { kind: shell, with: { command: 'exit 4' } }
  good: { kind: shell, with: { command: 'echo 1 > {out.y}', outputs: [y] } }
  fine: { kind: shell, in: { x: good }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
";

fn reason(lab: &Lab, stage: &str) -> String {
    lab.ask(&format!("SELECT reasons FROM stage_record WHERE name = '{stage}' ORDER BY run DESC LIMIT 1"))
}

#[test]
fn keep_going_runs_everything_that_does_not_need_what_failed_and_names_all_failures() {
    let lab = Lab::new(TWO_FAIL);
    let said = lab.run(&["--keep-going", "-j", "1"]).ends_with_code(1);
    assert_eq!(said.stages("failed"), ["bad", "worse"]);
    assert_eq!(said.stages("done"), ["fine", "good"]);
    assert_eq!(said.stages("skipped"), ["after", "deep"]);
    assert!(said.stderr.contains("2 failed (bad, worse), 2 not run, 2 ran"), "{}", said.stderr);
    for stage in ["after", "deep"] {
        assert_eq!(reason(&lab, stage), r#"[{"reason":"blocked","by":"bad"}]"#);
    }
}

#[test]
fn without_it_no_more_stages_are_started() {
    let lab = Lab::new(TWO_FAIL);
    let said = lab.run(&["-j", "1"]).ends_with_code(1);
    assert_eq!((said.stages("failed"), said.stages("done")), (vec!["bad"], vec![]));
    assert_eq!(reason(&lab, "fine"), r#"[{"reason":"not_started","failed":"bad"}]"#);
}

#[test]
fn a_stage_of_the_same_key_tries_for_itself_when_the_first_failed() {
    let lab = Lab::new(
        "stages:
  one: { kind: shell, with: { command: 'test -e tried && cp tried {out.y} || { touch tried; exit 1; }', outputs: [y] } }
  two: { kind: shell, with: { command: 'test -e tried && cp tried {out.y} || { touch tried; exit 1; }', outputs: [y] } }
",
    );
    let said = lab.run(&["-k", "-j", "2"]).ends_with_code(1);
    assert_eq!((said.stages("failed").len(), said.stages("done").len()), (1, 1), "{}", said.stderr);
}

#[test]
fn a_failure_is_one_also_where_nobody_reads_what_is_printed() {
    let lab = Lab::new(TWO_FAIL);
    for arguments in [["run", "pipelines/p.yaml", "--json"], ["verify", "--cache", "--json"]] {
        let mut command = lab.command(&arguments);
        let mut pipe = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        drop(pipe.stdout.take());
        assert_eq!(pipe.wait().unwrap().code(), Some(1), "{arguments:?}");
        lab.run(&["-k"]).ends_with_code(1);
        lab.files("cache/v1/objects").iter().for_each(|object| std::fs::remove_file(object).unwrap());
    }
}

#[test]
fn the_time_of_a_stage_is_its_own_however_long_it_waited_for_room() {
    let lab = Lab::new(
        "stages:
  slow: { kind: shell, with: { command: 'sleep 1' } }
  bad: { kind: shell, with: { command: 'exit 1' } }
  twin: { kind: shell, with: { command: 'sleep 1' } }
  good: { kind: shell, with: { command: 'echo good' } }
",
    );
    lab.run(&["-j", "1", "-k"]).ends_with_code(1);
    let late = "SELECT count(*) FROM stage_record AS record JOIN run ON run.id = record.run
                WHERE name IN ('bad', 'good') AND duration < 0.9
                  AND julianday(record.started) - julianday(run.started) > 0.9 / 86400";
    assert_eq!(lab.ask::<i64>(late), 2);
}

#[test]
fn the_time_of_a_stage_that_fails_again_and_again_holds_all_of_its_attempts() {
    let lab = Lab::new("stages: { bad: { kind: shell, retry: 2, with: { command: 'sleep 0.2; exit 1' } } }");
    lab.run(&[]).ends_with_code(1);
    assert!(lab.ask::<f64>("SELECT duration FROM stage_record") > 0.6);
}

#[test]
fn a_stage_that_asks_for_more_than_there_is_gets_what_there_is_and_that_is_said_once() {
    let lab = Lab::new(
        "stages:
  a: { kind: shell, resources: { cpus: 500 }, with: { command: 'echo {threads} > {out.y}', outputs: [y] } }
  b: { kind: shell, resources: { cpus: 600 }, in: { x: a }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
",
    );
    let said = lab.run(&["-j", "1"]).success().stderr;
    assert!(said.contains("note a asks for 500 cores and gets 1, all that this run may use"), "{said}");
    assert_eq!(said.matches("asks for").count(), 1, "{said}");
    assert!(!lab.run(&["-j", "1"]).success().stderr.contains("asks for"), "nothing ran");
    lab.edit("cpus: 500", "memory: 900TiB");
    let said = lab.run(&["--force=a"]).success().stderr;
    assert!(said.contains("a asks for 900 TiB of memory and gets "), "{said}");
}
