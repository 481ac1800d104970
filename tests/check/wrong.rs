//! One mistake each.

use crate::{RIGHT, lab::Lab};

fn refused(from: &str, to: &str) -> String {
    assert!(RIGHT.contains(from), "{from}");
    Lab::new(RIGHT.replacen(from, to, 1)).refused(&[])
}

#[test]
fn a_cycle_is_named_whole_with_every_place() {
    let err = Lab::new(
        "stages:
  a: { kind: encode, in: { tokens: b, weights: w } }
  b: { kind: encode, in: { tokens: c, weights: w } }
  w: { kind: gpt2, with: { init: random } }
  c: { kind: encode, in: { tokens: a, weights: w } }
",
    )
    .refused(&[]);
    let first = err.split("\n\n").next().unwrap();
    insta::assert_snapshot!(first, @r#"
     x the stages form a cycle: `a` takes from `b`, that from `c`, that from `a`
      ,-[pipelines/a.yaml:2:36]
    2 |   a: { kind: encode, in: { tokens: b, weights: w } }
      :                                    |
      :                                    `-- `a` takes from `b`
    3 |   b: { kind: encode, in: { tokens: c, weights: w } }
      :                                    |
      :                                    `-- `b` takes from `c`
      `----
      ,-[pipelines/a.yaml:5:36]
    5 |   c: { kind: encode, in: { tokens: a, weights: w } }
      :                                    |
      :                                    `-- `c` takes from `a`
      `----
    "#);
    let alone = Lab::new("stages: { a: { kind: encode, in: { tokens: a, weights: a } } }").refused(&[]);
    assert!(alone.contains("stage `a` takes from itself"), "{alone}");
}

#[test]
fn an_unknown_kind_is_compared_with_the_known_ones() {
    insta::assert_snapshot!(refused("kind: tokenize", "kind: tokenise"), @r#"
     x unknown kind `tokenise`
      ,-[pipelines/a.yaml:6:19]
    6 |   tokens: { kind: tokenise, in: { reviews: reviews.test }, with: { max_tokens: "${vars.tokens}" } }
      :                   ^^^^^^^^
      `----
     help: did you mean `tokenize`?
    "#);
}

#[test]
fn an_unknown_output_and_an_unknown_input_are_compared_with_the_known_ones() {
    insta::assert_snapshot!(refused("reviews.test", "reviews.tset"), @r#"
     x stage `reviews` has no output `tset`
      ,-[pipelines/a.yaml:6:44]
    6 |   tokens: { kind: tokenize, in: { reviews: reviews.tset }, with: { max_tokens: "${vars.tokens}" } }
      :                                            ^^^^^^^^^^^^
      `----
     help: did you mean `reviews.test`?
    "#);
    insta::assert_snapshot!(refused("tokens: tokens", "tokns: tokens"), @r#"
      x stage `trunk` lacks its input `tokens` (tokens)
       ,-[pipelines/a.yaml:8:3]
     8 |   trunk: { kind: encode, in: { tokns: tokens, weights: weights }, with: { blocks: 1 } }
       :   ^^^^^
       `----
      help: write `in: { tokens: tokens }`

      x kind `encode` has no input `tokns`
       ,-[pipelines/a.yaml:8:32]
     8 |   trunk: { kind: encode, in: { tokns: tokens, weights: weights }, with: { blocks: 1 } }
       :                                ^^^^^
       `----
      help: did you mean `tokens`?

    pipelines/a.yaml: 2 problems
    "#);
}

#[test]
fn an_output_must_be_named_where_there_are_several() {
    insta::assert_snapshot!(refused("reviews.test", "reviews"), @r#"
     x stage `reviews` has several outputs
      ,-[pipelines/a.yaml:6:44]
    6 |   tokens: { kind: tokenize, in: { reviews: reviews }, with: { max_tokens: "${vars.tokens}" } }
      :                                            ^^^^^^^
      `----
     help: name one: `reviews.train`, `reviews.test`
    "#);
}

#[test]
fn an_unknown_stage_is_compared_with_the_known_ones() {
    insta::assert_snapshot!(refused("hidden: trunk", "hidden: trunc"), @r#"
     x stage `answers` takes from unknown stage `trunc`
      ,-[pipelines/a.yaml:9:45]
    9 |   answers: { kind: zero_shot, in: { hidden: trunc, weights: weights } }
      :                                             ^^^^^
      `----
     help: did you mean `trunk`?
    "#);
}

#[test]
fn an_unknown_parameter_is_compared_with_the_known_ones() {
    insta::assert_snapshot!(refused("max_tokens:", "max_token:"), @r#"
     x kind `tokenize` has no parameter `max_token`
      ,-[pipelines/a.yaml:6:68]
    6 |   tokens: { kind: tokenize, in: { reviews: reviews.test }, with: { max_token: "${vars.tokens}" } }
      :                                                                    ^^^^^^^^^
      `----
     help: did you mean `max_tokens`?
    "#);
}

#[test]
fn an_unknown_variable_is_compared_with_the_known_ones() {
    insta::assert_snapshot!(refused("vars.count", "vars.cuont"), @r#"
     x unknown variable `cuont`
      ,-[pipelines/a.yaml:5:52]
    5 |   reviews: { kind: sample_reviews, with: { train: "${vars.cuont}", test: 20 } }
      :                                                    ^^^^^^^^^^^^^
      `----
     help: did you mean `count`?
    "#);
    let err = refused("${vars.count}", "${count}");
    assert!(err.contains("write `${vars.count}`"), "{err}");
}

#[test]
fn variables_are_plain_values() {
    insta::assert_snapshot!(refused("tokens: 64", "tokens: \"${vars.count}\""), @r#"
     x variable `tokens` refers to a variable; variables are plain values
      ,-[pipelines/a.yaml:3:28]
    3 | vars: { count: 20, tokens: "${vars.count}" }
      :                            ^^^^^^^^^^^^^^^
      `----
    "#);
}

#[test]
fn a_wrong_type_names_the_value_and_shows_the_variable_it_came_from() {
    insta::assert_snapshot!(refused("n_layer: 2", "n_layer: two"), @r#"
     x `weights.n_layer` must be a whole number from 0, not the text "two"
      ,-[pipelines/a.yaml:7:57]
    7 |   weights: { kind: gpt2, with: { init: random, n_layer: two, n_embd: 64 } }
      :                                                         ^^^
      `----
    "#);
    insta::assert_snapshot!(refused("tokens: 64", "tokens: [64]"), @r#"
     x `tokens.max_tokens` must be a whole number from 0, not a list
      ,-[pipelines/a.yaml:3:28]
    3 | vars: { count: 20, tokens: [64] }
      :                            ^^|^
      :                              `-- the value of `tokens` is written here
      `----
      ,-[pipelines/a.yaml:6:80]
    6 |   tokens: { kind: tokenize, in: { reviews: reviews.test }, with: { max_tokens: "${vars.tokens}" } }
      :                                                                                ^^^^^^^^^^^^^^^^
      `----
    "#);
    insta::assert_snapshot!(refused("init: random", "init: randm"), @r#"
     x `weights.init` must be one of file, random, not `randm`
      ,-[pipelines/a.yaml:7:40]
    7 |   weights: { kind: gpt2, with: { init: randm, n_layer: 2, n_embd: 64 } }
      :                                        ^^^^^
      `----
     help: did you mean `random`?
    "#);
}

#[test]
fn a_wrong_port_type_names_both_types() {
    insta::assert_snapshot!(refused("hidden: trunk", "hidden: tokens"), @r#"
     x `answers.hidden` takes hidden, `tokens.tokens` gives tokens
      ,-[pipelines/a.yaml:9:45]
    9 |   answers: { kind: zero_shot, in: { hidden: tokens, weights: weights } }
      :                                             ^^^^^^
      `----
    "#);
    let err = refused("hidden: trunk", "hidden: { dir: pipelines }");
    assert!(err.contains("`answers.hidden` takes hidden, `dir` gives a folder"), "{err}");
}

#[test]
fn a_missing_input_says_who_could_give_it() {
    insta::assert_snapshot!(refused("tokens: tokens, ", ""), @r#"
     x stage `trunk` lacks its input `tokens` (tokens)
      ,-[pipelines/a.yaml:8:3]
    8 |   trunk: { kind: encode, in: { weights: weights }, with: { blocks: 1 } }
      :   ^^^^^
      `----
     help: write `in: { tokens: tokens }`
    "#);
}

#[test]
fn an_input_that_the_parameters_exclude_says_which() {
    insta::assert_snapshot!(refused("kind: gpt2,", "kind: gpt2, in: { file: reviews.train },"), @r#"
     x stage `weights` takes no input `file` because `init` is `random`
      ,-[pipelines/a.yaml:7:32]
    7 |   weights: { kind: gpt2, in: { file: reviews.train }, with: { init: random, n_layer: 2, n_embd: 64 } }
      :                                ^^^^                                 ^^^|^^
      :                                  |                                     `-- because of this
      `----
     help: remove one of the two
    "#);
}

#[test]
fn a_key_written_twice_is_shown_at_both_places_at_any_depth() {
    insta::assert_snapshot!(refused("test: 20 }", "test: 20, train: 3 }"), @r#"
     x `train` is written twice
      ,-[pipelines/a.yaml:5:78]
    5 |   reviews: { kind: sample_reviews, with: { train: "${vars.count}", test: 20, train: 3 } }
      :                                            ^^|^^                             ^^|^^
      :                                              |                                 `-- here again
      :                                              `-- first here
      `----
    "#);
    let err = refused("profiles:", "stages: {}\nprofiles:");
    assert!(err.contains("`stages` is written twice"), "{err}");
}

#[test]
fn unknown_fields_are_refused_with_the_word_that_was_meant() {
    insta::assert_snapshot!(refused("seed: 7", "sed: 7"), @r#"
     x a pipeline has no field `sed`
      ,-[pipelines/a.yaml:2:1]
    2 | sed: 7
      : ^^^
      `----
     help: did you mean `seed`?
    "#);
    insta::assert_snapshot!(refused("in: { reviews:", "inputs: { reviews:"), @r#"
      x stage `tokens` lacks its input `reviews` (reviews)
       ,-[pipelines/a.yaml:6:3]
     6 |   tokens: { kind: tokenize, inputs: { reviews: reviews.test }, with: { max_tokens: "${vars.tokens}" } }
       :   ^^^^^^
       `----
      help: write `in: { reviews: STAGE }` with one of `reviews.train`, `reviews.test`

      x a stage has no field `inputs`
       ,-[pipelines/a.yaml:6:29]
     6 |   tokens: { kind: tokenize, inputs: { reviews: reviews.test }, with: { max_tokens: "${vars.tokens}" } }
       :                             ^^^^^^
       `----
      help: did you mean `in`?

    pipelines/a.yaml: 2 problems
    "#);
    let err = refused("kind: encode,", "kind: encode, blocks: 2,");
    assert!(err.contains("it is a parameter of kind `encode`: write it under `with`"), "{err}");
    let err = refused(
        "stages:",
        "stages:\n  sorted: { kind: shell, cmd: 'sort {in.a}', deps: { a: b }, outs: [c] }",
    );
    assert!(err.contains("write `command`, a parameter of kind `shell`, under `with`"), "{err}");
    assert!(err.contains("write `outputs`, a parameter of kind `shell`, under `with`"), "{err}");
    assert!(err.contains("did you mean `in`?"), "{err}");
    let err = refused("short: {", "short: { profiles: {},");
    assert!(err.contains("a profile has no field `profiles`"), "{err}");
}

#[test]
fn files_from_outside_must_be_there() {
    let outside = |source: &str| refused("reviews: reviews.test", &format!("reviews: {{ {source} }}"));
    insta::assert_snapshot!(outside("file: pipelines/b.yaml"), @r#"
     x file `pipelines/b.yaml` does not exist
      ,-[pipelines/a.yaml:6:52]
    6 |   tokens: { kind: tokenize, in: { reviews: { file: pipelines/b.yaml } }, with: { max_tokens: "${vars.tokens}" } }
      :                                                    ^^^^^^^^^^^^^^^^
      `----
     help: did you mean `pipelines/a.yaml`?
    "#);
    let err = outside("file: pipelines");
    assert!(err.contains("`pipelines` is a folder"), "{err}");
    let err = outside("file: /dev/zero");
    assert!(err.contains("`/dev/zero` is a pipe or a device, not a file"), "{err}");
    let lab = Lab::new(
        "stages:
  a: { kind: reviews, in: { archive: { glob: 'pipelines/*.txt' } } }
  b: { kind: reviews, in: { archive: { dir: nowhere } } }
  c: { kind: reviews, in: { archive: { glob: 'pipelines/*.yaml' } } }
  d: { kind: reviews, in: { archive: { dir: pipelines } } }
  e: { kind: reviews, in: { archive: { glob: '[' } } }
  f: { kind: reviews, in: { archive: { fil: x } } }
  g: { kind: reviews, in: { archive: ../x } }
",
    );
    let err = lab.refused(&[]);
    assert!(err.contains("no file matches `pipelines/*.txt`"), "{err}");
    assert!(err.contains("folder `nowhere` does not exist"), "{err}");
    assert!(err.contains("`[` is not a pattern"), "{err}");
    assert!(err.contains("did you mean `file`?"), "{err}");
    assert!(err.contains("a file from outside is written `{ file: PATH }`"), "{err}");
    assert!(err.ends_with("pipelines/a.yaml: 5 problems\n"), "{err}");
}

#[test]
fn an_absolute_path_is_allowed_and_said() {
    let lab = Lab::new("");
    let file = lab.write("reviews.jsonl", "").display().to_string();
    lab.write(
        "pipelines/a.yaml",
        format!("stages: {{ a: {{ kind: tokenize, in: {{ reviews: {{ file: {file} }} }} }} }}"),
    );
    let ended = lab.check(&[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("pipelines/a.yaml:1:55: "), "{}", ended.err);
    assert!(ended.err.contains("is an absolute path"), "{}", ended.err);
}

#[test]
fn names_seeds_and_resources_are_checked() {
    let err = Lab::new(
        "seed: -1
stages:
  Big-Name: { kind: tokenize, in: { reviews: r.test } }
  vars: { kind: sample_reviews }
  r: { kind: sample_reviews, seed: 3, resources: { cpus: 0, memory: much, gpu: 1 } }
  s: { in: {} }
  t: 5
  u: { kind: [encode] }
",
    )
    .refused(&[]);
    for said in [
        "`seed` must be a whole number from 0, not the number -1",
        "stage `Big-Name` must be named with letters",
        "write `big_name`",
        "a stage cannot be called `vars`",
        "stage `r` has a seed, but kind `sample_reviews` draws no random numbers",
        "`cpus` must be a whole number from 1, not the number 0",
        "an amount of bytes is written like `4GiB`",
        "did you mean `gpus`?",
        "stage `s` has no `kind`",
        "stage `t` must be a map with `kind`, not the number 5",
        "`kind` must be the name of a kind, not a list",
    ] {
        assert!(err.contains(said), "{said}\n{err}");
    }
}

#[test]
fn a_number_that_nothing_can_be_done_with_hides_no_other_problem() {
    let err = Lab::new(
        "seed: 99999999999999999999999
stages:
  w: { kind: gpt2, with: { init: random, n_layer: .inf } }
  b: { kind: nope }
",
    )
    .refused(&[]);
    for wanted in [
        "99999999999999999999999 does not fit 64 bits",
        "a.yaml:1:7",
        "a number must be finite, not inf",
        "a.yaml:3:51",
        "unknown kind `nope`",
        "3 problems",
    ] {
        assert!(err.contains(wanted), "`{wanted}` is not in\n{err}");
    }
}

#[test]
fn every_placeholder_that_means_nothing_is_told() {
    let err = Lab::new("stages: { a: { kind: shell, with: { command: 'cat {in.y} {params.x} {out.z}' } } }")
        .refused(&[]);
    for wanted in ["speaks of input `y`", "`{params.x}`", "`{out.z}`", "3 problems"] {
        assert!(err.contains(wanted), "`{wanted}` is not in\n{err}");
    }
}

#[test]
fn a_stage_without_a_kind_is_meant_for_another_only_where_a_profile_speaks_of_it() {
    let err = Lab::new("stages: { a: {}, b: { kind: gpt2, with: { init: random } } }").refused(&[]);
    assert!(err.contains("`pipe stages` lists the kinds"), "{err}");
    let file = "stages: { train: { kind: gpt2, with: { init: random } } }
profiles: { short: { stages: { trian: { with: { n_layer: 2 } } } } }
";
    let err = Lab::new(file).refused(&[]);
    assert!(err.contains("did you mean stage `train`?"), "{err}");
}

#[test]
fn limits_of_attempts_are_named() {
    let said = |field: &str| {
        Lab::new(format!("stages: {{ a: {{ kind: gpt2, with: {{ init: random }}, {field} }} }}")).refused(&[])
    };
    let retry = said("retry: 100000000000");
    assert!(retry.contains("a whole number from 0 to 1048576, not the number 100000000000"), "{retry}");
    let timeout = said("timeout: -3");
    assert!(timeout.contains("it is more than none, such as `30m`") && !timeout.contains("-3s"), "{timeout}");
}

#[test]
fn names_that_a_terminal_or_a_file_system_cannot_take_are_refused() {
    let file = "name: \"x\\e[31m\"\nstages: { a: { kind: gpt2, with: { init: random } } }";
    let err = Lab::new(file).refused(&[]);
    assert!(err.contains("`name` is one line without control characters"), "{err}");
    let long = "x".repeat(256);
    let file = format!(
        "stages: {{ a: {{ kind: shell, with: {{ command: 'echo > {{out.{long}}}', outputs: [{long}] }} }} }}"
    );
    let err = Lab::new(file).refused(&[]);
    assert!(err.contains("output 1 has a name of 256 bytes, and 200 is the most"), "{err}");
    let file = format!("stages: {{ {long}: {{ kind: gpt2, with: {{ init: random }} }} }}");
    let err = Lab::new(file).refused(&[]);
    assert!(err.contains("has a name of 256 bytes"), "{err}");
}

#[test]
fn what_pipe_itself_writes_is_no_input() {
    let pipeline = |source: &str| {
        let command = "with: { command: 'ls {in.d} > {out.o}', outputs: [o] }";
        Lab::new(format!("stages:\n  a: {{ kind: shell, in: {{ d: {{ {source} }} }}, {command} }}\n"))
    };
    for (source, own) in [
        ("dir: .", "`.` holds `cache/v1`"),
        ("dir: pipelines/..", "holds `cache/v1`"),
        ("dir: cache", "`cache` holds `cache/v1`"),
        ("glob: '**/*'", "`**/*` holds `cache/v1/index.db`"),
        ("glob: '*.db'", "`*.db` holds `runs.db`"),
        ("file: runs.db", "`runs.db` is written by `pipe` itself"),
        ("dir: cache/v1/objects", "`cache/v1/objects` holds `cache/v1`"),
    ] {
        let err = pipeline(source).refused(&[]);
        assert!(err.contains(own) && err.contains("pipelines/a.yaml:2:"), "{source}:\n{err}");
        assert!(err.contains("name only what the stage reads"), "{source}:\n{err}");
    }
    for source in ["dir: data", "glob: 'data/**/*'", "glob: '*.txt'", "file: cache/README.md"] {
        let lab = pipeline(source);
        for file in ["data/a.txt", "b.txt", "cache/README.md"] {
            lab.write(file, "x");
        }
        assert_eq!(lab.check(&[]).code, 0, "{source}: {}", lab.check(&[]).err);
    }
}

#[test]
fn a_variable_without_its_brace_is_no_text() {
    let open = "stages: { a: { kind: shell, with: { command: \"echo ${vars.n\" } } }\nvars: { n: 1 }";
    insta::assert_snapshot!(Lab::new(open).refused(&[]), @r#"
     x `${vars.n` has no `}`
      ,-[pipelines/a.yaml:1:52]
    1 | stages: { a: { kind: shell, with: { command: "echo ${vars.n" } } }
      :                                                    ^^^^^^^^
      `----
     help: write `${vars.n}`, or `$${vars.n` for the text itself
    "#);
    // What is not ours, and what is escaped, is text as before.
    for text in ["echo ${HOME", "echo '$${vars.n'"] {
        let lab = Lab::new(open.replace("echo ${vars.n", text));
        assert_eq!(lab.check(&[]).code, 0, "{text}");
    }
}
