//! A worker that does not fit is one clear error.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use pipe::exec::{ExecError, Executor, Launch, ProcessExecutor, Stop};
use pipe_stages::contract::{Device, Job, PROTOCOL};

/// The error of a stage whose worker says `hello`.
fn refused(hello: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("worker"), format!("#!/bin/sh\necho '{hello}'\nexec cat\n")).unwrap();
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
        timeout: None,
        gpus: &[],
    };
    let executor = ProcessExecutor::new(path("worker"), &[]);
    match executor.execute(&launch, &Stop::default(), &mut |_| {}) {
        Err(error @ ExecError::Unfit { .. }) => error.to_string(),
        other => panic!("`{hello}` was accepted: {other:?}"),
    }
}

#[test]
fn a_worker_of_another_version_is_refused_before_it_computes_anything() {
    let hello = |protocol: u32, kinds: &str| {
        format!(r#"{{"protocol":{protocol},"build":"9.9.9","kinds":{{{kinds}}}}}"#)
    };
    let error = refused(&hello(99, ""));
    assert!(error.contains("9.9.9 speaks protocol 99, this `pipe` speaks"), "{error}");
    let error = refused(&hello(PROTOCOL, r#""sample_reviews":7"#));
    assert!(error.contains("kind `sample_reviews` version 7, wanted is version 1"), "{error}");
    let error = refused(&hello(PROTOCOL, ""));
    assert!(error.contains("9.9.9 does not know kind `sample_reviews`"), "{error}");
    let error = refused("usage: something else");
    assert!(error.contains("says `usage: something else` instead of hello"), "{error}");
}
