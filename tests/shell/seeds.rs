//! A command that takes its seed is measured over seeds, as a built-in kind is.

use crate::lab::Lab;

/// A training whose accuracy is made of its seed, and a preparation that takes none.
const PIPELINE: &str = r#"seed: 1
stages:
  prepare: { kind: shell, with: { command: 'echo data > {out.data}', outputs: [data] } }
  train:
    kind: shell
    in: { data: prepare.data }
    with:
      command: 'printf "accuracy\n0.%s%s\n" {params.tenth} {seed} > {metrics}; test -s {in.data}'
      params: { tenth: 8 }
      metrics: m.csv
"#;

#[test]
fn the_seed_of_a_run_reaches_the_command_and_decides_a_rerun() {
    let lab = Lab::new(PIPELINE);
    let accuracy = |run: &str| -> String {
        lab.ask(&format!(
            "SELECT CAST(value AS TEXT) FROM final_metrics WHERE run = {run} AND metric = 'train.accuracy'"
        ))
    };
    assert_eq!(lab.run(&[]).success().stages("running"), ["prepare", "train"]);
    let said = lab.run(&["--set", "seed=2"]).success();
    assert_eq!(said.stages("running"), ["train"]);
    insta::assert_snapshot!(said.stderr.lines().nth(2).unwrap(), @"  running train    seed: 1 → 2 (--set seed=2), since run_1");
    // A seed of its own goes before that of the pipeline.
    assert_eq!(lab.run(&["--set", "train.seed=2"]).success().stages("running"), [""; 0]);
    assert_eq!([accuracy("1"), accuracy("2"), accuracy("3")], ["0.81", "0.82", "0.82"]);
}

#[test]
fn runs_that_differ_in_seeds_alone_are_one_configuration() {
    let lab = Lab::new(PIPELINE);
    for tenth in ["8", "5"] {
        for seed in ["1", "2", "3"] {
            let (tenth, seed) = (format!("train.params.tenth={tenth}"), format!("seed={seed}"));
            lab.run(&["--set", &tenth, "--set", &seed]).success();
        }
    }
    let compared = lab.pipe(&["compare", "1", "2", "3", "4", "5", "6"]).success().stdout;
    let from = compared.find("CONFIGURATION").expect(&compared);
    insta::assert_snapshot!(&compared[from..], @"
    CONFIGURATION  RUNS               SEEDS
    A              run_1 run_2 run_3  1 2 3
    B              run_4 run_5 run_6  1 2 3

    WHAT DIFFERED       A  B
    train.params.tenth  8  5

    METRIC                        A ± sd (n)             B ± sd (n)  DIFFERENCE
    train.accuracy     0.82000 ± 0.01000 (3)  0.52000 ± 0.01000 (3)    -0.30000

    METRIC                            95 %       P
    train.accuracy     -0.32267 … -0.27733  3.3e-6

    ± is the standard deviation over seeds; 95 % and p: Welch's t-test
    ");
}

#[test]
fn a_seed_that_no_command_takes_is_an_error_that_says_how() {
    let lab = Lab::new("stages:\n  a: { kind: shell, seed: 3, with: { command: 'true' } }\n");
    insta::assert_snapshot!(lab.pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2).stderr, @"
     x stage `a` has a seed, but its command takes none
      ,-[pipelines/p.yaml:2:21]
    2 |   a: { kind: shell, seed: 3, with: { command: 'true' } }
      :                     ^^^^
      `----
     help: write `{seed}` in `command` where the program takes it
    ");
    lab.write(
        "pipelines/p.yaml",
        "stages:\n  a: { kind: shell, with: { command: 'true {params.n}', params: { n: '${seed}' } } }\n",
    );
    insta::assert_snapshot!(lab.pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2).stderr, @"
     x `${seed}` is not a variable
      ,-[pipelines/p.yaml:2:71]
    2 |   a: { kind: shell, with: { command: 'true {params.n}', params: { n: '${seed}' } } }
      :                                                                       ^^^^^^^
      `----
     help: a command is given the stage's seed where `{seed}` stands in it
    ");
}
