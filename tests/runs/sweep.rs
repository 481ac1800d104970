//! `pipe show` after a sweep.

#[path = "../lab/mod.rs"]
mod project;

use project::Lab;

/// Six metrics of a program, by rank, learning rate and seed.
const SWEEP: &str = r#"stages:
  train:
    kind: shell
    matrix: { rank: [4, 8, 16], lr: [0.1, 0.001, 0.01], seed: [1, 2, 3] }
    in: { script: { file: train.sh } }
    seed: "${matrix.seed}"
    with:
      command: sh {in.script} {params.rank} {params.lr} {seed} {metrics}
      params: { rank: "${matrix.rank}", lr: "${matrix.lr}" }
      metrics: metrics.json
      better: { accuracy: higher, f1: higher, "*loss": lower }
  count:
    kind: shell
    with: { command: "echo '{\"rows\": 7}' > {metrics}", metrics: m.json }
"#;

const TRAIN: &str = r#"awk "BEGIN {
  a = $1 / 100 + $3 / 1000 - $2
  printf \"{\\\"accuracy\\\": %f, \\\"f1\\\": %f, \\\"recall\\\": %f\", a, a / 2, a / 3
  printf \", \\\"train_loss\\\": %f, \\\"validation\\\": {\\\"loss\\\": %f}\", 1 - a, 1.1 - a
  printf \", \\\"tokens\\\": 9000000, \\\"tensor\\\": {\\\"w\\\": 1}}\"
}" > "$4"
"#;

#[test]
fn the_instances_of_a_stage_are_one_table_within_80_columns() {
    let lab = Lab::new(SWEEP);
    lab.write("train.sh", TRAIN);
    lab.run(&[]).success();
    let said = lab.pipe(&["show"]).success().stdout;
    let widest = said.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?} columns:\n{said}");
    let metrics = &said[said.find("\ntrain: ").unwrap()..];
    insta::assert_snapshot!(metrics, @"

    train: 9 combinations, mean ± sd over `seed` (n = 3)
    rank  lr              accuracy ↑                 f1 ↑              recall
    4     0.001    0.04100 ± 0.00100    0.02050 ± 0.00050   0.01367 ± 0.00033
    4     0.01     0.03200 ± 0.00100    0.01600 ± 0.00050   0.01067 ± 0.00033
    4     0.1     -0.05800 ± 0.00100   -0.02900 ± 0.00050  -0.01933 ± 0.00033
    8     0.001    0.08100 ± 0.00100    0.04050 ± 0.00050   0.02700 ± 0.00033
    8     0.01     0.07200 ± 0.00100    0.03600 ± 0.00050   0.02400 ± 0.00033
    8     0.1     -0.01800 ± 0.00100   -0.00900 ± 0.00050  -0.00600 ± 0.00033
    16    0.001  * 0.16100 ± 0.00100  * 0.08050 ± 0.00050   0.05367 ± 0.00033
    16    0.01     0.15200 ± 0.00100    0.07600 ± 0.00050   0.05067 ± 0.00033
    16    0.1      0.06200 ± 0.00100    0.03100 ± 0.00050   0.02067 ± 0.00033

    rank  lr            train_loss ↓    validation.loss ↓
    4     0.001    0.95900 ± 0.00100    1.05900 ± 0.00100
    4     0.01     0.96800 ± 0.00100    1.06800 ± 0.00100
    4     0.1      1.05800 ± 0.00100    1.15800 ± 0.00100
    8     0.001    0.91900 ± 0.00100    1.01900 ± 0.00100
    8     0.01     0.92800 ± 0.00100    1.02800 ± 0.00100
    8     0.1      1.01800 ± 0.00100    1.11800 ± 0.00100
    16    0.001  * 0.83900 ± 0.00100  * 0.93900 ± 0.00100
    16    0.01     0.84800 ± 0.00100    0.94800 ± 0.00100
    16    0.1      0.93800 ± 0.00100    1.03800 ± 0.00100

    count
      rows              7

    ↑ higher is better, ↓ lower is better
    * best of its column; whether by more than chance: `pipe compare run_1`
    1 metric of bins and tensors hidden; `--all` shows every one
    1 metric equal throughout hidden; `--all` shows every one
    ");
    let all = lab.pipe(&["show", "--all"]).success().stdout;
    assert!(all.contains("tensor.w") && !all.contains("hidden"), "{all}");
    let json: serde_json::Value =
        serde_json::from_str(&lab.pipe(&["show", "--json"]).success().stdout).unwrap();
    let stages = json["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 28);
    assert!(stages.iter().any(|stage| stage["stage"] == "train[rank=16,lr=0.001,seed=3]"
        && stage["execution"]["metrics"]["tokens"] == 9_000_000.0));
}
