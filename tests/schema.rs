//! The JSON Schema says of pipeline files what `pipe check` says.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn printed() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pipe")).arg("schema").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the schema takes the document.
fn takes(document: &Value) -> Result<(), String> {
    let schema: Value = serde_json::from_str(&printed()).unwrap();
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("pipeline.json", schema).unwrap();
    let index = compiler.compile("pipeline.json", &mut schemas).unwrap();
    schemas.validate(document, index).map_err(|err| format!("{err:#}"))
}

/// The document as an editor sees it, merge keys resolved.
fn yaml(text: &str) -> Value {
    let mut document: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
    document.apply_merge().unwrap();
    serde_json::to_value(document).unwrap()
}

#[test]
fn every_pipeline_that_ships_points_to_the_schema_and_meets_it() {
    let mut seen = 0;
    for entry in fs::read_dir(root().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            let first = text.lines().next().unwrap();
            assert_eq!(first, "# yaml-language-server: $schema=../docs/pipeline.schema.json", "{path:?}");
            assert_eq!(takes(&yaml(&text)), Ok(()), "{path:?}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_schema_in_docs_is_the_one_that_is_printed() {
    let kept = fs::read_to_string(root().join("docs/pipeline.schema.json")).unwrap_or_default();
    assert!(kept == printed(), "outdated: run `pipe schema --out docs/pipeline.schema.json`");
}

#[test]
fn what_check_takes_the_schema_takes() {
    let document = yaml(
        "
name: small
seed: 7
vars: { count: 20, tokens: 64 }
stages:
  reviews: { kind: sample_reviews, with: { train: '${vars.count}', test: 20 } }
  tokens:
    kind: tokenize
    in: { reviews: reviews.test }
    with: { max_tokens: '${vars.tokens}', keep: first }
    resources: { cpus: 2, memory: 4GiB, gpus: 0 }
  weights: { kind: gpt2, with: { init: random, n_layer: 2, n_embd: 64 } }
  other: { kind: gpt2, in: { file: { file: model.safetensors } } }
profiles:
  bare: { stages: { weights: null, tokens: { with: { keep: last } } } }
",
    );
    assert_eq!(takes(&document), Ok(()));
}

#[test]
fn what_check_refuses_for_its_form_the_schema_refuses() {
    let with = |stage: Value| json!({ "stages": { "a": stage } });
    assert_eq!(takes(&with(json!({ "kind": "sample_reviews" }))), Ok(()));
    for wrong in [
        json!({}),
        json!({ "stages": {} }),
        json!({ "stages": { "A": { "kind": "sample_reviews" } } }),
        json!({ "stages": { "vars": { "kind": "sample_reviews" } } }),
        json!({ "sed": 1, "stages": { "a": { "kind": "sample_reviews" } } }),
        json!({ "seed": -1, "stages": { "a": { "kind": "sample_reviews" } } }),
        with(json!({})),
        with(json!({ "kind": "nothing" })),
        with(json!({ "kind": "fetch" })),
        with(json!({ "kind": "sample_reviews", "inputs": {} })),
        with(json!({ "kind": "sample_reviews", "with": { "trian": 3 } })),
        with(json!({ "kind": "tokenize", "with": { "max_tokens": "many" } })),
        with(json!({ "kind": "tokenize", "in": { "reviews": { "path": "x" } } })),
        with(json!({ "kind": "sample_reviews", "resources": { "cpu": 1 } })),
    ] {
        assert!(takes(&wrong).is_err(), "{wrong}");
    }
}
