//! What a pipeline file means: overlays, variables, seeds, places.

use std::{fs, path::PathBuf};

use pipe::pipeline::{LoadOptions, Pipeline, PipelineErrors, Source, load};
use proptest::prelude::*;
use serde_json::json;

const FILE: &str = "\
seed: 7
vars: { count: 20, size: 64, word: last }
stages:
  reviews: { kind: sample_reviews, with: { train: \"${vars.count}\", test: 30 } }
  tokens: { kind: tokenize, in: { reviews: reviews.test }, with: { max_tokens: 64, keep: \"${vars.word}\" } }
  weights: { kind: gpt2, with: { init: random, n_layer: 2, n_embd: \"${vars.size}\" } }
  trunk: { kind: encode, in: { tokens: tokens, weights: weights }, with: { blocks: 1 } }
  tuned: { kind: lora, in: { hidden: trunk, weights: weights }, with: { rank: 2, targets: [q, v] } }
profiles:
  small: { vars: { size: 32 }, stages: { tuned: { with: { targets: [k] } } } }
  file:
    stages:
      weights: { with: null, in: { file: { file: model.bin } } }
      tuned: { with: { rank: 4 }, seed: 9, resources: { cpus: 2 } }
  bare: { stages: { tuned: null, tokens: { with: { max_tokens: null } } } }
";

struct Lab {
    folder: tempfile::TempDir,
    options: LoadOptions,
}

impl Lab {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pipelines")).unwrap();
        fs::write(folder.path().join("model.bin"), "").unwrap();
        let file = folder.path().join("pipelines/a.yaml");
        fs::write(&file, text).unwrap();
        Self { folder, options: LoadOptions { file, ..LoadOptions::default() } }
    }

    fn load(&self, profiles: &[&str], sets: &[&str]) -> Result<Pipeline, PipelineErrors> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let options = LoadOptions { profiles: owned(profiles), sets: owned(sets), ..self.options.clone() };
        load(&options, pipe_stages::kinds())
    }
}

#[test]
fn a_pipeline_has_its_stages_in_file_order_with_typed_parameters() {
    let lab = Lab::new(FILE);
    let pipeline = lab.load(&[], &[]).unwrap();
    assert_eq!(pipeline.root, lab.folder.path().canonicalize().unwrap());
    assert_eq!(pipeline.file, PathBuf::from("pipelines/a.yaml"));
    assert_eq!((pipeline.name.as_str(), pipeline.seed), ("a", 7));
    assert_eq!(pipeline.declared_profiles, ["small", "file", "bare"]);
    let names: Vec<&String> = pipeline.stages.keys().collect();
    assert_eq!(names, ["reviews", "tokens", "weights", "trunk", "tuned"]);
    assert_eq!(pipeline.stages["reviews"].params["train"], 20);
    assert_eq!(pipeline.stages["tokens"].params["keep"], "last");
    let from = Source::Output { stage: "reviews".into(), port: "test".into() };
    assert_eq!(pipeline.stages["tokens"].inputs["reviews"], from);
    assert_eq!(pipeline.stages["tuned"].seed, Some(7));
    assert_eq!(pipeline.stages["trunk"].seed, None);
    assert_eq!(pipeline.resolved["stages"]["reviews"]["with"]["train"], 20);
    assert!(pipeline.resolved.get("profiles").is_none());
    assert_eq!(
        pipeline.dag().order().collect::<Vec<_>>(),
        ["reviews", "tokens", "weights", "trunk", "tuned"]
    );
}

#[test]
fn maps_merge_scalars_and_lists_replace_null_removes_and_a_new_kind_replaces() {
    let lab = Lab::new(FILE);
    let small = lab.load(&["small"], &[]).unwrap();
    assert_eq!(small.stages["weights"].params["n_embd"], 32);
    assert_eq!(small.stages["tuned"].params["targets"], json!(["k"]));
    assert_eq!(small.stages["tuned"].params["rank"], 2);

    let bare = lab.load(&["bare"], &[]).unwrap();
    assert!(!bare.stages.contains_key("tuned"));
    assert_eq!(bare.stages["tokens"].params["max_tokens"], 256);

    let swapped = lab.load(&[], &["stages.reviews={kind: fetch, with: {url: u, sha256: s}}"]).unwrap_err();
    let said: Vec<&str> = swapped.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(!said.iter().any(|said| said.contains("no parameter `train`")), "{said:?}");

    let input = "stages.weights.in={file: {glob: '*.bin'}}";
    let errors =
        lab.load(&["file"], &["stages.weights.with=", "stages.weights.with.init=file", input]).unwrap_err();
    assert_eq!(errors.problems[0].message, "`weights.file` takes file, `glob` gives a folder of files");
}

#[test]
fn profiles_are_laid_left_to_right_and_settings_last() {
    let lab = Lab::new(FILE);
    let rank = |profiles: &[&str], sets: &[&str]| {
        lab.load(profiles, sets).unwrap().stages["tuned"].params["rank"].clone()
    };
    assert_eq!(rank(&[], &["tuned.rank=16"]), 16);
    assert_eq!(rank(&[], &["tuned.rank=16", "tuned.rank=3"]), 3);
    let text = FILE.replace("profiles:\n", "profiles:\n  one: { stages: { tuned: { with: { rank: 5 } } } }\n  two: { stages: { tuned: { with: { rank: 6 } } } }\n");
    let lab = Lab::new(text);
    let rank = |profiles: &[&str], sets: &[&str]| {
        lab.load(profiles, sets).unwrap().stages["tuned"].params["rank"].clone()
    };
    assert_eq!(rank(&["one", "two"], &[]), 6);
    assert_eq!(rank(&["two", "one"], &[]), 5);
    assert_eq!(rank(&["two", "one"], &["tuned.rank=16"]), 16);
}

#[test]
fn a_setting_reaches_the_seed_that_the_kind_has() {
    let lab = Lab::new(FILE);
    let pipeline = lab.load(&[], &["seed=1", "tuned.seed=2", "weights.seed=3"]).unwrap();
    assert_eq!(pipeline.seed, 1);
    assert_eq!(pipeline.stages["tuned"].seed, Some(2));
    assert_eq!(pipeline.stages["weights"].params["seed"], 3);
    assert_eq!(pipeline.stages["weights"].seed, None);
}

#[test]
fn a_variable_keeps_its_type_alone_and_is_text_within_text() {
    let text = "\
vars: { n: 48, word: Review, flag: true }
stages:
  r: { kind: sample_reviews }
  t: { kind: tokenize, in: { reviews: r.test }, with: { max_tokens: \"${vars.n}\", prefix: \"${vars.word}-${vars.n} ${HOME} $${vars.n}: \" } }
";
    let pipeline = Lab::new(text).load(&[], &[]).unwrap();
    assert_eq!(pipeline.stages["t"].params["max_tokens"], 48);
    assert_eq!(pipeline.stages["t"].params["prefix"], "Review-48 ${HOME} ${vars.n}: ");
}

#[test]
fn places_are_in_the_overlay_that_wrote_last() {
    let lab = Lab::new(FILE);
    let pipeline = lab.load(&["small", "file"], &["tuned.rank=16", "seed=3"]).unwrap();
    let file = lab.options.file.display().to_string();
    let shown =
        |place: Option<pipe::names::Place>| place.map(|place| place.to_string().replace(&file, "a.yaml"));
    let places = &pipeline.places;
    assert_eq!(shown(places.param("tuned", "rank")), Some("--set tuned.rank=16".into()));
    assert_eq!(shown(places.param("tuned", "targets.0")), Some("a.yaml:10:69".into()));
    assert_eq!(shown(places.param("trunk", "blocks")), Some("a.yaml:7:76".into()));
    assert_eq!(shown(places.param("trunk", "dtype")), None);
    assert_eq!(shown(places.stage("tuned")), Some("a.yaml:8:3".into()));
    assert_eq!(shown(places.input("weights", "file")), Some("a.yaml:13:36".into()));
    assert_eq!(shown(places.seed("tuned")), Some("a.yaml:14:35".into()));
    assert_eq!(shown(places.seed("trunk")), Some("--set seed=3".into()));
}

/// Pieces that make texts likely to be almost right.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "stages:",
        "profiles:",
        "vars:",
        "name:",
        "seed:",
        "kind:",
        "in:",
        "with:",
        "resources:",
        "<<:",
        "tokenize",
        "gpt2",
        "evaluate",
        "{",
        "}",
        "[",
        "]",
        ",",
        ": ",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "&a ",
        "*a",
        "!t ",
        "\"",
        "'",
        "|",
        "> ",
        "# ",
        "${vars.x}",
        "${",
        "a",
        "a.b",
        "~",
        "1",
        "-1",
        "1e99",
        ".inf",
        "0x1f",
        "true",
        "é",
        "\u{feff}",
        "---",
        "? ",
        "\t",
    ];
    proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..60)
        .prop_map(|words| words.concat())
}

/// Draws every place, as the command line would.
fn draw(errors: &PipelineErrors) {
    assert!(!errors.problems.is_empty());
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none());
    for problem in &errors.problems {
        let mut out = String::new();
        handler.render_report(&mut out, problem).unwrap();
        assert!(!out.contains("Failed to read contents"), "{out}");
    }
}

/// 400 cases, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Texts that YAML reads as this number.
fn spellings(number: f64) -> [String; 4] {
    [format!("{number:?}"), format!("{number:e}"), format!("{number:E}"), format!("+{number:?}")]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_spelling_of_a_number_is_not_in_the_key(number in 1e-12..1e12f64, digits in 1usize..17) {
        let number: f64 = format!("{number:.digits$e}").parse().unwrap();
        let number = if number.fract() == 0.0 { number + 0.5 } else { number };
        let hashed = spellings(number).map(|text| {
            let file = format!(
                "stages: {{ s: {{ kind: shell, with: {{ command: 'true', params: {{ x: {text} }} }} }} }}"
            );
            Lab::new(file).load(&[], &[]).unwrap().stages["s"].hashed.to_string()
        });
        prop_assert!(hashed.iter().all(|other| *other == hashed[0]), "{:?}", hashed);
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in prop_oneof![pieces(), any::<String>()], set in "[a-z.=\\[{: ]{0,12}") {
        if let Err(errors) = Lab::new(text).load(&["small"], &[&set]) {
            draw(&errors);
        }
    }

    #[test]
    fn no_change_to_a_right_file_makes_the_loader_panic(
        changes in proptest::collection::vec((0..FILE.len(), 0usize..6, pieces()), 1..4),
        profile in proptest::sample::select(vec!["small", "file", "bare"]),
    ) {
        let mut text = FILE.to_owned();
        for (at, removed, put) in changes {
            let start = text.floor_char_boundary(at.min(text.len()));
            let end = text.floor_char_boundary((start + removed).min(text.len()));
            text.replace_range(start..end, &put[..put.floor_char_boundary(8.min(put.len()))]);
        }
        if let Err(errors) = Lab::new(text).load(&[profile], &["tuned.rank=3"]) {
            draw(&errors);
        }
    }

    #[test]
    fn no_bytes_make_the_loader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(errors) = Lab::new(bytes).load(&[], &[]) {
            draw(&errors);
        }
    }
}
