//! Which of the changes between two runs made the difference.

use serde_json::Value;

use crate::lab::Lab;

/// Epochs above 3 are of use to ranks above 4 alone; half a thousandth more by seed.
const PIPELINE: &str = r#"vars: { lr: 0.01 }
seed: 1
stages:
  data: { kind: shell, with: { command: 'seq 10 > {out.rows}', outputs: [rows] } }
  train:
    kind: shell
    in: { script: { file: train.sh }, rows: data }
    with:
      command: sh {in.script} {params.rank} {params.lr} {params.epochs} {seed} {metrics}
      params: { rank: 4, lr: "${vars.lr}", epochs: 3 }
      metrics: metrics.json
      better: { accuracy: higher }
  other: { kind: shell, with: { command: 'echo ${vars.lr} > {out.x}', outputs: [x] } }
"#;
const TRAIN: &str = r#"[ "$1" != 5 ] || exit 3
awk "BEGIN { printf \"{\\\"accuracy\\\": %.4f, \\\"rows\\\": 10}\", $1 / 100 - $2 + ($1 > 4 && $3 > 3) / 10 + $4 * $4 / 2000 }" > "$5"
"#;

/// A run as it is written and one with `more` settings.
fn two_runs(pipeline: &str, more: &[&str]) -> Lab {
    let lab = Lab::new(pipeline);
    lab.write("train.sh", TRAIN);
    lab.run(&[]).success();
    lab.run(more).success();
    lab
}

/// The accuracy by what `pipe ablate 1 2 train.accuracy` finds.
fn ablate(lab: &Lab, more: &[&str]) -> crate::lab::Said {
    lab.pipe(&[&["ablate", "1", "2", "train.accuracy"], more].concat())
}

fn changes(lab: &Lab) -> Vec<String> {
    let found: Value = serde_json::from_str(&ablate(lab, &["--json"]).stdout).unwrap();
    let names = found["changes"].as_array().unwrap().iter();
    names.map(|change| change["name"].as_str().unwrap().to_owned()).collect()
}

fn count_runs(lab: &Lab) -> usize {
    let runs: Value = serde_json::from_str(&lab.pipe(&["runs", "--json"]).success().stdout).unwrap();
    runs.as_array().unwrap().len()
}

const THREE: [&str; 3] = ["--set=train.params.rank=16", "--set=vars.lr=0.03", "--set=train.params.epochs=5"];

#[test]
fn each_change_is_made_alone_and_left_out_alone() {
    let lab = two_runs(PIPELINE, &THREE);
    let plan = ablate(&lab, &["-n"]).success().stdout;
    insta::assert_snapshot!(plan, @"
    run_1: known
    run_2: known
    run_1 with train.params.epochs 3 → 5: 1 of 2 stages would run
    run_2 without train.params.epochs 3 → 5: 1 of 2 stages would run
    run_1 with vars.lr 0.01 → 0.03: 1 of 2 stages would run
    run_2 without vars.lr 0.01 → 0.03: 1 of 2 stages would run
    run_1 with train.params.rank 4 → 16: 1 of 2 stages would run
    run_2 without train.params.rank 4 → 16: 1 of 2 stages would run
    what several need is computed once
    ");
    assert_eq!(count_runs(&lab), 2);
    insta::assert_snapshot!(ablate(&lab, &[]).success().stdout, @"
    train.accuracy ↑: 0.03050 in run_1, 0.23050 in run_2, +0.20000

    CHANGE                            run_1 WITH    EFFECT  run_2 WITHOUT    EFFECT
    train.params.epochs  3 → 5           0.03050         0        0.13050  +0.10000
    vars.lr              0.01 → 0.03     0.01050  -0.02000        0.25050  -0.02000
    train.params.rank    4 → 16          0.15050  +0.12000        0.01050  +0.22000

    alone the changes give +0.10000 in sum, together +0.20000
    one seed: how much of this is chance is not known; `--seeds 1,2,3` tells
    ");
    // What is known is not computed, nor recorded, again.
    assert_eq!(count_runs(&lab), 8);
    let again = ablate(&lab, &[]).success();
    assert_eq!((count_runs(&lab), again.stderr.as_str()), (8, ""));
    let show = lab.pipe(&["show", "run_4"]).success().stdout;
    assert!(show.contains("set       train.params.rank=16, vars.lr=0.03, train.params.epochs=3\n"), "{show}");
    assert!(show.contains("note      ablate 4 of 8: run_2 without train.params.epochs 3 → 5"), "{show}");
    assert!(!show.contains("other"), "only what the metric needs is run: {show}");
}

#[test]
fn seeds_tell_whether_an_effect_is_more_than_chance() {
    let lab = two_runs(PIPELINE, &["--set=train.params.rank=16", "--set=seed=9"]);
    assert_eq!(changes(&lab), ["seed", "train.params.rank"]);
    let said = ablate(&lab, &["--seeds", "1,2,3,2"]).success().stdout;
    insta::assert_snapshot!(said, @"
    train.accuracy ↑: 0.03233 ± 0.00202 in run_1, 0.15233 ± 0.00202 in run_2, +0.12000 (p 2.1e-7)

    CHANGE                            run_1 WITH               EFFECT
    train.params.rank  4 → 16  0.15233 ± 0.00202  +0.12000 (p 4.3e-7)

    CHANGE                         run_2 WITHOUT               EFFECT
    train.params.rank  4 → 16  0.03233 ± 0.00202  +0.12000 (p 4.3e-7)

    mean ± sd over the seeds; p: Welch's t-test, corrected by Holm for all effects of the table
    ");
}

#[test]
fn one_change_of_a_matrix_is_one_change() {
    let matrix = PIPELINE
        .replace("    in: { script", "    matrix: { epochs: [2, 3] }\n    in: { script")
        .replace("epochs: 3", "epochs: '${matrix.epochs}'")
        + "  best:
    kind: shell
    in: { scores: { gather: train.metrics } }
    with: { command: 'cat {in.scores} > {metrics}', metrics: metrics.json }
";
    let matrix = matrix
        .replace("{metrics}\n      params", "{metrics}; cp {metrics} {out.scores}\n      params")
        .replace(
            "      metrics: metrics.json\n      better",
            "      outputs: [scores]\n      metrics: metrics.json\n      better",
        )
        .replace("gather: train.metrics", "gather: train.scores")
        .replace("'cat {in.scores} > {metrics}'", "'for last in {in.scores}; do cp $last {metrics}; done'");
    let lab = two_runs(&matrix, &["--set=train.params.rank=16"]);
    let said = lab.pipe(&["ablate", "1", "2", "best.accuracy"]).success().stdout;
    assert_eq!(said.matches("train.params.rank").count(), 1, "{said}");
    assert!(said.starts_with("best.accuracy: 0.03050 in run_1, 0.15050 in run_2, +0.12000\n"), "{said}");
}

#[test]
fn another_input_brings_the_stage_that_it_takes_from() {
    let lab = two_runs(PIPELINE, &[]);
    lab.edit("rows: data }", "rows: more }");
    lab.edit(
        "  train:",
        "  more: { kind: shell, with: { command: 'seq 20 > {out.rows}', outputs: [rows] } }\n  train:",
    );
    lab.edit("rank: 4", "rank: 8");
    lab.run(&[]).success();
    let said = lab.pipe(&["ablate", "1", "3", "train.accuracy", "--json"]).success().stdout;
    let found: Value = serde_json::from_str(&said).unwrap();
    let change = &found["changes"][1];
    assert_eq!((&change["name"], &change["to"]), (&"train.in.rows".into(), &"more".into()), "{found:#}");
    assert_eq!(change["made"]["effect"]["difference"], 0.0);
    assert_eq!(found["changes"][0]["name"], "train.params.rank");
}

#[test]
fn what_cannot_be_alone_is_told_and_the_rest_is_measured() {
    let lab = two_runs(PIPELINE, &[]);
    lab.edit("{params.epochs} {seed}", "{params.epochs} {params.start}");
    lab.edit("epochs: 3", "epochs: 3, start: 7");
    lab.run(&[]).success();
    let said = lab.pipe(&["ablate", "1", "3", "train.accuracy"]).success().stdout;
    insta::assert_snapshot!(said, @"
    train.accuracy ↑: 0.03050 in run_1, 0.05450 in run_3, +0.02400

    CHANGE                                         run_1 WITH  EFFECT
    train.command       …} {seed} … → …} {params…           –       –
    train.params.start  – → 7                         0.03050       0

    CHANGE                                         run_3 WITHOUT    EFFECT
    train.command       …} {seed} … → …} {params…        0.03050  +0.02400
    train.params.start  – → 7                                  –         –

    run_1 with train.command …} {seed} … → …} {params…: cannot be: `train.command`: unknown placeholder `{params.start}`
    run_3 without train.params.start – → 7: cannot be: `train.command`: unknown placeholder `{params.start}`
    one seed: how much of this is chance is not known; `--seeds 1,2,3` tells
    ");
}

#[test]
fn a_stage_that_fails_leaves_a_gap_and_the_exit_code_1() {
    let lab = two_runs(&PIPELINE.replace("[ \"$1\" != 5 ]", ""), &THREE);
    lab.edit("rank: 4", "rank: 5");
    lab.edit("lr: 0.01", "lr: 0.02");
    lab.write("train.sh", TRAIN.replace("!= 5", "!= 5 -o \"$2\" = 0.02"));
    lab.run(&[]).success();
    let said = lab.pipe(&["ablate", "1", "3", "train.accuracy"]).ends_with_code(1);
    assert!(
        said.stdout.contains("run_1 with train.params.rank 4 → 5: failed in run_7: `pipe show run_7`\n"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("vars.lr            0.01 → 0.02     0.02050  -0.01000"), "{}", said.stdout);
}

#[test]
fn a_metric_that_is_not_that_of_then_is_told() {
    let lab = two_runs(PIPELINE, &["--set=train.params.rank=16"]);
    lab.write("train.sh", TRAIN.replace("/ 100", "/ 50"));
    let said = ablate(&lab, &[]).success().stdout;
    let remark = "run_1 had 0.03050: files from outside or versions are not those of then\n";
    assert!(said.contains(remark) && said.starts_with("train.accuracy ↑: 0.07050 in run_1, "), "{said}");
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let lab = two_runs(PIPELINE, &["--set=vars.lr=0.01"]);
    let refused = |arguments: &[&str]| lab.pipe(&[&["ablate"], arguments].concat()).ends_with_code(2).stderr;
    insta::assert_snapshot!(refused(&["1", "2", "train.accuracy"]), @"
    x no change of the pipeline between run_1 and run_2 can decide `train.accuracy`
    help: `pipe compare run_1 run_2` says what differed
    ");
    insta::assert_snapshot!(refused(&["1", "2", "train.acuracy"]), @"
    x run_1 has no metric, output or stage `train.acuracy`
    help: did you mean `train.accuracy`?
    ");
    insta::assert_snapshot!(refused(&["1", "2", "other.x"]), @"
    x `other.x` is no metric of run_1
    help: `pipe show run_1 --all` lists the metrics
    ");
}
