//! What recording costs; the limits leave room for a slow machine.

use std::time::{Duration, Instant};

use pipe::{
    names::RunId,
    record::{Metric, Outcome, Reason, RunStatus, StageRecord},
};
use serde_json::json;

use crate::lab::{Lab, after, execution, noon, stage};

fn ten_thousand(lab: &mut Lab) -> Vec<StageRecord> {
    let made = stage("made", "sgd", json!({}));
    let first = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
    let record = |at: usize| {
        let mut execution = execution(first, &made, after(first, 1));
        execution.id = format!("{at:032x}");
        StageRecord {
            stage: format!("stage_{at}"),
            kind: "lora".into(),
            kind_version: 1,
            seed: Some(1337),
            params: json!({ "rank": at, "alpha": 16.0, "dropout": 0.05, "targets": ["q", "v"], "epochs": 3,
                            "learning_rate": 0.0005, "batch": 32, "validation": 0.1, "precision": "f32" }),
            key: Some(made.key()),
            outcome: Outcome::Cached,
            execution: Some(execution.id),
            reasons: vec![Reason::Satisfied { since: Some(first), device: None }],
            started: noon(),
            duration: 0.000_01,
            exit_code: None,
            error: None,
            log: String::new(),
        }
    };
    let records: Vec<_> = (0..10_000).map(record).collect();
    let conn = rusqlite::Connection::open(lab.path()).unwrap();
    let tx = conn.unchecked_transaction().unwrap();
    let mut insert = tx
        .prepare("INSERT INTO execution (name, key, hashed, kind, stage, run, started, duration) VALUES (?, ?, '{}', 'lora', '', 1, ?, 1)")
        .unwrap();
    for record in &records {
        let started = record.started.to_string();
        insert.execute((&record.execution, made.key().to_string(), started)).unwrap();
    }
    drop(insert);
    tx.commit().unwrap();
    records
}

fn timed<T>(what: &str, limit_ms: u64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    let took = start.elapsed();
    eprintln!("{what}: {:.1} ms", took.as_secs_f64() * 1e3);
    assert!(took < Duration::from_millis(limit_ms), "{what} took {took:?}");
    result
}

#[test]
fn ten_thousand_stages_are_recorded_at_once() {
    let mut lab = Lab::new();
    let mut records = ten_thousand(&mut lab);
    let mut runs = Vec::new();
    let mut start = Lab::start("toy.yaml");
    for stage in &records {
        start.resolved["stages"][&stage.stage] = json!({ "kind": "lora", "with": stage.params });
    }
    for limit in [8000, 500, 500] {
        let run = timed("begin a run of 10,000 stages", limit, || lab.db.begin(&start)).unwrap();
        runs.push(run);
        timed("record 10,000 stages", limit, || lab.db.record_stages(run, &records)).unwrap();
        timed("finish", 500, || lab.db.finish(run, RunStatus::Done, after(run, 1))).unwrap();
    }
    records[5000].outcome = Outcome::Ran;
    let run = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
    timed("record 10,000 stages of which one ran", 1000, || lab.db.record_stages(run, &records)).unwrap();
    let loaded = timed("load a run of 10,000 stages", 2000, || lab.db.load(runs[2])).unwrap();
    assert_eq!(loaded.stages.len(), 10_000);
    eprintln!("{} bytes", std::fs::metadata(lab.path()).unwrap().len());
}

#[test]
fn ten_thousand_points_are_appended_at_once() {
    let mut lab = Lab::new();
    let run = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
    let train = stage("train", "sgd", json!({}));
    let made = execution(run, &train, after(run, 1));
    lab.db.begin_execution(&made).unwrap();
    let points: Vec<_> = (0..10_000)
        .map(|at| Metric {
            name: ["loss", "rate"][at % 2].into(),
            step: Some(at as u64 / 2),
            value: Some(at as f64),
        })
        .collect();
    timed("append 10,000 points", 1000, || lab.db.append_metrics(&made.id, &points, &[])).unwrap();
}

#[test]
fn a_thousand_runs_are_listed_quickly() {
    let mut lab = Lab::new();
    let names: Vec<&'static str> = (0..20).map(|at| &*format!("metric_{at}").leak()).collect();
    for at in 0..1000 {
        let mut train = stage("train", "sgd", json!({ "rank": at }));
        train.metrics = names.iter().map(|name| (*name, Some(f64::from(at)))).collect();
        lab.run(&[train]);
    }
    let all = timed("list 1,000 runs of 20 metrics", 1000, || lab.db.runs(None)).unwrap();
    assert_eq!((all.len(), all[0].run), (1000, RunId(1000)));
    timed("list the latest 20", 200, || lab.db.runs(Some(20))).unwrap();
}
