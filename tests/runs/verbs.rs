//! What the verbs print.

use std::process::{Command, Output};

use pipe::{
    names::RunId,
    record::{Outcome, Reason, RunStatus},
};
use serde_json::{Value, json};

use crate::lab::{Lab, Stage, after, execution, record, stage};

/// Runs `pipe` with the words of `line` in the lab's project.
fn pipe(lab: &Lab, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipe"))
        .env("PIPE_ROOT", lab.folder.path())
        .args(line.split(' '))
        .output()
        .expect("`pipe` starts")
}

/// What goes to standard output.
fn said(lab: &Lab, line: &str) -> String {
    let output = pipe(lab, line);
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What goes to standard error, where the input cannot be used.
fn refused(lab: &Lab, line: &str) -> String {
    let output = pipe(lab, line);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{line}");
    String::from_utf8(output.stderr).unwrap()
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
    start.invocation.command =
        ["run", "pipelines/toy.yaml", "--profile", "demo", "--set", "lora.rank=16"].map(Into::into).into();
    (start.profiles, start.sets) = (vec!["demo".into()], vec!["lora.rank=16".into()]);
    let git = start.invocation.git.as_mut().unwrap();
    git.is_dirty = true;
    git.patch = b"--- a".to_vec();
    lab.run_as(start.clone(), &experiment(16, 0.931_2));
    start.invocation.started = after(RunId(3), 0);
    let run = lab.db.begin(&start).unwrap();
    let lora = &experiment(32, 0.0)[1];
    let mut failed = record(lora, &execution(run, lora, after(run, 1)), false, after(run, 1));
    (failed.outcome, failed.execution) = (Outcome::Failed, None);
    let changed = |old, new| Reason::Parameter { path: "rank".into(), old, new, place: None, since: None };
    failed.reasons = vec![changed(Some(json!(16)), Some(json!(32)))];
    (failed.exit_code, failed.error) = (Some(1), Some("the loss is not finite at step 12".into()));
    let mut skipped =
        record(&experiment(32, 0.0)[2], &execution(run, lora, after(run, 1)), false, after(run, 1));
    skipped.reasons = vec![Reason::Blocked { by: "lora".into() }];
    (skipped.outcome, skipped.execution, skipped.log) = (Outcome::Skipped, None, String::new());
    lab.db.record_stages(run, &[failed, skipped]).unwrap();
    lab.db.finish(run, RunStatus::Failed, after(run, 20)).unwrap();
    lab
}

#[test]
fn runs_lists_the_latest_first() {
    let lab = three_runs();
    said(&lab, "tag 1 baseline");
    said(&lab, "note 1 the published parameters, as they are in the article");
    insta::assert_snapshot!(said(&lab, "runs"), @"
    RUN    STATUS  WHEN        PIPELINE               RAN  CACHED        TOOK  TAGS
    run_3  failed  2020-03-01  toy demo lora.rank=16    0       0      20.0 s
    run_2  done    2020-03-01  toy demo lora.rank=16    2       1  1 min 30 s
    run_1  done    2020-03-01  toy                      3       0  1 min 30 s  baseline “the published parameters, as they are in the article”
    ");
    insta::assert_snapshot!(said(&lab, "runs --limit 1"), @"
    RUN    STATUS  WHEN        PIPELINE               RAN  CACHED    TOOK  TAGS
    run_3  failed  2020-03-01  toy demo lora.rank=16    0       0  20.0 s
    the first 1; `pipe runs --all` lists every run
    ");
    let json: Value = serde_json::from_str(&said(&lab, "runs --json")).unwrap();
    assert_eq!(json[2]["run"], "run_1");
    assert_eq!(json[2]["started"], "2020-03-01T13:00:00Z");
    assert_eq!(json[2]["tags"], json!(["baseline"]));
    assert_eq!(json[1]["outcomes"]["cached"], 1);
    assert_eq!(said(&Lab::new(), "runs"), "no run is recorded yet; start with `pipe run FILE`\n");
}

#[test]
fn show_tells_how_a_run_was_made_and_what_came_out() {
    let lab = three_runs();
    said(&lab, "tag 2 rank/16");
    said(&lab, "note @last~1 more rank");
    insta::assert_snapshot!(said(&lab, "show rank/16"), @"
    run_2  done  2020-03-01 14:00:00 UTC, took 1 min 30 s
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

    1 metric of bins and tensors hidden; `--all` shows every one
    ");
    assert!(said(&lab, "show 2 --all").contains("  lora.bin.64-128.count"));
    let json: Value = serde_json::from_str(&said(&lab, "show 2 --json")).unwrap();
    assert_eq!(json["stages"][2]["execution"]["metrics"]["lora.accuracy"], 0.9312);
    assert_eq!(json["stages"][0]["execution"]["run"], "run_1");
    insta::assert_snapshot!(said(&lab, "show @last"), @"
    run_3  failed  2020-03-01 15:00:00 UTC, took 20.0 s
    command   pipe run pipelines/toy.yaml --profile demo --set lora.rank=16
    pipeline  toy (pipelines/toy.yaml), seed 1337
    profiles  demo
    set       lora.rank=16
    commit    4f1c2d3e5a6b, with uncommitted changes
    made by   pipe 0.1.0 on anvil, 2 cores

    STAGE  STATE    FROM   TOOK  CPU  MEMORY  DEVICE
    lora   failed         8.8 s
    eval   skipped

    WHY
    lora  with.rank: 16 → 32
    eval  needs lora, which failed

    failed `lora`: the loss is not finite at step 12 (exit code 1)
      `pipe logs run_3 lora` shows what it said
    ");
}

#[test]
fn verbs_are_known_by_the_names_that_other_tools_have() {
    let lab = three_runs();
    for (alias, verb) in [
        ("ls", "runs"),
        ("list", "runs"),
        ("history --limit 1", "runs --limit 1"),
        ("log 1 lora", "logs 1 lora"),
        ("diff 1 2", "compare 1 2"),
    ] {
        assert_eq!(said(&lab, alias), said(&lab, verb));
    }
}

#[test]
fn the_command_and_what_was_set_can_be_pasted_into_a_shell() {
    let mut lab = Lab::new();
    let mut start = Lab::start("my pipeline.yaml");
    start.sets = vec!["lora.targets=[q, v]".into(), "name=it's".into()];
    let sets = start.sets.iter().flat_map(|set| ["--set".into(), set.clone()]);
    start.invocation.command = ["run".into(), "my pipeline.yaml".into()].into_iter().chain(sets).collect();
    lab.run_as(start.clone(), &[]);
    lab.run_as(start, &[]);
    let shown = said(&lab, "show");
    let command = r"pipe run 'my pipeline.yaml' --set 'lora.targets=[q, v]' --set 'name=it'\''s'";
    assert!(shown.contains(&format!("command   {command}\n")), "{shown}");
    let runs = said(&lab, "runs");
    assert!(runs.contains(r"  toy 'lora.targets=[q, v]' 'name=it'\''s'  "), "{runs}");
    let compared = said(&lab, "compare 1 2");
    assert!(compared.contains(r" 'name=it'\''s'"), "{compared}");
}

#[test]
fn a_cached_stage_under_another_name_says_whose_result_it_has() {
    let mut lab = Lab::new();
    lab.run(&[stage("train", "sgd", json!({}))]);
    lab.run(&[stage("fit", "sgd", json!({}))]);
    let shown = said(&lab, "show 2");
    assert!(shown.contains("fit    cached  run_1 (train)"), "{shown}");
    assert_eq!(
        String::from_utf8(pipe(&lab, "logs 2 fit").stderr).unwrap(),
        "`fit` was cached in run_2; this is the log of `train` in run_1\n"
    );
}

#[test]
fn logs_prints_the_end_of_what_a_stage_said() {
    let lab = three_runs();
    let logs = |line: &str| {
        let output = pipe(&lab, line);
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    assert_eq!(logs("logs 1 lora"), ["line 1 of lora\nline 2 of lora\n", ""]);
    assert_eq!(logs("logs 1 lora --tail 1"), ["line 2 of lora\n", ""]);
    assert_eq!(logs("logs 1 lora --tail 9"), ["line 1 of lora\nline 2 of lora\n", ""]);
    assert_eq!(logs("logs 1 lora --tail 0"), ["", ""]);
    let cached = "`reviews` was cached in run_2; this is its log in run_1\n";
    assert_eq!(logs("logs 2 reviews --tail 1"), ["line 2 of reviews\n", cached]);
    let skipped = "`eval` did not run in run_3: a stage that it needs failed\n";
    assert_eq!(logs("logs 3 eval"), ["", skipped]);
    insta::assert_snapshot!(refused(&lab, "logs 2"), @"
    x name a stage of run_2 to see its log
    help: it has reviews, lora, eval: `pipe logs run_2 reviews`
    ");
    insta::assert_snapshot!(refused(&lab, "logs lora"), @"
    x there is no run `lora`
    help: it is a stage of run_3: `pipe logs run_3 lora`
    ");
}

#[test]
fn a_log_of_which_only_the_end_was_kept_says_so() {
    let mut lab = Lab::new();
    let run = lab.run(&[]);
    let train = stage("train", "sgd", json!({}));
    let mut failed = record(&train, &execution(run, &train, after(run, 1)), false, after(run, 1));
    (failed.outcome, failed.execution) = (Outcome::Failed, None);
    let remark = "it begins in the middle: of a log the last 66 kB are kept\n";
    // Where a character was cut, a byte or two are missing.
    for (bytes, said) in [(65_536, remark), (65_534, remark), (65_000, "")] {
        failed.log = format!("{}\nends", "x".repeat(bytes - 5));
        lab.db.record_stages(run, std::slice::from_ref(&failed)).unwrap();
        let output = pipe(&lab, "logs 1 train");
        assert_eq!((output.stdout.len(), output.stderr.as_slice()), (bytes, said.as_bytes()));
        assert_eq!(pipe(&lab, "logs 1 train --tail 1").stderr, b"");
    }
}

#[test]
fn names_that_mean_nothing_are_refused_with_a_suggestion() {
    let lab = three_runs();
    insta::assert_snapshot!(refused(&lab, "show run_9"), @"
    x there is no run `run_9`
    help: the latest are run_3, run_2, run_1; write `run_12`, `12`, `@last`, `@last~1` or a tag
    ");
    insta::assert_snapshot!(refused(&lab, "logs 1 loar"), @"
    x run_1 has no stage `loar`
    help: did you mean `lora`?
    ");
    insta::assert_snapshot!(refused(&lab, "tag 1 run_7"), @"
    x `run_7` cannot be a tag
    help: a tag starts with a letter, goes on with letters, digits, `.`, `_`, `-`, `/`, has at most
          64 characters and is not like `run_12`
    ");
    insta::assert_snapshot!(refused(&lab, "tag 1 best --remove"), @"
    x run_1 has no tag `best`
    help: run_1 has no tags
    ");
    insta::assert_snapshot!(refused(&lab, "compare 1"), @"
    x run_1 has no two methods to compare, and no sweep
    help: name a second run, let a stage of kind `evaluate` take the predictions of both, or give a
          stage a `matrix`
    ");
    let empty = tempfile::tempdir().unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_pipe")).args(["runs", "--root"]).arg(empty.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("no runs are recorded here yet") && text.contains("start with `pipe run --root "),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn commands_that_are_named_have_the_root_that_was_given() {
    let lab = three_runs();
    let command = |line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        let output = command.args(line.split(' ')).arg("--root").arg(lab.folder.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let root = format!("--root {}", lab.folder.path().display());
    for (line, named) in [
        ("lineage 1 nix", format!("`pipe show {root} run_1 --json`")),
        ("runs --limit 1", format!("`pipe runs {root} --all`")),
        ("show 3", format!("`pipe logs {root} run_3 lora`")),
        ("rm 2", format!("`pipe restore {root} run_2`")),
        (
            "runs --where lora.deep=1",
            format!("`pipe show {root} RUN --all` lists the metrics of `lora`, `pipe stages KIND`"),
        ),
    ] {
        let said = command(line);
        let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(&named), "`{named}` is not in\n{said}");
    }
}

#[test]
fn colours_come_only_when_wanted() {
    let lab = three_runs();
    assert!(said(&lab, "runs --color always").contains("\u{1b}[31mfailed\u{1b}[0m"));
    assert!(!said(&lab, "runs").contains('\u{1b}'));
}

#[test]
fn compare_says_first_what_differed() {
    let lab = three_runs();
    insta::assert_snapshot!(said(&lab, "compare 1 2"), @"
    RUN    STATUS  WHEN        PIPELINE               TAGS
    run_1  done    2020-03-01  toy
    run_2  done    2020-03-01  toy demo lora.rank=16

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
    insta::assert_snapshot!(said(&lab, "compare 1 2 3 --all"), @"
    RUN    STATUS  WHEN        PIPELINE               TAGS
    run_1  done    2020-03-01  toy
    run_2  done    2020-03-01  toy demo lora.rank=16
    run_3  failed  2020-03-01  toy demo lora.rank=16

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
    insta::assert_snapshot!(said(&lab, "compare 1 2 --md"), @"
    | run | status | when | pipeline | tags |
    | --- | --- | --- | --- | --- |
    | run_1 | done | 2020-03-01 | toy |  |
    | run_2 | done | 2020-03-01 | toy demo lora.rank=16 |  |

    | what differed | run_1 | run_2 |
    | --- | --- | --- |
    | pipeline file | toy.yaml | pipelines/toy.yaml |
    | lora.rank | 8 | 16 |
    | uncommitted changes | none | 953927630015 |

    | metric |  | run_1 | run_2 | difference |  |
    | --- | --- | --: | --: | --: | --- |
    | lora.loss |  | 0.12500 | 0.06250 | -0.06250 |  |
    | eval.lora.accuracy |  | 0.92516 | 0.93120 | +0.00604 |  |
    | eval.lora.auc |  | 0.92516 | 0.93120 | +0.00604 |  |

    - 1 metric equal: executed once, shared by both
    - 1 metric of bins and tensors hidden; `--all` shows every one
    ");
    insta::assert_snapshot!(said(&lab, "compare 1 2 --csv"), @"
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
    let json: Value = serde_json::from_str(&said(&lab, "compare 1 2 --json")).unwrap();
    assert_eq!(json["differences"][1]["what"], "parameter");
    assert_eq!(json["metrics"][0]["shared"], true);
}

#[test]
fn metrics_that_did_not_move_are_only_counted() {
    let mut lab = Lab::new();
    let eval =
        |rank: u32, f1| stage("eval", "score", json!({ "rank": rank })).metric("auc", 0.5).metric("f1", f1);
    lab.run(&[eval(8, 0.25)]);
    lab.run(&[eval(16, 0.5)]);
    let text = said(&lab, "compare 1 2");
    assert!(text.contains("eval.f1") && !text.contains("eval.auc"), "{text}");
    assert!(text.contains("1 metric equal though executed again; `--all` shows every one"), "{text}");
    assert!(said(&lab, "compare 1 2 --all").contains("eval.auc"));
}

#[test]
fn tags_and_notes_say_what_they_did() {
    let lab = three_runs();
    assert_eq!(said(&lab, "tag 1 best"), "run_1 is now `best`\n");
    assert_eq!(said(&lab, "tag 2 best"), "run_2 is now `best`, which was run_1\n");
    insta::assert_snapshot!(refused(&lab, "tag 1 best --remove"), @"
    x run_1 has no tag `best`
    help: run_2 has it: `pipe tag run_2 best --remove`
    ");
    assert_eq!(said(&lab, "note best try rank 32"), "noted on run_2\n");
    assert_eq!(said(&lab, "tag best best --remove"), "run_2 is no longer `best`\n");
}

#[test]
fn a_time_is_compared_with_times() {
    let lab = three_runs();
    for wrong in ["yesterday", "2026-13-45", "202", "12", "'2026-03-01 25:00'", "2026-03-01T10:00+02:00"] {
        let output = Command::new(env!("CARGO_BIN_EXE_pipe"))
            .env("PIPE_ROOT", lab.folder.path())
            .args(["runs", "--where", &format!("started >= {wrong}")])
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}: {err}");
        assert!(err.contains(&format!("`{}` is no time", wrong.trim_matches('\''))), "{err}");
    }
    for right in
        ["2000", "2000-01", "2000-01-31", "2000-01-31T10", "'2000-01-31 10:30'", "2000-01-31T10:30:00Z"]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_pipe"))
            .env("PIPE_ROOT", lab.folder.path())
            .args(["runs", "--where", &format!("started >= {right}")])
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(out.contains("run_3"), "{right}: {out}");
    }
}
