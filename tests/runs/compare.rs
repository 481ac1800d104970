//! What a comparison finds.

use pipe::{
    names::RunId,
    record::{Outcome, RunStatus},
    runs::compare::{Comparison, Verdict, What, compare},
};
use pipe_stages::contract::Better;
use serde_json::{Value, json};

use What::{Commit, Cpus, File, Host, Seed, StageSeed, Version};

use crate::lab::{Lab, Stage, after, execution, record, stage};

fn better(kind: &str, _: &Value, metric: &str) -> Better {
    match (kind, metric) {
        ("score", "accuracy") => Better::Higher,
        (_, "loss") => Better::Lower,
        _ => Better::Neither,
    }
}

fn compared(lab: &Lab, runs: &[RunId]) -> Comparison {
    let loaded: Vec<_> = runs.iter().map(|run| lab.db.load(*run).unwrap()).collect();
    compare(&loaded, better)
}

/// `(what, stage.name, values)` of every difference.
fn differences(comparison: &Comparison) -> Vec<(What, String, Vec<Value>)> {
    let found = comparison.differences.iter().map(|difference| {
        let name = format!("{}.{}", difference.stage.clone().unwrap_or_default(), difference.name);
        let values = difference.values.iter().map(|value| value.clone().unwrap_or(json!("absent")));
        (difference.what, name.trim_matches('.').to_owned(), values.collect())
    });
    found.collect()
}

fn experiment(rank: u32, accuracy: f64) -> Vec<Stage> {
    let model = format!("model of rank {rank}");
    vec![
        stage("reviews", "sample", json!({ "count": 100 })).metric("count", 100.0),
        stage("lora", "train", json!({ "rank": rank, "schedule": { "warmup": 10 }, "targets": ["q", "v"] }))
            .input("reviews", json!("reviews"), "reviews")
            .metric("loss", 1.0 / f64::from(rank)),
        stage("eval", "score", json!({}))
            .input("model", json!("lora"), &model)
            .metric("accuracy", accuracy)
            .metric("bin.64-128.count", 3.0)
            .metric("bin.1024-.count", 4.0),
    ]
}

#[test]
fn a_changed_parameter_is_the_one_difference_and_metrics_say_what_came_of_it() {
    let mut lab = Lab::new();
    let (a, b) = (lab.run(&experiment(8, 0.75)), lab.run(&experiment(16, 0.5)));
    let comparison = compared(&lab, &[a, b]);
    assert_eq!(differences(&comparison), [(What::Parameter, "lora.rank".into(), vec![json!(8), json!(16)])]);
    let rows: Vec<_> = comparison
        .metrics
        .iter()
        .map(|row| (format!("{}.{}", row.stage, row.name), row.differences[1], row.verdicts[1], row.shared))
        .collect();
    assert_eq!(
        rows,
        [
            ("reviews.count".into(), Some(0.0), Verdict::Equal, true),
            ("lora.loss".into(), Some(-0.0625), Verdict::Better, false),
            ("eval.accuracy".into(), Some(-0.25), Verdict::Worse, false),
            ("eval.bin.64-128.count".into(), Some(0.0), Verdict::Equal, false),
            ("eval.bin.1024-.count".into(), Some(0.0), Verdict::Equal, false),
        ]
    );
}

#[test]
fn a_run_compared_with_a_repetition_of_it_has_no_differences() {
    let mut lab = Lab::new();
    let runs = [lab.run(&experiment(8, 0.75)), lab.run(&experiment(8, 0.75)), lab.run(&experiment(8, 0.75))];
    let comparison = compared(&lab, &runs);
    assert_eq!(differences(&comparison), []);
    assert!(comparison.metrics.iter().all(|row| row.shared));
}

#[test]
fn a_renamed_stage_is_the_same_stage() {
    let mut lab = Lab::new();
    let mut renamed = experiment(8, 0.75);
    renamed[1].name = "adapter";
    renamed[2].takes = json!({ "model": "adapter" });
    let mut changed_too = experiment(4, 0.5);
    changed_too[1].name = "small";
    changed_too[2].takes = json!({ "model": "small" });
    let runs = [lab.run(&experiment(8, 0.75)), lab.run(&renamed), lab.run(&changed_too)];
    let comparison = compared(&lab, &runs);
    let names = vec![json!("lora"), json!("adapter"), json!("small")];
    assert_eq!(
        differences(&comparison),
        [
            (What::Stage, "lora".into(), names),
            (What::Parameter, "lora.rank".into(), vec![json!(8), json!(8), json!(4)]),
        ]
    );
    let loss = comparison.metrics.iter().find(|row| row.name == "loss").unwrap();
    assert_eq!((loss.stage.as_str(), &loss.verdicts[1..]), ("lora", &[Verdict::Equal, Verdict::Worse][..]));
}

#[test]
fn renamed_stages_of_one_kind_are_told_apart_by_what_they_compute() {
    let mut lab = Lab::new();
    let two = |first, second| {
        [stage(first, "train", json!({ "rank": 4 })), stage(second, "train", json!({ "rank": 8 }))]
    };
    let [four, eight] = two("x", "y");
    let runs = [lab.run(&two("a", "b")), lab.run(&[eight, four])];
    assert_eq!(
        differences(&compared(&lab, &runs)),
        [
            (What::Stage, "a".into(), vec![json!("a"), json!("x")]),
            (What::Stage, "b".into(), vec![json!("b"), json!("y")]),
        ]
    );
}

#[test]
fn stages_that_only_one_run_has_are_named_once() {
    let mut lab = Lab::new();
    let mut more = experiment(8, 0.75);
    more.push(stage("report", "table", json!({ "format": "md" })).metric("rows", 3.0));
    let runs = [lab.run(&experiment(8, 0.75)), lab.run(&more)];
    let comparison = compared(&lab, &runs);
    assert_eq!(
        differences(&comparison),
        [(What::Stage, "report".into(), vec![json!("absent"), json!("report")])]
    );
    let row = comparison.metrics.last().unwrap();
    assert_eq!((&row.values, row.verdicts[1]), (&vec![None, Some(3.0)], Verdict::Unknown));
}

#[test]
fn outside_files_are_compared_by_content_and_wiring_by_what_it_takes() {
    let mut lab = Lab::new();
    let make = |content: &str, takes: &str| {
        let inputs = stage("load", "read", json!({})).input("file", json!({ "file": "data/x.csv" }), content);
        let eval =
            stage("eval", "score", json!({})).input("data", json!(takes), &format!("{takes} {content}"));
        vec![inputs, stage("other", "read", json!({ "n": 1 })), eval]
    };
    let runs = [lab.run(&make("one", "load")), lab.run(&make("two", "load")), lab.run(&make("one", "other"))];
    let digests: Vec<_> = ["one", "two", "one"].map(crate::lab::digest).map(|digest| json!(digest)).into();
    assert_eq!(
        differences(&compared(&lab, &runs)),
        [
            (What::Input, "load.file (data/x.csv)".into(), digests),
            (What::Source, "eval.data".into(), vec![json!("load"), json!("load"), json!("other")]),
        ]
    );
}

#[test]
fn seeds_machines_and_checkouts_are_compared() {
    let mut lab = Lab::new();
    let first = lab.run(&[stage("a", "x", json!({})), stage("b", "x", json!({ "n": 1 }))]);
    let mut start = Lab::start("other.yaml");
    start.seed = 7;
    start.invocation.host = "forge".into();
    start.invocation.cpus = 64;
    start.invocation.version = "0.2.0".into();
    start.invocation.git = None;
    let second =
        lab.run_as(start, &[stage("a", "x", json!({})).seed(7), stage("b", "x", json!({ "n": 1 })).seed(8)]);
    let found: Vec<_> =
        differences(&compared(&lab, &[first, second])).into_iter().map(|found| (found.0, found.1)).collect();
    let expected =
        [(File, ""), (Seed, ""), (StageSeed, "b"), (Commit, ""), (Version, ""), (Host, ""), (Cpus, "")];
    assert_eq!(found, expected.map(|(what, name)| (what, name.to_owned())));
}

#[test]
fn another_kind_version_or_device_is_said() {
    let mut lab = Lab::new();
    let mut runs = Vec::new();
    for (kind, version, device) in [("sgd", 1, "cpu"), ("sgd", 2, "cuda"), ("adam", 2, "cuda")] {
        let run = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
        let mut records = Vec::new();
        for name in ["train", "tune"] {
            let stage = stage(name, kind, json!({ "lr": 1, "on": [device, name] }));
            let mut made = execution(run, &stage, after(run, 1));
            made.device = Some(device.into());
            lab.db.record_execution(&made).unwrap();
            let mut record = record(&stage, &made, false, after(run, 1));
            (record.kind_version, record.params) = (version, json!({ "lr": 1 }));
            records.push(record);
        }
        lab.db.record_stages(run, &records).unwrap();
        lab.db.finish(run, RunStatus::Done, after(run, 9)).unwrap();
        runs.push(run);
    }
    let found = |runs: &[RunId]| differences(&compared(&lab, runs));
    let versions = |stage: &str| (What::KindVersion, stage.into(), vec![json!(1), json!(2)]);
    let devices = (What::Device, "train, tune".into(), vec![json!("cpu"), json!("cuda")]);
    assert_eq!(found(&runs[..2]), [versions("train"), versions("tune"), devices]);
    let kinds = |stage: &str| (What::Kind, stage.into(), vec![json!("sgd"), json!("adam")]);
    assert_eq!(found(&runs[1..]), [kinds("train"), kinds("tune")]);
}

#[test]
fn a_failed_stage_is_a_difference_and_has_no_metrics() {
    let mut lab = Lab::new();
    let stages = [stage("train", "sgd", json!({})).metric("loss", 0.5)];
    let done = lab.run(&stages);
    let run = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
    let mut failed = record(&stages[0], &execution(run, &stages[0], after(run, 1)), false, after(run, 1));
    (failed.outcome, failed.execution) = (Outcome::Failed, None);
    lab.db.record_stages(run, &[failed]).unwrap();
    lab.db.finish(run, RunStatus::Failed, after(run, 2)).unwrap();
    let comparison = compared(&lab, &[done, run]);
    assert_eq!(
        differences(&comparison),
        [
            (What::State, String::new(), vec![json!("done"), json!("failed")]),
            (What::Outcome, "train".into(), vec![json!("ran"), json!("failed")]),
        ]
    );
    assert_eq!(comparison.metrics[0].values, [Some(0.5), None]);
}
