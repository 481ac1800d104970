//! `pipe check`, through the real binary: what a wrong pipeline file is told.

mod hostile;
mod lab;
mod matrix;
mod overlays;
mod wrong;

use lab::Lab;

/// A pipeline that is right, on which the others vary.
pub const RIGHT: &str = "\
name: small
seed: 7
vars: { count: 20, tokens: 64 }
stages:
  reviews: { kind: sample_reviews, with: { train: \"${vars.count}\", test: 20 } }
  tokens: { kind: tokenize, in: { reviews: reviews.test }, with: { max_tokens: \"${vars.tokens}\" } }
  weights: { kind: gpt2, with: { init: random, n_layer: 2, n_embd: 64 } }
  trunk: { kind: encode, in: { tokens: tokens, weights: weights }, with: { blocks: 1 } }
  answers: { kind: zero_shot, in: { hidden: trunk, weights: weights } }
profiles:
  short: { vars: { tokens: 16 } }
  local:
    stages:
      reviews: { kind: reviews, in: { archive: { file: data/aclImdb.tar.gz } } }
";

#[test]
fn a_right_file_is_said_to_be_right() {
    let ended = Lab::new(RIGHT).check(&[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    insta::assert_snapshot!(ended.out, @r#"pipelines/a.yaml: 5 stages, 2 profiles (short, local), no problems"#);
    insta::assert_snapshot!(ended.err, @r#"note: pipelines/a.yaml:14:56: profile `local`: file `data/aclImdb.tar.gz` does not exist"#);
}

#[test]
fn all_problems_are_told_at_once_with_a_count() {
    let file = RIGHT.replace("kind: encode", "kind: encod").replace("reviews.test", "reviews.tests");
    let err = Lab::new(file.replace("tokens: 64", "tokens: many")).refused(&[]);
    insta::assert_snapshot!(err, @r#"
      x stage `reviews` has no output `tests`
       ,-[pipelines/a.yaml:6:44]
     6 |   tokens: { kind: tokenize, in: { reviews: reviews.tests }, with: { max_tokens: "${vars.tokens}" } }
       :                                            ^^^^^^^^^^^^^
       `----
      help: did you mean `reviews.test`?

      x `tokens.max_tokens` must be a whole number from 0, not the text "many"
       ,-[pipelines/a.yaml:3:28]
     3 | vars: { count: 20, tokens: many }
       :                            ^^|^
       :                              `-- the value of `tokens` is written here
       `----
       ,-[pipelines/a.yaml:6:81]
     6 |   tokens: { kind: tokenize, in: { reviews: reviews.tests }, with: { max_tokens: "${vars.tokens}" } }
       :                                                                                 ^^^^^^^^^^^^^^^^
       `----

      x unknown kind `encod`
       ,-[pipelines/a.yaml:8:18]
     8 |   trunk: { kind: encod, in: { tokens: tokens, weights: weights }, with: { blocks: 1 } }
       :                  ^^^^^
       `----
      help: did you mean `encode`?

    pipelines/a.yaml: 3 problems
    "#);
}

#[test]
fn problems_are_json_for_programs() {
    let lab = Lab::new(RIGHT.replace("kind: encode", "kind: encod"));
    let ended = lab.check(&["--json"]);
    assert_eq!((ended.code, ended.err.as_str()), (2, ""));
    insta::assert_snapshot!(ended.out, @r#"
    {
      "file": "pipelines/a.yaml",
      "name": null,
      "notes": [],
      "problems": [
        {
          "code": "unknown_kind",
          "help": "did you mean `encode`?",
          "message": "unknown kind `encod`",
          "places": [
            {
              "column": 18,
              "label": null,
              "line": 8,
              "source": "pipelines/a.yaml"
            }
          ]
        }
      ],
      "profiles": [
        "short",
        "local"
      ],
      "stages": null
    }
    "#);
    let right: serde_json::Value = serde_json::from_str(&Lab::new(RIGHT).check(&["--json"]).out).unwrap();
    assert_eq!(right["problems"], serde_json::json!([]));
    assert_eq!(right["notes"][0]["profile"], "local");
}

#[test]
fn a_file_that_does_not_exist_is_named_with_the_one_that_was_meant() {
    let lab = Lab::new(RIGHT);
    let ended = lab.pipe(&["check", "pipelines/b.yaml"]);
    assert_eq!(ended.code, 2);
    insta::assert_snapshot!(ended.err, @r#"
    x there is no file `pipelines/b.yaml`
    help: did you mean `pipelines/a.yaml`?
    "#);
    assert!(lab.pipe(&["check", "a"]).err.contains("did you mean `pipelines/a.yaml`?"));
    assert!(lab.pipe(&["check", "pipelines"]).err.contains("cannot read `pipelines`"));
    let ended = lab.pipe(&["check", "pipelines/a.yaml", "--root", "nowhere"]);
    assert!(ended.err.contains("cannot use `nowhere` as the project root"), "{}", ended.err);
}

#[test]
fn colours_are_used_when_asked_for_and_never_otherwise() {
    let lab = Lab::new("stages: { a: { kind: nothing } }");
    assert!(lab.check(&["--color", "always"]).err.contains("\u{1b}["));
    assert!(!lab.check(&["--color", "never"]).err.contains('\u{1b}'));
    assert!(!lab.check(&[]).err.contains('\u{1b}'));
}

#[test]
fn the_graph_is_shown_as_text_mermaid_and_dot() {
    let lab = Lab::new(RIGHT);
    insta::assert_snapshot!(lab.pipe(&["dag", "pipelines/a.yaml"]).out, @r#"
    small: 5 stages

    reviews  sample_reviews
    tokens   tokenize        <- reviews: reviews.test
    weights  gpt2
    trunk    encode          <- tokens, weights
    answers  zero_shot       <- hidden: trunk, weights
    "#);
    let local = ["dag", "pipelines/a.yaml", "--profile", "local", "--format"];
    lab.write("data/aclImdb.tar.gz", "");
    insta::assert_snapshot!(lab.pipe(&[&local[..], &["mermaid"]].concat()).out, @r#"
    flowchart TD
      s_reviews["reviews<br/><small>reviews</small>"]
      s_tokens["tokens<br/><small>tokenize</small>"]
      s_weights["weights<br/><small>gpt2</small>"]
      s_trunk["trunk<br/><small>encode</small>"]
      s_answers["answers<br/><small>zero_shot</small>"]
      outside_1[/"file data/aclImdb.tar.gz"/]
      outside_1 -->|"archive"| s_reviews
      s_reviews -->|"test → reviews"| s_tokens
      s_tokens -->|"tokens"| s_trunk
      s_weights -->|"weights"| s_trunk
      s_trunk -->|"hidden"| s_answers
      s_weights -->|"weights"| s_answers
    "#);
    insta::assert_snapshot!(lab.pipe(&[&local[..], &["dot"]].concat()).out, @r#"
    digraph "small" {
      node [shape=box, style=rounded];
      "reviews" [label="reviews\nreviews"];
      "tokens" [label="tokens\ntokenize"];
      "weights" [label="weights\ngpt2"];
      "trunk" [label="trunk\nencode"];
      "answers" [label="answers\nzero_shot"];
      "outside_1." [label="file data/aclImdb.tar.gz", shape=note];
      "outside_1." -> "reviews" [label="archive"];
      "reviews" -> "tokens" [label="test → reviews"];
      "tokens" -> "trunk" [label="tokens"];
      "weights" -> "trunk" [label="weights"];
      "trunk" -> "answers" [label="hidden"];
      "weights" -> "answers" [label="weights"];
    }
    "#);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::{Command, Stdio};
    for words in [&["stages", "--json"][..], &["completions", "bash"], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pipe"))
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
        assert!(output.status.code().is_some_and(|code| code < 2), "{words:?}: {:?}", output.status);
    }
}

#[test]
fn stages_explains_every_kind_and_suggests_the_one_that_was_meant() {
    let lab = Lab::new(RIGHT);
    let kinds: serde_json::Value = serde_json::from_str(&lab.pipe(&["stages", "--json"]).out).unwrap();
    for kind in kinds.as_array().unwrap() {
        let name = kind["name"].as_str().unwrap();
        let ended = lab.pipe(&["stages", name]);
        assert_eq!(ended.code, 0);
        assert!(ended.out.starts_with(name), "{}", ended.out);
        for parameter in kind["parameters"]["properties"].as_object().into_iter().flatten() {
            assert!(ended.out.contains(&format!("  {}: ", parameter.0)), "{name}: {}", ended.out);
        }
        assert!(
            lab.pipe(&["stages"]).out.contains(kind["summary"].as_str().unwrap().split(' ').next().unwrap())
        );
    }
    let ended = lab.pipe(&["stages", "tokenise"]);
    assert_eq!((ended.code, ended.out.as_str()), (2, ""));
    assert!(ended.err.contains("did you mean `tokenize`?"), "{}", ended.err);
}
