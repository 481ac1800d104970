//! A worker that does not fit is one clear error, and one that says nothing or much is no trap.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, time::Duration};

use pipe::exec::{ExecError, Executor, Exit, Launch, ProcessExecutor, Stop};
use pipe_stages::contract::{Device, Job, PROTOCOL};

/// How a stage ended whose worker is a script of this `body`, and its log.
fn executed(body: &str, stop: &Stop, timeout: Duration) -> (Result<Exit, ExecError>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("worker"), format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path("worker"), fs::Permissions::from_mode(0o755)).unwrap();
    let job = Job {
        stage: "sample".into(),
        key: "0".repeat(64),
        kind: "sample_reviews".into(),
        version: 1,
        params: serde_json::json!({}),
        seed: 0,
        inputs: BTreeMap::new(),
        outputs: BTreeMap::new(),
        events: path("events.jsonl"),
        checkpoint: path("checkpoint"),
        device: Device::Cpu,
        threads: 1,
    };
    let lock = fs::File::create(path("lock")).unwrap();
    let launch = Launch {
        job: &job,
        root: folder.path(),
        output: path("output"),
        lock: &lock,
        timeout: Some(timeout),
        gpus: &[],
    };
    let executor = ProcessExecutor::new(path("worker"), &[]);
    let finished = executor.execute(&launch, stop, &mut |_| {});
    (finished.map(|finished| finished.exit), fs::read_to_string(launch.output).unwrap())
}

fn hello(protocol: u32, kinds: &str) -> String {
    format!(r#"{{"protocol":{protocol},"build":"9.9.9","kinds":{{{kinds}}}}}"#)
}

/// The error of a stage whose worker says `hello`.
fn refused(hello: &str) -> String {
    match executed(&format!("echo '{hello}'\nexec cat"), &Stop::default(), Duration::from_mins(1)).0 {
        Err(error @ ExecError::Unfit { .. }) => error.to_string(),
        other => panic!("`{hello}` was accepted: {other:?}"),
    }
}

#[test]
fn a_worker_of_another_version_is_refused_before_it_computes_anything() {
    let error = refused(&hello(99, ""));
    assert!(error.contains("9.9.9 speaks protocol 99, this `pipe` speaks"), "{error}");
    let error = refused(&hello(PROTOCOL, r#""sample_reviews":7"#));
    assert!(error.contains("kind `sample_reviews` version 7, wanted is version 1"), "{error}");
    let error = refused(&hello(PROTOCOL, ""));
    assert!(error.contains("9.9.9 does not know kind `sample_reviews`"), "{error}");
    let error = refused("usage: something else");
    assert!(error.contains("says `usage: something else` instead of hello"), "{error}");
}

#[test]
fn a_worker_that_does_not_greet_is_stopped_like_any_other() {
    let (ended, _) = executed("exec sleep 60", &Stop::default(), Duration::from_millis(20));
    assert_eq!(ended.unwrap(), Exit::TimedOut);
    let stop = Stop::default();
    stop.request();
    // It ends with its input, as workers do.
    let (ended, _) = executed("exec cat >&2", &stop, Duration::from_secs(20));
    assert_eq!(ended.unwrap(), Exit::Stopped);
}

#[test]
fn what_a_worker_prints_does_not_stop_it_and_is_in_its_log() {
    let much = format!(
        "echo '{}'\nread job\nyes printed | head -n 100000",
        hello(PROTOCOL, r#""sample_reviews":1"#)
    );
    let (ended, log) = executed(&much, &Stop::default(), Duration::from_secs(20));
    assert_eq!(ended.unwrap(), Exit::Code(0));
    assert_eq!(log.lines().filter(|line| *line == "printed").count(), 100_000);
}
