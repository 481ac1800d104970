//! Stages with a matrix, right and wrong.

use crate::lab::Lab;

const SWEEP: &str = "\
vars: { ranks: [4, 8] }
stages:
  train:
    kind: shell
    matrix: { rank: \"${vars.ranks}\", lr: [1e-3, 0.01] }
    with:
      command: train --rank {params.rank} --lr ${matrix.lr} > {out.model}
      params: { rank: \"${matrix.rank}\" }
      outputs: [model]
  test:
    kind: shell
    in: { model: train }
    with: { command: 'test {in.model} > {out.score}', outputs: [score] }
  best:
    kind: shell
    in: { scores: { gather: test, over: rank } }
    with: { command: 'best {in.scores} {labels.scores} > {out.best}', outputs: [best] }
";

/// The graph of a pipeline that is right, a line a stage of each combination.
#[track_caller]
fn dag(pipeline: &str) -> String {
    let ended = Lab::new(pipeline).pipe(&["dag", "pipelines/a.yaml", "--all"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    ended.out.lines().skip(2).collect::<Vec<_>>().join("\n")
}

/// What is said of `SWEEP` with one mistake.
#[track_caller]
fn refused(from: &str, to: &str) -> String {
    assert!(SWEEP.contains(from), "{from}");
    Lab::new(SWEEP.replacen(from, to, 1)).refused(&[])
}

#[test]
fn there_is_a_stage_for_each_combination_and_stages_behind_it_have_its_axes() {
    insta::assert_snapshot!(dag(SWEEP), @r"
    train[rank=4,lr=0.001]  shell
    train[rank=4,lr=0.01]   shell
    train[rank=8,lr=0.001]  shell
    train[rank=8,lr=0.01]   shell
    test[rank=4,lr=0.001]   shell  <- model: train[rank=4,lr=0.001]
    test[rank=4,lr=0.01]    shell  <- model: train[rank=4,lr=0.01]
    test[rank=8,lr=0.001]   shell  <- model: train[rank=8,lr=0.001]
    test[rank=8,lr=0.01]    shell  <- model: train[rank=8,lr=0.01]
    best[lr=0.001]          shell  <- scores[rank=4]: test[rank=4,lr=0.001],
                                      scores[rank=8]: test[rank=8,lr=0.001]
    best[lr=0.01]           shell  <- scores[rank=4]: test[rank=4,lr=0.01],
                                      scores[rank=8]: test[rank=8,lr=0.01]
    ");
}

#[test]
fn one_value_of_an_axis_can_be_chosen() {
    insta::assert_snapshot!(dag(&SWEEP.replace("model: train }", "model: 'train[rank=8].model' }").replace(", over: rank", "")), @r"
    train[rank=4,lr=0.001]  shell
    train[rank=4,lr=0.01]   shell
    train[rank=8,lr=0.001]  shell
    train[rank=8,lr=0.01]   shell
    test[lr=0.001]          shell  <- model: train[rank=8,lr=0.001]
    test[lr=0.01]           shell  <- model: train[rank=8,lr=0.01]
    best                    shell  <- scores[lr=0.001]: test[lr=0.001],
                                      scores[lr=0.01]: test[lr=0.01]
    ");
}

#[test]
fn axes_of_equal_values_are_one_and_those_of_two_stages_multiply() {
    let pipeline = "stages:
  a: { kind: shell, matrix: { x: [1, 2] }, with: { command: 'echo ${matrix.x} > {out.o}', outputs: [o] } }
  b: { kind: shell, matrix: { x: [1, 2], y: [u, v] }, with: { command: 'echo ${matrix.x}${matrix.y} > {out.o}', outputs: [o] } }
  c: { kind: shell, in: { a: a, b: b }, with: { command: 'cat {in.a} {in.b}' } }
";
    insta::assert_snapshot!(dag(pipeline), @r"
    a[x=1]      shell
    a[x=2]      shell
    b[x=1,y=u]  shell
    b[x=1,y=v]  shell
    b[x=2,y=u]  shell
    b[x=2,y=v]  shell
    c[x=1,y=u]  shell  <- a: a[x=1], b: b[x=1,y=u]
    c[x=1,y=v]  shell  <- a: a[x=1], b: b[x=1,y=v]
    c[x=2,y=u]  shell  <- a: a[x=2], b: b[x=2,y=u]
    c[x=2,y=v]  shell  <- a: a[x=2], b: b[x=2,y=v]
    ");
    insta::assert_snapshot!(Lab::new(pipeline.replacen("[1, 2]", "[1, 3]", 1)).refused(&[]), @r"
     x stage `c` has two axes `x` with different values: of `a` and of `b`
      ,-[pipelines/a.yaml:4:3]
    4 |   c: { kind: shell, in: { a: a, b: b }, with: { command: 'cat {in.a} {in.b}' } }
      :   ^
      `----
     help: give both the same values, call one otherwise, or gather one: `{ gather: STAGE }`
    ");
}

#[test]
fn values_with_names_hold_anything_and_choose_stages() {
    let lab = Lab::new(
        "stages:
  a: { kind: shell, with: { command: 'echo a > {out.o}', outputs: [o] } }
  b: { kind: shell, with: { command: 'echo b > {out.o}', outputs: [o] } }
  c:
    kind: shell
    matrix: { of: [a, b], size: { small: { n: 1, text: 'a small one' }, big: { n: 20, text: 'x/y' } } }
    in: { x: '${matrix.of}.o' }
    with:
      command: 'cat {in.x} > {out.o}; echo {params.n} ${matrix.size.text} >> {out.o}'
      params: { n: '${matrix.size.n}' }
      outputs: [o]
",
    );
    let ended = lab.pipe(&["run", "pipelines/a.yaml"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let output = |stage: &str| lab.pipe(&["get", "@last", &format!("{stage}.o")]).out;
    assert_eq!(output("c[of=a,size=small]"), "a\n1 a small one\n");
    assert_eq!(output("c[of=b,size=big]"), "b\n20 x/y\n");
}

#[test]
fn profiles_and_settings_speak_of_all_of_a_matrix() {
    let lab = Lab::new(format!(
        "{SWEEP}profiles: {{ one: {{ stages: {{ train: {{ matrix: {{ lr: [0.5] }} }} }} }} }}\n"
    ));
    let stages = |more: &[&str]| lab.check(more).out;
    assert!(stages(&[]).contains("10 stages"), "{}", stages(&[]));
    assert!(stages(&["-p", "one"]).contains("5 stages"));
    assert!(stages(&["-s", "vars.ranks=[1, 2, 3]"]).contains("14 stages"));
    assert!(stages(&["-s", "stages.train.matrix.rank=[16]"]).contains("6 stages"));
    insta::assert_snapshot!(lab.refused(&["-s", "train.params.rank=3"]), @r#"
     x stage `train` does not use its axis `rank`
      ,-[pipelines/a.yaml:5:15]
    5 |     matrix: { rank: "${vars.ranks}", lr: [1e-3, 0.01] }
      :               ^^^^
      `----
     help: write `${matrix.rank}` where its value belongs
    "#);
    insta::assert_snapshot!(lab.refused(&["-s", "train.matrix.rank=3"]), @r"
     x `train` has no parameter `matrix`
      ,-[--set train.matrix.rank=3]
    1 | train.matrix.rank=3
      : ^^^^^^^^^^^^^^^^^
      `----
     help: for the stage's `matrix`, write `--set stages.train.matrix.rank=…`
    ");
    insta::assert_snapshot!(lab.refused(&["-s", "train.params.rnk=3"]), @r"
     x the command of stage `train` has no parameter `rnk`
      ,-[--set train.params.rnk=3]
    1 | train.params.rnk=3
      : ^^^^^^^^^^^^^^^^
      `----
     help: did you mean `train.params.rank`?
    ");
}

#[test]
fn a_value_that_does_not_fit_is_told_once_where_it_stands() {
    let pipeline = "stages:
  reviews: { kind: sample_reviews, matrix: { n: [10, many, 30], m: [1, 2] }, with: { train: '${matrix.n}', test: '${matrix.m}' } }
";
    insta::assert_snapshot!(Lab::new(pipeline).refused(&[]), @r#"
     x `reviews[n=many,m=1].train` must be a whole number from 0, not the text "many"
      ,-[pipelines/a.yaml:2:93]
    2 |   reviews: { kind: sample_reviews, matrix: { n: [10, many, 30], m: [1, 2] }, with: { train: '${matrix.n}', test: '${matrix.m}' } }
      :                                                      ^^|^                                   ^^^^^^^^^^^^^
      :                                                        `-- the value of `matrix.n` is written here
      `----
    "#);
}

#[test]
fn axes_that_cannot_be_are_refused() {
    insta::assert_snapshot!(refused("\"${vars.ranks}\"", "[4, 4]"), @r"
     x `4` is written twice on axis `rank`
      ,-[pipelines/a.yaml:5:25]
    5 |     matrix: { rank: [4, 4], lr: [1e-3, 0.01] }
      :                         ^
      `----
    ");
    insta::assert_snapshot!(refused("\"${vars.ranks}\"", "[]"), @r"
     x axis `rank` has no values
      ,-[pipelines/a.yaml:5:21]
    5 |     matrix: { rank: [], lr: [1e-3, 0.01] }
      :                     ^^
      `----
    ");
    insta::assert_snapshot!(refused("\"${vars.ranks}\"", "4"), @r"
     x axis `rank` must be a list of values, or a map of names and values, not the number 4
      ,-[pipelines/a.yaml:5:21]
    5 |     matrix: { rank: 4, lr: [1e-3, 0.01] }
      :                     ^
      `----
    ");
    insta::assert_snapshot!(refused("\"${vars.ranks}\"", "[[q], [q, v]]"), @r"
     x a list cannot be part of a stage's name
      ,-[pipelines/a.yaml:5:22]
    5 |     matrix: { rank: [[q], [q, v]], lr: [1e-3, 0.01] }
      :                      ^^^
      `----
     help: name each value, as in `rank: { NAME: VALUE, … }`, with letters, digits, `_`, `.`, `+` and
           `-`, 40 at most
    ");
    insta::assert_snapshot!(refused("\"${vars.ranks}\"", "['a b']"), @r"
     x the text `a b` cannot be part of a stage's name
      ,-[pipelines/a.yaml:5:22]
    5 |     matrix: { rank: ['a b'], lr: [1e-3, 0.01] }
      :                      ^^^^^
      `----
     help: name each value, as in `rank: { NAME: VALUE, … }`, with letters, digits, `_`, `.`, `+` and
           `-`, 40 at most
    ");
    insta::assert_snapshot!(refused("\"${vars.ranks}\"", "{ 'a b': 1 }"), @r"
     x `a b` cannot be part of a stage's name
      ,-[pipelines/a.yaml:5:23]
    5 |     matrix: { rank: { 'a b': 1 }, lr: [1e-3, 0.01] }
      :                       ^^^^^
      `----
     help: name each value, as in `rank: { NAME: VALUE, … }`, with letters, digits, `_`, `.`, `+` and
           `-`, 40 at most
    ");
    insta::assert_snapshot!(refused("{ rank: \"${vars.ranks}\"", "{ Rank: [4]"), @r"
     x axis `Rank` must be named with letters a-z, digits and `_`, a letter first
      ,-[pipelines/a.yaml:5:15]
    5 |     matrix: { Rank: [4], lr: [1e-3, 0.01] }
      :               ^^^^
      `----
    ");
    insta::assert_snapshot!(refused("matrix: { rank: \"${vars.ranks}\", lr: [1e-3, 0.01] }", "matrix: [4]"), @r"
     x `matrix` must be a map of names and lists of values, not a list
      ,-[pipelines/a.yaml:5:13]
    5 |     matrix: [4]
      :             ^^^
      `----
     help: write `matrix: { rank: [4, 8] }`, and `${matrix.rank}` where the value belongs
    ");
    insta::assert_snapshot!(refused("\"${vars.ranks}\"", "\"${vars.rank}\""), @r#"
     x unknown variable `rank`
      ,-[pipelines/a.yaml:5:22]
    5 |     matrix: { rank: "${vars.rank}", lr: [1e-3, 0.01] }
      :                      ^^^^^^^^^^^^
      `----
     help: did you mean `ranks`?
    "#);
    let numbers = |count: usize| format!("{:?}", (0..count).collect::<Vec<_>>());
    let lr = refused(
        "rank: \"${vars.ranks}\", lr: [1e-3, 0.01]",
        &format!("rank: {}, lr: {}", numbers(101), numbers(100)),
    );
    assert!(lr.contains("stage `train` has more than 10000 combinations of values"), "{lr}");
}

#[test]
fn a_matrix_has_to_be_used_and_what_is_used_has_to_be_there() {
    insta::assert_snapshot!(refused("params: { rank: \"${matrix.rank}\" }", "params: { rank: 4 }"), @r#"
     x stage `train` does not use its axis `rank`
      ,-[pipelines/a.yaml:5:15]
    5 |     matrix: { rank: "${vars.ranks}", lr: [1e-3, 0.01] }
      :               ^^^^
      `----
     help: write `${matrix.rank}` where its value belongs
    "#);
    insta::assert_snapshot!(refused("\"${matrix.rank}\"", "\"${matrix.rnk}\""), @r#"
     x stage `train[rank=4,lr=0.001]` has no axis `rnk`
      ,-[pipelines/a.yaml:8:24]
    8 |       params: { rank: "${matrix.rnk}" }
      :                        ^^^^^^^^^^^^^
      `----
     help: did you mean `rank`?
    "#);
    insta::assert_snapshot!(refused("\"${matrix.rank}\"", "\"${rank}\""), @r#"
     x `${rank}` is not a variable
      ,-[pipelines/a.yaml:8:24]
    8 |       params: { rank: "${rank}" }
      :                        ^^^^^^^
      `----
     help: write `${matrix.rank}`
    "#);
    insta::assert_snapshot!(refused("\"${matrix.rank}\"", "\"${matrix.rank.x}\""), @r#"
     x a value of axis `rank` has no `x`
      ,-[pipelines/a.yaml:8:24]
    8 |       params: { rank: "${matrix.rank.x}" }
      :                        ^^^^^^^^^^^^^^^^
      `----
    "#);
    insta::assert_snapshot!(refused("    matrix: { rank", "    foreach: { rank"), @r#"
     x a stage has no field `foreach`
      ,-[pipelines/a.yaml:5:5]
    5 |     foreach: { rank: "${vars.ranks}", lr: [1e-3, 0.01] }
      :     ^^^^^^^
      `----
     help: did you mean `matrix`?
    "#);
    insta::assert_snapshot!(refused("vars: {", "name: \"${matrix.rank}\"\nvars: {"), @r#"
     x `${matrix.…}` has a value in stages alone
      ,-[pipelines/a.yaml:1:8]
    1 | name: "${matrix.rank}"
      :        ^^^^^^^^^^^^^^
      `----
    "#);
    insta::assert_snapshot!(refused("  best:", "  'best[of=all]':"), @r"
     x stage `best[of=all]` must be named with letters a-z, digits and `_`, a letter first
       ,-[pipelines/a.yaml:14:3]
    14 |   'best[of=all]':
       :   ^^^^^^^^^^^^^^
       `----
     help: instances come of a matrix: `matrix: { AXIS: [VALUE, …] }` beside `kind`
    ");
}

#[test]
fn what_is_taken_of_a_matrix_has_to_be_there() {
    insta::assert_snapshot!(refused("model: train }", "model: 'train[rank=5]' }"), @r"
      x axis `rank` has no value `5`
        ,-[pipelines/a.yaml:12:18]
     12 |     in: { model: 'train[rank=5]' }
        :                  ^^^^^^^^^^^^^^^
        `----
      help: did you mean `4`?

      x stage `test` has no axis `rank` to gather
        ,-[pipelines/a.yaml:16:19]
     16 |     in: { scores: { gather: test, over: rank } }
        :                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        `----
      help: its axes are `lr`

    pipelines/a.yaml: 2 problems
    ");
    insta::assert_snapshot!(refused("model: train }", "model: 'train[rnk=4]' }"), @r"
     x stage `train` has no axis `rnk`
       ,-[pipelines/a.yaml:12:18]
    12 |     in: { model: 'train[rnk=4]' }
       :                  ^^^^^^^^^^^^^^
       `----
     help: did you mean `rank`?
    ");
    insta::assert_snapshot!(refused("model: train }", "model: train.modl }"), @r"
     x stage `train[rank=4,lr=0.001]` has no output `modl`
       ,-[pipelines/a.yaml:12:18]
    12 |     in: { model: train.modl }
       :                  ^^^^^^^^^^
       `----
     help: did you mean `train.model`?
    ");
    insta::assert_snapshot!(refused("model: train }", "model: trian }"), @r"
     x stage `test` takes from unknown stage `trian`
       ,-[pipelines/a.yaml:12:18]
    12 |     in: { model: trian }
       :                  ^^^^^
       `----
     help: did you mean `train`?
    ");
    insta::assert_snapshot!(refused("model: train }", "model: best }"), @r"
     x the stages form a cycle: `test` takes from `best`, that from `test`
       ,-[pipelines/a.yaml:12:18]
    12 |     in: { model: best }
       :                  ^^|^
       :                    `-- `test` takes from `best`
       `----
       ,-[pipelines/a.yaml:16:19]
    16 |     in: { scores: { gather: test, over: rank } }
       :                   ^^^^^^^^^^^^^^|^^^^^^^^^^^^^
       :                                 `-- `best` takes from `test`
       `----
    ");
    insta::assert_snapshot!(refused("gather: test", "gather: tset"), @r"
     x stage `best` takes from unknown stage `tset`
       ,-[pipelines/a.yaml:16:19]
    16 |     in: { scores: { gather: tset, over: rank } }
       :                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       `----
     help: did you mean `test`?
    ");
    insta::assert_snapshot!(refused("over: rank", "over: rnk"), @r"
     x stage `test` has no axis `rnk` to gather
       ,-[pipelines/a.yaml:16:19]
    16 |     in: { scores: { gather: test, over: rnk } }
       :                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^
       `----
     help: did you mean `rank`?
    ");
    insta::assert_snapshot!(refused("over: rank", "of: rank"), @r"
     x an input that gathers has no field `of`
       ,-[pipelines/a.yaml:16:35]
    16 |     in: { scores: { gather: test, of: rank } }
       :                                   ^^
       `----
     help: fields are `gather`, `over`
    ");
    insta::assert_snapshot!(refused("over: rank", "over: 3"), @r"
     x `over` must be an axis or a list of axes, not the number 3
       ,-[pipelines/a.yaml:16:41]
    16 |     in: { scores: { gather: test, over: 3 } }
       :                                         ^
       `----
    ");
    insta::assert_snapshot!(refused("gather: test, over: rank", "gather: 'test[rank=4,lr=0.001]'"), @r"
     x every axis of stage `test` is chosen, so nothing is left to gather
       ,-[pipelines/a.yaml:16:19]
    16 |     in: { scores: { gather: 'test[rank=4,lr=0.001]' } }
       :                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       `----
     help: take it without `gather`
    ");
    insta::assert_snapshot!(refused("scores: { gather: test, over: rank }", "scores: test"), @r"
     x `{labels.scores}` has no labels: input `scores` is not gathered
       ,-[pipelines/a.yaml:17:40]
    17 |     with: { command: 'best {in.scores} {labels.scores} > {out.best}', outputs: [best] }
       :                                        ^^^^^^^^^^^^^^^
       `----
     help: all stages of a matrix are gathered by `scores: { gather: STAGE }`
    ");
    insta::assert_snapshot!(Lab::new("stages:
  a: { kind: sample_reviews, matrix: { n: [1, 2] }, with: { train: 10, test: '${matrix.n}' } }
  b: { kind: tokenize, in: { reviews: { gather: a.test } } }
").refused(&[]), @r"
     x input `reviews` of kind `tokenize` takes one, not all of a matrix
      ,-[pipelines/a.yaml:3:30]
    3 |   b: { kind: tokenize, in: { reviews: { gather: a.test } } }
      :                              ^^^^^^^
      `----
     help: inputs that the file names gather: those of `evaluate` and `shell`
    ");
}
