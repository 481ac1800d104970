//! `retry` and `timeout`: how often and how long a stage may try, whatever its kind.

use crate::lab::Lab;

/// Fails until it was started `times` before; each attempt adds a line to its checkpoint.
fn flaky(times: u32, more: &str) -> Lab {
    Lab::new(&format!(
        "stages:
  flaky:
    kind: shell
    with: {{ command: 'echo line >> {{checkpoint}}/lines; echo started; test $(wc -l < {{checkpoint}}/lines) -gt {times}; cp {{checkpoint}}/lines {{out.y}}', outputs: [y] }}
    {more}
"
    ))
}

fn reasons(lab: &Lab, stage: &str) -> String {
    lab.ask(&format!("SELECT reasons FROM stage_record WHERE name = '{stage}' ORDER BY run DESC LIMIT 1"))
}

#[test]
fn a_stage_that_failed_is_started_again_with_its_checkpoint_and_the_record_says_how_often() {
    let lab = flaky(2, "retry: 2");
    let said = lab.run(&[]).success();
    for retry in ["retry 1 of 2", "retry 2 of 2"] {
        assert!(said.stderr.contains(retry), "{}", said.stderr);
    }
    assert!(said.stderr.contains("took 3 attempts"), "{}", said.stderr);
    assert!(reasons(&lab, "flaky").contains(r#"{"reason":"retried","attempts":3}"#));
    let log = lab.pipe(&["logs", "@last", "flaky"]).success().stdout;
    assert_eq!(log.matches("started").count(), 3, "the log has all attempts: {log}");
    assert!(log.contains("attempt 2 failed"), "{log}");
}

#[test]
fn a_stage_fails_when_no_retry_is_left_and_another_run_of_it_is_a_new_start() {
    let lab = flaky(2, "retry: 1");
    let said = lab.run(&[]).ends_with_code(1);
    assert!(said.stderr.contains("retry 1 of 1") && said.stderr.contains("2 attempts"), "{}", said.stderr);
    lab.run(&[]).success();
}

#[test]
fn retry_and_timeout_are_not_in_the_key_and_can_be_set() {
    let lab = flaky(0, "retry: 1\n    timeout: 1h 30m");
    lab.run(&[]).success();
    for set in ["stages.flaky.retry=5", "stages.flaky.timeout=2d", "stages.flaky.timeout="] {
        assert!(lab.run(&["--set", set]).success().stderr.contains("nothing to do"), "{set}");
    }
    let lab = flaky(1, "retry: 0");
    lab.run(&["--set", "stages.flaky.retry=1"]).success();
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_all_it_started_and_told_where_its_limit_is() {
    let lab = Lab::new(
        "stages:
  slow:
    kind: shell
    timeout: 200ms
    with: { command: 'sleep 322 & echo $! > {checkpoint}/sleeper; cp {checkpoint}/sleeper sleeper; wait' }
",
    );
    let said = lab.run(&[]).ends_with_code(1);
    assert!(said.stderr.contains("longer than its time limit of 200ms"), "{}", said.stderr);
    assert!(said.stderr.contains("`timeout` (pipelines/p.yaml:4:"), "{}", said.stderr);
    let sleeper = std::fs::read_to_string(lab.path("sleeper")).unwrap();
    let is_gone = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", sleeper.trim()));
        status.map_or(true, |text| text.contains("State:\tZ"))
    };
    crate::lab::wait_until("the end of what it started", is_gone);
}

#[test]
fn a_command_that_does_not_heed_being_asked_is_killed() {
    let lab = Lab::new(
        "stages:
  deaf:
    kind: shell
    timeout: 100ms
    with: { command: 'trap \"\" TERM; while :; do sleep 1; done' }
",
    );
    let said = lab.run(&[]).ends_with_code(1);
    assert!(said.stderr.contains("time limit of 100ms"), "{}", said.stderr);
}

#[test]
fn the_limit_is_for_each_attempt_and_holds_for_workers() {
    let lab = Lab::new(
        "stages:
  reviews: { kind: sample_reviews, with: { train: 1000000, test: 10 }, timeout: 1ms, retry: 1 }
",
    );
    let said = lab.run(&[]).ends_with_code(1);
    assert!(said.stderr.contains("retry 1 of 1: it was stopped"), "{}", said.stderr);
    assert!(said.stderr.contains("time limit of 1ms"), "{}", said.stderr);
    assert!(lab.workers().is_empty());
}

#[test]
fn what_is_no_count_and_no_time_is_found_by_check_with_its_place() {
    for (field, message, place) in [
        ("retry: -1", "`retry` must be a whole number from 0", "pipelines/p.yaml:5:12"),
        ("retry: often", "`retry` must be a whole number from 0", "pipelines/p.yaml:5:12"),
        ("timeout: soon", "a time limit is written like", "pipelines/p.yaml:5:14"),
        ("timeout: 30", "write `30s` or `30m`", "pipelines/p.yaml:5:14"),
        ("timeout: -5m", "a time limit is written like", "pipelines/p.yaml:5:14"),
        ("timeout: [30m]", "`timeout` must be a time such as `30m`", "pipelines/p.yaml:5:14"),
        ("retries: 2", "did you mean `retry`?", "pipelines/p.yaml:5:5"),
    ] {
        let said = flaky(0, field).pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2);
        let words = said.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(message) && words.contains(place), "{field}: {}", said.stderr);
    }
}

#[test]
fn the_line_of_a_retry_says_what_happened_and_announces_nothing() {
    let lab = Lab::new(
        "stages: { b: { kind: shell, retry: 1, with: { command: 'echo why; exit 1 # {out.o}', outputs: [o] } } }",
    );
    let said = lab.run(&[]).ends_with_code(1);
    let line = " retrying b  retry 1 of 1: the command ended with exit code 1\n";
    assert!(said.stderr.contains(line), "{}", said.stderr);
    let log = lab.pipe(&["logs", "@last", "b"]).success().stdout;
    assert!(log.contains("attempt 1 failed: the command ended with exit code 1\nretry 1 of 1\n"), "{log}");
}
