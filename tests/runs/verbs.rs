//! What the verbs print.

use clap::Parser;
use jiff::SignedDuration;
use pipe::{
    cli::{compare::Compare, logs::Logs, note::Note, runs::Runs, show::Show, tag::Tag},
    names::RunId,
    record::{Outcome, RunStatus},
};
use serde_json::{Value, json};

use crate::lab::{Lab, Stage, after, execution, noon, record, stage};

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
enum Verb {
    Runs(Runs),
    Show(Show),
    Logs(Logs),
    Compare(Compare),
    Tag(Tag),
    Note(Note),
}

/// What standard output gets, without colours; six hours after noon.
fn said(lab: &mut Lab, line: &str) -> String {
    let now = noon() + SignedDuration::from_hours(6);
    let text = match Verb::parse_from(line.split(' ')) {
        Verb::Runs(verb) => verb.text(&lab.db, now),
        Verb::Show(verb) => verb.text(&lab.db, now),
        Verb::Logs(verb) => {
            verb.said(&lab.db).map(|said| format!("{}# {}\n", said.text, said.remark.unwrap_or_default()))
        }
        Verb::Compare(verb) => verb.text(&lab.db, now),
        Verb::Tag(verb) => verb.text(&mut lab.db, now),
        Verb::Note(verb) => verb.text(&mut lab.db, now),
    };
    anstream::adapter::strip_str(&text.unwrap()).to_string()
}

fn experiment(rank: u32, accuracy: f64) -> Vec<Stage> {
    vec![
        stage("reviews", "sample", json!({ "count": 100 })).metric("count", 100.0),
        stage("lora", "train", json!({ "rank": rank, "targets": ["q", "v"] }))
            .metric("loss", 1.0 / f64::from(rank)),
        stage("eval", "score", json!({}))
            .input("model", json!("lora"), &format!("model of rank {rank}"))
            .metric("lora.accuracy", accuracy)
            .metric("lora.auc", accuracy)
            .metric("lora.bin.64-128.count", 3.0),
    ]
}

fn three_runs() -> Lab {
    let mut lab = Lab::new();
    lab.run(&experiment(8, 0.925_16));
    let mut start = Lab::start("pipelines/toy.yaml");
    start.command =
        ["run", "pipelines/toy.yaml", "--profile", "demo", "--set", "lora.rank=16"].map(Into::into).into();
    (start.profiles, start.sets) = (vec!["demo".into()], vec!["lora.rank=16".into()]);
    let git = start.git.as_mut().unwrap();
    git.patch = b"--- a".to_vec();
    lab.run_as(start.clone(), &experiment(16, 0.931_2));
    start.started = after(RunId(3), 0);
    let run = lab.db.begin(&start).unwrap();
    let lora = &experiment(32, 0.0)[1];
    let mut failed = record(lora, &execution(run, lora, after(run, 1)), false, after(run, 1));
    (failed.outcome, failed.execution) = (Outcome::Failed, None);
    (failed.exit_code, failed.error) = (Some(1), Some("the loss is not finite at step 12".into()));
    let mut skipped =
        record(&experiment(32, 0.0)[2], &execution(run, lora, after(run, 1)), false, after(run, 1));
    (skipped.outcome, skipped.execution, skipped.log) = (Outcome::Skipped, None, String::new());
    lab.db.record_stages(run, &[failed, skipped]).unwrap();
    lab.db.finish(run, RunStatus::Failed, after(run, 20)).unwrap();
    lab
}

#[test]
fn runs_lists_the_latest_first() {
    let mut lab = three_runs();
    said(&mut lab, "tag 1 baseline");
    said(&mut lab, "note 1 the published parameters, as they are in the article");
    insta::assert_snapshot!(said(&mut lab, "runs"), @"
    RUN    STATUS  WHEN         PIPELINE               RAN  CACHED        TOOK  TAGS
    run_3  failed  3 hours ago  toy demo lora.rank=16    0       0      20.0 s
    run_2  done    4 hours ago  toy demo lora.rank=16    2       1  1 min 30 s
    run_1  done    5 hours ago  toy                      3       0  1 min 30 s  baseline “the publishe…the article”
    ");
    insta::assert_snapshot!(said(&mut lab, "runs --limit 1"), @"
    RUN    STATUS  WHEN         PIPELINE               RAN  CACHED    TOOK  TAGS
    run_3  failed  3 hours ago  toy demo lora.rank=16    0       0  20.0 s
    the latest 1; `pipe runs --all` lists every run
    ");
    let json: Value = serde_json::from_str(&said(&mut lab, "runs --json")).unwrap();
    assert_eq!(json[2]["run"], "run_1");
    assert_eq!(json[2]["started"], "2026-03-01T13:00:00Z");
    assert_eq!(json[2]["tags"], json!(["baseline"]));
    assert_eq!(json[1]["outcomes"]["cached"], 1);
    assert_eq!(said(&mut Lab::new(), "runs"), "no run is recorded yet; start with `pipe run FILE`\n");
}

#[test]
fn show_tells_how_a_run_was_made_and_what_came_out() {
    let mut lab = three_runs();
    said(&mut lab, "tag 2 rank/16");
    said(&mut lab, "note @last~1 more rank");
    insta::assert_snapshot!(said(&mut lab, "show rank/16"), @"
    run_2  done  4 hours ago (2026-03-01 14:00:00 UTC, took 1 min 30 s)
    command   pipe run pipelines/toy.yaml --profile demo --set lora.rank=16
    pipeline  toy (pipelines/toy.yaml), seed 1337
    profiles  demo
    set       lora.rank=16
    commit    4f1c2d3e5a6b, with uncommitted changes
    made by   pipe 0.1.0 on anvil, 2 cores
    tags      rank/16
    note      more rank (just now)

    STAGE    STATE   FROM    TOOK     CPU  MEMORY  DEVICE
    reviews  cached  run_1  8.5 s  15.2 s  734 MB  cpu (avx2, 2 threads)
    lora     ran            8.5 s  15.2 s  734 MB  cpu (avx2, 2 threads)
    eval     ran            8.5 s  15.2 s  734 MB  cpu (avx2, 2 threads)

    reviews
      count            100

    lora
      loss        0.06250

    eval
      lora.accuracy        0.93120
      lora.auc             0.93120

    1 metric of bins and tensors hidden; `--all` shows them
    ");
    assert!(said(&mut lab, "show 2 --all").contains("  lora.bin.64-128.count"));
    let json: Value = serde_json::from_str(&said(&mut lab, "show 2 --json")).unwrap();
    assert_eq!(json["stages"][2]["execution"]["metrics"]["lora.accuracy"], 0.9312);
    assert_eq!(json["stages"][0]["execution"]["run"], "run_1");
    insta::assert_snapshot!(said(&mut lab, "show @last"), @"
    run_3  failed  3 hours ago (2026-03-01 15:00:00 UTC, took 20.0 s)
    command   pipe run pipelines/toy.yaml --profile demo --set lora.rank=16
    pipeline  toy (pipelines/toy.yaml), seed 1337
    profiles  demo
    set       lora.rank=16
    commit    4f1c2d3e5a6b, with uncommitted changes
    made by   pipe 0.1.0 on anvil, 2 cores

    STAGE  STATE    FROM   TOOK  CPU  MEMORY  DEVICE
    lora   failed         8.8 s
    eval   skipped

    failed `lora`: the loss is not finite at step 12 (exit code 1)
      `pipe logs run_3 lora` shows what it said
    ");
}

#[test]
fn a_cached_stage_under_another_name_says_whose_result_it_has() {
    let mut lab = Lab::new();
    lab.run(&[stage("train", "sgd", json!({}))]);
    lab.run(&[stage("fit", "sgd", json!({}))]);
    assert!(said(&mut lab, "show 2").contains("fit    cached  run_1 (train)"));
    assert_eq!(
        said(&mut lab, "logs 2 fit"),
        "line 1 of train\nline 2 of train\n# `fit` was cached in run_2; this is the log of `train` in run_1\n"
    );
}

#[test]
fn logs_prints_the_end_of_what_a_stage_said() {
    let mut lab = three_runs();
    assert_eq!(said(&mut lab, "logs 1 lora"), "line 1 of lora\nline 2 of lora\n# \n");
    assert_eq!(said(&mut lab, "logs 1 lora --tail 1"), "line 2 of lora\n# \n");
    assert_eq!(said(&mut lab, "logs 1 lora --tail 9"), "line 1 of lora\nline 2 of lora\n# \n");
    assert_eq!(said(&mut lab, "logs 1 lora --tail 0"), "# \n");
    assert_eq!(
        said(&mut lab, "logs 2 reviews --tail 1"),
        "line 2 of reviews\n# `reviews` was cached in run_2; this is its log in run_1\n"
    );
    assert_eq!(
        said(&mut lab, "logs 3 eval"),
        "# `eval` did not run in run_3: a stage that it needs failed\n"
    );
    let unknown = lab.db.log(RunId(1), "loar").unwrap_err();
    assert_eq!(unknown.to_string(), "run_1 has no stage `loar`");
    assert_eq!(miette::Diagnostic::help(&unknown).unwrap().to_string(), "did you mean `lora`?");
}

#[test]
fn compare_says_first_what_differed() {
    let mut lab = three_runs();
    insta::assert_snapshot!(said(&mut lab, "compare 1 2"), @"
    RUN    STATUS  WHEN         PIPELINE               TAGS
    run_1  done    5 hours ago  toy
    run_2  done    4 hours ago  toy demo lora.rank=16

    WHAT DIFFERED        run_1     run_2
    pipeline file        toy.yaml  pipelines/toy.yaml
    lora.rank            8         16
    uncommitted changes  none      953927630015

    METRIC                   run_1    run_2  DIFFERENCE
    lora.loss              0.12500  0.06250    -0.06250
    eval.lora.accuracy     0.92516  0.93120    +0.00604
    eval.lora.auc          0.92516  0.93120    +0.00604

    1 metric equal: executed once, shared by both
    1 metric of bins and tensors hidden; `--all` shows every one
    ");
    insta::assert_snapshot!(said(&mut lab, "compare 1 2 3 --all"), @"
    RUN    STATUS  WHEN         PIPELINE               TAGS
    run_1  done    5 hours ago  toy
    run_2  done    4 hours ago  toy demo lora.rank=16
    run_3  failed  3 hours ago  toy demo lora.rank=16

    WHAT DIFFERED        run_1     run_2               run_3
    state                done      done                failed
    pipeline file        toy.yaml  pipelines/toy.yaml  pipelines/toy.yaml
    stage reviews        reviews   reviews             –
    lora.rank            8         16                  32
    outcome lora         ran       ran                 failed
    outcome eval         ran       ran                 skipped
    uncommitted changes  none      953927630015        953927630015

    METRIC                           run_1    run_2         Δ  run_3  Δ  BEST
    reviews.count                      100      100         0      –  –
    lora.loss                      0.12500  0.06250  -0.06250      –  –
    eval.lora.accuracy             0.92516  0.93120  +0.00604      –  –
    eval.lora.auc                  0.92516  0.93120  +0.00604      –  –
    eval.lora.bin.64-128.count           3        3         0      –  –
    ");
    insta::assert_snapshot!(said(&mut lab, "compare 1 2 --md"), @"
    | what differed | run_1 | run_2 |
    | --- | --- | --- |
    | pipeline file | toy.yaml | pipelines/toy.yaml |
    | lora.rank | 8 | 16 |
    | uncommitted changes | none | 953927630015 |

    | metric | run_1 | run_2 | run_2 less run_1 |
    | --- | --: | --: | --: |
    | lora.loss | 0.12500 | 0.06250 | -0.06250 |
    | eval.lora.accuracy | 0.92516 | 0.93120 | +0.00604 |
    | eval.lora.auc | 0.92516 | 0.93120 | +0.00604 |
    ");
    insta::assert_snapshot!(said(&mut lab, "compare 1 2 --csv"), @"
    what,stage,name,run_1,run_2,difference_run_2,verdict_run_2
    file,,,toy.yaml,pipelines/toy.yaml,,
    parameter,lora,rank,8,16,,
    patch,,,,9539276300153d8d018d0bede0419b2f444925a7baa44c556529be4eecfd2584,,
    metric,reviews,count,100,100,0,equal
    metric,lora,loss,0.125,0.0625,-0.0625,changed
    metric,eval,lora.accuracy,0.92516,0.9312,0.006040000000000045,changed
    metric,eval,lora.auc,0.92516,0.9312,0.006040000000000045,changed
    metric,eval,lora.bin.64-128.count,3,3,0,equal
    ");
    let json: Value = serde_json::from_str(&said(&mut lab, "compare 1 2 --json")).unwrap();
    assert_eq!(json["differences"][1]["what"], "parameter");
    assert_eq!(json["metrics"][0]["shared"], true);
}

#[test]
fn tags_and_notes_say_what_they_did() {
    let mut lab = three_runs();
    assert_eq!(said(&mut lab, "tag 1 best"), "run_1 is now `best`\n");
    assert_eq!(said(&mut lab, "tag 2 best"), "run_2 is now `best`, which was run_1\n");
    assert_eq!(said(&mut lab, "note best try rank 32"), "noted on run_2\n");
    assert_eq!(said(&mut lab, "tag best best --remove"), "run_2 is no longer `best`\n");
}
