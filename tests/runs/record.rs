//! What is written can be read again, by this process and by others.

use std::path::Path;

use jiff::Timestamp;
use pipe::{
    names::RunId,
    record::{Histogram, Metric, Outcome, Reason, RunStatus},
    runs::{RunsDb, RunsError, State},
};
use rusqlite::Connection;
use serde_json::json;

use crate::lab::{Lab, after, digest, execution, record, stage};

fn count(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_run_is_read_as_it_was_recorded() {
    let mut lab = Lab::new();
    let train = stage("train", "sgd", json!({ "rank": 8, "targets": ["q", "v"] })).metric("loss", 0.25);
    let mut start = Lab::start("toy.yaml");
    start.seed = u64::MAX;
    start.sets = vec!["train.rank=8".into()];
    let git = start.invocation.git.as_mut().unwrap();
    git.is_dirty = true;
    git.patch = b"--- a\n+++ b\n".to_vec();
    let run = lab.run_as(start.clone(), std::slice::from_ref(&train));
    assert_eq!(run, RunId(1));

    let loaded = RunsDb::open_existing(&lab.path()).unwrap().load(run).unwrap();
    assert_eq!(loaded.info.state, State::Done);
    assert_eq!((loaded.info.seed, &loaded.info.sets), (u64::MAX, &start.sets));
    assert_eq!(loaded.info.seconds, Some(90.0));
    assert_eq!(loaded.resolved["stages"]["train"]["kind"], "sgd");
    assert!(loaded.info.git.unwrap().dirty);
    assert_eq!(lab.db.patch(run).unwrap().unwrap(), start.invocation.git.unwrap().patch);
    let [found] = loaded.stages.as_slice() else { panic!("one stage") };
    assert_eq!((found.outcome, &found.reasons), (Outcome::Ran, &vec![Reason::NeverRun]));
    assert_eq!((found.key, &found.params), (Some(train.key()), &train.params));
    let origin = found.execution.as_ref().unwrap();
    assert_eq!(origin.run, Some(run));
    assert_eq!(origin.metrics["loss"], Some(0.25));
    assert_eq!(origin.hashed, serde_json::from_str::<serde_json::Value>(&train.hashed()).unwrap());
    assert_eq!(origin.outputs, execution(run, &train, after(run, 1)).outputs);
    assert_eq!((origin.cpu, origin.peak_memory), (15.25, 734_003_200));
}

#[test]
fn a_found_stage_refers_to_the_run_that_executed_it() {
    let mut lab = Lab::new();
    let stages = [stage("train", "sgd", json!({})).metric("loss", 0.5)];
    let first = lab.run(&stages);
    let second = lab.run(&stages);
    let loaded = lab.db.load(second).unwrap();
    assert_eq!(loaded.info.outcomes.cached, 1);
    assert_eq!(loaded.stages[0].outcome, Outcome::Cached);
    let origin = loaded.stages[0].execution.as_ref().unwrap();
    assert_eq!((origin.run, origin.metrics["loss"]), (Some(first), Some(0.5)));
    assert_eq!(lab.db.latest_run_of(&origin.id).unwrap(), Some((second, "train".into())));
}

#[test]
fn runs_that_only_find_the_same_again_share_their_records() {
    let mut lab = Lab::new();
    let a = [stage("train", "sgd", json!({ "rank": 8 })), stage("eval", "score", json!({}))];
    let b = [stage("train", "sgd", json!({ "rank": 16 })), stage("eval", "score", json!({}))];
    for stages in [&a, &a, &a, &a, &b, &a, &a] {
        lab.run(stages);
    }
    let rows = |run: i64| count(&lab.path(), &format!("SELECT count(*) FROM stage_record WHERE run = {run}"));
    assert_eq!((1..=7).map(rows).collect::<Vec<_>>(), [2, 2, 0, 0, 2, 2, 0]);
    assert_eq!(count(&lab.path(), "SELECT count(*) FROM stage WHERE run = 4 AND since = 1"), 2);
    assert_eq!(lab.db.load(RunId(4)).unwrap().stages, lab.db.load(RunId(2)).unwrap().stages);
    assert_eq!(lab.db.run(RunId(7)).unwrap().outcomes.cached, 2);
    let previous = |before| lab.db.previous(Path::new("toy.yaml"), "toy", "train", before).unwrap().unwrap();
    assert_eq!(previous(None).run, RunId(7));
    assert_eq!(previous(None).hashed, a[0].hashed());
    assert_eq!(previous(Some(RunId(6))).hashed, b[0].hashed());
    assert_eq!(previous(Some(RunId(5))).run, RunId(4));
    let latest = lab.db.load(RunId(2)).unwrap().stages[0].execution.clone().unwrap();
    assert_eq!(lab.db.latest_run_of(&latest.id).unwrap().unwrap().0, RunId(7));
}

#[test]
fn stages_may_be_recorded_in_parts_and_again() {
    let mut lab = Lab::new();
    let stages = [stage("a", "x", json!({})), stage("b", "x", json!({ "n": 2 }))];
    lab.run(&stages);
    lab.run(&stages);
    let run = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
    let made = |stage| execution(RunId(1), stage, after(RunId(1), 1));
    let records: Vec<_> =
        stages.iter().map(|stage| record(stage, &made(stage), true, after(run, 1))).collect();
    lab.db.record_stages(run, &records).unwrap();
    let mut failed = records[1].clone();
    (failed.outcome, failed.execution, failed.error) = (Outcome::Failed, None, Some("no memory".into()));
    (failed.exit_code, failed.log) = (Some(1), "dying\n".into());
    lab.db.record_stages(run, std::slice::from_ref(&failed)).unwrap();

    let loaded = lab.db.load(run).unwrap();
    assert_eq!((loaded.info.outcomes.cached, loaded.info.outcomes.failed), (1, 1));
    assert_eq!(loaded.stages[1].error.as_deref(), Some("no memory"));
    assert_eq!((loaded.stages[1].key, loaded.stages[1].exit_code), (failed.key, Some(1)));
    assert_eq!(lab.db.load(RunId(2)).unwrap().info.outcomes.cached, 2, "the shared records are untouched");
    assert_eq!(lab.db.log(run, "b").unwrap().text.as_deref(), Some("dying\n"));
}

#[test]
fn previous_looks_in_the_same_file_first_and_in_no_other_pipeline() {
    let mut lab = Lab::new();
    let train = |rank: u32| [stage("train", "sgd", json!({ "rank": rank }))];
    lab.run_as(Lab::start("a.yaml"), &train(1));
    lab.run_as(Lab::start("b.yaml"), &train(2));
    let run = |file| lab.db.previous(Path::new(file), "toy", "train", None).unwrap().unwrap().run;
    assert_eq!((run("a.yaml"), run("b.yaml"), run("new.yaml")), (RunId(1), RunId(2), RunId(2)));
    assert_eq!(lab.db.previous(Path::new("a.yaml"), "toy", "other", None).unwrap(), None);
    assert_eq!(lab.db.previous(Path::new("new.yaml"), "new", "train", None).unwrap(), None);
}

#[test]
fn metrics_appended_while_a_stage_runs_are_replaced_by_its_result() {
    let mut lab = Lab::new();
    let run = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
    let stages = [stage("train", "sgd", json!({}))];
    let mut done = execution(run, &stages[0], after(run, 1));
    let point = |step, value| Metric { name: "loss".into(), step: Some(step), value: Some(value) };
    lab.db.begin_execution(&done).unwrap();
    lab.db.append_metrics(&done.id, &[point(0, 9.0), point(1, 8.0), point(1, 7.0)], &[]).unwrap();
    assert_eq!(count(&lab.path(), "SELECT count(*) FROM step_value"), 2);

    done.metrics = vec![point(0, 1.0), Metric { name: "auc".into(), step: None, value: None }];
    let (edges, counts) = (vec![0.0, 0.5, 1.0], vec![3, 4]);
    done.histograms = vec![Histogram { name: "score".into(), step: None, edges, counts }];
    lab.db.record_execution(&done).unwrap();
    lab.db.record_execution(&done).unwrap();
    lab.db.record_stages(run, &[record(&stages[0], &done, false, done.started)]).unwrap();
    assert_eq!(
        count(
            &lab.path(),
            "SELECT count(*) FROM metric WHERE metric = 'train.loss' AND step = 0 AND value = 1"
        ),
        1
    );
    assert_eq!(count(&lab.path(), "SELECT count(*) FROM metric"), 2);
    assert_eq!(count(&lab.path(), "SELECT json_extract(counts, '$[1]') FROM histogram"), 4);
    assert_eq!(lab.db.load(run).unwrap().stages[0].execution.as_ref().unwrap().metrics["auc"], None);
}

#[test]
fn a_result_computed_elsewhere_claims_no_run_of_this_database() {
    let mut lab = Lab::new();
    let stages = [stage("train", "sgd", json!({}))];
    let run = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
    let made = execution(run, &stages[0], "2019-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
    lab.db.record_execution(&made).unwrap();
    lab.db.record_stages(run, &[record(&stages[0], &made, true, after(run, 1))]).unwrap();
    assert_eq!(lab.db.load(run).unwrap().stages[0].execution.as_ref().unwrap().run, None);
    let log = lab.db.log(run, "train").unwrap();
    assert_eq!((log.text, log.from), (None, None));
}

#[test]
fn a_stage_cannot_refer_to_an_execution_that_is_not_recorded_as_complete() {
    let mut lab = Lab::new();
    let stages = [stage("a", "x", json!({})), stage("b", "x", json!({ "n": 2 }))];
    let run = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
    let known = execution(run, &stages[0], after(run, 1));
    let unknown = execution(run, &stages[1], after(run, 1));
    lab.db.record_execution(&known).unwrap();
    let records = [
        record(&stages[0], &known, false, after(run, 1)),
        record(&stages[1], &unknown, false, after(run, 1)),
    ];
    let err = lab.db.record_stages(run, &records).unwrap_err();
    assert!(matches!(err, RunsError::UnknownExecutions { ids, .. } if ids == [unknown.id.clone()]));
    lab.db.begin_execution(&unknown).unwrap();
    lab.db.record_stages(run, &records).unwrap_err();
    assert!(lab.db.load(run).unwrap().stages.is_empty(), "all or nothing");
}

#[test]
fn predictions_are_kept_once_and_outlive_everything() {
    let mut lab = Lab::new();
    let csv = "id,length,label,score,prediction\n".repeat(2000);
    for _ in 0..2 {
        lab.db.keep_predictions(digest(&csv), csv.as_bytes()).unwrap();
    }
    assert_eq!(lab.db.predictions(digest(&csv)).unwrap().unwrap(), csv.as_bytes());
    assert_eq!(lab.db.predictions(digest("other")).unwrap(), None);
    assert_eq!(count(&lab.path(), "SELECT count(*) FROM content WHERE length(deflate) < bytes / 50"), 1);
}

#[test]
fn numbers_are_never_given_twice() {
    let lab = Lab::new();
    let path = lab.path();
    let begin_many = || {
        let mut db = RunsDb::open(&path).unwrap();
        (0..25).map(|_| db.begin(&Lab::start("toy.yaml")).unwrap()).collect::<Vec<_>>()
    };
    let mut all: Vec<RunId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(begin_many)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort();
    assert_eq!(all, (1..=100).map(RunId).collect::<Vec<_>>());
    Connection::open(&path).unwrap().execute("DELETE FROM run WHERE id = 100", []).unwrap();
    assert_eq!(begin_many()[0], RunId(101));
}

#[test]
fn many_processes_may_open_a_new_database_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.db");
    let open = || RunsDb::open(&path).and_then(|mut db| db.begin(&Lab::start("toy.yaml")));
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(!folder.path().join("runs.db.v0.bak").exists());
}

#[test]
fn a_run_whose_process_is_gone_is_shown_as_killed() {
    let mut lab = Lab::new();
    let run = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
    assert_eq!(lab.db.run(run).unwrap().state, State::Running);
    let conn = Connection::open(lab.path()).unwrap();
    // The same process id with another start time: it was used again.
    let change =
        "UPDATE run SET process = replace(process, (SELECT substr(process, instr(process, ' '), 5)), ' 7')";
    conn.execute(change, []).unwrap();
    assert_eq!(lab.db.run(run).unwrap().state, State::Killed);
    lab.db.finish(run, RunStatus::Interrupted, after(run, 1)).unwrap();
    assert_eq!(lab.db.run(run).unwrap().state, State::Interrupted);
}

#[test]
fn a_database_that_cannot_be_used_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.db");
    let err = RunsDb::open_existing(&path).unwrap_err().to_string();
    assert_eq!(err, format!("no runs are recorded here yet: there is no `{}`", path.display()));
    assert!(!path.exists());

    drop(RunsDb::open(&path).unwrap());
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    let err = RunsDb::open(&path).unwrap_err().to_string();
    assert!(err.contains("has schema version 99, and this `pipe` (0.1.0) knows up to 2"), "{err}");
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().contains("bak")));

    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute("CREATE TABLE song (title)", []).unwrap();
    assert!(matches!(RunsDb::open(&other), Err(RunsError::NotOurs { .. })));
    let text = folder.path().join("text.db");
    std::fs::write(&text, "not a database, only a text that is long enough to be looked at ".repeat(20))
        .unwrap();
    assert!(matches!(RunsDb::open(&text), Err(RunsError::Database { .. })));
}
