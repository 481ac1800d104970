//! What differed is seen to differ, however long or alike the values are.

use crate::lab::Lab;

#[test]
fn long_values_are_shown_around_their_difference_and_types_by_their_quotes() {
    let numbers = (1..=50).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
    let pipeline = |rate: &str, x: &str| {
        format!(
            "stages: {{ a: {{ kind: shell, with: {{ command: 'echo {numbers} --lr {rate} {numbers} {{params.x}} > {{out.o}}', {x}outputs: [o] }} }} }}\n"
        )
    };
    let lab = Lab::new(&pipeline("0.1", "params: { x: 1 }, "));
    lab.run(&[]).success();
    lab.write("pipelines/p.yaml", pipeline("0.2", "params: { x: '1' }, "));
    lab.run(&[]).success();
    let said = lab.pipe(&["compare", "1", "2"]).success().stdout;
    let differed = said.split("\n\n").find(|part| part.starts_with("WHAT DIFFERED")).unwrap();
    insta::assert_snapshot!(differed, @r#"
    WHAT DIFFERED  run_1                         run_2
    a.command      …0 --lr 0.1 1 2 3 4 5 6 7 8…  …0 --lr 0.2 1 2 3 4 5 6 7 8…
    a.params.x     1                             "1"
    "#);
}

#[test]
fn inputs_that_differ_are_named_also_of_a_stage_that_failed() {
    let lab = Lab::new(
        "stages:
  train:
    kind: shell
    in: { script: { file: train.sh } }
    with: { command: 'sh {in.script} > {out.o}', outputs: [o] }
  test: { kind: shell, in: { x: train }, with: { command: 'cp {in.x} {out.o}', outputs: [o] } }
",
    );
    lab.write("train.sh", "echo 1");
    lab.run(&[]).success();
    lab.write("train.sh", "exit 3");
    lab.run(&[]).ends_with_code(1);
    let said = lab.pipe(&["compare", "1", "2"]).success().stdout;
    let differed = said.split("\n\n").find(|part| part.starts_with("WHAT DIFFERED")).unwrap();
    insta::assert_snapshot!(differed, @"
    WHAT DIFFERED                  run_1         run_2
    state                          done          failed
    input train.script (train.sh)  f81c96e922d0  cabea98613a3
    outcome train                  ran           failed
    outcome test                   ran           skipped
    ");
}
