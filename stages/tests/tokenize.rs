//! Kind `tokenize` against the tokens of another implementation, and on every test review.

mod common;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::Instant,
};

use common::{
    imdb_archive,
    lab::{Lab, Ran, problems},
    reference,
};
use pipe_stages::data::{Review, Tokens, read_reviews, write_reviews};
use serde::Deserialize;
use serde_json::{Value, json};

fn run(lab: &Lab, with: Value, reviews: &[Review]) -> Ran {
    let path = lab.path("reviews.jsonl");
    write_reviews(&path, reviews).unwrap();
    lab.run("tokenize", with, &[("reviews", &path)]).unwrap()
}

fn review(text: &str) -> Review {
    Review { id: format!("r{}", text.len()), label: 1, rating: None, text: text.into(), synthetic: false }
}

fn tokens(ran: &Ran) -> Tokens {
    Tokens::read(ran.output("tokens")).unwrap()
}

/// A row of `tokens/imdb_sample.jsonl`.
#[derive(Deserialize)]
struct Sample {
    id: String,
    length: u32,
    prompt: Vec<u32>,
    text: Option<String>,
}

#[test]
fn gives_the_reference_tokens_exactly() {
    let (Some(sample), Some(archive)) = (reference("tokens/imdb_sample.jsonl"), imdb_archive()) else {
        return;
    };
    let lab = Lab::new();
    let ran = lab.run("reviews", json!({}), &[("archive", &archive)]).unwrap();
    let mut real: HashMap<String, Review> = ["train", "test"]
        .iter()
        .flat_map(|port| read_reviews(ran.output(port)).unwrap())
        .map(|review| (review.id.clone(), review))
        .collect();
    let text = fs::read_to_string(sample).unwrap();
    let samples: Vec<Sample> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reviews: Vec<Review> = samples
        .iter()
        .map(|sample| match &sample.text {
            Some(text) => Review { id: sample.id.clone(), ..review(text) },
            None => real.remove(&sample.id).expect("a review of the archive"),
        })
        .collect();
    let tokens = tokens(&run(&lab, json!({}), &reviews));
    assert!(samples.len() >= 14);
    for (row, sample) in samples.iter().enumerate() {
        assert_eq!(tokens.rows.ids[row], sample.id);
        assert_eq!(tokens.rows.lengths[row], sample.length, "length of {}", sample.id);
        assert_eq!(tokens.row(row), sample.prompt, "prompt of {}", sample.id);
        assert_eq!(tokens.rows.labels[row], reviews[row].label);
    }
}

#[test]
fn all_test_reviews_fall_into_the_published_bins() {
    let (Some(tables), Some(archive)) = (reference("paper_tables.json"), imdb_archive()) else { return };
    let lab = Lab::new();
    let reviews = lab.run("reviews", json!({ "train": 1 }), &[("archive", &archive)]).unwrap();
    let start = Instant::now();
    let ran = lab.run("tokenize", json!({}), &[("reviews", reviews.output("test"))]).unwrap();
    eprintln!("25,000 reviews in {:.2} s on {} threads", start.elapsed().as_secs_f64(), lab.threads);
    let tokens = tokens(&ran);
    let mut found: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for (length, label) in tokens.rows.lengths.iter().zip(&tokens.rows.labels) {
        let bin = match length.div_ceil(256) {
            bin @ 1..=5 => format!("({}, {}]", (bin - 1) * 256, bin * 256),
            _ => "over 1280".into(),
        };
        *found.entry(if *label == 1 { "pos" } else { "neg" }).or_default().entry(bin).or_default() += 1;
    }
    let tables: Value = serde_json::from_slice(&fs::read(tables).unwrap()).unwrap();
    assert_eq!(json!(found), tables["test_reviews_per_bin"]);
    assert_eq!(ran.metric("count"), Some(25_000.0));
    assert_eq!(ran.metric("prompt_tokens.max"), Some(256.0));
}

#[test]
fn parts_are_encoded_apart_and_a_long_review_is_cut() {
    let lab = Lab::new();
    let long = review("one two three four five six");
    let cut = |keep: &str, max: usize| {
        let ran = run(&lab, json!({ "keep": keep, "max_tokens": max }), std::slice::from_ref(&long));
        let tokens = tokens(&ran);
        (tokens.row(0).to_vec(), tokens.rows.lengths[0], ran.metric("truncated").unwrap())
    };
    let whole = vec![14832, 25, 220, 505, 734, 1115, 1440, 1936, 2237, 31837, 3681, 25];
    // "one" without a space before it is 505 as well as " one" would be another id.
    let (found, length, truncated) = cut("last", 12);
    assert_eq!((found[1..3].to_vec(), found[4..].to_vec()), (whole[1..3].to_vec(), whole[4..].to_vec()));
    assert_eq!((length, truncated), (6, 0.0));
    assert_eq!(cut("last", 9), (vec![14832, 25, 220, 1440, 1936, 2237, 31837, 3681, 25], 6, 1.0));
    assert_eq!(cut("first", 9).0[4..], [734, 1115, 31837, 3681, 25]);
    assert_eq!(cut("last", 7).0, [14832, 25, 220, 2237, 31837, 3681, 25]);
}

#[test]
fn markup_is_removed_unless_told() {
    let lab = Lab::new();
    let reviews = [review("a<br />b"), review("a < b\n> c")];
    let lengths = |clean: &str| tokens(&run(&lab, json!({ "clean": clean }), &reviews)).rows.lengths;
    assert_eq!(lengths("html"), [1, 6]);
    assert_eq!(lengths("none"), [5, 6]);
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let reviews: Vec<_> =
        (0..500).map(|i| review(&format!("review {i} {}", "wörd's ".repeat(i % 90)))).collect();
    let mut lab = Lab::new();
    lab.threads = 1;
    let digest = run(&lab, json!({}), &reviews).digest("tokens");
    lab.threads = 4;
    assert_eq!(run(&lab, json!({}), &reviews).digest("tokens"), digest);
    // Golden: raise `VERSION` of `tokenize` when this changes.
    assert_eq!(digest, "1c690a0a3e25e8cd4fe3a4a1c892906a4b528c8526923d0848fa1b1d538ad933");
}

#[test]
fn statistics_are_reported() {
    let lab = Lab::new();
    let reviews = ["", "one two three four", " one", " one two"].map(review);
    let ran = run(&lab, json!({ "prefix": "", "max_tokens": 6 }), &reviews);
    let metrics: BTreeMap<_, _> =
        ran.metrics().into_iter().map(|(name, value)| (name, value.unwrap())).collect();
    let wanted = [
        ("count", 4.0),
        ("prompt_tokens.max", 6.0),
        ("prompt_tokens.mean", 4.5),
        ("prompt_tokens.median", 4.5),
        ("prompt_tokens.min", 3.0),
        ("prompt_tokens.total", 18.0),
        ("review_tokens.max", 4.0),
        ("review_tokens.mean", 1.75),
        ("review_tokens.median", 1.5),
        ("review_tokens.min", 0.0),
        ("truncated", 1.0),
    ];
    assert_eq!(metrics, wanted.map(|(name, value)| (name.to_owned(), value)).into());
}

#[test]
fn a_long_run_of_spaces_or_letters_is_no_trouble() {
    let reviews = [review(&" ".repeat(300_000)), review(&"a".repeat(50_000)), review(&"é ".repeat(9_999))];
    let ran = run(&Lab::new(), json!({}), &reviews);
    assert_eq!(ran.metric("prompt_tokens.max"), Some(256.0));
}

#[test]
fn a_frame_without_room_is_found_before_anything_runs() {
    assert_eq!(
        problems("tokenize", json!({ "max_tokens": 6 })),
        ["max_tokens: 6 tokens leave no room for a review: prefix and suffix take 6"]
    );
    assert_eq!(problems("tokenize", json!({ "keep": "middle" })).len(), 1);
    assert!(problems("tokenize", json!({ "max_tokens": 7 })).is_empty());
}

#[test]
fn no_reviews_are_an_error() {
    let lab = Lab::new();
    fs::write(lab.path("none"), "\n").unwrap();
    let err = lab.run("tokenize", json!({}), &[("reviews", &lab.path("none"))]).err().unwrap();
    assert!(err.to_string().ends_with("none` has no reviews"));
}
