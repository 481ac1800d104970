//! Verbs that take a stage: of a matrix the file's name is all of them, and `train[rank=4]` a part.

use serde_json::Value;

use crate::lab::{Lab, SWEEP};

#[test]
fn why_tells_each_stage_that_is_meant() {
    let lab = Lab::new(SWEEP);
    let why = |stage: &str| lab.pipe(&["why", "pipelines/p.yaml", stage]);
    lab.run(&["--only", "data"]).success();
    insta::assert_snapshot!(why("train[lr=1e-3]").success().stdout, @"
    train[rank=4,lr=0.001]: will run
      no earlier result

    train[rank=16,lr=0.001]: will run
      no earlier result
    ");
    insta::assert_snapshot!(why("train[rank=4,lr=0.01]").success().stdout, @"
    train[rank=4,lr=0.01]: will run
      no earlier result
    ");
    insta::assert_snapshot!(why("trian").ends_with_code(2).stderr, @"
    x `pipelines/p.yaml` has no stage `trian`
    help: did you mean `train`?
    ");
    insta::assert_snapshot!(why("train[rank=8]").ends_with_code(2).stderr, @"
    x `pipelines/p.yaml` has no stage `train[rank=8]`
    help: `train` has rank 4, 16; lr 0.001, 0.01
    ");
    insta::assert_snapshot!(why("nothing").ends_with_code(2).stderr, @"
    x `pipelines/p.yaml` has no stage `nothing`
    help: its stages are `data`, `train`, `both`
    ");
    let json = |stage: &str| -> Value {
        let said = lab.pipe(&["why", "pipelines/p.yaml", stage, "--json"]).success().stdout;
        serde_json::from_str(&said).unwrap()
    };
    assert_eq!(json("train").as_array().unwrap().len(), 4);
    assert_eq!(json("train[rank=4,lr=0.01]")["verdict"], "run");
}

#[test]
fn logs_of_several_stages_are_asked_for_one_by_one() {
    let lab = Lab::new(SWEEP);
    lab.run(&[]).success();
    let logs = |stage: &str| lab.pipe(&["logs", "@last", stage]);
    assert_eq!(logs("train[rank=16,lr=0.01]").success().stdout, "rank 16\n");
    insta::assert_snapshot!(logs("train").ends_with_code(2).stderr, @"
    x 4 stages of run_1 are meant by `train`
    help: `train[rank=4,lr=0.001]`, `train[rank=4,lr=0.01]`, `train[rank=16,lr=0.001]`,
          `train[rank=16,lr=0.01]`; `pipe logs run_1 'train[rank=4,lr=0.001]'` prints the log of one
    ");
    insta::assert_snapshot!(logs("*[rank=4]").ends_with_code(2).stderr, @"
    x 3 stages of run_1 are meant by `*[rank=4]`
    help: `both[rank=4]`, `train[rank=4,lr=0.001]`, `train[rank=4,lr=0.01]`; `pipe logs run_1
          'both[rank=4]'` prints the log of one
    ");
    insta::assert_snapshot!(logs("train[rank=5]").ends_with_code(2).stderr, @"
    x run_1 has no stage `train[rank=5]`
    help: `train` has rank 4, 16; lr 0.001, 0.01
    ");
    insta::assert_snapshot!(lab.pipe(&["logs"]).ends_with_code(2).stderr, @"
    x name a stage of run_1 to see its log
    help: it has data, train (4 combinations), both (2 combinations): `pipe logs run_1 data`
    ");
}

#[test]
fn no_verb_lists_the_stages_of_a_matrix_one_by_one() {
    let lab = Lab::new(SWEEP);
    insta::assert_snapshot!(lab.run(&["--only", "nothing"]).ends_with_code(2).stderr, @"
    x `--only nothing`: `pipelines/p.yaml` has no such stage
    help: its stages are `data`, `train`, `both`
    ");
    insta::assert_snapshot!(lab.run(&["--until", "train[rank=4,lr=5]"]).ends_with_code(2).stderr, @"
    x `--until train[rank=4,lr=5]`: `pipelines/p.yaml` has no such stage
    help: `train` has rank 4, 16; lr 0.001, 0.01
    ");
}

#[test]
fn the_command_that_tries_a_failed_stage_again_can_be_pasted() {
    let lab = Lab::new(&SWEEP.replace("'echo rank", "'test {params.rank} = 4; echo rank"));
    let said = lab.run(&["--until", "train[rank=16]", "-k"]).ends_with_code(1).stderr;
    assert!(said.contains("again pipe run pipelines/p.yaml -k --until 'train[rank=16]'\n"), "{said}");
    let said = lab.run(&["--force=train[rank=16]"]).ends_with_code(1).stderr;
    let command = "again pipe run pipelines/p.yaml --from 'train[rank=16,lr=0.0";
    assert!(said.contains(command) && said.contains("--force='train[rank=16]'\n"), "{said}");
}
