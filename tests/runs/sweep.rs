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

    train: 9 combinations, mean ± sd over `seed`
    rank  lr     N            accuracy ↑                   f1 ↑
    4     0.001  3   0.03920 ± 1.0000e-4    0.01960 ± 5.0000e-5
    4     0.01   3     0.03020 ± 0.00010    0.01510 ± 5.0000e-5
    4     0.1    3  -0.05980 ± 1.0000e-4   -0.02990 ± 5.0000e-5
    8     0.001  3   0.07920 ± 1.0000e-4    0.03960 ± 5.0000e-5
    8     0.01   3     0.07020 ± 0.00010    0.03510 ± 5.0000e-5
    8     0.1    3    -0.01980 ± 0.00010   -0.00990 ± 5.0000e-5
    16    0.001  3   * 0.15920 ± 0.00010  * 0.07960 ± 5.0000e-5
    16    0.01   3   0.15020 ± 1.0000e-4    0.07510 ± 5.0000e-5
    16    0.1    3   0.06020 ± 1.0000e-4    0.03010 ± 5.0000e-5

    rank  lr     N                recall       tokens           train_loss ↓
    4     0.001  3   0.01307 ± 3.3501e-5  9000000 ± 0    0.96080 ± 1.0000e-4
    4     0.01   3   0.01007 ± 3.3501e-5  9000000 ± 0    0.96980 ± 1.0000e-4
    4     0.1    3  -0.01993 ± 3.3501e-5  9000000 ± 0    1.05980 ± 1.0000e-4
    8     0.001  3   0.02640 ± 3.3000e-5  9000000 ± 0      0.92080 ± 0.00010
    8     0.01   3   0.02340 ± 3.3000e-5  9000000 ± 0    0.92980 ± 1.0000e-4
    8     0.1    3  -0.00660 ± 3.3000e-5  9000000 ± 0    1.01980 ± 1.0000e-4
    16    0.001  3   0.05307 ± 3.3501e-5  9000000 ± 0  * 0.84080 ± 1.0000e-4
    16    0.01   3   0.05007 ± 3.3501e-5  9000000 ± 0    0.84980 ± 1.0000e-4
    16    0.1    3   0.02007 ± 3.3501e-5  9000000 ± 0    0.93980 ± 1.0000e-4

    rank  lr     N      validation.loss ↓
    4     0.001  3    1.06080 ± 1.0000e-4
    4     0.01   3    1.06980 ± 1.0000e-4
    4     0.1    3    1.15980 ± 1.0000e-4
    8     0.001  3    1.02080 ± 1.0000e-4
    8     0.01   3    1.02980 ± 1.0000e-4
    8     0.1    3    1.11980 ± 1.0000e-4
    16    0.001  3  * 0.94080 ± 1.0000e-4
    16    0.01   3    0.94980 ± 1.0000e-4
    16    0.1    3    1.03980 ± 1.0000e-4

    count
      rows              7

    ↑ higher is better, ↓ lower is better
    * best of its column; whether by more than chance: `pipe compare run_1`
    1 metric of bins and tensors hidden; `--all` shows them
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
