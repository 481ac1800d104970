//! Profiles and `--set`.

use crate::{RIGHT, lab::Lab};

#[test]
fn an_unknown_profile_is_compared_with_the_declared_ones() {
    insta::assert_snapshot!(Lab::new(RIGHT).refused(&["--profile", "shrt"]), @r#"
     x the pipeline has no profile `shrt`
      ,-[--profile shrt]
    1 | shrt
      : ^^^^
      `----
     help: did you mean `short`?
    "#);
}

#[test]
fn a_problem_stands_where_the_value_was_written_last() {
    let lab = Lab::new(RIGHT.replace("{ tokens: 16 }", "{ tokens: sixteen }"));
    insta::assert_snapshot!(lab.refused(&["--profile", "short"]), @r#"
     x `tokens.max_tokens` must be a whole number from 0, not the text "sixteen"
      ,-[pipelines/a.yaml:6:80]
    6 |   tokens: { kind: tokenize, in: { reviews: reviews.test }, with: { max_tokens: "${vars.tokens}" } }
      :                                                                                ^^^^^^^^^^^^^^^^
      `----
       ,-[pipelines/a.yaml:11:28]
    11 |   short: { vars: { tokens: sixteen } }
       :                            ^^^|^^^
       :                               `-- the value of `tokens` is written here
       `----
    "#);
    insta::assert_snapshot!(lab.refused(&["--profile", "short", "--set", "trunk.blocks=-1"]), @r#"
      x `tokens.max_tokens` must be a whole number from 0, not the text "sixteen"
       ,-[pipelines/a.yaml:6:80]
     6 |   tokens: { kind: tokenize, in: { reviews: reviews.test }, with: { max_tokens: "${vars.tokens}" } }
       :                                                                                ^^^^^^^^^^^^^^^^
       `----
        ,-[pipelines/a.yaml:11:28]
     11 |   short: { vars: { tokens: sixteen } }
        :                            ^^^|^^^
        :                               `-- the value of `tokens` is written here
        `----

      x `trunk.blocks` must be a whole number from 0, not -1
       ,-[--set trunk.blocks=-1]
     1 | trunk.blocks=-1
       :              ^^
       `----

    pipelines/a.yaml: 2 problems
    "#);
    let ended = lab.check(&["--profile", "short", "--set", "vars.tokens=32"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[test]
fn every_profile_is_checked_without_being_chosen() {
    let lab = Lab::new(RIGHT.replace("{ tokens: 16 }", "{ tokens: sixteen }"));
    let err = lab.refused(&[]);
    assert!(err.contains("with profile `short`: `tokens.max_tokens` must be a whole number"), "{err}");
}

#[test]
fn what_is_wrong_with_the_pipeline_and_with_its_profiles_is_told_at_once() {
    let err = Lab::new(
        "stages: { a: { kind: gpt2, with: { init: random } } }
profiles: { q: { stages: { a: { with: { n_layers: 3 } } } }, r: { expct: null } }
",
    )
    .refused(&[]);
    assert!(err.contains("a profile has no field `expct`"), "{err}");
    assert!(err.contains("with profile `q`: kind `gpt2` has no parameter `n_layers`"), "{err}");
    assert!(err.contains("2 problems"), "{err}");
}

#[test]
fn what_a_profile_removes_is_missed_where_it_is_used() {
    let lab = Lab::new(format!("{RIGHT}  bare: {{ stages: {{ weights: null, trunc: null }} }}\n"));
    insta::assert_snapshot!(lab.refused(&["--profile", "bare"]), @r#"
      x stage `trunk` takes from unknown stage `weights`
       ,-[pipelines/a.yaml:8:57]
     8 |   trunk: { kind: encode, in: { tokens: tokens, weights: weights }, with: { blocks: 1 } }
       :                                                         ^^^^^^^
       `----
      help: stages are `reviews`, `tokens`, `answers`

      x stage `answers` takes from unknown stage `weights`
       ,-[pipelines/a.yaml:9:61]
     9 |   answers: { kind: zero_shot, in: { hidden: trunk, weights: weights } }
       :                                                             ^^^^^^^
       `----
      help: stages are `reviews`, `tokens`, `trunk`

      x profile `bare` removes stage `trunc`, which does not exist
        ,-[pipelines/a.yaml:15:36]
     15 |   bare: { stages: { weights: null, trunc: null } }
        :                                    ^^^^^
        `----
      help: did you mean `trunk`?

    pipelines/a.yaml: 3 problems
    "#);
}

#[test]
fn a_setting_that_reaches_nothing_says_what_could_be_set() {
    let lab = Lab::new(RIGHT);
    let said = |setting: &str| lab.refused(&["--set", setting]);
    insta::assert_snapshot!(said("trnk.blocks=2"), @r#"
     x the pipeline has no stage `trnk`
      ,-[--set trnk.blocks=2]
    1 | trnk.blocks=2
      : ^^^^^^^^^^^
      `----
     help: did you mean `trunk`?
    "#);
    insta::assert_snapshot!(said("trunk.block=2"), @r#"
     x kind `encode` has no parameter `block`
      ,-[--set trunk.block=2]
    1 | trunk.block=2
      :             ^
      `----
     help: did you mean `blocks`?
    "#);
    for (setting, words) in [
        ("trunk", "`--set trunk` has no `=`"),
        ("trunk=2", "`trunk` is a stage, not a value"),
        ("=2", "not a dotted path"),
        ("vars.tokns=2", "did you mean `tokens`?"),
        ("count=2", "`count` is a variable: write `--set vars.count=…`"),
        ("stages.trnk.with.blocks=2", "the pipeline has no stage `trnk`"),
        ("trunk.resources.cpus=2", "write `--set stages.trunk.resources.cpus=…`"),
        ("trunk.blocks.more=2", "so it has no `more` to set"),
        ("trunk.blocks=[", "the value of `trunk.blocks`: not valid YAML"),
        ("profiles.short=2", "a profile cannot be set"),
    ] {
        let err = said(setting);
        assert!(err.contains(words), "{setting}: {err}");
    }
}

#[test]
fn settings_reach_parameters_variables_seeds_and_whole_stages() {
    let lab = Lab::new(RIGHT);
    for setting in [
        "trunk.blocks=2",
        "vars.tokens=32",
        "seed=9",
        "name=other",
        "trunk.blocks=",
        "stages.trunk.resources={ cpus: 2, memory: 4GiB }",
        "stages.answers=",
        "stages.more={ kind: sample_reviews }",
    ] {
        let ended = lab.check(&["--set", setting]);
        assert_eq!(ended.code, 0, "{setting}: {}", ended.err);
    }
}

#[test]
fn a_profile_sets_variables_that_there_are() {
    let pipeline = "vars: { train: 1 }
profiles:
  typo: { vars: { trian: 5 } }
stages:
  a: { kind: shell, with: { command: 'echo ${vars.train}' } }
";
    insta::assert_snapshot!(Lab::new(pipeline).refused(&[]), @r#"
     x profile `typo` sets variable `trian`, which the pipeline does not have
      ,-[pipelines/a.yaml:3:19]
    3 |   typo: { vars: { trian: 5 } }
      :                   ^^^^^
      `----
     help: did you mean `train`?
    "#);
    assert!(Lab::new(pipeline).refused(&["-p", "typo"]).contains("did you mean `train`?"));
    // A profile may bring a variable together with what takes it.
    let own = "typo: { vars: { more: 5 }, stages: { a: { with: { command: 'echo ${vars.more}' } } } }";
    let lab = Lab::new(pipeline.replace("typo: { vars: { trian: 5 } }", own));
    assert_eq!(lab.check(&[]).code, 0);
    assert_eq!(lab.check(&["-p", "typo"]).code, 0);
}

#[test]
fn a_field_that_no_profile_has_is_told_once() {
    let err =
        Lab::new("profiles: { p: { stage: {} } }\nstages: { a: { kind: shell, with: { command: 'true' } } }")
            .refused(&[]);
    assert!(err.contains("a profile has no field `stage`"), "{err}");
    assert!(!err.contains("with profile"), "{err}");
}
