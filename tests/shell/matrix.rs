//! A matrix of commands: run once each, known again whatever they are called, gathered in order.

use crate::lab::Lab;

const SWEEP: &str = r#"stages:
  train:
    kind: shell
    matrix: { rank: [4, 16], seed: [1, 2] }
    seed: "${matrix.seed}"
    with:
      command: 'echo rank {params.rank} seed {seed} > {out.model}'
      params: { rank: "${matrix.rank}" }
      outputs: [model]
  all:
    kind: shell
    in: { models: { gather: train } }
    with: { command: 'echo {labels.models} > {out.text}; cat {in.models} >> {out.text}', outputs: [text] }
"#;

#[test]
fn each_combination_runs_once_and_all_are_gathered_in_the_order_of_their_values() {
    let lab = Lab::new(SWEEP);
    let ran = lab.run(&[]).success();
    let all = [
        "all",
        "train[rank=16,seed=1]",
        "train[rank=16,seed=2]",
        "train[rank=4,seed=1]",
        "train[rank=4,seed=2]",
    ];
    assert_eq!(ran.stages("running"), all);
    insta::assert_snapshot!(lab.pipe(&["get", "@last", "all.text"]).stdout, @r"
    rank=4,seed=1 rank=4,seed=2 rank=16,seed=1 rank=16,seed=2
    rank 4 seed 1
    rank 4 seed 2
    rank 16 seed 1
    rank 16 seed 2
    ");
    assert_eq!(lab.run(&[]).success().stages("cached"), all);

    lab.edit("rank: [4, 16]", "rank: [4, 8, 16]");
    let added = ["all", "train[rank=8,seed=1]", "train[rank=8,seed=2]"];
    assert_eq!(lab.run(&[]).success().stages("running"), added);
    insta::assert_snapshot!(lab.pipe(&["get", "@last", "all.text"]).stdout, @r"
    rank=4,seed=1 rank=4,seed=2 rank=8,seed=1 rank=8,seed=2 rank=16,seed=1 rank=16,seed=2
    rank 4 seed 1
    rank 4 seed 2
    rank 8 seed 1
    rank 8 seed 2
    rank 16 seed 1
    rank 16 seed 2
    ");
}

#[test]
fn a_value_is_known_again_within_a_matrix_and_without_one() {
    let lab = Lab::new(
        r"stages:
  train: { kind: shell, with: { command: 'echo {params.rank} > {out.model}', params: { rank: 4 }, outputs: [model] } }
",
    );
    lab.run(&[]).success();
    lab.edit("kind: shell, with", "kind: shell, matrix: { rank: [2, 4] }, with");
    lab.edit("rank: 4", "rank: '${matrix.rank}'");
    let swept = lab.run(&[]).success();
    assert_eq!(swept.stages("running"), ["train[rank=2]"]);
    assert_eq!(swept.stages("cached"), ["train[rank=4]"]);
    lab.edit("[2, 4]", "{ small: 2, large: 4 }");
    assert_eq!(lab.run(&[]).success().stages("cached"), ["train[rank=large]", "train[rank=small]"]);
}

#[test]
fn a_part_of_a_matrix_is_chosen_by_its_values() {
    let lab = Lab::new(SWEEP);
    lab.run(&[]).success();
    let chosen = |option: &str| {
        let said = lab.run(&["-n", option]).success();
        let lines = said.stdout.lines().filter_map(|line| line.split_whitespace().nth(1));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let all =
        ["train[rank=4,seed=1]", "train[rank=4,seed=2]", "train[rank=16,seed=1]", "train[rank=16,seed=2]"];
    assert_eq!(chosen("--only=train"), all);
    assert_eq!(chosen("--only=tr*"), all);
    assert_eq!(chosen("--only=train[rank=4]"), all[..2]);
    assert_eq!(chosen("--only=train[seed=2]"), [all[1], all[3]]);
    assert_eq!(chosen("--only=train[rank=1*,seed=2]"), all[3..]);
    assert_eq!(chosen("--only=train[rank=4,seed=1]"), all[..1]);
    assert_eq!(chosen("--from=train[rank=4,seed=1]"), [all[0], "all"]);
    for nothing in ["--only=train[rank=5]", "--only=train[rnk=4]", "--only=train[rank=4"] {
        lab.run(&["-n", nothing]).ends_with_code(2);
    }
}

#[test]
fn where_a_value_changed_is_told_of_the_matrix() {
    let lab = Lab::new(SWEEP);
    lab.run(&[]).success();
    lab.edit("'echo rank", "'echo Rank");
    let why = lab.run(&["-n", "--only=train[rank=4,seed=2]"]).success().stdout;
    insta::assert_snapshot!(why, @r"run     train[rank=4,seed=2]  with.command: echo rank {params.rank} seed {seed} > {… → echo Rank {params.rank} seed {seed} > {… (pipelines/p.yaml:7:7), since run_1");
    lab.edit("Rank", "rank");
    lab.edit("rank: [4, 16]", "rank: { small: 4, large: 17 }");
    lab.run(&[]).success();
    lab.edit("large: 17", "large: 18");
    let why = lab.run(&["-n", "--only=train[rank=large,seed=2]"]).success().stdout;
    insta::assert_snapshot!(why, @r"run     train[rank=large,seed=2]  with.params.rank: 17 → 18 (pipelines/p.yaml:4:33), since run_2");
}

#[test]
fn a_run_of_a_matrix_comes_again_from_its_record() {
    let lab = Lab::new(SWEEP);
    lab.run(&[]).success();
    std::fs::remove_dir_all(lab.path("cache/v1")).unwrap();
    lab.write("pipelines/p.yaml", "stages: {}\n");
    let again = lab.pipe(&["reproduce", "run_1"]).success().stdout;
    assert_eq!(again.matches("identical ").count(), 5, "{again}");
    let lineage = lab.pipe(&["lineage", "run_1", "all.text"]).success().stdout;
    for input in ["rank=4,seed=1", "rank=4,seed=2", "rank=16,seed=1", "rank=16,seed=2"] {
        assert!(lineage.contains(&format!("train[{input}].model")), "{lineage}");
    }
}
